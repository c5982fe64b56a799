"""The page's mode Documents: bases to tick, answers with numbers, and the passages under them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Site, Views, answered, send
from test_routes import Visitor

from chatglm.conversation.documents import Documents
from chatglm.knowledge import Shelf, Upload, open_base

TEXT = "灭火器在门口右侧。离开实验室前须关闭气阀和电源。\n"


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    home = tmp_path_factory.mktemp("home")
    for name, text in (("手册", TEXT), ("菜谱", "红烧肉要先焯水。\n")):
        with open_base(name, create=True, home=home) as base:
            base.add(Upload(f"{name}.txt", text.encode()))
    with Shelf(home) as made:
        yield made


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, shelf: Shelf) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site"), knowledge=Documents(shelf))
    yield made
    made.close()


def test_an_answer_shows_what_it_rests_on(site: Site, views: Views) -> None:
    question = site.say("灭火器放在哪里？", "灭火器在门口右侧。")
    page = views.open("/new?mode=documents")
    assert page.locator(".base").all_inner_texts() == ["手册\n1 个文档", "菜谱\n1 个文档"]
    page.get_by_label("手册").check()
    send(page, question)
    answered(page)
    assert page.locator(".answer .text").inner_text() == "灭火器在门口右侧。1"
    assert page.locator(".answer .raw").text_content() == "灭火器在门口右侧。[1]"
    page.locator(".sources summary").click()
    assert page.locator(".sources cite").inner_text() == "《手册.txt》"
    assert page.locator(".sources blockquote").inner_text() == TEXT.strip()
    page.reload()
    assert page.locator(".sources li").count() == 1  # and are there later
    session = site.store.conversation(site.owner(page), page.url.rpartition("/")[2])
    assert session.settings["knowledge"] == ["手册"]


def test_what_no_document_has_is_said_without_the_model(site: Site) -> None:
    with Visitor(site.url) as visitor:
        told = len(site.engine.told)
        conversation = visitor.new(mode="documents", knowledge=["手册"])
        events = visitor.ask(conversation, "月球绕地球一圈需要多久？")
        assert "".join(data["text"] for kind, data in events if kind == "text") == "根据已知信息无法回答该问题。"
        assert events[-1][0] == "done"
        assert len(site.engine.told) == told
        conversation = visitor.new(mode="documents", knowledge=["没有"])
        assert visitor.ask(conversation, "灭火器放在哪里？")[-1][0] == "failed"


def test_bases_can_be_ticked_for_a_model_that_calls_tools(site: Site, views: Views) -> None:
    page = views.open("/new?mode=tools")
    send(page, site.say("你好", "你好。"))
    answered(page)
    page.get_by_role("button", name="设置").click()
    page.get_by_role("group", name="search_knowledge 可查的知识库").get_by_label("手册").check()
    page.get_by_text("已保存").wait_for()
    session = site.store.conversation(site.owner(page), page.url.rpartition("/")[2])
    assert session.settings["knowledge"] == ["手册"]
    page.reload()
    page.get_by_role("button", name="设置").click()
    assert page.get_by_label("手册").is_checked()


def test_who_signs_in_sees_only_bases_that_are_theirs(tmp_path: Path, shelf: Shelf) -> None:
    site = Site(tmp_path, knowledge=None)
    try:
        shelf.base("手册", None).store.share("li", "read")
        site.store._database.write("INSERT INTO users (name, made, admin) VALUES ('li', 0, 0), ('wang', 0, 0)")
        documents = Documents(shelf, site.store.users.name)
        li, wang = (site.store.users.named(name).id for name in ("li", "wang"))
        assert documents.known(li) == [("手册", 1)]
        assert documents.known(wang) == documents.known(None) == []
    finally:
        site.close()
