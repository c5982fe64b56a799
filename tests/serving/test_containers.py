"""Files that the interpreter's code makes, fetched by real clients."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from starlette.requests import Request

from chatglm.assistant import Assistant
from chatglm.errors import InputError
from chatglm.serving.access.key_sources import KeyFile
from chatglm.serving.access.keys import Keyring
from chatglm.serving.openai.responses_api.containers import citation
from chatglm.serving.stored.uploads import receive
from chatglm.tools.interpreter.folder import checked_name
from chatglm.tools.interpreter.limits import Limits
from chatglm.tools.interpreter.pool import Kernels
from kernels import need_sandbox
from scripted import ScriptedEngine, Writer
from server import serving

PYTHON: Any = {"type": "code_interpreter", "container": {"type": "auto"}}
MADE_UP = f"cntr_{'0' * 48}"

MISCHIEF = r"""
import os
open("数据.csv", "w").write("a,b\n")
os.mkdir("sub")
open("sub/big.bin", "wb").write(bytes(range(256)) * 4096)
open(".hidden", "w").write("x")
open("two\nlines", "w").write("x")
open(b"\xff.txt", "w").write("x")
open("\x1b[31mred", "w").write("x")
os.symlink("/etc/passwd", "link.txt")
os.symlink("/etc", "folder")
os.mkfifo("pipe")
try:
    open("../out.txt", "w").write("x")
except OSError:
    pass
"""


@pytest.fixture
def over(write: Writer, tmp_path: Path) -> Iterator[Callable[..., openai.OpenAI]]:
    """A client of a server with an interpreter, whose model says this."""
    need_sandbox()
    with contextlib.ExitStack() as stack:

        def get(*replies: Any, key: str = "x", limits: Limits | None = None, **options: Any) -> openai.OpenAI:
            assistant = stack.enter_context(Assistant(write.form, ScriptedEngine(*replies, context=2048)))  # type: ignore[arg-type]
            kernels = Kernels(tmp_path / "kernels", limits=limits or Limits(), spare=0)
            url = stack.enter_context(serving({"demo": assistant}, kernels=kernels, **options))
            return stack.enter_context(openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0))

        yield get


def ask(client: openai.OpenAI, **more: Any) -> tuple[Any, str]:
    """A response that used the interpreter, and its container's id."""
    found = client.responses.create(model="demo", input="q", tools=[PYTHON], **more)
    (cell,) = [item for item in found.output if item.type == "code_interpreter_call"]
    return found, cell.container_id


def test_a_client_gets_the_files(over: Any, write: Writer) -> None:
    text = "存好了：sandbox:/mnt/data/数据.csv"
    client = over(write.code(MISCHIEF), write.say(text), write.say("好"))
    found, container = ask(client)
    assert client.containers.retrieve(container).status == "running"

    files = {file.path: file for file in client.containers.files.list(container)}
    assert files.keys() == {"/mnt/data/数据.csv", "/mnt/data/sub/big.bin", "/mnt/data/two\nlines"}
    table, big = files["/mnt/data/数据.csv"], files["/mnt/data/sub/big.bin"]
    odd = files["/mnt/data/two\nlines"]
    assert (table.object, table.container_id, table.bytes, table.source) == (
        "container.file",
        container,
        4,
        "assistant",
    )
    assert abs(table.created_at - found.created_at) < 60
    assert client.containers.files.retrieve(table.id, container_id=container).to_dict() == table.to_dict()
    get = client.containers.files.content.retrieve
    assert get(table.id, container_id=container).content == b"a,b\n"
    whole = get(big.id, container_id=container)
    assert whole.content == bytes(range(256)) * 4096
    assert whole.response.headers["content-type"] == "application/octet-stream"
    assert whole.response.headers["x-content-type-options"] == "nosniff"
    assert whole.response.headers["content-disposition"] == "attachment; filename*=UTF-8''big.bin"
    named = get(odd.id, container_id=container).response.headers["content-disposition"]
    assert named == "attachment; filename*=UTF-8''two%0Alines"

    # The answer names them.
    cited = {one.file_id: one for one in found.output[-1].content[0].annotations}
    assert cited.keys() == {table.id, big.id, odd.id}
    one, other = cited[table.id], cited[big.id]
    assert (one.type, one.container_id, one.filename) == ("container_file_citation", container, "数据.csv")
    assert text[one.start_index : one.end_index] == "sandbox:/mnt/data/数据.csv"
    assert (other.filename, other.start_index, other.end_index) == ("big.bin", len(text), len(text))
    again = [{"role": "user", "content": "q"}, *found.output, {"role": "user", "content": "and now?"}]
    assert client.responses.create(model="demo", input=again).output_text == "好"


