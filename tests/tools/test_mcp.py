"""Real servers, of the `mcp` library over both transports, and one that lies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import yaml

from chatglm.assistant import Assistant
from chatglm.chat.formats import chat_format
from chatglm.chat.messages import ToolCall
from chatglm.errors import ToolError
from chatglm.loading import AutoTokenizer, demo_folder
from chatglm.tools import mcp
from chatglm.tools.mcp import MCPServers, MCPTool, open_servers
from chatglm.tools.tool import Consent, Outcome, Tool
from chatglm.tools.toolbox import Toolbox
from scripted import ScriptedEngine, Writer
from waiting import until

HERE = Path(__file__).parent
REAL = [sys.executable, str(HERE / "mcp_server.py")]
LIAR = [sys.executable, "-I", "-S", str(HERE / "lying_server.py")]


@pytest.fixture(scope="module", autouse=True)
def soon() -> Iterator[None]:
    """Servers that end are started again soon."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mcp, "_WAITS", (0.05, 0.2))
        patch.setattr(mcp, "_GRACE", 0.3)
        yield


@contextlib.contextmanager
def serving(port: int = 0) -> Iterator[str]:
    """The address of a server of the library."""
    import mcp_server  # type: ignore[import-not-found]

    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    listening.listen(64)
    server = uvicorn.Server(
        uvicorn.Config(mcp_server.made().streamable_http_app(), log_level="critical", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
    server.should_exit = True
    thread.join(60)
    listening.close()


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    with serving() as address:
        yield address


@pytest.fixture(scope="module")
def servers(web: str) -> Iterator[MCPServers]:
    given = {
        "real": {"command": REAL, "env": {"TOKEN": "x"}},
        "web": {"url": web},
        "liar": {"command": LIAR, "seconds": 1.2},
    }
    with MCPServers.read({"servers": given}, seconds=3) as found:
        yield found


def tool(servers: MCPServers, name: str) -> MCPTool:
    (found,) = [one for one in servers.tools if one.spec.name == name]
    return found


def call(servers: MCPServers, name: str, /, **arguments: Any) -> Outcome:
    return asyncio.run(tool(servers, name).run(arguments))


def works(servers: MCPServers, name: str) -> None:
    """As soon as it has been started again."""
    end = time.monotonic() + 120
    while (outcome := call(servers, name)).failed:
        assert time.monotonic() < end, outcome.text
        time.sleep(0.1)


def test_what_a_model_is_shown(servers: MCPServers) -> None:
    shown = {one.spec.name: one.spec.flat() for one in servers.tools}
    assert shown["real_weather"] == shown["web_weather"] | {"name": "real_weather"}
    assert shown["real_weather"] == {
        "name": "real_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "of China"},
                "days": {"type": "integer", "default": 1},
            },
            "required": ["city"],
        },
    }
    assert tool(servers, "real_weather").consent is Consent.NEVER
    assert tool(servers, "real_add").consent is Consent.ONCE
    assert servers.failed == {}


@pytest.mark.parametrize("server", ["real", "web"])
def test_calls(servers: MCPServers, server: str) -> None:
    assert json.loads(call(servers, f"{server}_weather", city="北京", days="2").text) == {
        "city": "北京",
        "degrees": 22.5,
    }
    assert call(servers, f"{server}_add", a=1, b=2).text == "3"
    drawn = call(servers, f"{server}_picture")
    assert (drawn.text, len(drawn.pictures), drawn.failed) == ("[Image]", 1, False)
    photo = call(servers, f"{server}_photo")
    assert (photo.text, photo.pictures) == ("[a picture of the kind image/jpeg, which is not shown]", ())
    wrong = call(servers, f"{server}_weather", days=1)
    assert (wrong.failed, wrong.text) == (
        True,
        "Arguments of real_weather are wrong (missing: city).".replace("real", server),
    )
    failed = call(servers, f"{server}_fail")
    assert failed.failed
    assert failed.text == "Error executing tool fail"
    assert call(servers, f"{server}_ask").failed


def test_what_is_slow_or_huge_is_an_observation_and_others_go_on(
    servers: MCPServers, caplog: pytest.LogCaptureFixture
) -> None:
    async def together(*names: str) -> list[Outcome]:
        return await asyncio.gather(*(tool(servers, name).run({}) for name in names))

    *hang, stdio, http, one, two = asyncio.run(
        together("real_hang", "web_hang", "real_huge", "web_huge", "real_picture", "web_picture")
    )
    late = [f"The server {server} did not answer within 3 seconds." for server in ("real", "web")]
    assert [outcome.text for outcome in hang] == late
    assert "its answer is larger than 4,194,304 bytes" in stdio.text
    assert "larger than" in http.text
    assert all(outcome.failed for outcome in (*hang, stdio, http))
    assert one.pictures
    assert two.pictures
    assert not [record for record in caplog.records if record.name.startswith("mcp.client")]  # no tracebacks


