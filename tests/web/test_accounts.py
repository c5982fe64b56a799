"""Who may ask what of the page: sessions, logins, origins, hosts; and that nobody reaches what is another's."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from browser import Site
from starlette.routing import Route
from test_routes import PNG, Visitor

from chatglm.web.accounts import COOKIE
from chatglm.web.app import Page


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site"), hosts=["localhost", "chat.example"])
    made.say("Hello", "Hello there.")
    yield made
    made.close()


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Site]:
    """Where people sign in."""
    made = Site(tmp_path, login=True)
    made.say("Hello", "Hello there.")
    made.store.users.add("Ann", "a long password")
    made.store.users.add("Bob", "another password")
    yield made
    made.close()


def sign_in(visitor: Visitor, name: str, password: str) -> httpx.Response:
    return visitor.post("/login", data={"name": name, "password": password})


# Without signing in


def test_every_browser_is_a_user_of_its_own(site: Site) -> None:
    with Visitor(site.url) as one, Visitor(site.url) as two:
        before = len(site.store.users.all())
        one.get("/"), one.get("/new"), one.get("/conversations"), one.get("/about")
        assert not one.cookies  # who stores nothing leaves no trace
        assert len(site.store.users.all()) == before
        conversation = one.new()
        assert one.cookies[COOKIE]
        assert one.get(f"/c/{conversation}").status_code == 200
        assert two.get(f"/c/{conversation}").status_code == 404
        two.new()
        assert len(site.store.users.all()) == before + 2
        assert two.get(f"/c/{conversation}").status_code == 404
        assert conversation not in two.get("/conversations").text
        assert len(site.store.users.all(guests=False)) == 0


def test_a_browser_whose_cookie_has_ended_is_deleted_with_all_that_is_its(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with Visitor(site.url) as gone, Visitor(site.url) as stays:
        lost, kept = gone.new(), stays.new()
        for visitor, conversation in ((gone, lost), (stays, kept)):
            assert visitor.put(f"/c/{conversation}/files/a.txt", content=b"a").status_code == 201
        local = site.store.users.local().id
        mine = site.store.make(local)
        site.stop()
        owner = site.store._database.read("SELECT user FROM conversations WHERE id = ?", (lost,))[0]["user"]
        site.store._database.write("UPDATE logins SET until = 1 WHERE user = ?", (owner,))
        site.start()
        while owner in [user.id for user in site.store.users.all()] or (tmp_path / "files" / lost).exists():
            time.sleep(0.02)
        assert gone.get(f"/c/{lost}").status_code == 404
        assert stays.get(f"/c/{kept}/files/a.txt").content == b"a"
        assert site.store.conversation(local, mine)
        assert site.store.users.lost() == ()
    site.close()


def test_the_cookie_is_for_this_server_and_no_script(site: Site) -> None:
    with Visitor(site.url) as visitor:
        said = visitor.post("/conversations", json={}).headers["set-cookie"]
        assert "HttpOnly" in said
        assert "SameSite=strict" in said
        assert "Path=/ui" in said
        assert "Secure" not in said
    with Visitor(site.url, headers={"X-Forwarded-Proto": "https"}) as visitor:  # a proxy on this machine
        assert "Secure" in visitor.post("/conversations", json={}).headers["set-cookie"]


@pytest.mark.parametrize("token", ["", "nonsense", "a" * 4000, "%00", "\xff"])
def test_a_wrong_cookie_is_no_user(site: Site, token: str) -> None:
    with Visitor(site.url) as visitor:
        header = {"Cookie": f"{COOKIE}={token}".encode("latin-1")}
        assert visitor.get("/", headers=header).status_code == 200  # type: ignore[arg-type]
        assert visitor.get("/c/" + "0" * 32, headers=header).status_code == 404  # type: ignore[arg-type]


def test_who_follows_a_link_of_another_site_is_known_a_moment_later(site: Site) -> None:
    with Visitor(site.url) as visitor:
        page = visitor.get("/", headers={"Sec-Fetch-Site": "cross-site"})
        assert 'http-equiv="refresh"' in page.text
        assert "set-cookie" not in page.headers


def test_who_has_no_key_is_not_this_machines_own_user(site: Site) -> None:
    with Visitor(site.url) as visitor:
        codes = [visitor.get("/mine", params={"key": key}).status_code for key in ("", "x", "密", "y", "z", "w")]
        assert codes == [403] * 5 + [429]


# Where a request comes from


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_only_the_page_itself_changes_something(site: Site, method: str) -> None:
    with Visitor(site.url) as visitor:
        conversation = visitor.new()
        path = {
            "POST": f"/c/{conversation}/send",
            "PUT": f"/c/{conversation}/files/a.txt",
            "PATCH": f"/conversations/{conversation}",
            "DELETE": f"/conversations/{conversation}",
        }[method]
        del visitor.headers["Origin"]
        for origin in (
            None,
            "null",
            "http://evil.example",
            visitor.origin.replace("127.0.0.1", "localhost"),
            visitor.origin + ".evil.example",
            visitor.origin.replace("http://", "http://evil@"),
            "http://127.0.0.1:1",
        ):
            refused = visitor.request(method, path, headers={} if origin is None else {"Origin": origin})
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden"), origin
        assert visitor.get(f"/c/{conversation}").status_code == 200


def test_a_name_that_points_here_reaches_nothing(site: Site) -> None:
    """DNS rebinding: a page of another site asks for its own name, which has got this machine's address."""
    port = site.url.split(":")[2].split("/")[0]
    with Visitor(site.url) as visitor:
        for host in ("evil.example", f"evil.example:{port}", f"localhost.evil.example:{port}", "", "[::2]", "0.0.0.0"):
            refused = visitor.get("/", headers={"Host": host})
            assert refused.status_code in (400, 403), host
        for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", "chat.example", "CHAT.EXAMPLE:443"):
            assert visitor.get("/", headers={"Host": host}).status_code == 200, host


