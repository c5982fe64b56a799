"""Tools of a user's Python file, and the decorator of ChatGLM3's composite demo."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import pytest

from chatglm.chat.messages import ToolCall
from chatglm.errors import ToolError
from chatglm.tools import Consent, Toolbox, dispatch_tool, get_tools, register_tool
from chatglm.tools.registry import registered_in

# The shape of the demo's own file: it has its registry in it, and a tool that runs a shell.
DEMO = '''
import inspect
import subprocess
from pprint import pformat
from typing import Annotated, get_origin

_HOOKS, _DESCRIPTIONS = {}, {}

def register_tool(func: callable):
    params = []
    for name, param in inspect.signature(func).parameters.items():
        assert get_origin(param.annotation) is Annotated
        params.append({"name": name, "description": param.annotation.__metadata__[0]})
    print("registered " + pformat(params))
    _HOOKS[func.__name__], _DESCRIPTIONS[func.__name__] = func, params
    return func

@register_tool
def pick_number(
    seed: Annotated[int, "where to begin", True],
    range: Annotated[tuple[int, int], "from and to", True],
) -> int:
    """
    Picks a number
    """
    if not isinstance(range, tuple) or not isinstance(seed, int):
        raise TypeError("types")
    return seed % range[1]

@register_tool
def get_weather(city_name: Annotated[str, "which city", True]) -> str:
    """
    The weather of `city_name`
    """
    return str({"city": city_name})

@register_tool
def get_shell(query: Annotated[str, "a command", True]) -> str:
    """Runs a command"""
    return subprocess.run(query, shell=True, text=True, capture_output=True).stdout

def helper(x):
    return x

if __name__ == "__main__":
    raise SystemExit("not as a tool file")
'''


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def made(text: str, name: str = "tools.py") -> Path:
        (tmp_path / name).write_text(text, "utf-8")
        return tmp_path / name

    return made


def names(box: Toolbox) -> list[str]:
    return [spec.name for spec in box.specs]


def now(box: Toolbox, name: str, **arguments: Any) -> str:
    return box.call_now([ToolCall(name, arguments)])[0].text


def test_the_demos_file_registers_but_for_its_shell(write: Any, capsys: Any, tmp_path: Path) -> None:
    """(differences: no-shell)"""
    with Toolbox.open([write(DEMO, "tool_registry.py")]) as box:
        assert names(box) == ["pick_number", "get_weather"]
        assert now(box, "pick_number", seed=42, range=[1, 10]) == "2"
        assert now(box, "get_weather", city_name="北京") == "{'city': '北京'}"
        assert "rights" in box.refused["get_shell"]
        told = now(box, "get_shell", query=f"touch {tmp_path}/ran")
        assert told.startswith("Tool `get_shell` is not offered: it runs any shell command of a model")
        assert not (tmp_path / "ran").exists()
    out, err = capsys.readouterr()
    assert out == ""  # stdout may be data
    assert "registered" in err


@pytest.mark.parametrize("origin", ["tool_registry", "tool_register", "chatglm.tools", "chatglm.tools.registry"])
def test_the_decorator_is_found_where_people_import_it(write: Any, origin: str) -> None:
    path = write(
        f"from {origin} import register_tool\n"
        "from typing import Annotated\n\n"
        "@register_tool\n"
        "def shout(text: Annotated[str, 'what', True]) -> str:\n"
        "    'Says it loudly.'\n"
        "    return text.upper()\n\n"
        "def not_a_tool(text: str) -> str:\n"
        "    'Not marked.'\n"
        "    return text\n"
    )
    with Toolbox.open([path]) as box:
        assert names(box) == ["shout"]
        assert now(box, "shout", text="a") == "A"
    assert "tool_registry" not in sys.modules


def test_a_registry_beside_the_file_is_the_one_that_it_gets(write: Any) -> None:
    write("marks = []\ndef register_tool(f):\n    marks.append(f.__name__)\n    return f\n", "tool_registry.py")
    path = write(
        "from tool_registry import register_tool, marks\n\n"
        "@register_tool\ndef one() -> str:\n    'One.'\n    return str(marks)\n"
    )
    try:
        with Toolbox.open([path]) as box:
            assert now(box, "one") == "['one']"
    finally:
        sys.modules.pop("tool_registry", None)


def test_without_marks_all_public_functions_are_tools(write: Any) -> None:
    path = write(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from os.path import join\n\n"
        "@dataclass\nclass Point:\n    x: int\n    y: int = 0\n\n"
        "def place(point: Point) -> str:\n    'Where it is.'\n"
        "    import beside\n    return beside.said(point.x, point.y)\n\n"
        "async def wait() -> str:\n    'Waits.'\n    return 'waited'\n\n"
        "def _private(x: int) -> int:\n    'Private.'\n    return x\n\n"
        "def untyped(x):\n    'No types.'\n\n"
        "def silent(x: int) -> int:\n    return x\n"
    )
    write("def said(x, y):\n    return f'{x}/{y}'\n", "beside.py")
    try:
        with Toolbox.open([path]) as box:
            assert names(box) == ["place", "wait"]
            assert now(box, "place", point={"x": "3"}) == "3/0"
            assert now(box, "wait") == "waited"
        path.write_text("def other() -> int:\n    'Other.'\n    return 1\n")
        with Toolbox.open([str(path)]) as box:  # it is read again
            assert names(box) == ["other"]
        assert not list(path.parent.glob("__pycache__/tools*"))
    finally:
        sys.modules.pop("beside", None)
        sys.path.remove(str(path.parent))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\n\ndef f(:\n", r"tools\.py, line 3: SyntaxError"),
        ("x = 1\ny = x / 0\n", r"tools\.py, line 2: ZeroDivisionError: division by zero"),
        ("import no_such_module_anywhere\n", r"tools\.py, line 1: ModuleNotFoundError.*no_such_module_anywhere"),
        ("import sys\nsys.exit(0)\n", r"tools\.py, line 2: it ends the program"),
        ("raise BaseException('odd')\n", r"tools\.py, line 1: BaseException: odd"),
        ("x = 1\n", r"tools\.py: no tools in it"),
        ("", r"tools\.py: no tools in it"),
        ("\0", r"tools\.py"),
        ("def f(*x: int) -> int:\n    'F.'\n", r"tools\.py, line 1: .*by name"),
        (
            "from chatglm.tools import register_tool\n\n@register_tool\ndef f(x: int):\n    return x\n",
            r"tools\.py, line 3: register_tool: f has no docstring",
        ),
        (
            "from tool_registry import register_tool\n\n@register_tool\ndef get_shell(q: str) -> str:\n    'S.'\n",
            r"no tools in it.*get_shell is not offered: it runs",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(write: Any, text: str, words: str) -> None:
    with pytest.raises(ToolError, match=words):
        Toolbox.open([write(text)])


def test_a_file_that_failed_leaves_nothing_behind(write: Any) -> None:
    marked = "from chatglm.tools import register_tool\n\n@register_tool\ndef f() -> int:\n    'F.'\n"
    path = write(marked + "\n1 / 0\n")
    modules, tools = set(sys.modules), set(get_tools())
    with pytest.raises(ToolError, match="line 7"):
        Toolbox.open([path])
    assert set(sys.modules) == modules
    assert set(get_tools()) == tools


@pytest.mark.parametrize(
    "source", ["no/such/tools.py", "tools.txt", "", ".", "no such example", "x\0.py", "calculator=3", "a.json"]
)
def test_sources_that_are_none(source: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ToolError):
        Toolbox.open([source])


def test_documents_are_told_apart_by_their_content(write: Any) -> None:
    service = "openapi: 3.1.0\nservers: [{url: 'http://127.0.0.1:9'}]\npaths: {/f: {get: {operationId: f}}}\n"
    with Toolbox.open([write(service, "api.yaml")]) as box:
        assert names(box) == ["f"]
    with pytest.raises(ToolError, match=r"mcp\.yaml: .*servers"):
        Toolbox.open([write("servers: 3\n", "mcp.yaml")])
    for text in ("x: 1\n", "[1, 2]", "", "{", "a: &a [*a]\n", "- " * 5000):
        with pytest.raises(ToolError, match=r"what\.yaml"):
            Toolbox.open([write(text, "what.yaml")])


def test_what_was_opened_is_closed(write: Any, monkeypatch: Any) -> None:
    from chatglm.tools import toolbox
    from chatglm.tools.files import Opened, open_source

    closed: list[str] = []

    def opened(source: Any) -> Opened:
        if source == "fails":
            raise ToolError("no")
        return Opened(open_source("calculator").tools, close=lambda: closed.append(source))

    monkeypatch.setattr(toolbox, "open_source", opened)
    with pytest.raises(ToolError, match="no"):
        Toolbox.open(["one", "fails"])
    with pytest.raises(ToolError, match="two are named calculator"):
        Toolbox.open(["two", "three"])
    box = Toolbox.open(["four"])
    assert closed == ["one", "three", "two"]
    box.also().close()
    assert len(closed) == 3
    box.close()
    box.close()
    assert closed == ["one", "three", "two", "four"]


def test_two_files_with_the_same_name_of_a_tool(write: Any) -> None:
    one = write("def f() -> int:\n    'One.'\n    return 1\n", "one.py")
    two = write("def f() -> int:\n    'Two.'\n    return 2\n", "two.py")
    with pytest.raises(ToolError, match="two are named f"):
        Toolbox.open([one, two])
    with Toolbox.open([one]) as first, Toolbox.open([two], seconds=5) as second:
        assert (now(first, "f"), now(second, "f")) == ("1", "2")


# The decorator in a program


@register_tool
def count_letters(
    text: Annotated[str, "what to count in", True],
    letters: Annotated[tuple[str, ...], "which", False] = (),
    most: int = 3,
) -> dict[str, int]:
    """Counts letters.

    Args:
        most: so many at most
    """
    if text == "fail":
        raise ValueError("no")
    return {letter: text.count(letter) for letter in letters[:most]}


def test_get_tools_has_the_official_form() -> None:
    assert get_tools()["count_letters"] == {
        "name": "count_letters",
        "description": "Counts letters.",
        "params": [
            {"name": "text", "description": "what to count in", "type": "str", "required": True},
            {"name": "letters", "description": "which", "type": "tuple[str, ...]", "required": False},
            {"name": "most", "description": "so many at most", "type": "int", "required": False},
        ],
    }


def test_dispatch() -> None:
    """(differences: tools-checked)"""
    assert count_letters("aab", ("a",)) == {"a": 2}
    assert dispatch_tool("count_letters", {"text": "aab", "letters": ["a", "b"]}) == '{"a": 2, "b": 1}'
    assert dispatch_tool("count_letters", {"text": "fail"}) == "Error: ValueError: no"
    assert dispatch_tool("count_letters", {}) == "Arguments of count_letters are wrong (missing: text)."
    assert dispatch_tool("nothing", {}) == "Tool `nothing` not found. Please use a provided tool."
    assert "not offered" in dispatch_tool("get_shell", {"query": "id"})


def test_consent_and_refusals() -> None:
    @register_tool(consent=Consent.ALWAYS)
    def careful() -> str:
        """Careful."""
        return "done"

    assert registered_in(__name__)["careful"].consent is Consent.ALWAYS
    with pytest.warns(UserWarning, match="get_shell is not offered to models"):

        @register_tool
        def get_shell(query: Annotated[str, "command", True]) -> str:
            """Shell."""
            return query

    assert "get_shell" not in get_tools()
    assert get_shell("x") == "x"
    with pytest.raises(ToolError, match="no docstring"):
        register_tool(lambda: 1)
    with pytest.raises(ToolError, match="annotation"):

        @register_tool
        def untyped(x):  # type: ignore[no-untyped-def]
            """No type."""
