"""What is published: a source archive, a wheel built from it, and that wheel alone in an environment of its own.

The environment sees the packages that the tests have, but only those that the wheel asks for, with one extra or with
none: a finder hides all others. So what an extra forgot to name is missing here as it would be for its users.
"""

from __future__ import annotations

import importlib.metadata as metadata
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tarfile
import time
import urllib.request
import venv
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
GREETING = "演示模型"
HIDE = """
import importlib.machinery
import sys

class Visible(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in NAMES else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = Visible
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    [file] = built.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    python = str(folder / "bin" / "python")
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", str(wheel)]
    subprocess.run(command, check=True, timeout=300)
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    # Files of that folder which extend the path are not read: an editable installation of this clone is not there.
    (site / "others.pth").write_text(f"{Path(spec.origin).parents[1]}\nimport hidden_packages\n")
    return folder


def needed(wheel: Path, extra: str) -> set[str]:
    """The distributions that pip would install for the wheel with an extra."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        text = archive.read(name).decode("utf-8")
    asked = metadata.PackageNotFoundError  # of what is not installed here, other platforms' packages, nothing is known
    found: set[tuple[str, str]] = set()
    waiting = [(line, extra) for line in re.findall(r"^Requires-Dist: (.+)$", text, re.MULTILINE)]
    own = dict.fromkeys([extra, ""])
    while waiting:
        line, of_extra = waiting.pop()
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": of_extra}):
            continue
        name = canonicalize_name(requirement.name)
        for wanted in ("", *requirement.extras):
            if (name, wanted) in found:
                continue
            found.add((name, wanted))
            if name == "chatglm":
                if wanted not in own:
                    own[wanted] = None
                    waiting += [(one, wanted) for one in re.findall(r"^Requires-Dist: (.+)$", text, re.MULTILINE)]
                continue
            try:
                waiting += [(one, wanted) for one in metadata.requires(name) or ()]
            except asked:
                continue
    return {name for name, _ in found}


@pytest.fixture(scope="module")
def run_with(wheel: Path, environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """`run_with(extra)` runs a command of the environment in an empty folder, with that extra's packages alone."""
    site = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
    folder = tmp_path_factory.mktemp("empty")

    def choose(extra: str) -> Run:
        allowed = needed(wheel, extra) | {"chatglm", "setuptools", "pip"}
        hidden = {
            module
            for module, owners in metadata.packages_distributions().items()
            if not {canonicalize_name(owner) for owner in owners} & allowed
        }
        (site / "hidden_packages.py").write_text(f"NAMES = {sorted(hidden)!r}\n{HIDE}")
        env = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))},
            "CHATGLM_HOME": str(folder / "home"),
            "PATH": f"{environment / 'bin'}:{os.environ['PATH']}",
            "PYTHONIOENCODING": "utf-8",
        }

        def run(*command: str, check: bool = True, **options: object) -> subprocess.CompletedProcess[str]:
            done = subprocess.run(
                command, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                encoding="utf-8", timeout=300, check=False,
            )  # fmt: skip
            assert not check or done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
            return done

        run.env = env  # type: ignore[attr-defined]
        run.folder = folder  # type: ignore[attr-defined]
        return run

    return choose


