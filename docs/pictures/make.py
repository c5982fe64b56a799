"""Make the pictures of the page anew: `python docs/pictures/make.py [FOLDER]`, with Chromium and a sandbox.

The page is the real one, and so is what runs the code; the model's words are written here.
"""

from __future__ import annotations

import asyncio
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "tests" / name) for name in ("", "web", "knowledge")]

from browser import Site, Views, answered, browsing, send, until  # noqa: E402
from making import pdf  # noqa: E402
from PIL import Image  # noqa: E402

from chatglm.conversation.documents import Documents  # noqa: E402
from chatglm.knowledge import Shelf, Upload  # noqa: E402
from chatglm.tools import Consent, Function, Toolbox  # noqa: E402
from chatglm.tools.interpreter.pool import Kernels  # noqa: E402

MOST = 300_000  # bytes of a picture
FIT = """import numpy as np
import matplotlib.pyplot as plt

rng = np.random.default_rng(7)
x = np.linspace(0, 10, 40)
y = 1.8 * x + 3 + rng.normal(0, 2, x.size)  # 带噪声的数据
k, b = np.polyfit(x, y, 1)
plt.figure(figsize=(7, 2.7))
plt.scatter(x, y, s=18, color="#7a8f8b", label="数据")
plt.plot(x, k * x + b, color="#2a6d63", label=f"y = {k:.2f}x + {b:.2f}")
plt.legend(frameon=False)
plt.show()
"""
FITTED = """拟合的直线是 $y = 1.76x + 2.43$，接近生成数据的 $y = 1.8x + 3$。最小二乘法使误差的平方和最小：

$$
E(k, b) = \\sum_{i=1}^{n} (y_i - k x_i - b)^2
$$
"""
MAIL = "Beijing is sunny and 21 °C, so the walk can go ahead. I would send this to the group:"
RULES = [
    ("实验室安全手册", 26),
    ("第二章 日常管理", 18),
    ("进入实验室前须完成安全培训，并由负责人登记。", 12),
    ("灭火器放在门口右侧，每季度检查一次压力。", 12),
    ("离开实验室前须关闭气阀和电源，最后离开的人锁门。", 12),
    ("第三章 危险品", 18),
    ("易燃溶剂存放在防爆柜中，每个柜子不超过二十升。", 12),
    ("废液按类别收集，标签须写明名称、浓度和日期。", 12),
]
SAFE = "灭火器放在门口右侧，每季度检查一次压力。离开之前须关闭气阀和电源。另外，建议随身带一瓶矿泉水和一把雨伞。"
TITLES = {
    "zh": [
        ("tools", "北京和上海的天气"),
        ("character", "沈清的茶馆"),
        ("chat", "晚上睡不着应该怎么办"),
        ("code", "读取 CSV 并画直方图"),
        ("chat", "把这段话改写得更简洁"),
        ("character", "模拟面试"),
    ],
    "en": [
        ("code", "A histogram of the measurements"),
        ("chat", "What to do when I cannot sleep"),
        ("character", "The lighthouse keeper"),
        ("tools", "Miles, kilometres and dice"),
    ],
}


def get_weather(city_name: str) -> dict[str, Any]:
    """The weather of a city."""
    return {"condition": "sunny", "temperature": 21}


def send_mail(to: str, subject: str, text: str) -> str:
    """Send mail."""
    return "sent"


def furnished(views: Views, page: Any, language: str) -> None:
    """A list of conversations, as somebody has who was here before."""
    owner = views.site.owner(page)
    for mode, title in reversed(TITLES[language]):
        views.site.store.make(owner, title=title, mode=mode)


def shot(page: Any) -> Image.Image:
    page.eval_on_selector("#question", "area => area.blur()")
    page.mouse.move(0, 0)
    page.wait_for_timeout(300)
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def save(image: Image.Image, file: Path) -> None:
    image.save(file, optimize=True)
    if file.stat().st_size > MOST:
        image.quantize(255, dither=Image.Dither.NONE).save(file, optimize=True)