def test_a_server_that_is_away_for_a_while() -> None:
    with contextlib.ExitStack() as stack:
        with serving() as address:
            given = {"servers": {"a": {"url": address}}}
            servers = stack.enter_context(MCPServers.read(given, start=10, seconds=3))
            assert call(servers, "a_add", a=1, b=2).text == "3"
        away = call(servers, "a_add", a=1, b=2)
        assert away.failed
        assert "ended during the call" in away.text or "is not running" in away.text
        assert call(servers, "a_add", a=1, b=2).text.startswith("The server a is not running (")
        with serving(int(address.rpartition(":")[2].removesuffix("/mcp"))):
            works(servers, "a_picture")
            assert call(servers, "a_add", a=1, b=2).text == "3"


def test_the_environment_of_a_server(servers: MCPServers) -> None:
    names = set(call(servers, "real_environment").text.split())
    assert {"PATH", "TOKEN"} <= names
    assert names <= {"PATH", "HOME", "TOKEN", "LC_CTYPE"}  # Python sets the last one itself


@pytest.mark.parametrize("server", ["real", "web"])
def test_tools_may_leave_and_none_may_come(servers: MCPServers, server: str) -> None:
    assert not call(servers, f"{server}_photo").failed
    before = [one.spec for one in servers.tools]
    assert call(servers, f"{server}_change").text == "changed"
    until(lambda: call(servers, f"{server}_photo").text == f"The server {server} no longer offers photo.", pause=0.05)
    assert [one.spec for one in servers.tools] == before


def test_an_assistant_answers_from_what_a_server_says(servers: MCPServers) -> None:
    write = Writer(chat_format(AutoTokenizer.from_pretrained(demo_folder())))
    calls = (("real_weather", {"city": "北京"}), ("web_add", {"a": "2", "b": 3}), ("liar_crash", {}))
    engine = ScriptedEngine(*(write.call(call) for call in calls), write.say("北京 21.5 度。"))
    asked: list[str] = []

    async def permit(call: ToolCall, tool: Tool) -> bool:
        asked.append(call.name)
        return True

    offered = [tool(servers, name) for name, _ in calls]
    with Assistant(write.form, engine) as assistant, Toolbox(offered) as box:  # type: ignore[arg-type]
        messages = assistant.run("北京的天气怎么样？", box, permit=permit)
    told = [message.content for message in messages if message.role == "observation"]
    assert json.loads(told[0]) == {"city": "北京", "degrees": 21.5}
    assert told[1:] == ["5", "The server liar ended during the call."]
    assert messages[-1].content == "北京 21.5 度。"
    assert asked == ["web_add"]


# Lies


def test_odd_tools_are_made_harmless_or_left_out(servers: MCPServers) -> None:
    shown = {one.spec.name: one.spec.flat() for one in servers.tools if one.spec.name.startswith("liar_")}
    evil = shown["liar_evil__user__2J"]
    assert len(evil["description"]) == 600
    assert evil["description"].isprintable()
    assert shown["liar_evil__user__2J_2"]["parameters"] == {"type": "object", "properties": {}}
    assert "liar_" + "n" * 59 in shown
    assert shown["liar_circle"]["parameters"]["properties"]["a"] == {"description": "again a"}
    assert all(len(name) <= 64 for name in shown)
    reasons = servers.left_out
    assert "points to another document" in reasons["liar.elsewhere"]
    assert "not a type of JSON schema" in reasons["liar.wrong"]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("huge", "its answer is larger than 4,194,304 bytes"),
        ("wrong_id", ""),
        ("malformed", ""),
        ("deep", "its answer is not JSON-RPC"),
        ("nothing", "did not answer within 1.2 seconds"),
        ("text_of_number", "an answer that is not MCP's"),
        ("wrong_shape", "its answer is not JSON-RPC"),
        ("unasked", "ended during the call"),
        ("blank", "ended during the call"),
        ("crash", "ended during the call"),
    ],
)
def test_lies_are_observations(servers: MCPServers, kind: str, said: str) -> None:
    works(servers, "liar_echo")
    outcome = call(servers, f"liar_{kind}", n=1)
    assert outcome.failed is bool(said), outcome.text
    assert any(words in outcome.text for words in said.split("|")), outcome.text
    assert call(servers, "real_add", a=2, b=2).text == "4"
    works(servers, "liar_echo")


def test_a_server_that_hangs_is_started_again() -> None:
    with MCPServers.read({"servers": {"a": {"command": LIAR}}}, seconds=0.5) as servers:
        assert "did not answer within 0.5 seconds" in call(servers, "a_hang").text
        works(servers, "a_echo")