# Signing in


def test_people_sign_in_and_out(closed: Site) -> None:
    with Visitor(closed.url, headers={"Accept": "text/html"}) as visitor:
        for path in ("/", "/new", "/c/" + "0" * 32):
            sent = visitor.get(path)
            assert (sent.status_code, sent.headers["location"]) == (303, "/ui/login")
        assert visitor.get("/login").status_code == 200
        wrong = sign_in(visitor, "Ann", "not her password")
        assert wrong.status_code == 403
        assert "The name or the password is wrong" in wrong.text
        nobody = sign_in(visitor, "Nobody", "not her password")
        assert (nobody.status_code, nobody.text.replace("Nobody", "Ann")) == (403, wrong.text)
        assert not visitor.cookies
        right = sign_in(visitor, "ann", "a long password")
        assert (right.status_code, right.headers["location"]) == (303, "/ui/")
        conversation = visitor.new()
        assert "ann" in visitor.get("/new").text
        kept = visitor.cookies[COOKIE]
        assert visitor.post("/logout").headers["location"] == "/ui/login"
        assert visitor.get(f"/c/{conversation}").status_code == 303
        visitor.cookies.set(COOKIE, kept, domain="127.0.0.1", path="/ui")
        assert visitor.get(f"/c/{conversation}").status_code == 303  # the token itself has ended
    with Visitor(closed.url) as visitor:
        refused = visitor.get("/conversations")
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "unauthorized")
        sign_in(visitor, "bob", "another password")
        assert visitor.get(f"/c/{conversation}").status_code == 404


