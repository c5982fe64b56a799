"""Converts units: length, mass, area, volume, time, speed, data, energy, temperature."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["convert"]

# A line has a unit's size, in the first unit of its paragraph, and the unit's names.
_TABLE = """
1 m 米 公尺 meter meters metre metres
1e3 km 公里 千米 kilometer kilometers kilometre kilometres
0.1 dm 分米
0.01 cm 厘米 公分 centimeter centimeters centimetre centimetres
1e-3 mm 毫米 millimeter millimeters millimetre millimetres
1e-6 μm 微米
1e-9 nm 纳米
500 里 华里
3.3333333333333335 丈
0.3333333333333333 尺 市尺
0.03333333333333333 寸
0.0254 in 英寸 inch inches
0.3048 ft 英尺 foot feet
0.9144 yd 码 yard yards
1609.344 mi 英里 mile miles
1852 nmi 海里

1 kg 公斤 千克 kilogram kilograms
1e-3 g 克 gram grams
1e-6 mg 毫克
1e3 t 吨 ton tons tonne tonnes
0.5 斤 市斤
0.05 两
0.45359237 lb 磅 lbs pound pounds
0.028349523125 oz 盎司 ounce ounces

1 m2 平方米 m² 平米
1e6 km2 平方公里 平方千米 km²
1e-4 cm2 平方厘米 cm²
1e4 ha 公顷 hectare hectares
666.6666666666666 亩
4046.8564224 ac 英亩 acre acres
0.09290304 ft2 平方英尺 ft²

1 l 升 公升 L liter liters litre litres
1e-3 ml 毫升 mL cc milliliter milliliters
1e3 m3 立方米 m³
1e-3 cm3 立方厘米 cm³
3.785411784 gal 加仑 gallon gallons
0.946352946 qt 夸脱 quart quarts
0.473176473 pt 品脱 pint pints

1 s 秒 second seconds sec
1e-3 ms 毫秒
60 min 分 分钟 minute minutes
3600 h 小时 hour hours
86400 d 天 day days
604800 w 周 星期 week weeks
31557600 年 year years

1 m/s 米每秒
0.2777777777777778 km/h 公里每小时 千米每小时 kph
0.44704 mph 英里每小时
0.5144444444444445 kn 节 knot knots

1 B 字节 byte bytes
0.125 bit 位 比特 bits
1e3 KB
1e6 MB
1e9 GB
1e12 TB
1024 KiB
1048576 MiB
1073741824 GiB
1099511627776 TiB

1 J 焦 焦耳 joule joules
1e3 kJ 千焦
4.184 cal 卡 卡路里
4184 kcal 千卡 大卡
3.6e6 kWh 度电 千瓦时
"""
_DEGREES = {
    **dict.fromkeys(("°C", "C", "℃", "摄氏度", "celsius"), "C"),
    **dict.fromkeys(("°F", "F", "℉", "华氏度", "fahrenheit"), "F"),
    **dict.fromkeys(("K", "开尔文", "开", "kelvin"), "K"),
}
# Size of one degree in kelvin, and the number that is added before the multiplication.
_SCALES = {"C": (1.0, 273.15), "F": (5 / 9, 459.67), "K": (1.0, 0.0)}


def _units(table: str) -> dict[str, tuple[float, int]]:
    """For each name of a unit: its factor, and the number of the quantity that it measures."""
    found: dict[str, tuple[float, int]] = {}
    for number, paragraph in enumerate(table.strip().split("\n\n")):
        for line in paragraph.splitlines():
            factor, *names = line.split()
            found |= {name: (float(factor), number) for name in names}
    return found


_UNITS = _units(_TABLE)


def convert(amount: float, source: str, target: str) -> int | float:
    """Convert an amount from one unit to another, rounded to six digits. Units have Chinese names, English names and
    symbols.

    Raises:
        ValueError: a unit is unknown, the units measure different quantities, or the value is too large or an
            impossible temperature.
    """
    if (old := _found(_DEGREES, source)) and (new := _found(_DEGREES, target)):
        kelvin = (amount + _SCALES[old][1]) * _SCALES[old][0]
        if kelvin < 0:
            raise ValueError("colder than the absolute zero")
        value = kelvin / _SCALES[new][0] - _SCALES[new][1]
    else:
        factor, kind = _unit(source)
        other, same = _unit(target)
        if kind != same:
            raise ValueError(f"{source[:40]} and {target[:40]} measure different things")
        value = amount * factor / other
    if not math.isfinite(value):
        raise ValueError("the value is too large")
    value = float(f"{value:.6g}")
    return int(value) if value.is_integer() and abs(value) < 1e15 else value


def _unit(name: str) -> tuple[float, int]:
    if found := _found(_UNITS, name):
        return found
    if _found(_DEGREES, name):
        return 1.0, -1
    raise ValueError(f"unknown unit: {name[:40]}")


def _found(table: dict[str, Any], name: str) -> Any:
    """Look a name up as it is written; if it is not there, in any case of letters, if only one unit matches (KM, not
    mB). None: it is unknown.
    """
    name = name.strip()
    if name in table:
        return table[name]
    alike = {value for known, value in table.items() if known.casefold() == name.casefold()}
    return alike.pop() if len(alike) == 1 else None
