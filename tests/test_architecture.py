"""docs/architecture.md says who may import whom; this holds the code to it."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "chatglm"

# A room may import itself, `errors`, and these. A function-level import is an edge too.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "home": set(),
    "database": set(),
    "hosts": set(),
    "output": set(),
    "chat": {"schemas"},
    "kernels": set(),
    "params": set(),
    "schemas": set(),
    "models": {"chat", "kernels"},
    "quantization": {"kernels", "models", "hub", "output"},
    "hub": {"chat", "models"},
    "engine": {"params", "schemas", "kernels", "models"},
    "loading": {"chat", "models", "quantization", "hub"},
    "tools": {"schemas", "chat"},
    "characters": {"chat", "output"},
    "assistant": {"params", "schemas", "chat", "tools", "engine", "loading"},
    "encoders": {"chat", "hub", "models"},
    "serving": {"params", "chat", "tools", "assistant", "encoders", "home", "database", "hosts", "knowledge"},
    "conversation": {"params", "chat", "home", "database", "tools", "characters", "assistant", "knowledge"},
    "knowledge": {"params", "chat", "tools", "assistant", "encoders", "home", "database"},
    "web": {"params", "chat", "home", "hosts", "tools", "assistant", "characters", "conversation", "knowledge"},
    "langchain": {"params", "chat", "tools", "assistant", "encoders", "knowledge", "loading"},
    "measure": {"assistant"},
    "training": {"chat", "models", "quantization", "hub", "loading", "output"},
    "cli": {
        "chat",
        "kernels",
        "models",
        "quantization",
        "hub",
        "loading",
        "training",
        "params",
        "engine",
        "assistant",
        "tools",
        "characters",
        "conversation",
        "knowledge",
        "serving",
        "web",
        "measure",
        "encoders",
        "home",
        "database",
        "output",
    },
}
# The package's front door: it names things by string and imports the registration of the Auto classes.
FRONT = "__init__"


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else FRONT


def edges(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import; write it out"
            # `from chatglm import x` goes through the front door: allowed where x is a submodule's own name only.
            names = [f"{node.module}.{a.name}" if node.module == "chatglm" else str(node.module) for a in node.names]
        else:
            continue
        found |= {name for name in names if name.split(".")[0] == "chatglm"}
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports(file: Path) -> None:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    room = parts[0]
    if room == FRONT:
        return
    assert room in ALLOWED, f"{room}: a new room; add its row here and in docs/architecture.md"
    permitted = ALLOWED[room] | {room, "errors"}
    for module in edges(file):
        target = room_of(module)
        if target in ("__version__", FRONT) and room == "cli":
            continue
        assert target in permitted, f"{file.relative_to(PACKAGE)} imports {module}: {room} may not import {target}"


def test_no_room_is_forgotten_in_the_documentation() -> None:
    text = (PACKAGE.parent.parent / "docs" / "architecture.md").read_text("utf-8")
    rooms = {f.relative_to(PACKAGE).parts[0].removesuffix(".py") for f in FILES} - {FRONT}
    for room in rooms:
        assert f"\n  {room}" in text, f"docs/architecture.md does not show {room} in its tree"


def files_of(module: str, names: list[str]) -> set[Path]:
    """The files behind `import module` (no names) or `from module import names`."""
    first, *rest = module.split(".")
    if first != "chatglm":
        return set()
    base = PACKAGE.joinpath(*rest)
    own = base.with_suffix(".py") if rest and base.with_suffix(".py").is_file() else base / "__init__.py"
    submodules = {base / f"{name}.py" for name in names} | {base / name / "__init__.py" for name in names}
    found = {file for file in submodules if file.is_file()}
    return found if names and len(found) == len(names) else found | {own}


def imports_of(file: Path) -> set[Path]:
    """The package's files that a file imports.

    Imports inside functions and under `TYPE_CHECKING` count too: whoever reads the file has to know both.
    """
    found: set[Path] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found = found.union(*(files_of(alias.name, []) for alias in node.names))
        elif isinstance(node, ast.ImportFrom):
            found |= files_of(str(node.module), [alias.name for alias in node.names])
    return found - {file}


def test_no_cycles_between_files() -> None:
    graph = {file: imports_of(file) for file in FILES}
    assert PACKAGE / "chat" / "vocabulary.py" in graph[PACKAGE / "chat" / "formats.py"]
    assert sum(map(len, graph.values())) > 2 * len(FILES)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(str(file.relative_to(PACKAGE)) for file in error.args[1]))


def test_no_cycles_between_rooms() -> None:
    seen: dict[str, set[str]] = {room: {t for t in targets if t != room} for room, targets in ALLOWED.items()}
    done: set[str] = set()
    while ready := [room for room in seen if room not in done and seen[room] <= done]:
        done |= set(ready)
    assert done == set(seen)


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import chatglm", ["torch", "transformers", "sentencepiece"]),
        ("import chatglm; chatglm.ChatGLMError", ["torch", "transformers"]),
        (
            "import sys; from chatglm.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
            ["torch", "transformers"],
        ),
        (
            "import sys; from chatglm.cli import main\ntry: main(['chat', '--help'])\nexcept SystemExit: pass",
            ["torch", "transformers"],
        ),
    ],
)
def test_light_imports(code: str, absent: list[str]) -> None:
    check = f"{code}\nimport sys\nloaded = [m for m in {absent!r} if m in sys.modules]\nassert not loaded, loaded"
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True, timeout=60)


def test_public_names() -> None:
    import chatglm

    for name in chatglm.__all__:
        assert getattr(chatglm, name) is not None
    assert set(chatglm.__all__) == set(dir(chatglm))
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        chatglm.nope  # noqa: B018
