"""Questions and answers on the page, in a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import SHIFTS, Site, Views, answered, send, until, viewing
from playwright.sync_api import Page

from chatglm.chat.messages import Message
from chatglm.errors import QueueFullError
from chatglm.serving.connections import bind

LONG = """最小二乘法用一条直线拟合数据，使**误差的平方和**最小：$y = kx + b$。

```python
def fit(x, y):
    return x.mean(), y.mean()
```

需要注意：

1. 离群点影响很大；
2. `x` 不能全部相同。

| 方法 | 速度 |
|---|---|
| 最小二乘 | 快 |

最后一段文字。"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site"))
    yield made
    made.close()


@pytest.mark.parametrize(("width", "language", "theme"), [(1200, "zh", "light"), (390, "en", "dark")])
def test_an_answer_comes_in_pieces_and_nothing_jumps(
    site: Site, views: Views, width: int, language: str, theme: str
) -> None:
    question = site.say("请解释最小二乘法", LONG, delay=0.004)
    page = views.open(width=width, language=language, theme=theme)
    assert page.title().startswith("新对话" if language == "zh" else "New conversation")
    page.evaluate(SHIFTS)
    send(page, question)
    page.wait_for_selector(".open:not(:empty)")
    assert page.is_visible("#stop")
    page.wait_for_selector("#conversations .current", state="attached")  # before the answer has ended
    assert page.locator(".open").get_attribute("aria-live") == "off"
    answered(page, "最后一段文字。")
    assert page.locator(".answer strong").inner_text() == "误差的平方和"
    assert page.locator(".answer .code .k").first.inner_text() == "def"
    assert page.locator(".answer math").count() == 1
    assert page.locator(".answer li").count() == 2
    assert page.locator(".answer td").count() == 2
    assert page.locator(".open").count() == 0
    assert sum(value for value, _ in page.evaluate("window.shifts")) < 0.01, page.evaluate("window.shifts")
    assert page.title() == f"{question} · chatglm"
    assert page.locator("#conversations .current .title").text_content() == question
    assert re.fullmatch(rf"{site.url}/c/[0-9a-f]{{32}}", page.url)
    assert re.search(r"\d+\.\d s · \d+ ", page.locator(".meta").inner_text())
    shown = page.locator(".answer .text").inner_html()
    page.reload()
    page.wait_for_selector("body[data-ready]", state="attached")
    assert page.locator(".answer .text").inner_html() == shown  # what came in pieces is what is shown whole


def test_stop_keeps_what_there_is(site: Site, views: Views) -> None:
    question = site.say("讲一个长故事", "从前有一座山。" * 200, delay=0.01)
    page = views.open()
    send(page, question)
    until(page, "document.querySelector('.answer')?.innerText.includes('从前有一座山')")
    page.press("#question", "Escape")
    answered(page, "从前有一座山")
    assert "已停止" in page.locator(".answer .note").inner_text()
    page.reload()
    assert "从前有一座山" in page.locator(".answer .text").inner_text()
    assert "已停止" in page.locator(".answer .note").inner_text()


def test_a_refresh_continues_a_running_answer(site: Site, views: Views) -> None:
    question = site.say("数到一百", "".join(f"第{number}行。\n\n" for number in range(60)), delay=0.01)
    page = views.open()
    send(page, question)
    until(page, "document.querySelector('.answer')?.innerText.includes('第3行')")
    page.reload()
    until(page, "document.querySelector('.answer')?.innerText.includes('第9行')")
    assert page.is_visible("#stop")
    site.engine.delay = 0
    answered(page, "第59行")
    assert page.locator(".answer").count() == 1
    assert page.locator(".answer p").all_inner_texts()[:60] == [f"第{number}行。" for number in range(60)]


