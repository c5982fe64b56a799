"""Tools, code, files and manual mode on the page, in a browser."""

from __future__ import annotations

import asyncio
import base64
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from browser import SHIFTS, Site, Views, answered, send, until

from chatglm.tools import Consent, Function, Toolbox
from chatglm.tools.interpreter.pool import Kernels
from kernels import need_sandbox


def png(width: int = 320, height: int = 200) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + bytes([90, 150, 140]) * width for _ in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def get_weather(city_name: Annotated[str, "城市"]) -> dict[str, Any]:
    """查询城市的天气"""
    return {"condition": "晴", "temperature": 21}


def send_mail(to: Annotated[str, "收件人"]) -> str:
    """发邮件"""
    return f"sent to {to}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    need_sandbox()
    folder = tmp_path_factory.mktemp("site")
    kernels = Kernels(folder / "kernels", spare=0, most=2)
    with Toolbox([Function.of(get_weather), Function.of(send_mail, consent=Consent.ALWAYS)]) as toolbox:
        made = Site(folder, toolbox=toolbox, kernels=kernels)
        yield made
        made.close()
    asyncio.run(kernels.close())


@pytest.mark.parametrize(("width", "language"), [(1200, "zh"), (390, "en")])
def test_a_round_of_a_tool_unfolds(site: Site, views: Views, width: int, language: str) -> None:
    call = site.write.call(("get_weather", {"city_name": "北京"}), text="我查一下。")
    question = site.say("北京的天气怎么样？", call, "北京：晴，21度。")
    page = views.open("/new?mode=tools", width=width, language=language)
    page.evaluate(SHIFTS)
    send(page, question)
    answered(page, "北京：晴，21度。")
    assert sum(value for value, _ in page.evaluate("window.shifts")) < 0.01, page.evaluate("window.shifts")
    for _ in range(2):
        assert page.locator(".answer").count() == 1
        assert page.locator(".part").count() == 2
        assert page.locator(".call .name").inner_text() == "get_weather"
        assert page.locator(".call").get_attribute("data-state") == "done"
        assert not page.is_visible(".call .output")
        page.click(".call summary")
        assert "北京" in page.locator(".call .code").inner_text()
        assert "21" in page.locator(".call .output").inner_text()
        assert re.fullmatch(r"\d\.\d (秒|s)|完成|Done", page.locator(".call .state").inner_text())
        page.reload()
        page.wait_for_selector("body[data-ready]", state="attached")


def test_people_are_asked_first(site: Site, views: Views) -> None:
    call = site.write.call(("send_mail", {"to": "li@example.com"}))
    question = site.say("写信给李", call, "好了")
    page = views.open("/new?mode=tools")
    send(page, question)
    page.wait_for_selector(".consent")
    assert "li@example.com" in page.locator(".call .code").inner_text()
    assert "send_mail" in page.locator(".consent").inner_text()
    page.reload()  # who comes back is asked still
    page.wait_for_selector(".consent")
    page.click(".consent button >> nth=2")
    answered(page, "好了")
    assert page.locator(".call").get_attribute("data-state") == "failed"
    page.click(".answer [data-do=again]")
    page.wait_for_selector(".consent")
    page.click(".consent button >> nth=0")
    answered(page, "好了")
    assert page.locator(".call").get_attribute("data-state") == "done"
    assert "sent to li@example.com" in page.locator(".call .output").text_content()
    assert page.locator(".consent").count() == 0
    page.click(".answer [data-do=again]")
    page.wait_for_selector(".consent")
    page.click(".consent button >> nth=1")
    answered(page, "好了")
    page.click(".answer [data-do=again]")
    answered(page, "好了")  # and is not asked again


