"""Bases of documents in a browser: files that are dropped, what becomes of them, sources of answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from attacks import ATTACKS
from browser import Site, Views, answered, send, until
from making import pdf
from test_page_safety import findings, harmless

from chatglm.conversation.documents import Documents
from chatglm.knowledge import Base, Shelf, Upload

HANDBOOK = "# 年假\n\n员工每年享有十天带薪年假。工作满十年的，每年享有十五天。\n"
MANUAL = [
    [(72.0, 720.0, 14.0, "第一页是目录。")],
    [(72.0, 720.0, 14.0, "灭火器在门口右侧。"), (72.0, 690.0, 14.0, "离开实验室前须关闭气阀和电源。")],
]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    with Shelf(tmp_path_factory.mktemp("home")) as made:
        base = made.make("手册", None)
        base.configure(about="制度")
        base.add(Upload("制度/休假.md", HANDBOOK.encode()), Upload("实验室.pdf", pdf(MANUAL)))
        yield made


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, shelf: Shelf) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site"), knowledge=Documents(shelf))
    yield made
    made.close()


def drop(page: Any, *paths: Path) -> None:
    """Drop files and folders as a person does."""
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 400, "y": 300, "data": data})
    session.detach()


def made(page: Any, site: Site, name: str) -> None:
    """Make a base by the page."""
    page.goto(f"{site.url}/bases")
    page.fill("[name=name]", name)
    page.click("form.make button")
    page.wait_for_selector("#drop")
    page.wait_for_selector("body[data-ready]")


def test_files_and_folders_are_dropped_and_searched(site: Site, views: Views, shelf: Shelf, tmp_path: Path) -> None:
    folder = tmp_path / "资料"
    (folder / "内").mkdir(parents=True)
    (folder / "甲.txt").write_text("门禁卡丢失后须在当天报告。\n", "utf-8")
    (folder / "内" / "乙.md").write_text("# 乙\n\n打印机在二楼。\n", "utf-8")
    (folder / ".hidden").write_text("no", "utf-8")
    broken = tmp_path / "坏.pdf"
    broken.write_bytes(b"%PDF-1.4 nothing")
    page = views.open("/new?mode=documents")
    made(page, site, "新的")
    drop(page, folder, broken)
    page.wait_for_selector(".entry[data-state=failed]")
    until(page, "() => document.querySelectorAll('.entry[data-state=ready]').length === 2")
    names = page.locator(".entry .what > a").all_inner_texts()
    assert sorted(names) == ["坏.pdf", "资料/内/乙.md", "资料/甲.txt"]
    assert page.locator(".entry[data-state=failed] .why").inner_text() == "PDF 已损坏，请换一份"
    until(page, "() => document.querySelector('#summary').innerText.includes('1 个失败')")
    page.wait_for_selector("#sending", state="hidden")
    page.reload()  # nothing is lost
    assert page.locator(".entry").count() == 3
    assert shelf.base("新的", None).search("门禁卡丢了怎么办")[0].file == "资料/甲.txt"
    page.click(".entry[data-state=failed] button[value=again]")
    page.wait_for_selector(".entry[data-state=failed]")
    page.click(".entry[data-state=failed] summary")
    page.click(".entry[data-state=failed] button[value=remove]")
    until(page, "() => document.querySelectorAll('.entry').length === 2")


def test_files_are_chosen_with_a_button_and_a_refusal_is_told(site: Site, views: Views, tmp_path: Path) -> None:
    page = views.open("/new?mode=documents", language="en")
    made(page, site, "chosen")
    views.expected = ["413"]
    good, long = tmp_path / "a.txt", tmp_path / f"{'x' * 200}.txt"
    good.write_text("The printer is on the second floor.\n", "utf-8")
    long.write_text("x", "utf-8")
    page.route("**/files?name=xxx*", lambda route: route.fulfill(status=413, json={"error": {"message": "too large"}}))
    page.set_input_files("#drop [name=file]", [str(long), str(good)])
    page.wait_for_selector(".entry[data-state=ready]")  # the other one is not held up
    assert "too large" in page.locator("#refused").inner_text()
    page.unroute("**/files?name=xxx*")
    page.get_by_role("button", name="Try again").click()
    until(page, "() => document.querySelectorAll('.entry[data-state=ready]').length === 2")
    assert page.locator("#refused li").count() == 0


def test_numbers_of_an_answer_open_its_source_at_the_sentence(site: Site, views: Views) -> None:
    said = "灭火器在门口右侧。\n\n另外，公司食堂每周三供应免费的红烧肉和绿豆汤。"
    question = site.say("灭火器放在哪里？", said)
    page = views.open(f"/new?mode=documents&knowledge={quote('手册')}")
    assert page.get_by_label("手册").is_checked()
    send(page, question)
    answered(page, "绿豆汤")
    cite = page.locator(".answer .text a.cite")
    assert cite.inner_text() == "1"
    assert page.locator(".text .unsupported").all_inner_texts() == ["另外，公司食堂每周三供应免费的红烧肉和绿豆汤"]
    assert "1 句没有出处" in page.locator(".basis").inner_text()
    cite.click()
    page.wait_for_selector("#source[open]")
    assert page.locator("#source mark").inner_text().strip() == "灭火器在门口右侧。"
    until(page, "() => document.querySelector('#source img')?.naturalWidth > 300")
    page.keyboard.press("Escape")
    assert not page.locator("#source").is_visible()
    assert page.evaluate("document.activeElement.className") == "cite"  # the focus is where it was
    page.reload()
    page.wait_for_selector("body[data-ready]", state="attached")
    assert page.locator(".text a.cite").count() == 1
    assert page.locator(".text .unsupported").count() == 1
    page.click(".basis a >> text=模型看到的内容")
    prompt = page.locator(".prompt").inner_text()
    assert prompt.startswith("已知信息：")
    assert prompt in site.engine.told[-1].replace("\r", "")
    page.go_back()
    page.wait_for_selector("body[data-ready]", state="attached")
    page.locator(".text a.cite").click(modifiers=["Control"])  # as any link, in another tab
    assert not page.locator("#source").is_visible()


def test_what_the_model_cannot_answer_the_documents_say_themselves(site: Site, views: Views) -> None:
    question = site.say("年假一共有几天？", "根据已知信息无法回答该问题。")
    page = views.open("/new?mode=documents")
    send(page, question)
    answered(page, "无法回答")
    closest = page.locator(".basis blockquote")
    assert "员工每年享有十天带薪年假。" in closest.all_inner_texts()
    told = len(site.engine.told)
    page.click(".bar [data-do=settings]")
    page.check("[name=extract]")
    until(page, "() => document.querySelector('.saved').textContent")
    send(page, "年假一共有几天？")
    answered(page, "十天带薪年假")
    assert len(site.engine.told) == told  # the model was not asked
    assert page.locator("#knowledge [name=knowledge]").count() >= 1  # bases can be ticked later, too


def test_pieces_are_edited_by_keyboard(site: Site, views: Views, shelf: Shelf) -> None:
    base = shelf.base("手册", None)
    page = views.open("/new", language="en")
    page.goto(f"{site.url}/bases/{quote('手册')}/file?name={quote('制度/休假.md')}")
    page.locator(".rewrite summary").first.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Control+a")
    page.keyboard.type("年假从今年起是二十天。")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector(".piece[data-state=edited]")
    assert base.pieces("制度/休假.md")[0].text == "年假从今年起是二十天。"
    page.click("button[value=restore]")
    page.wait_for_selector(".piece:not([data-state])")
    assert not base.pieces("制度/休假.md")[0].edited


@pytest.mark.parametrize(
    ("width", "language", "theme"), [(1200, "zh", "light"), (390, "en", "dark"), (360, "zh", "light")]
)
def test_axe_finds_nothing_serious_and_nothing_is_cut(
    site: Site, views: Views, shelf: Shelf, width: int, language: str, theme: str
) -> None:
    base = shelf.base("手册", None)
    if "坏.pdf" not in {file.name for file in base.files()}:
        base.add(Upload("坏.pdf", b"%PDF-1.4 nothing"))
    start = base.text("实验室.pdf").index("灭火器")
    at = f"/bases/{quote('手册')}"
    page = views.open("/new?mode=documents", width=width, language=language, theme=theme)
    for path in (
        "/bases",
        at,
        f"{at}?state=failed",
        f"{at}/file?name={quote('实验室.pdf')}",
        f"{at}/source?name={quote('实验室.pdf')}&at={start}&end={start + 9}",
        f"{at}/search?q={quote('年假有几天？')}",
        f"{at}/settings",
        f"{at}/delete",
    ):
        page.goto(site.url + path)
        assert findings(page) == [], path
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path


def test_attacks_in_documents_stay_text(site: Site, views: Views, shelf: Shelf) -> None:
    base: Base = shelf.make("危险", None)
    fit = [attack for attack in ATTACKS if "/" not in attack and "\\" not in attack and attack.isprintable()]
    text = "\n\n".join(ATTACKS)
    base.add(*(Upload(f"{attack}.txt", text.encode("utf-8", "replace")) for attack in fit[:30]))
    base.configure(about=text[:500])
    name = quote(f"{fit[3]}.txt", safe="")
    at = f"/bases/{quote('危险')}"
    page = views.open("/new?mode=documents")
    for path in (
        "/bases",
        at,
        f"{at}/file?name={name}&at=5&end=300",
        f"{at}/source?name={name}&at=5&end=300",
        f"{at}/search?q=window.pwned",
    ):
        page.goto(site.url + path)
        page.eval_on_selector_all("details", "all => all.forEach((one) => one.open = true)")
        assert page.evaluate("window.pwned") is None
        assert page.locator("main script, main iframe, main img, main style, main form[action*=script]").count() == 0
    question = site.say("什么是 pwned", f"{ATTACKS[3]}[1] window.pwned 是攻击。[1]")
    views.visit(page, f"/new?mode=documents&knowledge={quote('危险')}")
    send(page, question)
    answered(page)
    page.eval_on_selector_all("details", "all => all.forEach((one) => one.open = true)")
    harmless(page)
    if page.locator("a.cite").count():
        page.locator("a.cite").first.click()
        page.wait_for_selector("#source[open]")
        harmless(page)
