"""Bases of documents on the page, over HTTP: what works without a browser's script, and who may do it."""

from __future__ import annotations

import html
import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from attacks import ATTACKS
from browser import Site
from making import pdf
from test_routes import Visitor

import chatglm.web.bases
from chatglm.conversation.documents import Documents
from chatglm.knowledge import Base, Shelf, Upload, bounds
from chatglm.web.bases import _row

TEXT = (
    "# 年假\n\n员工每年享有十天带薪年假。工作满十年的，每年享有十五天。\n\n# 病假\n\n病假超过三天的，需要医院证明。\n"
)
PAGES = [
    [(72.0, 720.0, 12.0, "The first page is short.")],
    [(72.0, 700.0, 12.0, "Close the gas valve before you leave.")],
]
PASSWORD = "a long password"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def shelf(home: Path) -> Iterator[Shelf]:
    with Shelf(home) as made:
        yield made


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, shelf: Shelf) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site"), knowledge=Documents(shelf))
    yield made
    made.close()


@pytest.fixture
def visitor(site: Site) -> Iterator[Visitor]:
    with Visitor(site.url) as made:
        yield made


@pytest.fixture
def base(shelf: Shelf, request: pytest.FixtureRequest) -> Iterator[Base]:
    """A base of two files for one test."""
    name = re.sub(r"\W", "_", request.node.name)[-40:].strip("_ ")
    made = shelf.make(name, None)
    made.add(Upload("制度/休假.md", TEXT.encode()), Upload("manual.pdf", pdf(PAGES)))
    yield made
    if name in shelf.names(None):
        shelf.delete(name, None)


def at(base: Base | str) -> str:
    return f"/bases/{quote(base if isinstance(base, str) else base.name, safe='')}"


def ready(base: Base) -> None:
    base.wait()


def events(visitor: Visitor, path: str) -> list[dict[str, Any]]:
    """What is told until nothing goes on any more."""
    with visitor.stream("GET", path) as response:
        assert response.status_code == 200
        lines = list(response.iter_lines())
    last = [line[4:] for line in lines if line.startswith("id: ")][-1]
    assert visitor.get(path, headers={"Last-Event-ID": last}).status_code == 204  # a browser does not come again
    return [json.loads(line[6:]) for line in lines if line.startswith("data: ")]


# Bases


def test_a_base_is_made_listed_and_deleted(visitor: Visitor, shelf: Shelf) -> None:
    made = visitor.post("/bases", data={"name": "手册 1", "about": "谁都要读"})
    assert made.status_code == 303
    assert made.headers["location"] == f"/ui{at('手册 1')}"
    page = visitor.get("/bases").text
    assert "手册 1" in page
    assert "谁都要读" in page
    assert "0 files" in page
    taken = visitor.post("/bases", data={"name": "手册 1", "about": "noch einmal"})
    assert taken.status_code == 400
    assert "is taken" in taken.text
    assert 'value="noch einmal"' in taken.text  # what was typed is still there
    assert shelf.base("手册 1", None).setting("about") == "谁都要读"
    for name in ("", "../x", "a/b", "x" * 65):
        assert visitor.post("/bases", data={"name": name}).status_code == 400, name
    asked = visitor.get(at("手册 1") + "/delete")
    assert "Delete “手册 1”?" in asked.text
    assert visitor.post(at("手册 1") + "/delete", data={}).status_code == 400
    assert "手册 1" in shelf.names(None)
    assert visitor.post(at("手册 1") + "/delete", data={"sure": "手册 1"}).headers["location"] == "/ui/bases"
    assert "手册 1" not in shelf.names(None)
    assert visitor.get(at("手册 1")).status_code == 404


def test_a_base_gets_another_name(visitor: Visitor, base: Base, shelf: Shelf) -> None:
    path = at(base) + "/name"
    base.configure(about="谁都要读")
    shelf.make("占用", None)
    for name, why in (("占用", "is taken"), ("../x", "a name has at most"), ("", "a name has at most")):
        refused = visitor.post(path, data={"name": name})
        assert refused.status_code == 400, name
        assert why in refused.text
    assert visitor.post(path, data={"name": base.name}).status_code == 303
    moved = visitor.post(path, data={"name": " 新 名 "})
    assert moved.headers["location"] == f"/ui{at('新 名')}/settings?saved"
    assert 'value="谁都要读"' in visitor.get(at("新 名") + "/settings").text
    assert visitor.get(at(base)).status_code == 404
    assert visitor.get(at(base) + "/events").status_code == 404
    for name in ("新 名", "占用"):
        shelf.delete(name, None)


