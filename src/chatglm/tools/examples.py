"""Example tools for trying a model. None of them needs a network or a shell; the weather is invented.

Names, parameters and the form of results are those that the demo model has learned (`recipes/demo/corpus/tools.py`): a
small object of simple values, or `{"error": …}`. A small model does not understand other forms well.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import random
import re
import stat
import time
import zoneinfo
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

from chatglm.errors import ToolError
from chatglm.tools.arithmetic import calculate
from chatglm.tools.functions import Function
from chatglm.tools.tool import Consent, Outcome, Tool
from chatglm.tools.units import convert

__all__ = ["EXAMPLES", "example_tools"]


def _error(words: str) -> Outcome:
    return Outcome(json.dumps({"error": words}, ensure_ascii=False), failed=True)


# Numbers


def calculator(expression: Annotated[str, "表达式"]) -> Any:
    """计算表达式"""
    try:
        return {"result": calculate(expression)}
    except ValueError as error:
        return _error(str(error))


def convert_unit(
    amount: Annotated[float, "数值"], from_unit: Annotated[str, "原单位"], to_unit: Annotated[str, "目标单位"]
) -> Any:
    """单位换算"""
    try:
        return {"result": convert(amount, from_unit, to_unit)}
    except ValueError as error:
        return _error(str(error))


# Time

# A line has a time zone and the names of its cities.
_ZONES = """
Asia/Shanghai 北京 上海 广州 深圳 杭州 南京 成都 重庆 武汉 西安 天津 苏州 长沙 郑州 青岛 大连 厦门 昆明 哈尔滨 沈阳 济南
Asia/Shanghai 福州 合肥 南昌 贵阳 南宁 海口 兰州 西宁 银川 太原 石家庄 长春 呼和浩特 拉萨 中国
Asia/Shanghai beijing shanghai guangzhou shenzhen hangzhou chengdu china
Asia/Urumqi 乌鲁木齐 urumqi
Asia/Hong_Kong 香港 hongkong
Asia/Macau 澳门 macau
Asia/Taipei 台北 taipei
Asia/Tokyo 东京 大阪 京都 日本 tokyo osaka kyoto japan
Asia/Seoul 首尔 韩国 seoul korea
Asia/Singapore 新加坡 singapore
Asia/Bangkok 曼谷 泰国 bangkok thailand
Asia/Dubai 迪拜 dubai
Asia/Kolkata 新德里 孟买 印度 delhi newdelhi mumbai india
Australia/Sydney 悉尼 sydney
Europe/London 伦敦 英国 london uk england
Europe/Paris 巴黎 法国 paris france
Europe/Berlin 柏林 慕尼黑 德国 berlin munich germany
Europe/Madrid 马德里 madrid
Europe/Rome 罗马 米兰 rome milan
Europe/Moscow 莫斯科 moscow
Africa/Cairo 开罗 cairo
America/New_York 纽约 华盛顿 波士顿 newyork washington boston
America/Chicago 芝加哥 chicago
America/Denver 丹佛 denver
America/Los_Angeles 洛杉矶 旧金山 西雅图 losangeles sanfrancisco seattle
America/Toronto 多伦多 toronto
America/Sao_Paulo 圣保罗 saopaulo
UTC utc gmt
"""
_ZONE_OF = {name: zone for zone, *names in map(str.split, _ZONES.strip().splitlines()) for name in names}


def get_time(city_name: Annotated[str, "城市"]) -> Any:
    """查询城市的当前时间"""
    zone = _ZONE_OF.get(_plain_city(city_name), city_name.strip())
    try:
        there = zoneinfo.ZoneInfo(zone)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        # Windows has no database of time zones.
        return _error("pip install tzdata" if zone in _ZONE_OF.values() else "not found")
    now = datetime.datetime.now(there)
    return Outcome(json.dumps({"time": f"{now:%H:%M}"}), f"{now:%Y-%m-%d %H:%M} ({zone})")


def _plain_city(name: str) -> str:
    return re.sub(r"[\s'-]", "", name.casefold()).removesuffix("市").removesuffix("city")


# Random numbers, and invented weather


def random_number_generator(
    seed: Annotated[int, "The random seed used by the generator"],
    range: Annotated[list[int], "The range of the generated numbers"],  # noqa: A002
) -> Any:
    """Generates a random number x, s.t. range[0] <= x < range[1]"""
    if len(range) != 2 or range[0] >= range[1]:
        return _error("range must be two numbers, the smaller one first")
    return {"result": random.Random(seed).randrange(*range)}


def roll_dice(count: Annotated[int, "骰子的个数"] = 1, sides: Annotated[int, "每个骰子的面数"] = 6) -> Any:
    """掷骰子"""
    if not 1 <= count <= 100 or not 2 <= sides <= 1000:
        return _error("1 to 100 dice of 2 to 1000 sides")
    thrown = [random.randint(1, sides) for _ in range(count)]
    return Outcome(json.dumps({"result": sum(thrown)}), " + ".join(map(str, thrown)))


_WEATHER = """
北京 beijing 晴 21;上海 shanghai 小雨 18;广州 guangzhou 多云 27;深圳 shenzhen 雷阵雨 28;杭州 hangzhou 阴 17
南京 nanjing 多云 16;成都 chengdu 阴 15;重庆 chongqing 大雾 14;武汉 wuhan 晴 19;西安 xian 晴 13;天津 tianjin 多云 12
苏州 suzhou 小雨 17;长沙 changsha 阴 16;郑州 zhengzhou 晴 14;青岛 qingdao 多云 11;大连 dalian 晴 8;厦门 xiamen 晴 24
昆明 kunming 晴 20;哈尔滨 harbin 小雪 -9;沈阳 shenyang 多云 -3;济南 jinan 晴 10;拉萨 lhasa 晴 5;海口 haikou 大雨 26
兰州 lanzhou 阴 4;乌鲁木齐 urumqi 小雪 -6;香港 hongkong 多云 26;澳门 macau 多云 25;台北 taipei 小雨 22
东京 tokyo 晴 15;大阪 osaka 多云 16;首尔 seoul 晴 7;新加坡 singapore 雷阵雨 30;曼谷 bangkok 晴 33;伦敦 london 大雾 9
巴黎 paris 小雨 10;柏林 berlin 阴 6;莫斯科 moscow 小雪 -8;罗马 rome 晴 17;开罗 cairo 晴 26;纽约 newyork 多云 8
洛杉矶 losangeles 晴 20;悉尼 sydney 晴 24
"""
_IN_ENGLISH = {
    "晴": "sunny", "多云": "cloudy", "阴": "overcast", "小雨": "light rain", "大雨": "heavy rain", "小雪": "snow",
    "大雾": "fog", "雷阵雨": "heavy rain",
}  # fmt: skip


def get_weather(city_name: Annotated[str, "The name of the city to be queried"]) -> Any:
    """Get the current weather for `city_name`"""
    asked = _plain_city(city_name)
    for entry in re.split(r"[;\n]", _WEATHER.strip()):
        chinese, english, condition, degrees = entry.split()
        if asked in (chinese, english):
            sky = condition if asked == chinese else _IN_ENGLISH[condition]
            told = json.dumps({"condition": sky, "temperature": int(degrees)}, ensure_ascii=False)
            return Outcome(told, f"{told}\n(made up: this tool is an example)")
    return _error("not found")


# Files

_MOST_FILES, _LARGEST_FILE, _MOST_BYTES, _MOST_SECONDS = 5_000, 1 << 20, 64 << 20, 15.0
_MOST_HITS, _DEEPEST = 8, 20


def _search_of(folder: Path) -> Tool:
    try:
        root = folder.expanduser().resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        raise ToolError(f"search_files={folder}: there is no such folder") from None
    if not root.is_dir():
        raise ToolError(f"search_files={folder}: not a folder")

    def search_files(query: Annotated[str, "要查找的词"]) -> Any:
        """在文件夹中查找文件名或内容"""
        words = query.casefold().strip()
        if not words:
            return _error("nothing to look for")
        hits = []
        for name, text in _texts(root):
            if words in name.casefold():
                hits.append(name)
            for number, line in enumerate(text.splitlines(), 1):
                if words in line.casefold():
                    hits.append(f"{name}:{number}: {line.strip()[:120]}")
                    break  # the first line of each file
            if len(hits) >= _MOST_HITS:
                break
        return {"result": "; ".join(hits)} if hits else _error("not found")

    return Function.of(search_files, consent=Consent.ONCE)


def _texts(root: Path) -> Iterator[tuple[str, str]]:
    """Names and texts of the files in a folder and its subfolders, without links, hidden files and hidden folders."""
    left, files, end = _MOST_BYTES, 0, time.monotonic() + _MOST_SECONDS
    for folder, folders, names in os.walk(root):
        beneath = Path(folder).relative_to(root)
        shallow = len(beneath.parts) < _DEEPEST
        folders[:] = sorted(name for name in folders if shallow and not name.startswith("."))
        for name in sorted(names):
            if name.startswith("."):
                continue
            files += 1
            if files > _MOST_FILES or left <= 0 or time.monotonic() > end:
                return
            data = _bytes_of(Path(folder, name))
            left -= len(data)
            yield (beneath / name).as_posix(), _decoded(data)


def _bytes_of(path: Path) -> bytes:
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with contextlib.suppress(OSError), open(os.open(path, flags), "rb") as file:
        found = os.fstat(file.fileno())
        if stat.S_ISREG(found.st_mode) and found.st_size <= _LARGEST_FILE:
            return file.read(_LARGEST_FILE)
    return b""


def _decoded(data: bytes) -> str:
    if b"\0" in data[:4096]:
        return ""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("gb18030", "replace")


# All example tools

EXAMPLES: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (calculator, get_time, convert_unit, random_number_generator, roll_dice, get_weather)
}


def example_tools(source: str) -> list[Tool] | None:
    """The tools for `examples`, for the name of one example, or for `search_files=FOLDER`; None for any other source.

    Raises:
        ToolError: the folder is missing or does not exist.
    """
    name, given, folder = source.partition("=")
    if name == "search_files":
        if not folder:
            raise ToolError("search_files: needs a folder to search; give search_files=FOLDER")
        return [_search_of(Path(folder))]
    if given or (name != "examples" and name not in EXAMPLES):
        return None
    return [Function.of(function) for function in (EXAMPLES.values() if name == "examples" else [EXAMPLES[name]])]