def test_answers_and_questions_have_branches(site: Site, views: Views) -> None:
    question = site.say("给我一个数", "一")
    page = views.open()
    send(page, question)
    answered(page, "一")
    assert page.locator(".branch:visible").count() == 0
    site.say(question, "二")
    page.hover(".answer")
    page.click(".answer [data-do=again]")
    answered(page, "二")
    assert page.locator(".answer").count() == 1
    until(page, "document.querySelector('.answer .place').innerText === '2/2'")
    page.click(".answer .branch button >> nth=0")
    until(page, "document.querySelector('.answer .place').innerText === '1/2'")
    assert page.locator(".answer .text").inner_text() == "一"
    page.reload()
    assert page.locator(".answer .text").inner_text() == "一"
    page.click(".answer .branch button >> nth=1")
    until(page, "document.querySelector('.answer .place').innerText === '2/2'")
    # Another question in the place of the first: a branch of the question.
    changed = site.say("给我一个字母", "甲")
    page.focus("#question")
    page.keyboard.press("ArrowUp")
    assert page.input_value(".edit textarea") == question
    page.fill(".edit textarea", changed)
    page.press(".edit textarea", "Enter")
    answered(page, "甲")
    assert page.locator(".user").count() == 1
    assert page.locator(".user .said").inner_text() == changed
    until(page, "document.querySelector('.user .place').innerText === '2/2'")
    page.hover(".user")
    page.click(".user .branch button >> nth=0")
    until(page, "document.querySelector('.user .place').innerText === '1/2'")
    assert page.locator(".user .said").inner_text() == question
    assert page.locator(".answer .text").inner_text() == "二"
    # Escape leaves the question as it is.
    page.focus("#question")
    page.keyboard.press("ArrowUp")
    page.press(".edit textarea", "Escape")
    assert page.locator(".user .said").inner_text() == question
    assert page.locator(".edit").count() == 0


def test_ratings_are_kept(site: Site, views: Views) -> None:
    question = site.say("评价我", "好的")
    page = views.open()
    send(page, question)
    answered(page, "好的")
    page.click("[data-do=rate][data-rating='1']")
    page.wait_for_selector("[data-rating='1'][aria-pressed=true]")
    page.click("[data-do=rate][data-rating='-1']")
    page.wait_for_selector("[data-rating='-1'][aria-pressed=true]")
    page.reload()
    assert page.get_attribute("[data-do=rate][data-rating='1']", "aria-pressed") == "false"
    assert page.get_attribute("[data-do=rate][data-rating='-1']", "aria-pressed") == "true"
    page.click("[data-do=rate][data-rating='-1']")
    page.wait_for_selector("[data-do=rate][data-rating='-1'][aria-pressed=false]")


def test_text_and_code_are_copied_as_they_were_written(site: Site, views: Views) -> None:
    question = site.say("一段代码", LONG)
    context = views.context(permissions=["clipboard-read", "clipboard-write"])
    page = views.open(context=context)
    send(page, question)
    answered(page, "最后一段文字。")
    for reload in (False, True):
        if reload:
            page.reload()
            page.wait_for_selector("body[data-ready]", state="attached")
        page.click(".answer > .actions [data-do=copy]")
        until(page, "document.querySelector('#heard').textContent === '已复制'")
        assert page.evaluate("navigator.clipboard.readText()") == LONG
        page.hover(".answer .code")
        page.click(".answer .code > button")
        until(page, "navigator.clipboard.readText().then((text) => text.startsWith('def fit'))")
        assert page.evaluate("navigator.clipboard.readText()") == "def fit(x, y):\n    return x.mean(), y.mean()\n"


def test_the_log_follows_only_readers_at_its_end(site: Site, views: Views) -> None:
    question = site.say("一百行", "".join(f"第{number}行。\n\n" for number in range(100)), delay=0.002)
    page = views.open(width=390)
    send(page, question)
    at_end = "(s => s.scrollHeight - s.scrollTop - s.clientHeight < 40)(document.querySelector('#scroller'))"
    until(page, "document.querySelector('.answer')?.innerText.includes('第40行')")
    until(page, at_end)
    page.eval_on_selector("#scroller", "s => s.scrollTop = 100")
    until(page, "document.querySelector('.answer').innerText.includes('第60行')")
    assert page.eval_on_selector("#scroller", "s => s.scrollTop") == 100
    answered(page)
    assert page.eval_on_selector("#scroller", "s => s.scrollTop") == 100
    page.click(".latest")
    until(page, at_end)
    page.wait_for_selector(".latest", state="hidden")