def test_settings_of_a_base_are_stored_and_checked(visitor: Visitor, base: Base) -> None:
    path = at(base) + "/settings"
    prompt = "Known: {context}\r\nAsked: {question}"
    assert visitor.post(path, data={"about": "new", "prompt": prompt, "strict": "mixed"}).status_code == 303
    assert (base.setting("about"), base.setting("strict")) == ("new", "mixed")
    assert base.setting("prompt") == "Known: {context}\nAsked: {question}"
    assert "Asked: {question}" in visitor.get(path).text
    wrong = visitor.post(path, data={"about": "other", "prompt": "{{ 7 * 7 }}", "strict": "strict"})
    assert wrong.status_code == 400
    assert "has no {context}" in wrong.text
    assert base.setting("about") == "new"
    assert "share" not in visitor.get(path).text.lower().replace("share-", "")  # nobody signs in here


# Files


def test_files_are_sent_one_by_one_and_told_of_until_they_are_searchable(visitor: Visitor, base: Base) -> None:
    path = at(base)
    assert len(events(visitor, path + "/events")) == 1  # nothing goes on
    sent = visitor.put(path + "/files", params={"name": "neu/a.txt"}, content="灭火器在门口右侧。".encode())
    assert sent.status_code == 202, sent.text
    assert sent.json()["name"] == "neu/a.txt"
    visitor.put(path + "/files", params={"name": "broken.pdf"}, content=b"%PDF-1.4 nothing")
    told = events(visitor, path + "/events")
    ready(base)
    page = visitor.get(path).text
    assert re.search(r"neu/a\.txt.*?searchable", page, re.DOTALL)
    assert re.search(r'broken\.pdf.*?class="why">[^<]*is a damaged PDF', page, re.DOTALL)
    assert "1 failed" in page
    last = {key: value for one in told for key, value in one["files"].items()}
    assert "searchable" in last[f"f{sent.json()['id']}"]
    assert "1 failed" in told[-1]["summary"]
    only = visitor.get(path, params={"state": "failed"}).text
    assert "broken.pdf" in only
    assert "neu/a.txt" not in only
    assert "neu/a.txt" in visitor.get(path, params={"words": "NEU"}).text
    assert "There are no such files" in visitor.get(path, params={"words": "nowhere"}).text


def test_a_file_that_failed_is_tried_again_or_taken_out(visitor: Visitor, base: Base) -> None:
    base.add(Upload("broken.pdf", b"%PDF-1.4 nothing"))
    first = base.store.find("broken.pdf")
    assert first.state == "failed"
    with base.store.writing() as connection:
        connection.execute("UPDATE file SET error = 'of old' WHERE name = 'broken.pdf'")
    assert visitor.post(at(base) + "/file", data={"name": "broken.pdf", "do": "again"}).status_code == 303
    ready(base)
    assert "damaged" in base.store.find("broken.pdf").error
    assert visitor.post(at(base) + "/file", data={"do": "again"}).status_code == 303  # all of them
    assert visitor.post(at(base) + "/file", data={"name": "broken.pdf", "do": "remove"}).status_code == 303
    assert visitor.post(at(base) + "/file", data={"name": "broken.pdf", "do": "remove"}).status_code == 404
    assert visitor.post(at(base) + "/file", data={"name": "broken.pdf", "do": "burn"}).status_code == 400
    assert [file.name for file in base.files()] == ["manual.pdf", "制度/休假.md"]


def test_files_come_in_a_form_where_there_is_no_script(visitor: Visitor, base: Base) -> None:
    files = [("file", ("a.txt", "一".encode())), ("file", ("../../b.txt", b"two")), ("file", ("", b""))]
    refused = visitor.post(at(base) + "/files", files=files)
    assert refused.status_code == 400
    assert "is not a valid file name" in refused.text
    assert visitor.post(at(base) + "/files", files=[("file", ("c.txt", b"three"))]).status_code == 303
    ready(base)
    assert {"a.txt", "c.txt"} <= {file.name for file in base.files()}


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../x.txt", "a/../../x.txt", "..\\x.txt", "a\x00b", "a\u202eb", "x" * 301]
)
def test_names_of_files_stay_within_the_base(visitor: Visitor, base: Base, name: str) -> None:
    before = [file.name for file in base.files()]
    assert visitor.put(at(base) + "/files", params={"name": name}, content=b"x").status_code == 400
    assert [file.name for file in base.files()] == before


