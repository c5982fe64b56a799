"""`chatglm web` as a program, its accounts, and the page beside the API of `chatglm serve --page`."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from test_routes import Visitor

from chatglm.assistant import Assistant
from chatglm.chat.formats import chat_format
from chatglm.cli import main
from chatglm.cli.web import add_access_arguments, add_host_argument, models_of, page_beside
from chatglm.conversation.settings import Settings
from chatglm.conversation.store import Store
from chatglm.knowledge import Shelf, open_base
from chatglm.loading import AutoTokenizer, demo_folder
from chatglm.serving.access.key_sources import Texts
from chatglm.serving.access.keys import Keyring
from chatglm.serving.app import create_app
from chatglm.serving.catalog import Catalog, Source
from chatglm.serving.connections import Server, bind
from chatglm.tools.interpreter.pool import folder_of
from chatglm.web.app import add_page
from scripted import ScriptedEngine, Writer
from waiting import until

KEY = "a-secret-key-0123456789"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], str, Path]]:
    """The program over the demo model: its process, its address, its home folder."""
    home = tmp_path_factory.mktemp("home")
    process = subprocess.Popen(
        [sys.executable, "-m", "chatglm.cli", "web", "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "CHATGLM_HOME": str(home), "HF_HUB_OFFLINE": "1"},
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if found := re.search(r"the page is at (http://127\.0\.0\.1:\d+)/ \(demo\); Ctrl-C ends it", line):
            break
    else:
        pytest.fail("".join(lines))
    yield process, found[1], home
    process.kill()
    process.wait()
    process.stderr.close()


def test_the_page_runs_and_ends_at_once(running: tuple[subprocess.Popen[str], str, Path]) -> None:
    process, url, home = running
    assert process.stderr is not None
    own = process.stderr.readline()
    assert own.startswith("chatglm: your own conversations, with those of chatglm chat: ")
    store = Store(home / "conversations.sqlite")
    kept = store.make(store.users.local().id, title="made on a terminal")
    store.close()
    with httpx.Client(follow_redirects=True, timeout=60) as client:
        assert client.get(f"{url}/").url.path == "/ui/"
    with Visitor(f"{url}/ui", "zh") as visitor:
        for word in ("上海", "计算 123*456", "查一下北京的天气"):
            assert word in "".join(visitor.get(f"/new?mode={mode}").text for mode in ("chat", "tools", "code"))
        about = visitor.get("/about").text
        assert "沙箱" in about
        assert "计算内核" in about
        assert "the best for" not in about
        conversation = visitor.new(params={"temperature": 0})
        events = visitor.ask(conversation, "你是谁？")
        assert "演示模型" in "".join(data["text"] for kind, data in events if kind == "text")
        port = url.rpartition(":")[2]
        taken = subprocess.run(
            [sys.executable, "-m", "chatglm.cli", "web", "--port", port], capture_output=True, text=True, timeout=120
        )
        assert taken.returncode == 1
        assert taken.stderr == (
            f"chatglm: --port {port}: in use at 127.0.0.1 already; stop that server or choose another port\n"
        )
        visitor.post(f"/c/{conversation}/send", json={"text": "讲个笑话"})
    with Visitor(f"{url}/ui") as visitor:
        assert "made on a terminal" not in visitor.get("/").text
        assert visitor.get("/mine?key=wrong").status_code == 403
        assert visitor.get(own.split()[-1]).headers["location"] == "/ui/"
        assert "made on a terminal" in visitor.get("/").text
        assert visitor.get(f"/c/{kept}").status_code == 200
        assert "who uses this machine" in visitor.get("/about").text
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert process.stderr.read() == ""
    assert (home / "conversations.sqlite").stat().st_mode & 0o77 == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "99999"], "--port 99999: must be from 0 to 65535"),
        (["--host", "nowhere.invalid"], "--host nowhere.invalid: no such address"),
        (["users", "rename", "ann"], "'users rename ann': expected `users add NAME`"),
        (["people"], "'people': expected `users add NAME`"),
        (["users", "remove", "nobody"], "user 'nobody': no such user"),
        (["users", "add", "ann"], "a password is needed: set CHATGLM_PASSWORD, or run this in a terminal"),
        (["--tls-key", "x"], "--tls-key: needs --tls-cert FILE, too"),
        (["--tools", "nothing.py", "--port", "0"], "nothing.py"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CHATGLM_HOME", str(tmp_path))
    monkeypatch.delenv("CHATGLM_PASSWORD", raising=False)
    assert main(["web", *arguments]) == 1
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1


def test_accounts_are_added_listed_changed_and_removed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CHATGLM_HOME", str(tmp_path))
    monkeypatch.setenv("CHATGLM_PASSWORD", "a long password")
    assert main(["web", "users", "add", "Ann"]) == 0
    assert main(["web", "users", "add", "ann"]) == 1
    store = Store()
    user, _ = store.users.guest()
    token = store.users.sign_in("ann", "a long password")
    capsys.readouterr()
    assert main(["web", "users", "list"]) == 0
    assert capsys.readouterr().out == "ann\n"  # browsers where nobody signed in are not listed
    monkeypatch.setenv("CHATGLM_PASSWORD", "another password")
    assert main(["web", "users", "password", "ann"]) == 0
    assert store.users.of_token(token) is None
    assert store.users.sign_in("ann", "another password")
    monkeypatch.setenv("CHATGLM_PASSWORD", "short")
    assert main(["web", "users", "password", "ann"]) == 1
    assert "8 to" in capsys.readouterr().err
    # Her files go with her, and nothing that a link of theirs leads to.
    ann, outside = store.users.named("ann").id, tmp_path / "outside"
    theirs, other = store.make(ann), store.make(user.id)
    outside.mkdir()
    (outside / "kept").write_text("kept", "utf-8")
    interpreter = tmp_path / "interpreter"
    folders = [tmp_path / "conversations" / theirs, folder_of(interpreter, theirs, str(ann))]
    kept = [tmp_path / "conversations" / other, folder_of(interpreter, other, str(user.id))]
    for folder in (*folders, *kept):
        folder.mkdir(parents=True)
        (folder / "a.txt").write_text("a", "utf-8")
        (folder / "link").symlink_to(outside)
    with open_base("hers", create=True, who="ann"), open_base("others", create=True, who="bob") as base:
        base.store.share("ann", "read")
    (tmp_path / "knowledge" / "damaged.sqlite").write_bytes(b"no database" * 1000)
    capsys.readouterr()
    assert main(["web", "users", "remove", "ann"]) == 0
    assert "base 'damaged'" in capsys.readouterr().err
    with Shelf() as shelf:
        assert (shelf.names(None), shelf.names("ann")) == (["damaged", "others"], [])
    assert [one.id for one in store.users.all()] == [user.id]
    assert not any(folder.exists() for folder in folders)
    assert all((folder / "link" / "kept").is_file() for folder in kept)
    store.close()


def test_options_of_the_documentation_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "page.md").read_text("utf-8")
    named = set(re.findall(r"`(--[a-z-]+)", text)) - {"--page", "--json"}
    with pytest.raises(SystemExit):
        main(["web", "--help"])
    shown = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert len(named) > 12
    assert named - shown == set()


def test_who_signs_in_is_the_same_on_both_commands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CHATGLM_HOME", str(tmp_path))
    helps = []
    for command in ("web", "serve"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        shown = " ".join(capsys.readouterr().out.split())
        helps.append(re.search(r"--open open the page.*?each browser is one user", shown))
    assert helps[0] is not None
    assert helps[1] is not None
    assert helps[0][0] == helps[1][0]
    for option in (["--no-login"], ["--login"], ["--open"]):
        assert main(["serve", *option, "--port", "0"]) == 1
        assert capsys.readouterr().err == f"chatglm: {option[0]}: is an option of the page; add --page\n"


@pytest.mark.parametrize(
    ("options", "local", "keyed", "login", "own"),
    [
        ([], True, False, False, True),
        ([], True, True, True, False),  # beside an API that needs keys
        ([], False, False, True, False),
        (["--login"], True, False, True, False),
        (["--no-login"], True, True, False, True),
        (["--no-login"], False, True, False, False),
    ],
)
def test_who_signs_in(
    options: list[str], local: bool, keyed: bool, login: bool, own: bool, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.setenv("CHATGLM_HOME", str(tmp_path))
    parser = argparse.ArgumentParser()
    add_access_arguments(parser)
    add_host_argument(parser)
    given = parser.parse_args(options)
    with page_beside(Starlette(), Catalog(), None, None, given, local=local, keyed=keyed) as (page, path):
        assert page.accounts.login is login
        assert path.startswith("/ui/mine?key=") is own


def test_models_that_the_terminal_names_by_their_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def never() -> Any:
        raise AssertionError("nothing is loaded")

    catalog = Catalog(
        [
            Source(name, "chat", never, root=root, at_start=False)
            for name, root in (("small", "demo"), ("glm", "chatglm3-6b"))
        ]
    )

    async def hold(offer: Any) -> Any:
        return offer.name

    monkeypatch.setattr(catalog, "hold", hold)
    models = models_of(catalog)
    assert callable(models.get)
    for named, called, found in (
        ("", "", "small"),
        ("glm", "glm", "glm"),
        (str(tmp_path / "chatglm3-6b"), "glm", "glm"),
        ("/gone/glm-4", "/gone/glm-4", "small"),
    ):
        assert models.called(named) == called
        assert asyncio.run(models.get(Settings(model=named))) == found  # type: ignore[arg-type]


# Beside the API


class _Beside:
    """A server with the API, which needs a key, and the page, where people sign in."""

    def __init__(self, folder: Path) -> None:
        write = Writer(chat_format(AutoTokenizer.from_pretrained(demo_folder())))
        self.assistant = Assistant(write.form, ScriptedEngine(write.say("Hello there.")))  # type: ignore[arg-type]
        self.store = Store(folder / "conversations.sqlite")
        self.store.users.add("ann", "a long password")
        app = create_app({"demo": self.assistant}, keys=Keyring([Texts([KEY], "test")]), home=folder, page="/ui")
        add_page(app, {"demo": self.assistant}, self.store, folder=folder / "files", login=True)
        self.app = app
        (self._socket,) = bind("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server = Server(app, drain=2, log_level="warning")
        self._thread = threading.Thread(target=lambda: asyncio.run(self._server.serve([self._socket])), daemon=True)
        self._thread.start()
        until(lambda: self._server.started)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(60)
        assert not self._thread.is_alive()
        self.assistant.close()
        self.store.close()


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Beside]:
    made = _Beside(tmp_path_factory.mktemp("beside"))
    yield made
    made.close()


def test_the_page_lies_beside_the_api(beside: _Beside) -> None:
    with Visitor(f"{beside.url}/ui") as visitor:
        assert visitor.get("/conversations").status_code == 401
        assert visitor.post("/login", data={"name": "ann", "password": "a long password"}).status_code == 303
        conversation = visitor.new()
        assert visitor.ask(conversation, "Hello")[-1][0] == "done"
        assert "Hello there." in visitor.get(f"/c/{conversation}").text
    body: dict[str, Any] = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}
    with httpx.Client(base_url=beside.url, timeout=60) as client:
        assert client.post("/v1/chat/completions", json=body).status_code == 401
        key = {"Authorization": f"Bearer {KEY}"}
        answer = client.post("/v1/chat/completions", json=body, headers=key).json()
        assert answer["choices"][0]["message"]["content"] == "Hello there."
        assert client.get("/ui/conversations", headers=key).status_code == 401  # a key is no login
        assert client.get("/uix", headers={}).status_code == 401  # only the page is open
        assert 'href="/ui/"' in client.get("/").text


def test_the_document_of_the_api_does_not_know_the_page(beside: _Beside) -> None:
    alone = create_app({"demo": beside.assistant}, keys=Keyring([Texts([KEY], "test")]))
    assert beside.app.openapi() == alone.openapi()
    assert not any(path.startswith("/ui") for path in beside.app.openapi()["paths"])