def test_pages(over: Any, write: Writer) -> None:
    code = "import os\nfor n in range(5): open(f'{n}', 'w').close(); os.utime(f'{n}', (n, n))"
    client = over(write.code(code), write.say("ok"))
    _, container = ask(client)
    for order, names in (("asc", "01234"), ("desc", "43210")):
        page = client.containers.files.list(container, limit=2, order=order)
        assert [file.path[-1] for file in page.data] == list(names[:2])
        assert page.has_more
        assert [file.path[-1] for file in page] == list(names)
    with pytest.raises(openai.BadRequestError, match="after: no file of this container has the id 'x'"):
        client.containers.files.list(container, after="x")


def test_files_that_are_gone_or_replaced(over: Any, write: Writer) -> None:
    first = "for name in 'abcd': open(name, 'w').write('1')"
    then = "import os\nfor name in 'abc': os.remove(name)\nos.symlink('/etc/passwd', 'a'); os.mkfifo('b')"
    client = over(write.code(first), write.say("ok"), write.code(then), write.say("ok"))
    found, container = ask(client)
    before = {file.path[-1]: file.id for file in client.containers.files.list(container)}
    assert before.keys() == set("abcd")
    ask(client, previous_response_id=found.id)
    assert [file.id for file in client.containers.files.list(container)] == [before["d"]]
    for name in "abc":
        for get in (client.containers.files.retrieve, client.containers.files.content.retrieve):
            with pytest.raises(openai.NotFoundError, match="not found in container"):
                get(before[name], container_id=container)
    assert client.containers.files.content.retrieve(before["d"], container_id=container).content == b"1"


@pytest.mark.parametrize(("size", "whole"), [(1 << 20, False), (65 << 20, True)])
def test_a_file_that_changes_on_the_way(over: Any, write: Writer, tmp_path: Path, size: int, whole: bool) -> None:
    """What is added is left out. A file that has become shorter is not taken for the whole one."""
    client = over(write.code("open('big', 'wb').truncate(64 << 20)"), write.say("ok"))
    _, container = ask(client)
    (file,) = client.containers.files.list(container)
    (big,) = (tmp_path / "kernels").glob("*/big")
    url = f"{client.base_url}containers/{container}/files/{file.id}/content"
    headers = {"Authorization": "Bearer x"}
    with httpx.stream("GET", url, headers=headers, timeout=60) as response:
        pieces = response.iter_bytes()
        got = len(next(pieces))
        os.truncate(big, size)
        with contextlib.nullcontext() if whole else pytest.raises(httpx.RemoteProtocolError):
            got += sum(len(piece) for piece in pieces)
            assert got == 64 << 20