def test_what_is_sent_is_bounded(visitor: Visitor, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "UPLOAD_BYTES", 1000)
    put = at(base) + "/files"
    assert visitor.put(put, params={"name": "a.txt"}, content=b"x" * 1001).status_code == 413
    chunked = visitor.put(put, params={"name": "a.txt"}, content=iter([b"x" * 600] * 2))
    assert chunked.status_code == 413
    monkeypatch.setattr(bounds, "FILES", 2)
    full = visitor.put(put, params={"name": "a.txt"}, content=b"x")
    assert full.status_code == 413
    assert "a base can have at most" in full.json()["error"]["message"]
    monkeypatch.setattr(bounds, "FILES", 10)
    monkeypatch.setattr(bounds, "WAITING", 0)
    later = visitor.put(put, params={"name": "a.txt"}, content=b"x")
    assert later.status_code == 429
    assert int(later.headers["retry-after"]) > 0
    assert len(base.files()) == 2


def test_a_file_is_searchable_while_its_vectors_are_made(base: Base) -> None:
    file = base.store.find("manual.pdf")
    assert (_row(file, (2, 5)).state, _row(file, (2, 5)).percent) == ("vectors", 40)
    assert (_row(file, (5, 5)).state, _row(file, None).state) == ("ready", "ready")
    pieces = len(base.pieces("manual.pdf"))
    assert base.store.with_vectors([file.id]) == {file.id: (0, pieces)}
    with base.store.writing() as connection:
        connection.execute(
            "INSERT INTO vector (digest, scale, v) SELECT digest, 1.0, x'00' FROM piece WHERE file = ? LIMIT 1",
            (file.id,),
        )
    assert base.store.with_vectors([file.id]) == {file.id: (1, pieces)}


# What stands in them


def test_pieces_are_shown_changed_taken_out_and_brought_back(visitor: Visitor, base: Base) -> None:
    address = at(base) + "/file"
    name = {"name": "制度/休假.md"}
    first, second = base.pieces("制度/休假.md")
    page = visitor.get(address, params=name).text
    assert "员工每年享有十天带薪年假" in page
    assert "characters 0–" in page
    edit = f"{at(base)}/pieces/{first.id}"
    saved = visitor.post(edit, data={"do": "save", "text": "年假从今年起是二十天。\r\n", **name})
    assert saved.status_code == 303
    assert saved.headers["location"].endswith(f"#p{first.id}")
    assert "年假从今年起是二十天" in base.search("年假几天？")[0].text
    page = visitor.get(address, params=name).text
    assert "年假从今年起是二十天" in page
    assert 'data-state="edited"' in page
    source = visitor.get(
        at(base) + "/source", params={**name, "at": first.start + 6, "end": first.end, "bare": ""}
    ).text
    assert "Somebody has edited this piece" in source
    assert "年假从今年起是二十天" in source
    visitor.post(edit, data={"do": "restore", **name})
    assert base.pieces("制度/休假.md")[0] == first
    visitor.post(f"{at(base)}/pieces/{second.id}", data={"do": "disable", **name})
    assert 'data-state="off"' in visitor.get(address, params=name).text
    assert all(hit.piece != second.id for hit in base.search("病假需要什么？"))
    visitor.post(f"{at(base)}/pieces/{second.id}", data={"do": "restore", **name})
    assert base.search("病假需要什么？")[0].piece == second.id
    assert visitor.post(edit, data={"do": "save", "text": " ", **name}).status_code == 400
    assert visitor.post(f"{at(base)}/pieces/99999", data={"do": "restore", **name}).status_code == 404
    assert visitor.post(f"{at(base)}/pieces/99999", data={"do": "disable", **name}).status_code == 404
    for number in ("9" * 5000, "one", "-1"):
        assert visitor.post(f"{at(base)}/pieces/{number}", data={"do": "disable", **name}).status_code == 400