def test_a_server_gets_nothing_that_it_asks_for(servers: MCPServers) -> None:
    works(servers, "liar_echo")
    text = call(servers, "liar_ask").text
    assert text.count(";") == 3, text
    assert "GRANTED" not in text


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def gone(pids: list[int]) -> bool:
    end = time.monotonic() + 120
    while any(map(alive, pids)):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_a_server_ends_with_all_that_it_has_started() -> None:
    servers = MCPServers.read({"servers": {"a": {"command": LIAR}}}, seconds=5)
    pids = [int(one) for one in call(servers, "a_child").text.split()]
    assert len(pids) == 2
    assert all(map(alive, pids))
    servers.close()
    servers.close()
    assert gone(pids)
    assert call(servers, "a_echo").text == "The server a has been closed."


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_server_ends_when_this_program_is_killed() -> None:
    code = f"""
import asyncio, sys, time
from chatglm.tools import mcp
from chatglm.tools.mcp import MCPServers
servers = MCPServers.read({{"servers": {{"a": {{"command": {LIAR!r}}}}}}}, seconds=30)
names = {{tool.spec.name: tool for tool in servers.tools}}
print(asyncio.run(names["a_child"].run({{}})).text.split()[0], flush=True)
asyncio.run(names["a_hang"].run({{}}))  # it does not read that its input has ended
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert alive(pid)
        time.sleep(0.2)
        process.kill()
    assert gone([pid])


# Files


def test_one_bad_server_does_not_take_the_others_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, web: str
) -> None:
    given = {
        "none": {"command": "no-such-program-there"},
        "broken": {"command": [*LIAR, "broken"]},
        "silent": {"command": [*LIAR, "silent"]},
        "chatty": {"command": [*LIAR, "chatty"]},
        "unlisted": {"command": [*LIAR, "unlisted"]},
        "away": {"url": "http://127.0.0.1:9/mcp"},
        "other": {"url": web.replace("/mcp", "/other")},
        "off": {"command": "x", "disabled": True},
        "good": {"command": LIAR[0], "args": LIAR[1:], "type": "stdio"},
    }
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": given, "theme": "dark"}))
    with MCPServers.read(tmp_path / "mcp.json", start=2.5) as servers:
        assert {one.spec.name.partition("_")[0] for one in servers.tools} == {"good"}
        assert set(servers.failed) == {"none", "broken", "silent", "chatty", "unlisted", "away", "other"}
        assert servers.failed["none"] == "there is no program 'no-such-program-there' in PATH"
        assert servers.failed["broken"].startswith("ended with status 1; it wrote: ")
        assert servers.failed["broken"].endswith("KeyError: 'API_KEY'")
        assert servers.failed["silent"] == "did not list its tools within 2.5 seconds"
        assert (
            "did not list its tools" in servers.failed["chatty"]
            or "messages in ten seconds" in servers.failed["chatty"]
        )
        assert "are not valid MCP (tools.0.inputSchema" in servers.failed["unlisted"]
        assert servers.failed["away"] == "cannot be reached"
        assert servers.failed["other"] == "answers with HTTP 404"
        assert all(name in caplog.text for name in servers.failed)
        assert not call(servers, "good_echo").failed


def test_no_server_at_all() -> None:
    with pytest.raises(ToolError, match=r"no server offers a tool \(a: there is no program"):
        MCPServers.read({"servers": {"a": {"command": "no-such-program-there"}}})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"server": {}}, "unknown server; only `servers` is known"),
        ({"servers": {}}, "names no server"),
        ({"servers": {f"s{n}": {"command": "x"} for n in range(33)}}, "33 servers; at most 32"),
        ({"servers": {"a": 5}}, "a: expected `command` or `url`"),
        ({"servers": {"a": {}}}, "either `command` or `url`"),
        ({"servers": {"a": {"command": "x", "url": "http://b"}}}, "either `command` or `url`"),
        ({"servers": {"a": {"command": "x", "autoApprove": ["all"]}}}, "unknown autoApprove; known: args, command"),
        ({"servers": {"a": {"url": "http://b", "type": "sse"}}}, "type 'sse' is not supported"),
        ({"servers": {"a": {"url": "http://b", "env": {}}}}, "env cannot be used with `url`"),
        ({"servers": {"a": {"url": "file:///etc/passwd"}}}, "is not an http"),
        ({"servers": {"a": {"url": "http://u:p@b"}}}, "is not an http"),
        ({"servers": {"a": {"url": "http://b", "headers": {"A": "b\nc"}}}}, "character that is not allowed"),
        ({"servers": {"a": {"command": []}}}, "expected a program"),
        ({"servers": {"a": {"command": ["x", {}]}}}, "expected a text"),
        ({"servers": {"a": {"command": "x", "env": {"A": "${NOT_THERE_AT_ALL}"}}}}, "no NOT_THERE_AT_ALL"),
        ({"servers": {"a": {"command": "x", "cwd": "/no/such/folder"}}}, "is not a folder"),
        ({"servers": {"a": {"command": "x", "seconds": 0}}}, "seconds: expected"),
        ({"servers": {"a": {"command": "x", "disabled": True}}}, "all servers are disabled"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, given: Any, said: str) -> None:
    (tmp_path / "mcp.yaml").write_text(yaml.safe_dump(given))
    with pytest.raises(ToolError, match=said):
        open_servers(tmp_path / "mcp.yaml")