def test_other_tabs_hear_of_an_answer(site: Site, views: Views) -> None:
    first, second = site.say("第一问", "第一答"), site.say("第二问", "第二答")
    context = views.context()
    page = views.open(context=context)
    send(page, first)
    answered(page, "第一答")
    other = views.open(page.url.removeprefix(site.url), context=context)
    third = views.open(context=context)
    send(page, second)
    answered(page, "第二答")
    until(other, "document.querySelector('#log').innerText.includes('第二答')")
    assert other.locator("article").count() == 4
    until(third, "document.querySelector('#conversations').innerText.includes('第一问')")


def _cut_off(site: Site, views: Views) -> Page:
    """A page whose server has gone in the middle of an answer."""
    views.expected = ["Failed to load resource"]
    question = site.say("不会结束", "开头。\n\n" + "再说。" * 500, delay=0.02)
    page = views.open()
    send(page, question)
    until(page, "document.querySelector('.answer')?.innerText.includes('再说')")
    site.stop()
    until(page, "document.querySelector('#status').textContent.includes('无法连接')")
    return page


def test_a_server_that_starts_again_is_found_again(site: Site, views: Views) -> None:
    page = _cut_off(site, views)
    site.start()
    until(page, "document.querySelector('#status').textContent.includes('重新启动')")
    page.wait_for_selector("#send", state="visible")
    assert "开头。" in page.locator(".answer .text").inner_text()
    again = site.say("还在吗", "在")
    send(page, again)
    answered(page, "在")
    assert page.locator("#status").inner_text() == ""


def test_a_server_that_was_silent_for_a_while_is_found_again(site: Site, views: Views) -> None:
    """It accepted connections and never answered; those stay open when it is gone, as behind a sleeping machine."""
    page = _cut_off(site, views)
    (silent,) = bind("127.0.0.1", int(page.url.split(":")[2].split("/")[0]))
    with silent:
        silent.listen()
        silent.settimeout(60)
        held, _ = silent.accept()
    with held:
        site.start()
        until(page, "document.querySelector('#status').textContent.includes('重新启动')")
    page.wait_for_selector("#send", state="visible")
    send(page, site.say("还在吗", "在"))
    answered(page, "在")


def test_a_failed_answer_says_so_and_can_be_tried_again(site: Site, views: Views) -> None:
    question = site.say("会出错", "好了")
    page = views.open()
    site.engine.fails = QueueFullError("too many requests wait")
    send(page, question)
    page.wait_for_selector("#log .failed")
    assert "too many requests wait" in page.locator("#log .failed").inner_text()
    site.engine.fails = None
    page.wait_for_selector("#send", state="visible")
    page.click("#log .failed button")
    answered(page, "好了")
    assert page.locator("#log .failed").count() == 0


def test_earlier_turns_are_shown_when_asked_for(site: Site, views: Views) -> None:
    page = views.open()
    send(page, site.say("开始", "好"))
    answered(page, "好")
    owner = site.owner(page)
    messages = [Message("user" if n % 2 == 0 else "assistant", f"第{n}句") for n in range(150)]
    conversation = site.store.make(owner, title="很长", messages=messages)
    views.visit(page, f"/c/{conversation}")
    assert "第149句" in page.locator("#log").inner_text()
    assert "第0句" not in page.locator("#log").inner_text()
    while page.locator("[data-do=earlier]").count():
        first = page.locator("article .said").first
        before = first.inner_text()
        page.eval_on_selector("#scroller", "s => s.scrollTop = 0")
        page.click("[data-do=earlier]")
        until(page, "(text) => document.querySelector('article .said').innerText !== text", before)
    texts = page.locator("article .said").all_inner_texts()
    assert texts == [f"第{n}句" for n in range(0, 150, 2)]


def test_people_see_when_turns_are_left_out(browser: Any, tmp_path: Path) -> None:
    site = Site(tmp_path, context=160)
    try:
        with viewing(browser, site) as views:
            page = views.open()
            for number in range(4):
                send(page, site.say(f"第{number}问" + "很长" * 20, f"第{number}答"))
                answered(page, f"第{number}答")
            assert "放不下" in page.locator(".note[data-code=left_out]").last.inner_text()
            page.reload()
            assert "第0答" in page.locator("#log").inner_text()  # they are shown still
    finally:
        site.close()