def test_a_long_file_is_shown_in_pages_and_opened_at_a_place(visitor: Visitor, base: Base) -> None:
    text = "".join(f"第{n}条，这是第{n}条规定的内容，它说明了应当怎样做，以及由谁负责。\n" * 8 for n in range(60))
    base.add(Upload("long.txt", text.encode()))
    assert len(base.pieces("long.txt")) > 25
    first = visitor.get(at(base) + "/file", params={"name": "long.txt"}).text
    assert "第0条" in first
    assert "第59条" not in first
    assert 'rel="next"' in first
    start = text.index("第59条")
    there = visitor.get(at(base) + "/file", params={"name": "long.txt", "at": start, "end": start + 4}).text
    assert '<mark id="here">第59条</mark>' in there
    assert visitor.get(at(base) + "/file", params={"name": "long.txt", "page": 10**8}).status_code == 200


def test_a_source_is_opened_at_its_sentence(visitor: Visitor, base: Base) -> None:
    start = TEXT.index("工作满十年")
    params = {"name": "制度/休假.md", "at": start, "end": start + 15}
    whole = visitor.get(at(base) + "/source", params=params).text
    bare = visitor.get(at(base) + "/source", params={**params, "bare": ""}).text
    for page in (whole, bare):
        assert f'<mark id="here">{TEXT[start : start + 15]}</mark>' in page
        assert "病假超过三天" in page  # what stands around it
    assert "<html" in whole
    assert "<html" not in bare
    assert visitor.get(at(base) + "/source", params={"name": "制度/休假.md"}).status_code == 400
    assert visitor.get(at(base) + "/source", params={"name": "nowhere", "at": 1}).status_code == 404
    far = visitor.get(at(base) + "/source", params={**params, "at": 10**8, "end": 10**8 + 5})
    assert far.status_code == 200


def size_of(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    return int(width), int(height)


def test_a_page_of_a_pdf_is_drawn_with_the_sentence_marked(visitor: Visitor, base: Base) -> None:
    text = base.text("manual.pdf")
    start = text.index("Close")
    params = {"name": "manual.pdf", "page": 2}
    plain = visitor.get(at(base) + "/picture", params=params)
    marked = visitor.get(at(base) + "/picture", params={**params, "at": start, "end": start + 37})
    assert plain.headers["content-type"] == marked.headers["content-type"] == "image/png"
    assert size_of(plain.content) == size_of(marked.content)
    assert plain.content != marked.content
    again = visitor.get(at(base) + "/picture", params=params, headers={"If-None-Match": plain.headers["etag"]})
    assert again.status_code == 304
    shown = visitor.get(at(base) + "/source", params={"name": "manual.pdf", "at": start, "end": start + 37}).text
    assert f"/picture?name=manual.pdf&amp;page=2&amp;at={start}" in shown
    for name, page in (("manual.pdf", 3), ("制度/休假.md", 1), ("nowhere.pdf", 1)):
        refused = visitor.get(at(base) + "/picture", params={"name": name, "page": page})
        assert refused.status_code in (400, 404), (name, page)


# Search


def test_the_test_box_has_the_scores_of_the_one_search(visitor: Visitor, base: Base) -> None:
    page = visitor.get(at(base) + "/search", params={"q": "年假有几天？"}).text
    hits = base.search("年假有几天？")
    shown = re.findall(r'data-part="(\w+)"><dt>[^<]*</dt><dd>([^<]*)</dd>', page)
    assert shown == [
        (part, f"{value:.3f}") for hit in hits for part, value in (*hit.parts.items(), ("fused", hit.score))
    ]
    assert "Without a model" in page
    assert "员工每年享有十天带薪年假。" in html.unescape(page)
    assert "The documents can answer this" in page
    nothing = visitor.get(at(base) + "/search", params={"q": "xylophone quartz"}).text
    assert "The documents have no answer" in nothing
    assert visitor.get(at(base) + "/search").status_code == 200
    assert visitor.get(at(base) + "/search", params={"q": "a", "k": "many"}).status_code == 400


# Who may do what


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Shelf]]:
    """Where people sign in."""
    with Shelf(tmp_path_factory.mktemp("home")) as shelf:
        made = Site(tmp_path_factory.mktemp("guarded"), login=True)
        made.stop()
        made._options["knowledge"] = Documents(shelf, made.store.users.name)
        made.start()
        for name in ("ann", "bob", "eve"):
            made.store.users.add(name, PASSWORD)
        yield made, shelf
        made.close()


