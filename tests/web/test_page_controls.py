"""Keys, input methods, lists, settings and panels of the page, in a browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Site, Views, answered, send, until

COMPOSE = """({ how, gap }) => {
  const area = document.querySelector("#question");
  const send = (type, options) => area.dispatchEvent(
    Object.assign(new KeyboardEvent(type, { key: "Enter", bubbles: true, cancelable: true, ...options })));
  area.value = "你好";
  area.dispatchEvent(new CompositionEvent("compositionstart", { bubbles: true }));
  if (how === "composing") send("keydown", { isComposing: true });
  if (how === "229") send("keydown", { keyCode: 229 });
  area.dispatchEvent(new CompositionEvent("compositionend", { bubbles: true, data: "你好" }));
  if (how === "safari") send("keydown", {});
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site"))
    made.say("你好", "你好呀")
    yield made
    made.close()


@pytest.mark.parametrize("how", ["composing", "229", "safari"])
def test_enter_of_an_input_method_sends_nothing(views: Views, how: str) -> None:
    page = views.open()
    page.evaluate(COMPOSE, {"how": how})
    page.wait_for_timeout(80)
    assert page.input_value("#question") == "你好"
    assert page.locator("article").count() == 0
    page.press("#question", "Enter")  # a moment later it is the person's own
    answered(page, "你好呀")


class Pinyin:
    """An input method as Chromium has it: text that is composed, keys that belong to the method, text that is taken."""

    def __init__(self, page: Any) -> None:
        self._page, self._cdp = page, page.context.new_cdp_session(page)

    def compose(self, text: str) -> None:
        self._cdp.send(
            "Input.imeSetComposition", {"text": text, "selectionStart": len(text), "selectionEnd": len(text)}
        )

    def key(self, code: str) -> None:
        """A key that the method takes: the page hears of it as key 229."""
        for kind in ("rawKeyDown", "keyUp"):
            self._cdp.send(
                "Input.dispatchKeyEvent", {"type": kind, "key": "Process", "code": code, "windowsVirtualKeyCode": 229}
            )

    def take(self, text: str) -> None:
        self._cdp.send("Input.insertText", {"text": text})
        self._page.wait_for_timeout(60)  # nobody presses a key so soon after, and one that comes then is the method's

    def drop(self) -> None:
        """Give up what is composed, by Escape."""
        self.key("Escape")
        self.compose("")
        self._page.wait_for_timeout(60)

    def write(self, letters: str, text: str, key: str) -> None:
        """Type letters, and take what the method makes of them by a key: the words, or with Enter the letters."""
        for end in range(1, len(letters) + 1):
            self.key(f"Key{letters[end - 1].upper()}")
            self.compose(letters[:end])
        self.key(key)
        self.take(text)


def test_an_input_method_writes_everywhere(site: Site, views: Views) -> None:
    site.say("你好 zhongguo", "中国你好")
    page = views.open()
    pinyin = Pinyin(page)
    page.focus("#question")
    pinyin.write("nihao", "你好", "Space")
    assert page.input_value("#question") == "你好"
    page.keyboard.press("Space")
    pinyin.write("zhongguo", "zhongguo", "Enter")  # letters as they are: this Enter is the method's
    assert page.input_value("#question") == "你好 zhongguo"
    assert page.locator("article").count() == 0
    page.keyboard.press("Enter")
    answered(page, "中国你好")
    assert page.locator(".said").inner_text() == "你好 zhongguo"
    # The question that is edited
    page.hover(".user")
    page.click(".user [data-do=edit]")
    page.keyboard.press("Control+a")
    pinyin.write("nihao", "nihao", "Enter")
    assert page.locator(".edit textarea").input_value() == "nihao"
    pinyin.compose("ni")
    pinyin.drop()
    assert page.locator(".edit textarea").count() == 1
    page.keyboard.press("Escape")
    # The title
    page.click("#title")
    pinyin.write("biaoti", "标题", "Enter")
    assert page.get_attribute("#title", "contenteditable") is not None
    page.keyboard.press("Enter")
    until(page, "document.querySelector('#conversations .title').textContent === '标题'")
    # The search
    page.keyboard.press("Control+k")
    pinyin.write("zhongguo", "中国", "Enter")
    assert page.is_visible("#search")
    page.wait_for_selector("#search mark")
    assert page.locator("#search mark").first.inner_text() == "中国"
    pinyin.compose("z")
    pinyin.drop()
    assert page.is_visible("#search")
    page.keyboard.press("Escape")
    assert not page.is_visible("#search")


def test_enter_sends_and_shift_enter_is_a_new_line(site: Site, views: Views) -> None:
    site.say("第二行", "两行")
    page = views.open(width=390)
    page.fill("#question", "第一行")
    before = page.locator("#question").bounding_box()
    page.press("#question", "Shift+Enter")
    page.keyboard.type("第二行")
    assert page.input_value("#question") == "第一行\n第二行"
    after = page.locator("#question").bounding_box()
    assert before is not None
    assert after is not None
    assert after["height"] > before["height"] + 15  # it grows
    page.press("#question", "Enter")
    answered(page, "两行")
    assert page.locator(".said").inner_text() == "第一行\n第二行"
    assert page.input_value("#question") == ""
    page.press("#question", "Enter")  # of nothing
    page.wait_for_timeout(50)
    assert page.locator(".user").count() == 1


def test_keys(site: Site, views: Views) -> None:
    page = views.open()
    page.eval_on_selector("#question", "area => area.blur()")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "question"
    assert page.input_value("#question") == ""
    page.keyboard.type("?/")
    assert page.input_value("#question") == "?/"  # while one writes these are characters
    page.eval_on_selector("#question", "area => area.blur()")
    page.keyboard.press("?")
    assert page.is_visible("dialog#keys")
    assert "Ctrl" in page.locator("dialog#keys").inner_text()
    page.keyboard.press("Escape")
    page.keyboard.press("Control+k")
    assert page.is_visible("dialog#search")
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0


def test_what_is_written_survives_a_refresh(views: Views) -> None:
    page = views.open()
    page.fill("#question", "还没有写完")
    page.reload()
    page.wait_for_selector("body[data-ready]", state="attached")
    assert page.input_value("#question") == "还没有写完"
    send(page, "你好")
    answered(page, "你好呀")
    page.fill("#question", "下一个问题")
    page.reload()
    page.wait_for_selector("body[data-ready]", state="attached")
    assert page.input_value("#question") == "下一个问题"
    views.visit(page, "/new")
    assert page.input_value("#question") == ""  # which is of another conversation


def test_search_finds_turns_and_goes_to_them(site: Site, views: Views) -> None:
    question = site.say("红楼梦的作者是谁", "曹雪芹。\n\n" + "很长。\n\n" * 60)
    page = views.open()
    send(page, question)
    answered(page, "曹雪芹")
    first = page.url
    site.say(question, "不知道")
    page.hover(".answer")
    page.click(".answer [data-do=again]")
    answered(page, "不知道")
    views.visit(page, "/new")
    page.keyboard.press("Control+k")
    page.keyboard.type("雪芹")
    page.wait_for_selector("#search mark")
    assert page.locator("#search mark").first.inner_text() == "雪芹"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url(first + "#t*")
    page.wait_for_selector("body[data-ready]", state="attached")
    until(page, "document.querySelector('.answer .text')?.innerText.includes('曹雪芹')")  # on the other branch
    page.keyboard.press("Control+k")
    page.keyboard.type("没有人写过这个")
    page.wait_for_selector("#search .nothing")


def test_titles_are_changed_and_conversations_deleted(views: Views) -> None:
    page = views.open()
    send(page, "你好")
    answered(page, "你好呀")
    page.click("#title")
    page.keyboard.type("新的 标题")
    page.keyboard.press("Enter")
    until(page, "document.querySelector('#conversations .current button').title && document.title.startsWith('新的')")
    page.wait_for_selector("#conversations .current button[aria-label*='新的 标题']", state="attached")
    assert page.title() == "新的 标题 · chatglm"
    page.click("#title")
    page.keyboard.type("不要")
    page.keyboard.press("Escape")
    assert page.locator("#title").inner_text() == "新的 标题"
    page.hover("#conversations .current")
    page.click("#conversations .current button")
    assert page.locator("#sure p").all_inner_texts() == ["删除“新的 标题”？", "删除后无法恢复。"]
    page.click("#sure button >> nth=1")
    assert page.locator("#conversations .current").count() == 1
    page.hover("#conversations .current")
    page.click("#conversations .current button")
    page.click("#sure .danger")
    page.wait_for_url("**/new")
    assert "新的 标题" not in page.locator("#conversations").inner_text()


def test_language_and_colours_are_kept(views: Views) -> None:
    page = views.open(language="en", theme="light")
    light = page.evaluate("getComputedStyle(document.body).color")
    page.click("[data-do=theme]")
    assert page.evaluate("getComputedStyle(document.body).color") != light
    page.click("[data-do=language]")
    until(page, "document.documentElement.lang === 'zh-CN'")
    page.reload()
    assert page.get_attribute("html", "lang") == "zh-CN"
    assert page.get_attribute("html", "data-theme") == "dark"
    assert page.evaluate("getComputedStyle(document.body).color") != light
    assert page.locator(".empty h2").inner_text() == "今天想聊什么？"


def test_the_sidebar_is_a_drawer_on_phones(views: Views) -> None:
    page = views.open(width=360)
    assert not page.is_visible("#sidebar")
    page.click(".bar [data-do=menu]")
    page.wait_for_selector("#sidebar", state="visible")
    assert page.get_attribute(".bar [data-do=menu]", "aria-expanded") == "true"
    page.keyboard.press("Escape")
    page.wait_for_selector("#sidebar", state="hidden")
    page.click(".bar [data-do=menu]")
    page.mouse.click(350, 400)
    page.wait_for_selector("#sidebar", state="hidden")


@pytest.mark.parametrize("width", [360, 390, 820, 1200, 1600])
def test_nothing_is_wider_than_the_window(site: Site, views: Views, width: int) -> None:
    question = site.say(
        "很宽的标题，" * 20 + "很宽",
        f"{'长' * 300}\n\n```\n{'x' * 500}\n```\n\n| {' | '.join(['列'] * 40)} |\n{'|---' * 40}|\n",
    )
    page = views.open(width=width)
    send(page, question)
    answered(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.click(".bar [data-do=settings]")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(
        "document.querySelector('#scroller').scrollWidth <= document.querySelector('#scroller').clientWidth"
    )


def test_settings_are_stored_as_they_are_changed(site: Site, views: Views) -> None:
    page = views.open(language="en")
    page.click(".bar [data-do=settings]")
    assert not page.is_visible("[name=manual]")  # which is of the mode for tools
    page.fill("[name=system]", "Be short.")
    page.click(".params summary")
    page.fill("[name='params.temperature']", "0.5")
    page.fill("[name='params.stop']", "END\nSTOP")
    page.keyboard.press("Escape")
    assert not page.is_visible("#settings")
    send(page, "你好")  # what was set before the first word holds for it
    answered(page, "你好呀")
    stored = site.store.conversation(site.owner(page), page.url[-32:]).settings
    assert stored["system"] == "Be short."
    assert stored["params"] == {"temperature": 0.5, "stop": ["END", "STOP"]}
    assert "Be short." in site.engine.told[-1]
    page.click(".bar [data-do=settings]")
    page.fill("[name='params.top_p']", "0.9")
    page.press("[name='params.top_p']", "Tab")
    page.wait_for_selector(".saved:not(:empty)")
    stored = site.store.conversation(site.owner(page), page.url[-32:]).settings
    assert stored["params"]["top_p"] == 0.9
    # A change elsewhere is not undone by one here.
    owner, name = site.owner(page), page.url[-32:]
    site.store.configure(owner, name, {**stored, "summary": "之前谈过天气。"})
    page.fill("[name='params.top_p']", "0.8")
    page.press("[name='params.top_p']", "Tab")
    while (stored := site.store.conversation(owner, name).settings)["params"]["top_p"] == 0.9:
        page.wait_for_timeout(20)
    assert (stored["summary"], stored["params"]["top_p"]) == ("之前谈过天气。", 0.8)
    page.reload()
    assert page.input_value("[name='params.top_p']") == "0.8"
    page.wait_for_selector("body[data-ready]", state="attached")
    page.click(".bar [data-do=settings]")
    page.click(".params summary")
    page.fill("[name='params.top_p']", "7")
    page.press("[name='params.top_p']", "Tab")
    page.wait_for_timeout(100)
    assert page.eval_on_selector("[name='params.top_p']", "field => !field.checkValidity()")
    stored = site.store.conversation(site.owner(page), page.url[-32:]).settings
    assert stored["params"]["top_p"] == 0.8


def test_a_character_greets(site: Site, views: Views) -> None:
    site.say("我今天很累。", "那就坐一会儿。")
    page = views.open("/new?mode=character", width=390)
    assert page.locator(".cast button").count() == 6
    page.click(".cast button:has-text('沈清')")
    until(page, "document.querySelector('#title').innerText === '沈清' && document.body.dataset.ready === ''")
    assert page.locator(".answer .avatar").inner_text() == "沈"
    assert "我是沈清" in page.locator(".answer .text").inner_text()
    assert page.locator(".answer [data-do=again]").count() == 0  # it answers nothing
    assert page.locator("#conversations .current").count() == 1


def test_conversations_and_cards_come_in_and_go_out(site: Site, views: Views, tmp_path: Path) -> None:
    page = views.open()
    send(page, "你好")
    answered(page, "你好呀")
    with page.expect_download() as download:
        page.click("#export summary")
        page.click("#export [data-form=jsonl]")
    row = json.loads(Path(download.value.path()).read_text())
    assert "你好呀" in json.dumps(row, ensure_ascii=False)
    exported = tmp_path / "out.jsonl"
    exported.write_bytes(Path(download.value.path()).read_bytes())
    page.set_input_files("#importer", exported)
    page.wait_for_url("**/c/*")
    until(page, "document.querySelectorAll('#conversations li').length === 2")
    assert page.locator(".answer .text").inner_text() == "你好呀"
    card = tmp_path / "card.json"
    card.write_text(json.dumps({"name": "阿白", "description": "你是阿白。", "first_mes": "喵，{{user}}！"}))
    before = page.url
    page.set_input_files("#importer", card)
    until(page, "(url) => location.href !== url && document.body.dataset.ready === ''", before)
    assert page.locator("#title").inner_text() == "阿白"
    assert "喵" in page.locator(".answer .text").inner_text()
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    views.expected = ["Failed to load resource"]
    page.set_input_files("#importer", bad)
    page.wait_for_selector("#status:not(:empty)")


@pytest.mark.parametrize("language", ["zh", "en"])
def test_empty_modes_teach(views: Views, language: str) -> None:
    page = views.open(language=language)
    for mode in ("chat", "tools", "code", "character", "documents"):
        views.visit(page, f"/new?mode={mode}")
        assert page.locator(".empty h2").inner_text()
        assert page.locator(".lead").first.inner_text()
        if mode in ("chat", "tools", "code"):
            assert page.locator(".prompts button").count() == 4
    page.click("[data-do=about]")
    page.wait_for_selector("#about dd")
    assert "chatglm" in page.locator("#about dd").first.inner_text()


def test_a_prompt_is_tried(site: Site, views: Views) -> None:
    page = views.open()
    prompt = page.locator(".prompts button").first.inner_text()
    site.say(prompt, "好的")
    page.click(".prompts button >> nth=0")
    answered(page, "好的")
    assert page.locator(".said").inner_text() == prompt
    assert page.locator(".empty").count() == 0