def test_who_had_no_need_to_sign_in_has_to_where_people_do(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with Visitor(site.url) as visitor:
        conversation = visitor.new()
        site.stop()
        site._options["login"] = True
        site.start()
        assert visitor.get(f"/c/{conversation}").status_code == 401
    site.close()


def test_passwords_are_tried_five_times_a_minute(closed: Site) -> None:
    with Visitor(closed.url) as visitor:
        codes = [sign_in(visitor, "ann", f"wrong password {n}").status_code for n in range(6)]
        assert codes == [403] * 5 + [429]
        late = sign_in(visitor, "ann", "a long password")
        assert late.status_code == 429
        assert int(late.headers["retry-after"]) > 0
        assert "Too" in late.text or "again" in late.text


@pytest.mark.parametrize("path", ["/import?name=a.json", "/conversations"])
def test_nothing_is_read_for_a_stranger(path: str, closed: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> Any:
        raise AssertionError("it has been read")

    for name in ("_imported", "_settings_of", "read", "fields_of"):
        monkeypatch.setattr(f"chatglm.web.app.{name}", never)
    with Visitor(closed.url) as visitor:
        assert visitor.post(path, content=b"{}").status_code == 401


def test_a_new_password_ends_all_logins(closed: Site) -> None:
    with Visitor(closed.url) as visitor:
        sign_in(visitor, "ann", "a long password")
        assert visitor.get("/conversations").status_code == 200
        closed.store.users.set_password(closed.store.users.named("ann").id, "an even longer password")
        assert visitor.get("/conversations").status_code == 401


# What is another's

_BODIES: dict[str, Any] = {
    "send": {"text": "Hello"},
    "again": {"turn": 1},
    "choose": {"turn": 1},
    "permit": {"call": "x", "yes": True},
    "observe": {"call": "x", "text": "y"},
    "rate": {"turn": 2, "rating": 1},
    "stop": {},
}


def _routes_with_ids() -> list[tuple[str, str]]:
    """Every route of the page that names a conversation."""
    found: list[tuple[str, str]] = []
    page = object.__new__(Page)
    page.bases = None
    routes = Page._routes(page).routes  # type: ignore[attr-defined]
    for route in routes:
        assert isinstance(route, Route)
        if "{id}" in route.path:
            found += [(method, route.path) for method in sorted(route.methods or ()) if method != "HEAD"]
    return found


def test_no_route_is_forgotten() -> None:
    routes = _routes_with_ids()
    assert len(routes) == 16
    assert {path for _, path in routes} >= {"/c/{id}", "/c/{id}/events", "/conversations/{id}", "/c/{id}/turns"}


@pytest.mark.parametrize(("method", "path"), _routes_with_ids())
def test_what_is_anothers_does_not_exist(site: Site, method: str, path: str) -> None:
    with Visitor(site.url) as owner, Visitor(site.url) as other, Visitor(site.url) as nobody:
        conversation = owner.new()
        owner.ask(conversation, "Hello")
        owner.put(f"/c/{conversation}/files/a.png", content=PNG)
        other.new()
        before = owner.get(f"/c/{conversation}").text
        address = path.replace("{name}", "a.png").replace("{name:path}", "a.png") + (
            "?before=1" if "turns" in path else ""
        )
        body = _BODIES.get(path.rpartition("/")[2], {"title": "stolen"})
        options: dict[str, Any] = {"PUT": {"content": b"x"}, "GET": {}}.get(method, {"json": body})
        answers = []
        for visitor in (other, nobody):
            for name in (conversation, "0" * 32):
                response = visitor.request(method, address.replace("{id}", name), **options)
                assert response.status_code == 404, response.text
                answers.append(re.sub(name, "ID", response.text))
        assert len(set(answers[:2])) == 1  # as if it were not there
        assert owner.get(f"/c/{conversation}").text == before
        assert "stolen" not in owner.get("/conversations").text


def test_eight_users_at_once_see_nothing_of_one_another(site: Site) -> None:
    """Each has a word of its own in questions, answers, titles and files; it is looked for in all that others get."""

    def use(number: int) -> tuple[str, str]:
        word = f"marker{number:03d}x"
        seen: list[str] = []
        with Visitor(site.url) as visitor:
            visitor.event_hooks = {"response": [lambda response: seen.append(str(response.headers))]}
            conversation = visitor.new()
            for turn in range(3):
                events = visitor.ask(conversation, f"{word} question {turn}")
                assert events[-1][0] == "done"
                assert f"{word} answers {turn}" in "".join(d["text"] for kind, d in events if kind == "text")
                seen.append(json.dumps(events, ensure_ascii=False))
            visitor.put(f"/c/{conversation}/files/{word}.txt", content=word.encode())
            for path in (
                "/",
                f"/c/{conversation}",
                "/conversations",
                "/conversations?search=question",
                "/conversations?search=marker",
                f"/c/{conversation}/export?form=jsonl",
                f"/c/{conversation}/files/{word}.txt",
                "/about",
            ):
                seen.append(visitor.get(path).text)
        return word, "\n".join(seen)

    for number in range(8):
        for turn in range(3):
            site.say(f"marker{number:03d}x question {turn}", f"marker{number:03d}x answers {turn}, at some length.")
    site.engine.delay = 0.002
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(use, range(8)))
    site.engine.delay = 0.0
    for word, seen in results:
        assert set(re.findall(r"marker\d{3}x", seen)) == {word}
