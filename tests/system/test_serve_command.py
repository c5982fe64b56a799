"""`chatglm serve`, run as users run it."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from chatglm.cli import main
from chatglm.cli.server_tools import open_tools
from chatglm.errors import InputError, SandboxError
from chatglm.loading import demo_folder
from chatglm.serving import connections
from chatglm.serving.app import DIALECTS as ALL_DIALECTS
from chatglm.tools.interpreter.sandbox import Protection
from kernels import need_sandbox
from tiny_encoders import make_sentence

DIALECTS = [dialect for dialect in ALL_DIALECTS if dialect.kind == "chat"]
"""Those that a server without a model for rerank speaks."""

COMMAND = shutil.which("chatglm", path=str(Path(sys.executable).parent)) or "chatglm"


@contextmanager
def serve(*arguments: str, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and the address that it says it listens at."""
    process = subprocess.Popen(
        [COMMAND, "serve", "--port", "0", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **variables},
    )
    assert process.stderr is not None
    try:
        said = ""
        while not (found := re.search(r"running on (http://\S+)", said)):
            line = process.stderr.readline()
            assert line, said
            said += line
        yield process, found[1]
    finally:
        process.kill()
        process.stderr.close()
        process.wait()


def ask(**more: object) -> dict[str, object]:
    return {"model": "chatglm3-6b", "messages": [{"role": "user", "content": "你好"}], **more}


def test_all_that_a_server_stores_is_in_its_home(tmp_path: Path) -> None:
    home, users = tmp_path / "server", tmp_path / "user"
    users.mkdir()
    arguments = ("--home", str(home), "--page", "--knowledge", "--name", "chatglm3-6b")
    with serve(*arguments, CHATGLM_HOME=str(users)) as (_, url), httpx.Client(base_url=url) as client:
        line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": ask()}
        file = client.post("/v1/files", files={"file": ("a.jsonl", json.dumps(line))}, data={"purpose": "batch"})
        assert client.get(f"/v1/files/{file.raise_for_status().json()['id']}").is_success
        client.post("/v1/knowledge", json={"name": "menu"}).raise_for_status()
        assert client.get("/ui/").status_code < 400
    assert list(users.iterdir()) == []
    assert (home / "knowledge" / "menu.sqlite").is_file()
    assert (home / "conversations.sqlite").is_file()
    assert len(list((home / "files").iterdir())) == 1


def test_sigterm_lets_answers_finish() -> None:
    with serve("--name", "chatglm3-6b", "--name", "other", "--drain", "60") as (process, url):
        assert [model["id"] for model in httpx.get(f"{url}/v1/models").json()["data"]] == ["chatglm3-6b", "other"]
        assert "演示模型" in httpx.post(url, json={"prompt": "你好", "temperature": 0}, timeout=60).json()["response"]
        # Long enough that it is still being written when the signal comes.
        options = {"stream": True, "min_tokens": 300, "max_tokens": 300}
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=ask(**options), timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert json.loads(rest[-2][6:])["choices"][0]["finish_reason"] == "length"
        assert process.wait(60) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health")


@pytest.mark.parametrize("second", [False, True])
def test_a_drain_that_runs_out_and_a_second_ctrl_c(second: bool) -> None:
    with serve("--name", "chatglm3-6b", "--drain", "600" if second else "0.2") as (process, url):
        options = {"stream": True, "min_tokens": 1900, "max_tokens": 1900, "temperature": 1, "n": 8}
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=ask(**options), timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(signal.SIGINT)
            if second:
                time.sleep(0.5)
                process.send_signal(signal.SIGINT)
                assert process.wait(60) == 130
                return
            last = [line for line in lines if line][-1]
        assert json.loads(last[6:])["error"]["code"] == "shutting_down"
        assert process.wait(60) == 0


def test_a_balancer_and_systemd_are_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        with serve("--drain-delay", "600", "--quiet", NOTIFY_SOCKET=str(tmp_path / "notify")) as (process, url):
            assert manager.recv(100) == b"READY=1"
            assert httpx.get(f"{url}/health").json() == {"status": "ok"}
            process.send_signal(signal.SIGTERM)
            assert manager.recv(100) == b"STOPPING=1"
            health = httpx.get(f"{url}/health")
            while health.status_code == 200:
                time.sleep(0.05)
                health = httpx.get(f"{url}/health")
            assert (health.status_code, health.json()) == (503, {"status": "draining"})
            assert httpx.post(url, json={"prompt": "你好"}, timeout=60).status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0