def test_a_person_answers_for_tools_of_their_own(site: Site, views: Views) -> None:
    question = site.say("股票10111的价格", site.write.call(("track", {"symbol": "10111"})), "价格是 12412。")
    page = views.open("/new?mode=tools")
    page.click(".bar [data-do=settings]")
    page.fill(
        "[name=manual]",
        "- name: track\n  description: 追踪股票的价格\n  parameters:\n    type: object\n"
        "    properties:\n      symbol: {type: string, description: 股票代码}\n    required: [symbol]\n",
    )
    page.click("[data-do=close-settings]")
    send(page, question)
    page.wait_for_selector(".consent textarea")
    assert "追踪股票的价格" in site.engine.told[-1]
    page.fill(".consent textarea", '{"price": 12412}')
    page.click(".consent button")
    answered(page, "价格是 12412。")
    assert '{"price": 12412}' in page.locator(".call .output").text_content()


def test_code_its_output_and_pictures_stand_in_place(site: Site, views: Views) -> None:
    picture = base64.b64encode(png()).decode()
    code = (
        "import base64, time\nfrom IPython.display import Image, display\n"
        "print('第一行', flush=True)\ntime.sleep(0.3)\n"
        f"print('第二行')\ndisplay(Image(data=base64.b64decode('{picture}')))\nopen('out.txt', 'w').write('x' * 2000)\n"
    )
    question = site.say("画一张图", site.write.code(code), "画好了。", delay=0.001)
    page = views.open("/new?mode=code")
    page.evaluate(SHIFTS)
    send(page, question)
    page.wait_for_selector(".cell .code")
    until(page, "document.querySelector('.cell .output')?.textContent.includes('第一行')")
    answered(page, "画好了。")
    assert sum(value for value, _ in page.evaluate("window.shifts")) < 0.02, page.evaluate("window.shifts")
    for _ in range(2):
        assert page.is_visible(".cell .code")
        assert "第一行\n第二行" in page.locator(".cell .output").inner_text()
        assert page.locator(".cell .k, .cell .kn").first.is_visible()
        until(page, "document.querySelector('.cell .pictures img')?.naturalWidth === 320")
        assert page.locator(".cell .file").inner_text().startswith("out.txt")
        page.reload()
        page.wait_for_selector("body[data-ready]", state="attached")
    with page.expect_download() as download:
        page.click(".cell .file")
    assert Path(download.value.path()).read_text() == "x" * 2000


def test_files_come_by_button_drop_and_paste(site: Site, views: Views, tmp_path: Path) -> None:
    question = site.say("读一读文件", "读完了。")
    page = views.open("/new?mode=code")
    (tmp_path / "数据 1.csv").write_text("a,b\n1,2\n")
    page.set_input_files("#picker", tmp_path / "数据 1.csv")
    page.evaluate(
        """(data) => {
          const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
          const give = (target, type, name, key) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, { type: "image/png" }));
            target.dispatchEvent(new (type === "paste" ? ClipboardEvent : DragEvent)(
              type, { [key]: transfer, bubbles: true, cancelable: true }));
          };
          give(document.querySelector("main"), "drop", "dropped.png", "dataTransfer");
          give(document.querySelector("#question"), "paste", "image.png", "clipboardData");
        }""",
        base64.b64encode(png(40, 30)).decode(),
    )
    until(page, "document.querySelectorAll('#uploads li').length === 3")
    names = page.locator("#uploads .file span").all_inner_texts()
    assert names[:2] == ["数据 1.csv", "dropped.png"]
    assert names[2].startswith("image-")
    page.click("#uploads li:nth-child(3) button")
    send(page, question)
    answered(page, "读完了。")
    assert page.locator("#uploads li").count() == 0
    assert page.locator(".user .file").count() + page.locator(".user .picture").count() == 2
    assert "数据 1.csv" in site.engine.told[-1]
    with page.expect_download() as download:
        page.click(".user .file >> nth=0")
    assert Path(download.value.path()).read_text() == "a,b\n1,2\n"


def test_stop_ends_a_cell(site: Site, views: Views) -> None:
    question = site.say("等很久", site.write.code("import time\nprint('开始', flush=True)\ntime.sleep(60)"), "完了")
    page = views.open("/new?mode=code", width=390)
    send(page, question)
    until(page, "document.querySelector('.cell .output')?.textContent.includes('开始')")
    page.click("#stop")
    answered(page)
    assert "开始" in page.locator(".cell .output").inner_text()
    assert page.locator(".cell").get_attribute("data-state") in ("stopped", "failed")