def began(views: Views, language: str, mode: str, **options: Any) -> Any:
    """A new conversation of somebody who has others."""
    context = views.context(language=language, device_scale_factor=1.5, **options)
    page = views.open(context=context)
    send(page, views.site.say("你好" if language == "zh" else "Hello", "你好！" if language == "zh" else "Hello!"))
    answered(page)
    furnished(views, page, language)
    views.visit(page, f"/new?mode={mode}")
    return page


def code(views: Views, folder: Path) -> None:
    site = views.site
    question = site.say("用最小二乘法拟合一组带噪声的数据，并画出来", site.write.code(FIT), FITTED)
    page = began(views, "zh", "code", width=1280, height=1090)
    send(page, question)
    answered(page, "拟合的直线")
    page.wait_for_timeout(300)
    save(shot(page), folder / "page-code.png")


def tools(views: Views, folder: Path) -> None:
    site = views.site
    question = site.say(
        "If Beijing is sunny, invite the walkers.",
        site.write.call(("get_weather", {"city_name": "Beijing"})),
        site.write.call(
            (
                "send_mail",
                {"to": "walkers@example.com", "subject": "Saturday's walk", "text": "Sunny, 21 °C. See you at nine!"},
            ),
            text=MAIL,
        ),
        "Done.",
    )
    page = began(views, "en", "tools", width=1280, theme="dark")
    send(page, question)
    page.wait_for_selector(".consent")
    page.wait_for_selector("#conversations .current")
    save(shot(page), folder / "page-tools.png")


def documents(views: Views, folder: Path) -> None:
    question = views.site.say("灭火器放在哪里？离开时要注意什么？", SAFE)
    page = began(views, "zh", "documents", width=1280)
    send(page, question)
    answered(page, "雨伞")
    page.locator("a.cite").last.click()
    until(page, "() => document.querySelector('#source img')?.naturalWidth > 300")
    page.eval_on_selector("#source .content", "content => (content.scrollTop = 0)")
    save(shot(page), folder / "page-documents.png")


def phones(views: Views, folder: Path) -> None:
    site = views.site
    site.say("我今天很累。", "那就坐一会儿，我给你泡一壶白茶。窗边的位子空着，雨声正好。")
    shots = []
    for language, theme, mode in (("zh", "light", "chat"), ("zh", "light", "character"), ("en", "dark", "code")):
        page = began(views, language, mode, width=390, theme=theme)
        if mode == "character":
            page.click(".cast button:has-text('沈清')")
            page.wait_for_selector(".answer")
            page.wait_for_selector("body[data-ready]", state="attached")
            send(page, "我今天很累。")
            answered(page, "白茶")
        shots.append(shot(page))
    gap = 36
    whole = Image.new("RGB", (sum(one.width + gap for one in shots) + gap, shots[0].height + 2 * gap), "#d9d5cb")
    for place, one in enumerate(shots):
        whole.paste(one, (gap + place * (one.width + gap), gap))
    save(whole, folder / "page-phones.png")


def main(folder: Path) -> None:
    with (
        tempfile.TemporaryDirectory() as home,
        Toolbox([get_weather, Function.of(send_mail, consent=Consent.ALWAYS)]) as toolbox,
        Shelf(Path(home) / "home") as shelf,
        browsing() as browser,
    ):
        lines = [(80.0, 760.0 - 34 * place, size, text) for place, (text, size) in enumerate(RULES)]
        shelf.make("安全手册", None).add(Upload("实验室安全手册.pdf", pdf([lines])))

        kernels = Kernels(Path(home) / "kernels", spare=0, most=1)
        site = Site(Path(home), toolbox=toolbox, kernels=kernels, knowledge=Documents(shelf))
        views = Views(browser, site)
        try:
            for scene in (code, tools, documents, phones):
                scene(views, folder)
        finally:
            views.close()
            site.close()
    asyncio.run(kernels.close())
    for file in sorted(folder.glob("page-*.png")):
        print(f"{file}: {file.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
