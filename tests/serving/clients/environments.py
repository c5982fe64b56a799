"""Environments of the client packages that the tests run, each apart from ours.

    python tests/serving/clients/environments.py [NAME ...]      # set up once; the tests then use them

They lie in `.clients` of this repository, or where CHATGLM_CLIENTS says. Packages that go together share one; those
that pin an older `openai`, or need Node.js, have their own. Needs a package index, and npm for the JavaScript clients.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

__all__ = ["ENVIRONMENTS", "JAVASCRIPT", "SCRIPTS", "SetupError", "folder_of", "set_up"]

REPOSITORY = Path(__file__).resolve().parents[3]
SCRIPTS = Path(__file__).with_name("scripts")
JAVASCRIPT = "javascript"

ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "agents": (
        "litellm==1.110.2",
        "pydantic-ai-slim[openai]==2.68.0",
        "openai-agents==0.24.0",
        "langgraph==1.2.24",
        "langchain==1.5.2",
        "langchain-openai==1.7.4",
        "autogen-ext[openai]==0.7.5",
        "autogen-agentchat==0.7.5",
        "openai==3.57.0",
    ),
    "anthropic": ("anthropic==2.14.0", "langchain-anthropic==1.7.10"),
    "frameworks": ("llama-index-llms-openai-like==0.8.1", "haystack-ai==3.4.1"),
    "instructor": ("instructor==1.17.0", "openai==3.3.0"),
    "openai-0.28": ("openai==0.28.1",),
    "lm-eval": ("lm-eval[api]==0.4.13",),
    "ray": ("ray[data]==2.60.0",),
    "router": ("vllm-router==0.1.17",),
    # The two newer ones ask for different versions of pyjwt; zhipuai 2 imports sniffio and does not say so.
    "zhipuai-1": ("zhipuai==1.0.7",),
    "zhipuai-2": ("zhipuai==2.1.5.20250825", "sniffio"),
    "zai": ("zai-sdk==0.2.3",),
    JAVASCRIPT: (),
}
"""What each has. JavaScript's is in `scripts/js/package.json`."""


class SetupError(Exception):
    """An environment cannot be made on this machine; says why."""


def folder_of(name: str) -> Path:
    """Where an environment lies, whether it is there or not."""
    root = os.environ.get("CHATGLM_CLIENTS")
    return (Path(root) if root else REPOSITORY / ".clients") / name


def set_up(name: str) -> Path:
    """Make an environment unless it is there, and up to date.

    Returns:
        The program that runs its scripts: a Python or a Node.js.

    Raises:
        SetupError: a package index or a program is missing.
    """
    folder = folder_of(name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:  # tests run in several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _javascript(folder) if name == JAVASCRIPT else _python(folder, ENVIRONMENTS[name])


def _python(folder: Path, packages: tuple[str, ...]) -> Path:
    python, stamp = folder / "bin" / "python", folder / ".packages"
    if not (stamp.is_file() and stamp.read_text("utf-8") == "\n".join(packages)):
        # Our own pip does it, and compiles nothing: most files are never imported, and CI installs anew each time.
        venv.create(folder, clear=True, with_pip=False)
        pip = [sys.executable, "-m", "pip", "--python", str(python), "--quiet", "--disable-pip-version-check"]
        _run([*pip, "install", "--no-compile", *packages], folder.name)
        stamp.write_text("\n".join(packages), "utf-8")
    return python


def _javascript(folder: Path) -> Path:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise SetupError(f"{folder.name}: Node.js and npm are needed (apt-get install nodejs npm)")
    wanted = hashlib.sha256((SCRIPTS / "js" / "package.json").read_bytes()).hexdigest()
    stamp = folder / ".packages"
    if not (stamp.is_file() and stamp.read_text("utf-8") == wanted):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(SCRIPTS / "js", folder)
        _run([npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder)], folder.name)
        stamp.write_text(wanted, "utf-8")
    for script in (SCRIPTS / "js").glob("*.mjs"):  # a module finds its packages beside itself
        shutil.copyfile(script, folder / script.name)
    return Path(node)


def _run(command: list[str], name: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SetupError(f"{name}: {' '.join(command[:4])} … failed:\n{(done.stderr or done.stdout)[-2000:]}")


def main() -> int:
    for name in sys.argv[1:] or ENVIRONMENTS:
        if name not in ENVIRONMENTS:
            print(f"{name}: no such environment; there are {', '.join(ENVIRONMENTS)}", file=sys.stderr)
            return 2
        try:
            print(f"{name}: {set_up(name)}")
        except SetupError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