def test_what_the_archives_hold(built: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "chatglm/demo/model.safetensors" in names
    assert "chatglm/py.typed" in names
    assert any(name.startswith("chatglm/web/templates/") for name in names)
    assert {name.partition("/")[0] for name in names} == {
        "chatglm",
        next(n for n in names if ".dist-info" in n).split("/")[0],
    }
    [source] = built.glob("*.tar.gz")
    with tarfile.open(source) as files:
        inside = {name.partition("/")[2] for name in files.getnames()}
    assert {"README.md", "README.zh.md", "LICENSE", "pyproject.toml", "CMakeLists.txt"} <= inside
    assert not any(name.startswith(("tests/", "benchmarks/", ".")) for name in inside)
    assert wheel.stat().st_size < 22e6
    assert source.stat().st_size < 24e6


def test_the_guide_gives_the_wheels_size(wheel: Path) -> None:
    told = re.search(
        r"The wheel has (\d+) MB, of which (\d+) are", (ROOT / "docs" / "performance.md").read_text("utf-8")
    )
    assert told is not None
    with zipfile.ZipFile(wheel) as archive:
        model = sum(one.compress_size for one in archive.infolist() if one.filename.startswith("chatglm/demo/"))
    assert [int(number) for number in told.groups()] == [round(size / 1e6) for size in (wheel.stat().st_size, model)]


def test_the_wheel_is_for_many_linuxes(wheel: Path) -> None:
    """Nothing but the C library is linked, so that a build on an old Linux runs on all newer ones."""
    if sys.platform != "linux" or shutil.which("readelf") is None:
        pytest.skip("readelf of a Linux is needed")
    with zipfile.ZipFile(wheel) as archive:
        libraries = [name for name in archive.namelist() if name.endswith(".so")]
        assert libraries == ["chatglm/kernels/libchatglm_kernels.so"]
        file = archive.extract(libraries[0], wheel.parent / "unpacked")
    shown = subprocess.run(["readelf", "--dynamic", file], capture_output=True, text=True, check=True).stdout
    linked = set(re.findall(r"\(NEEDED\).*\[([a-z_+-]+)", shown))
    assert linked <= {"libc", "libm", "libpthread", "ld-linux-x", "ld-linux-aarch"}, linked


def test_without_extras(run_with: Callable[[str], Run]) -> None:
    run = run_with("")
    where = run("python", "-c", "import chatglm; print(chatglm.__file__)").stdout
    assert str(ROOT) not in where
    assert GREETING in run("chatglm", "chat", "你好").stdout
    for command, extra in (("serve", "serve"), ("web", "web")):
        told = run("chatglm", command, check=False)
        assert told.returncode == 1
        assert f"chatglm[{extra}]" in told.stderr
    (run.folder / "a.txt").write_text("灭火器放在门口右侧。", "utf-8")  # type: ignore[attr-defined]
    run("chatglm", "knowledge", "add", "a", "a.txt")
    assert "门口右侧" in run("chatglm", "knowledge", "ask", "a", "灭火器放在哪里？", "--extract").stdout


SNIPPETS = {
    "chat": "import chatglm.cli.terminal.app",
    "interpreter": "import IPython, matplotlib, numpy, pandas",
    "knowledge": """
import openpyxl
from chatglm.knowledge import open_base
book = openpyxl.Workbook()
book.active.append(["城市", "人口"])
book.active.append(["北京", 2184])
book.save("table.xlsx")
with open_base("table", create=True) as base:
    report = base.add("table.xlsx")
    print(base.search("北京")[0].text)
""",
    "langchain": """
from chatglm.langchain import ChatChatGLM
model = ChatChatGLM(temperature=0)
print(model.invoke("你好").text)
model.close()
""",
    "mcp": "import chatglm.tools.mcp",
    "tools": """
from chatglm import load
from chatglm.tools import Toolbox
with load() as assistant, Toolbox.open(["get_weather"]) as box:
    print(assistant.run("北京的天气怎么样？", box, params={"temperature": 0})[-1].content)
""",
    "training": """
import json
from chatglm.training.finetune import finetune
from chatglm.training.settings import Settings
open("data.jsonl", "w").write(json.dumps({"prompt": "a", "response": "b"}) * 1)
settings = Settings.from_dict({"method": "lora", "data_config": {"train_file": "data.jsonl"}, "training_args":
    {"output_dir": "out", "max_steps": 1, "use_cpu": True, "report_to": "none"}})
print(finetune(settings).steps)
""",
}


@pytest.mark.parametrize("extra", SNIPPETS)
def test_with_an_extra(run_with: Callable[[str], Run], extra: str) -> None:
    printed = run_with(extra)("python", "-c", SNIPPETS[extra]).stdout
    expected = {"knowledge": "2184", "langchain": GREETING, "tools": "晴", "training": "1"}
    assert expected.get(extra, "") in printed


@contextmanager
def started(run: Run, *command: str) -> Iterator[str]:
    """A server of the environment; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ, folder = run.env, run.folder  # type: ignore[attr-defined]
    with (folder / "server.log").open("w+") as log:
        process = subprocess.Popen([*command, "--port", str(port)], cwd=folder, env=environ, stdout=log, stderr=log)
        try:
            for _ in range(1200):
                assert process.poll() is None, (folder / "server.log").read_text("utf-8")
                with socket.socket() as client:
                    if client.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(60)


def test_serve(run_with: Callable[[str], Run]) -> None:
    with started(run_with("serve"), "chatglm", "serve") as url:
        body = {"messages": [{"role": "user", "content": "你好"}], "temperature": 0}
        request = urllib.request.Request(
            f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert GREETING in json.load(answer)["choices"][0]["message"]["content"]


def test_web(run_with: Callable[[str], Run]) -> None:
    with started(run_with("web"), "chatglm", "web") as url, urllib.request.urlopen(url, timeout=60) as answer:
        assert "chatglm" in answer.read().decode("utf-8")
