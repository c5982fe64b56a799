"""What the page is for people with a screen reader, and what it is for texts that would run a script."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from attacks import ATTACKS
from axe_playwright_python.sync_playwright import Axe
from browser import Site, Views, answered, send, until

from chatglm.chat.messages import Message
from chatglm.conversation.settings import Settings
from chatglm.tools import Consent, Function, Toolbox
from chatglm.web.words import LANGUAGES, Words

PAGE = Path(__file__).parents[2] / "src/chatglm/web"
ALL = "\n\n".join(ATTACKS)
RICH = """# 标题

一段**文字**、`代码`、[链接](https://example.com)和公式 $x^2$。

```python
def f(x):  # 说明
    return "文字", 1, None
```

> 引用

| 甲 | 乙 |
|---|---|
| 1 | 2 |

$$\\int_0^1 x\\,dx$$
"""


def read_page(name: Annotated[str, "网页"]) -> str:
    """读网页"""
    return ALL


def send_mail(to: Annotated[str, "收件人"]) -> str:
    """发邮件"""
    return "ok"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Toolbox([read_page, Function.of(send_mail, consent=Consent.ALWAYS)], characters=100_000) as toolbox:
        made = Site(tmp_path_factory.mktemp("site"), toolbox=toolbox)
        yield made
        made.close()


def harmless(page: Any) -> None:
    """Nothing of an attack has become an element or an attribute."""
    assert page.evaluate("window.pwned") is None
    assert page.locator("iframe, object, embed, base, #app style, #app script, form[action*=script]").count() == 0
    sources = page.eval_on_selector_all("img", "all => all.map((one) => one.getAttribute('src'))")
    assert [one for one in sources if not re.fullmatch(r"/ui/c/[0-9a-f]{32}/files/[^/]+", one)] == []
    assert (
        page.evaluate(
            """[...document.querySelectorAll('*')].flatMap((one) => [...one.attributes])
           .filter((one) => one.name.startsWith('on') || /^\\s*(javascript|data):/i.test(one.value)).map(String)"""
        )
        == []
    )


def test_attacks_stay_text_while_they_come(site: Site, views: Views) -> None:
    call = site.write.call(("read_page", {"name": ALL}))
    question = site.say("问题甲", call, ALL)
    views.expected = ["404"]  # pictures in Markdown are files of the conversation, and there are none
    page = views.open("/new?mode=tools")
    send(page, f"{ALL}\n{question}")
    answered(page)
    page.eval_on_selector_all("details", "all => all.forEach((one) => one.open = true)")
    harmless(page)
    assert "onerror=window.pwned=1" in page.locator(".said").inner_text()
    assert "onerror=window.pwned=1" in page.locator(".answer .text").last.inner_text()
    assert "onerror=window.pwned=1" in page.locator(".call .code").inner_text()
    assert "onerror=window.pwned=1" in page.locator(".call .output").inner_text()
    page.reload()
    page.wait_for_selector("body[data-ready]", state="attached")
    page.eval_on_selector_all("details", "all => all.forEach((one) => one.open = true)")
    harmless(page)
    page.hover(".user")
    page.click(".user [data-do=edit]")
    harmless(page)
    page.keyboard.press("Control+k")
    page.fill("#search input", "pwned")
    page.wait_for_selector("#search mark")
    harmless(page)


def test_attacks_stay_text_in_titles_names_and_settings(site: Site, views: Views) -> None:
    page = views.open()
    send(page, site.say("开始", "好"))
    answered(page, "好")
    owner = site.owner(page)
    for attack in ATTACKS:
        site.store.make(owner, title=attack)
    card = json.dumps({"name": ALL[:200], "bot_info": ALL, "greetings": [ALL], "language": '"><script>'})
    settings = Settings(mode="character", character=card, system=ALL, summary=ALL, manual=ALL)
    messages = [Message("assistant", ALL), Message("user", ALL)]
    named = site.store.make(owner, title=ALL, mode="character", settings=settings.to_dict(), messages=messages)
    turn = site.store.tree(owner, named).leaf
    for attack in (attack for attack in ATTACKS if "/" not in attack and attack.isprintable()):
        site.store.add_file(owner, named, attack[:100], "upload", 1, "0" * 64, turn=turn)
    views.visit(page, f"/c/{named}")
    harmless(page)
    page.click(".bar [data-do=settings]")
    harmless(page)
    while page.locator("#conversations .more").count():
        count = page.locator("#conversations li").count()
        page.click("#conversations .more")
        until(page, "(count) => document.querySelectorAll('#conversations li').length > count", count)
    assert page.locator("#conversations li").count() >= len(ATTACKS)
    harmless(page)
    page.hover("#conversations li >> nth=3")
    page.click("#conversations li >> nth=3 >> button")
    harmless(page)


def findings(page: Any) -> list[str]:
    results = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{one['id']}: {node['html'][:160]} {node.get('failureSummary', '')[:200]}"
        for one in results
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


@pytest.mark.parametrize(("width", "language", "theme"), [(1200, "zh", "light"), (390, "en", "dark")])
def test_axe_finds_nothing_serious(site: Site, views: Views, width: int, language: str, theme: str) -> None:
    rich = site.say("丰富的回答", RICH)
    mail = site.say("写信", site.write.call(("send_mail", {"to": "a@example.com"})), RICH)
    page = views.open(width=width, language=language, theme=theme)
    assert findings(page) == []
    for mode in ("tools", "code", "character", "documents"):
        views.visit(page, f"/new?mode={mode}")
        assert findings(page) == [], mode
    views.visit(page, "/new")
    send(page, rich)
    answered(page)
    page.hover(".answer")
    assert findings(page) == []
    page.click("#export summary")
    assert findings(page) == []
    page.click(".answer [data-do=rate][data-rating='1']")
    page.hover(".user")
    page.click(".user [data-do=edit]")
    assert findings(page) == []
    page.keyboard.press("Escape")
    page.click(".bar [data-do=settings]")
    page.click(".params summary")
    assert findings(page) == [], "settings"
    page.click("[data-do=close-settings]")
    if width < 500:
        page.click(".bar [data-do=menu]")
        page.wait_for_selector("#sidebar", state="visible")
        assert findings(page) == [], "drawer"
        page.keyboard.press("Escape")
    for key, dialog in (("Control+k", "search"), ("?", "keys"), ("", "about"), ("", "sure")):
        page.eval_on_selector("#question", "area => area.blur()")
        if key:
            page.keyboard.press(key)
        else:
            if width < 500 and not page.is_visible("#sidebar"):
                page.click(".bar [data-do=menu]")
            if dialog == "sure":
                page.hover("#conversations li")
            page.click("#sidebar [data-do=about]" if dialog == "about" else "#conversations [data-do=delete] >> nth=0")
        page.wait_for_selector(f"dialog#{dialog}", state="visible")
        if dialog == "about":
            page.wait_for_selector("#about dd")
        if dialog == "search":
            page.fill("#search input", "文字")
            page.wait_for_selector("#search mark")
        assert findings(page) == [], dialog
        page.keyboard.press("Escape")
    views.visit(page, "/new?mode=tools")
    send(page, mail)
    page.wait_for_selector(".consent")
    assert findings(page) == [], "consent"
    page.click(".consent button >> nth=2")
    answered(page)
    page.click(".call summary")
    assert findings(page) == [], "call"
    page.goto(f"{site.url}/login")
    assert findings(page) == [], "login"
    views.expected = ["403", "404"]
    page.fill("[name=name]", "nobody")
    page.fill("[name=password]", "nothing at all")
    page.click("button.primary")
    page.wait_for_selector("[role=alert]")
    assert findings(page) == [], "login that failed"
    page.goto(f"{site.url}/c/{'0' * 32}")
    page.wait_for_selector(".card h1")
    assert findings(page) == [], "error"


def test_the_log_tells_finished_blocks_only(site: Site, views: Views) -> None:
    question = site.say("慢慢说", "一段。\n\n二段。\n\n三段。", delay=0.05)
    page = views.open()
    send(page, question)
    page.wait_for_selector(".open:not(:empty)")
    assert page.get_attribute("#log", "role") == "log"
    assert page.get_attribute("#log", "aria-live") == "polite"
    assert page.get_attribute(".open", "aria-live") == "off"
    site.engine.delay = 0
    answered(page, "三段。")
    assert page.locator("#log [aria-live=off] p").count() == 0


def test_every_word_is_there_in_both_languages() -> None:
    said = set()
    for file in (PAGE / "templates").rglob("*.html"):
        said |= set(re.findall(r'\bt\("([a-z.]+)"', file.read_text()))
        said |= set(re.findall(r'"(keys\.[a-z]+)"', file.read_text()))
    for file in (PAGE / "static").glob("*.js"):
        said |= {f"js.{name}" for name in re.findall(r"\bwords\.(\w+)", file.read_text())}
    said = {one for one in said if not one.endswith(".")}
    assert len(said) > 100
    for language in LANGUAGES:
        assert [one for one in said if not Words(language).has(one)] == []


def test_scripts_are_few_and_load_nothing_from_elsewhere() -> None:
    lines = 0
    for file in (PAGE / "static").glob("*.js"):
        text = file.read_text()
        lines += text.count("\n")
        assert re.findall(r"""from ["'](?!\./)""", text) == []
        assert re.findall(r"\beval\(|new Function|insertAdjacentHTML|document\.write", text) == []
    assert 500 < lines <= 1200
    for file in (PAGE / "templates").rglob("*.html"):
        assert (
            re.findall(
                r"""\sstyle=|\son\w+=|https?://|<script(?! type="module"| type="application/json")""", file.read_text()
            )
            == []
        )