@pytest.fixture(scope="module")
def people(guarded: tuple[Site, Shelf]) -> Iterator[dict[str, Visitor]]:
    """Ann has a base that Bob may read; Eve may nothing."""
    site, shelf = guarded
    found = {name: Visitor(site.url) for name in ("ann", "bob", "eve")}
    for name, one in found.items():
        assert one.post("/login", data={"name": name, "password": PASSWORD}).status_code == 303
    assert found["ann"].post("/bases", data={"name": "private"}).status_code == 303
    shelf.base("private", None).add(Upload("a.txt", TEXT.encode()), Upload("b.pdf", pdf(PAGES)))
    assert found["ann"].post("/bases/private/share", data={"who": "bob", "role": "read"}).status_code == 303
    yield found
    for one in found.values():
        one.close()


def asked(site: Site, shelf: Shelf) -> list[tuple[str, str, dict[str, Any], str]]:
    """Every route of a base: method, path, what is sent, and the role that it needs."""
    piece = shelf.base("private", None).pieces("a.txt")[0].id
    base = "/bases/private"
    form: dict[str, Any] = {"name": "a.txt"}
    return [
        ("GET", base, {}, "read"),
        ("GET", base + "/events", {}, "read"),
        ("PUT", base + "/files?name=c.txt", {"content": b"c"}, "write"),
        ("POST", base + "/files", {"files": [("file", ("d.txt", b"d"))]}, "write"),
        ("POST", base + "/file", {"data": {**form, "do": "again"}}, "write"),
        ("GET", base + "/file?name=a.txt", {}, "read"),
        ("POST", f"{base}/pieces/{piece}", {"data": {**form, "do": "restore"}}, "write"),
        ("GET", base + "/source?name=a.txt&at=1&end=2", {}, "read"),
        ("GET", base + "/picture?name=b.pdf&page=1", {}, "read"),
        ("GET", base + "/search?q=年假", {}, "read"),
        ("GET", base + "/settings", {}, "read"),
        ("POST", base + "/settings", {"data": {"about": "mine"}}, "own"),
        ("POST", base + "/name", {"data": {"name": "public"}}, "own"),
        ("POST", base + "/share", {"data": {"who": "eve", "role": "own"}}, "own"),
        ("GET", base + "/delete", {}, "own"),
        ("POST", base + "/delete", {"data": {"sure": "private"}}, "own"),
    ]


def test_a_base_of_somebody_else_is_none(guarded: tuple[Site, Shelf], people: dict[str, Visitor]) -> None:
    site, shelf = guarded
    base = shelf.base("private", None)
    before = (base.files(), base.setting("about"), base.store.roles())
    with Visitor(site.url) as nobody:
        for method, path, sent, role in asked(site, shelf):
            other = path.replace("/private", "/nowhere")
            mine = people["eve"].request(method, path, **sent)
            none = people["eve"].request(method, other, **sent)
            assert (mine.status_code, none.status_code) == (404, 404), (method, path)
            assert mine.text == none.text.replace("nowhere", "private"), (method, path)
            assert nobody.request(method, path, **sent).status_code in (303, 401), (method, path)
            if role != "read":
                refused = people["bob"].request(method, path, **sent)
                assert refused.status_code == 403, (method, path)
            else:
                assert people["bob"].request(method, path, **sent).status_code in (200, 204), (method, path)
    assert (base.files(), base.setting("about"), base.store.roles()) == before
    assert "private" not in people["eve"].get("/bases").text
    assert "private" not in people["eve"].get("/new?mode=documents&knowledge=private").text.split("<main")[1]
    assert "private" in people["bob"].get("/new?mode=documents").text


def test_every_route_of_a_base_is_asked_by_others_above(guarded: tuple[Site, Shelf], people: Any) -> None:
    site, shelf = guarded
    known: set[tuple[str, str]] = set()

    def note(path: str, endpoint: Any, *methods: str) -> Any:
        known.update((method, path) for method in methods or ("GET",))

    pages = chatglm.web.bases.BasePages.__new__(chatglm.web.bases.BasePages)
    pages.routes(note)
    tried = {
        (method, re.sub(r"/pieces/\d+", "/pieces/{piece}", path.partition("?")[0].replace("private", "{base}")))
        for method, path, _, _ in asked(site, shelf)
    }
    assert {one for one in known if one[1] != "/bases"} == tried