def test_each_key_sees_its_own(over: Any, write: Writer, tmp_path: Path) -> None:
    (tmp_path / "keys.yaml").write_text(
        "keys: [{key: one-key-of-the-tests, name: one, may: [interpreter]}, "
        "{key: two-key-of-the-tests, name: two, may: [interpreter]}, {key: six-key-of-the-tests, name: six}]"
    )
    keys = Keyring([KeyFile(tmp_path / "keys.yaml")])
    one = over(write.code("open('f', 'w').write('1')"), write.say("ok"), keys=keys, key="one-key-of-the-tests")
    two, six = (one.with_options(api_key=f"{name}-key-of-the-tests") for name in ("two", "six"))
    _, container = ask(one)
    (file,) = one.containers.files.list(container)
    folders = set((tmp_path / "kernels").iterdir())

    def asked(client: openai.OpenAI, container: str) -> list[openai.APIStatusError]:
        refused = []
        for call in (
            lambda: client.containers.retrieve(container),
            lambda: client.containers.files.list(container),
            lambda: client.containers.files.retrieve(file.id, container_id=container),
            lambda: client.containers.files.content.retrieve(file.id, container_id=container),
            lambda: client.containers.files.create(container, file=("f", b"other")),
            lambda: client.containers.files.delete(file.id, container_id=container),
            lambda: client.containers.delete(container),
        ):
            with pytest.raises(openai.APIStatusError) as error:
                call()
            refused.append(error.value)
        return refused

    foreign, made_up = asked(two, container), asked(two, MADE_UP)
    assert [error.status_code for error in foreign] == [404] * 7
    assert [error.message.replace(container, MADE_UP) for error in foreign] == [error.message for error in made_up]
    for error in asked(six, container):
        assert error.status_code == 403
        assert "--may interpreter" in error.message
    assert set((tmp_path / "kernels").iterdir()) == folders, "asking makes no folders"
    assert one.containers.files.content.retrieve(file.id, container_id=container).content == b"1"


def test_files_outlive_the_kernel_and_end_with_the_container(over: Any, write: Writer, tmp_path: Path) -> None:
    client = over(write.code("open('f', 'w').write('1')"), write.say("ok"), write.code("exit()"), write.say("ok"))
    found, container = ask(client)
    first = client.containers.files.list(container).data
    ask(client, previous_response_id=found.id)
    assert client.containers.files.list(container).data == first
    client.containers.delete(container)
    with pytest.raises(openai.NotFoundError, match=container):
        client.containers.retrieve(container)
    assert list((tmp_path / "kernels").iterdir()) == []


def test_uploads(over: Any, write: Writer) -> None:
    code = "print(open('数据.csv').read()); open('mine', 'w').close()"
    more = "open('数据.csv', 'a').write('3')"
    replies = [write.code(one) for one in ("1", code, more)]
    client = over(replies[0], write.say("ok"), replies[1], write.say("ok"), replies[2], write.say("ok"))
    first, container = ask(client)
    files = client.containers.files
    made = files.create(container, file=("数据.csv", b"a,b\n1,2"))
    assert (made.path, made.bytes, made.source) == ("/mnt/data/数据.csv", 7, "user")
    second, _ = ask(client, previous_response_id=first.id)
    assert second.output[0].outputs[0].logs == "a,b\n1,2"
    assert [one.filename for one in second.output[-1].content[0].annotations] == ["mine"]
    assert {one.path: one.source for one in files.list(container)} == {
        "/mnt/data/数据.csv": "user",
        "/mnt/data/mine": "assistant",
    }
    third, _ = ask(client, previous_response_id=second.id)
    (cited,) = third.output[-1].content[0].annotations
    assert cited.file_id == made.id
    changed = files.retrieve(made.id, container_id=container)
    assert (changed.source, changed.bytes) == ("assistant", 8)

    files.delete(made.id, container_id=container)
    assert [one.path for one in files.list(container)] == ["/mnt/data/mine"]
    with pytest.raises(openai.NotFoundError, match="not found in container"):
        files.delete(made.id, container_id=container)