def test_a_port_in_use_is_noticed_before_the_model_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        arguments = ["--port", str(port), "--model", "/nowhere"]
        done = subprocess.run([COMMAND, "serve", *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert (
        done.stderr == f"chatglm: --port {port}: in use at 127.0.0.1 already; stop that server or choose another port\n"
    )


def test_in_front_of_another() -> None:
    with (
        serve("--name", "chatglm3-6b") as (_, inner),
        serve("--remote", f"{inner}/v1", "--name", "front", "--any-model") as (_, outer),
    ):
        old = httpx.post(outer, json={"prompt": "你好", "temperature": 0}, timeout=60)
        assert "演示模型" in old.json()["response"]
        answers = [
            httpx.post(f"{url}/v1/chat/completions", json=ask(model=name), timeout=60).json()["choices"]
            for url, name in ((inner, "chatglm3-6b"), (outer, "gpt-3.5-turbo"))
        ]
        assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "99999"], "--port"),
        (["--drain", "-1"], "--drain"),
        (["--drain-delay", "-1"], "--drain-delay"),
        (["--cors", "chat.example"], "--cors"),
        (["--max-body", "0"], "--max-body"),
        (["--timeout", "0"], "--timeout"),
        (["--body-timeout", "-1"], "--body-timeout"),
        (["--keep-alive", "nan"], "--keep-alive"),
        (["--tls-key", "/nowhere"], "--tls-key: needs --tls-cert FILE"),
        (["--tls-cert", "/nowhere"], "--tls-cert /nowhere: cannot be read"),
        (["--max-connections", "0"], "--max-connections"),
        (["--host", "192.0.2.1"], "--host 192.0.2.1"),
        (["--threads", "0"], "--threads"),
        (["--remote", "http://x", "--model", "y"], "--model"),
        (["--model", "/nowhere"], "/nowhere"),
        (["--dialect", "chatchat"], "--dialect chatchat: needs --knowledge"),
    ],
)
def test_wrong_arguments_are_said_in_a_line(
    arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(connections, "run", lambda *_: pytest.fail("it serves"))
    assert main(["serve", *arguments]) == 1
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("more", [[], ["--dialect", "chatchat"]])
def test_a_dialect_that_is_asked_for(
    more: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CHATGLM_HOME", str(tmp_path))
    served: list[connections.Server] = []
    monkeypatch.setattr(connections, "run", lambda server, sockets: served.append(server))
    assert main(["serve", "--port", "0", "--knowledge", *more]) == 0
    (server,) = served
    paths = server.config.app.openapi()["paths"]  # type: ignore[union-attr]
    assert "/v1/knowledge/{name}/ask" in paths
    assert ("/knowledge_base/search_docs" in paths) == bool(more)
    assert (server.config.ws != "none") == bool(more)


@pytest.mark.parametrize("key", [False, True])
def test_what_is_shown_when_ready_works(key: bool, tmp_path: Path) -> None:
    """One base URL and one command for every dialect that there is a model for."""
    (tmp_path / "keys").write_text("secret-of-a-test-0123456789\n", "utf-8")
    name = 'it\'s a "model"'
    more = ["--keys", str(tmp_path / "keys")] if key else []
    with serve("--name", name, *more) as (process, url):
        assert process.stderr is not None
        known = [dialect for dialect in DIALECTS if dialect.kind == "chat"]
        shown = list(iter(lambda: process.stderr.readline().strip(), ""))
        longest = max(len(dialect.title) for dialect in known)
        assert shown == [f"{one.title:{longest}}  {url}{one.base}" for one in known]
        commands = list(iter(lambda: process.stderr.readline().strip(), ""))
        assert len(commands) == len(known)
        assert all(command.startswith("curl ") for command in commands)
        for command in commands:
            done = subprocess.run(
                ["bash", "-c", f"{command} --silent --show-error --fail-with-body"],
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
                env={**os.environ, "CHATGLM_API_KEY": "secret-of-a-test-0123456789", "no_proxy": "*"},
            )
            assert done.returncode == 0, (command, done.stdout, done.stderr)
            assert "演示模型" in re.sub("\n(data:|id:.*|event:.*)?", "", done.stdout), command
            assert ("$CHATGLM_API_KEY" in command) == key


def test_tools_of_the_server_and_their_end(tmp_path: Path) -> None:
    """A tool and code are run for who asks; a server that ends leaves no kernel."""
    need_sandbox()
    tool = 'def double(number: int) -> int:\n    """Doubles."""\n    return 2 * number\n'
    (tmp_path / "own.py").write_text(tool)
    given = ["--tools", "calculator", "--tools", str(tmp_path / "own.py"), "--interpreter", "--drain", "0"]
    with serve("--name", "chatglm3-6b", *given, HOME=str(tmp_path)) as (process, url):
        assert process.stderr is not None
        shown = "".join(iter(lambda: process.stderr.readline(), "\n")) + process.stderr.readline()
        assert "server_tools: calculator, double, interpreter" in shown
        for question, tool, answer in (
            ("计算128*46", "calculator", "128*46=5888。"),
            ("计算1到100的和", "interpreter", "结果是5050。"),
        ):
            body = {"messages": [{"role": "user", "content": question}], "server_tools": [tool], "temperature": 0}
            found = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=120).json()
            assert found["choices"][0]["message"]["content"] == answer
        tools = [{"type": "code_interpreter", "container": {"type": "auto"}}]
        httpx.post(f"{url}/v1/responses", json={"input": "计算1到100的和", "tools": tools}, timeout=120)
        assert httpx.get(f"{url}/health").json()["kernels"] == 1
        inside = [*descendants(process.pid)]
        assert inside
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert not [pid for pid in inside if runs(pid)]


def runs(process: int) -> bool:
    """Whether it is there and no zombie: when the parent of those is gone, init takes its time."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def descendants(parent: int) -> Iterator[int]:
    for each in Path(f"/proc/{parent}/task").glob("*/children"):
        for child in map(int, each.read_text().split()):
            yield child
            yield from descendants(child)


@pytest.mark.parametrize(
    ("tier", "wanted", "host", "words"),
    [
        ("none", "auto", "127.0.0.1", "cannot be confined on this machine .*landlock: too old"),
        ("none", "confined", "127.0.0.1", "cannot be confined"),
        ("confined", "full", "127.0.0.1", "--interpreter full: this machine's sandbox has no namespaces"),
        ("confined", "auto", "0.0.0.0", "others reach the server; add --interpreter confined"),
        ("confined", "auto", "127.0.0.1", ""),
        ("confined", "confined", "0.0.0.0", ""),
        ("full", "auto", "0.0.0.0", ""),
    ],
)
def test_the_sandbox_must_be_enough(
    tier: Any, wanted: str, host: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Protection(tier, {"namespaces": "none", "landlock": "too old"})
    monkeypatch.setattr("chatglm.tools.interpreter.sandbox.protection", lambda: found)
    arguments = argparse.Namespace(tools=[], tools_without_asking=False, interpreter=wanted)
    with socket.create_server((host, 0)) as listening:
        if words:
            with pytest.raises(SandboxError, match=words), open_tools(arguments, [listening]):
                pass
        else:
            with open_tools(arguments, [listening]) as (box, kernels):
                assert box is None
                assert kernels is not None


@pytest.mark.parametrize(
    ("tools", "without_asking", "words"),
    [(["/nowhere.py"], False, "/nowhere.py"), ([], True, "--tools-without-asking: there are no tools")],
)
def test_tools_that_cannot_be_opened(tools: list[str], without_asking: bool, words: str) -> None:
    arguments = argparse.Namespace(tools=tools, tools_without_asking=without_asking, interpreter="off")
    with pytest.raises(InputError, match=words), open_tools(arguments, []):
        pass


def test_models_of_a_file(tmp_path: Path) -> None:
    make_sentence(tmp_path / "texts")
    shutil.copytree(demo_folder(), tmp_path / "demo")
    (tmp_path / "serve.yaml").write_text(
        "memory: 4GiB\n"
        "models:\n"
        "  first: demo\n"
        "  second: {path: demo, load: first-use, idle: 1s}\n"
        "embeddings: {texts: {path: texts, load: first-use}}\n",
        "utf-8",
    )
    with serve("--config", str(tmp_path / "serve.yaml"), "--quiet") as (process, url):
        assert [one["id"] for one in httpx.get(f"{url}/v1/models").json()["data"]] == ["first", "second", "texts"]
        for name in ("second", "first"):
            answer = httpx.post(f"{url}/v1/chat/completions", json={**ask(), "model": name}, timeout=120).json()
            assert answer["model"] == name
        vectors = httpx.post(f"{url}/v1/embeddings", json={"input": "你好"}, timeout=120).json()
        assert len(vectors["data"][0]["embedding"]) == 32
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    (tmp_path / "serve.yaml").write_text("models:\n  first: demo\n  second: {pth: demo}\n", "utf-8")
    done = subprocess.run(
        [COMMAND, "serve", "--config", str(tmp_path / "serve.yaml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "line 3: unknown key 'pth'" in done.stderr
    assert done.stderr.count("\n") == 1