def test_only_an_owner_shares_and_the_last_one_stays(guarded: tuple[Site, Shelf], people: dict[str, Visitor]) -> None:
    _, shelf = guarded
    ann, bob, eve = (people[name] for name in ("ann", "bob", "eve"))
    assert ann.post("/bases", data={"name": "shared"}).status_code == 303
    share = "/bases/shared/share"
    assert "Sharing" in ann.get("/bases/shared/settings").text
    assert ann.post(share, data={"who": "nobody such", "role": "read"}).status_code == 400
    assert ann.post(share, data={"who": "ann", "role": ""}).status_code == 400  # the only owner
    assert ann.post(share, data={"who": "*", "role": "own"}).status_code == 400
    assert ann.post(share, data={"who": "bob", "role": "everything"}).status_code == 400
    assert ann.post(share, data={"who": "BOB", "role": "write"}).status_code == 303  # names have no case
    assert bob.put("/bases/shared/files", params={"name": "b.txt"}, content=b"of Bob").status_code == 202
    assert "Sharing" not in bob.get("/bases/shared/settings").text
    assert "may read and add" in bob.get("/bases").text
    assert eve.get("/bases/shared").status_code == 404
    assert ann.post(share, data={"who": "*", "role": "read"}).status_code == 303
    assert eve.get("/bases/shared").status_code == 200
    assert ann.post(share, data={"who": "*", "role": ""}).status_code == 303
    assert ann.post(share, data={"who": "bob", "role": ""}).status_code == 303
    assert eve.get("/bases/shared").status_code == bob.get("/bases/shared").status_code == 404
    assert shelf.base("shared", None).store.roles() == {"ann": "own"}


def test_other_sites_can_change_nothing(site: Site, base: Base) -> None:
    with httpx.Client(base_url=site.url, headers={"Origin": "http://evil.example"}) as other:
        assert other.post(at(base) + "/delete", data={"sure": base.name}).status_code == 403
        assert other.put(at(base) + "/files", params={"name": "x.txt"}, content=b"x").status_code == 403
        assert other.post("/bases", data={"name": "theirs"}).status_code == 403


# What documents say never becomes HTML


def test_attacks_in_names_and_texts_stay_text(visitor: Visitor, base: Base) -> None:
    fit = [attack for attack in ATTACKS if not re.search(r"[/\\]", attack) and attack.isprintable()]
    names = [f"{attack}.txt" for attack in fit]
    everything = "\n\n".join(ATTACKS)
    prompt = everything.replace("{", "(") + "{context}{question}"
    base.configure(about=everything[:400], prompt=prompt)
    base.add(*(Upload(name, everything.encode("utf-8", "replace")) for name in names[:40]))
    pages = [
        visitor.get("/bases"),
        visitor.get(at(base)),
        visitor.get(at(base) + "/settings"),
        visitor.get(at(base) + "/file", params={"name": names[0], "at": 3, "end": 400}),
        visitor.get(at(base) + "/source", params={"name": names[1], "at": 3, "end": 400, "bare": ""}),
        visitor.get(at(base) + "/search", params={"q": "window.pwned " + ATTACKS[5]}),
    ]
    for page in pages:
        assert page.status_code == 200, page.text[:500]
        shown = re.sub(r'<script type="(?:module|application/json)"[^>]*>.*?</script>', "", page.text, flags=re.DOTALL)
        tags = re.findall(r"<([a-zA-Z][\w-]*)((?:[^<>\"']|\"[^\"]*\"|'[^']*')*)>", shown)
        assert {tag.lower() for tag, _ in tags} & {
            "script",
            "iframe",
            "object",
            "embed",
            "base",
            "style",
            "video",
        } == set()
        for tag, rest in tags:
            bare = re.sub(r"\"[^\"]*\"|'[^']*'", "", rest)
            assert not re.search(r"\son\w+\s*=", bare), (tag, rest)
            assert "javascript:" not in " ".join(re.findall(r'(?:href|src|action)="([^"]*)"', rest)).lower()