def test_uploads_that_are_refused(over: Any, write: Writer) -> None:
    client = over(write.code("open('f', 'w').close()"), write.say("ok"), limits=Limits(file=1 << 20))
    _, container = ask(client)
    files = client.containers.files
    for name in ("../f", "/etc/f", "a/b", "..", ".hidden", "x" * 201, "con", "a\\b", "__pycache__"):
        with pytest.raises(openai.BadRequestError, match="cannot be the name"):
            files.create(container, file=(name, b"x"))
    with pytest.raises(openai.BadRequestError, match="must be a form with a file"):
        files.create(container, file_id="file-1", extra_headers={"Content-Type": "application/json"})
    with pytest.raises(openai.APIStatusError, match="larger than"):
        files.create(container, file=("large", bytes((1 << 20) + 1)))
    with pytest.raises(openai.NotFoundError, match=f"Container with id '{MADE_UP}' not found"):
        files.create(MADE_UP, file=("f", b"x"))
    assert [file.path for file in files.list(container)] == ["/mnt/data/f"]


def test_a_name_that_cannot_be_used_is_refused_before_the_body_is_read(tmp_path: Path) -> None:
    taken = 0

    async def parts() -> AsyncIterator[bytes]:
        nonlocal taken
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="../x"\r\n\r\n'
        while True:
            taken += 1
            yield bytes(1 << 20)

    headers = [(b"content-type", b"multipart/form-data; boundary=b")]
    with pytest.raises(InputError, match="cannot be the name"):
        asyncio.run(receive(Request({"type": "http", "headers": headers}), parts(), tmp_path / "f", check=checked_name))
    assert taken == 0
    assert not list(tmp_path.iterdir())


def test_streams_name_files(over: Any, write: Writer) -> None:
    client = over(write.code("open('f.txt', 'w').write('1')"), write.say("it is f.txt"))
    with client.responses.stream(model="demo", input="q", tools=[PYTHON]) as stream:
        events = list(stream)
        found = stream.get_final_response()
    kinds = [event.type for event in events]
    (place,) = [number for number, kind in enumerate(kinds) if kind == "response.output_text.annotation.added"]
    assert kinds[place + 1] == "response.output_text.done"
    added = events[place]
    (shown,) = found.output[1].content[0].annotations
    assert added.annotation.to_dict() == shown.to_dict()  # type: ignore[union-attr]
    assert (added.output_index, added.content_index, added.annotation_index) == (1, 0, 0)
    assert (shown.filename, shown.start_index, shown.end_index) == ("f.txt", 6, 11)


def test_a_container_that_ends_with_its_response_is_not_cited(over: Any, write: Writer) -> None:
    client = over(write.code("open('f.txt', 'w').write('1')"), write.say("it is f.txt"))
    found, container = ask(client, store=False)
    assert found.output[-1].content[0].annotations == []
    with pytest.raises(openai.NotFoundError, match=f"Container with id '{container}' not found"):
        client.containers.files.list(container)


def test_a_server_without_interpreter_says_so(write: Writer) -> None:
    with (
        Assistant(write.form, ScriptedEngine(write.say("no"))) as assistant,  # type: ignore[arg-type]
        serving({"demo": assistant}) as url,
    ):
        for path in ("", "/files", "/files/cfile_1", "/files/cfile_1/content"):
            found = httpx.get(f"{url}/v1/containers/{MADE_UP}{path}")
            assert found.status_code == 404
            assert "this server has no interpreter" in found.json()["error"]["message"]


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("a.txt", "see [a](sandbox:/mnt/data/a.txt), or a.txt", "sandbox:/mnt/data/a.txt"),
        ("a.txt", "a.txt is at /mnt/data/a.txt", "/mnt/data/a.txt"),
        ("b/a.txt", "it is b/a.txt", "b/a.txt"),
        ("b/a.txt", "它是 a.txt。", "a.txt"),
        ("a.txt", "done", ""),
        ("a.txt", "", ""),
    ],
)
def test_the_place_of_a_citation(name: str, text: str, place: str) -> None:
    cited = citation("cntr_1", name, text)
    assert text[cited["start_index"] : cited["end_index"]] == place
    assert cited["filename"] == "a.txt"
