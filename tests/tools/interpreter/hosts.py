"""Hosts of sandboxes as processes of their own, as this user or as another: what tests of the sandbox share."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import chatglm

NOBODY = 65534
"""A user without rights. Tests that may run at once take NOBODY - 1 and so on: limits of processes, and signals to
everybody, are of a user's."""
CONTAINER = -1
"""Root with the capabilities that Docker leaves it."""
_OF_CONTAINERS = (
    *("chown", "dac_override", "fowner", "fsetid", "kill", "mknod"),
    *("net_raw", "setfcap", "setgid", "setpcap", "setuid", "sys_chroot"),
)
_PYTHON = "/usr/bin/python3"  # one that every user may read


class Host:
    """Our code in a folder that every user may read.

    Args:
        bare: whether a shell without IPython takes the place of ours.
    """

    def __init__(self, folder: Path, bare: bool = True) -> None:
        self.folder = folder
        self.packages: tuple[str, ...] = ()
        self.temporary = folder / "tmp"  # what a host that is killed leaves behind goes with the folder
        self.temporary.mkdir()
        self.temporary.chmod(0o1777)
        package, copied = Path(chatglm.__file__).parent, folder / "chatglm"
        shutil.copytree(package / "tools" / "interpreter", copied / "tools" / "interpreter")
        shutil.copy(package / "tools" / "pictures.py", copied / "tools")
        shutil.copy(package / "errors.py", copied)
        for room in (copied, copied / "tools", copied / "tools" / "interpreter"):
            (room / "__init__.py").write_text("")  # what it offers imports much that no sandbox needs
        # An editable install finds `chatglm` before any folder is looked at.
        (folder / "sitecustomize.py").write_text(
            "import sys\nsys.meta_path[:] = [each for each in sys.meta_path if 'editable' not in type(each).__module__]"
        )
        here = Path(__file__).parent
        if bare:
            shutil.copy(here / "bare_shell.py", copied / "tools" / "interpreter" / "shell.py")
        for name in ("attempts.py", "attempted.py"):
            shutil.copy(here / name, folder)

    def command(self, user: int, arguments: Sequence[str]) -> list[str]:
        """Python with arguments, as a user."""
        if user == os.getuid():
            return [sys.executable, "-B", *arguments]
        if user == CONTAINER:
            bounds = ",".join(("-all", *(f"+{name}" for name in _OF_CONTAINERS)))
            return ["setpriv", f"--bounding-set={bounds}", "--inh-caps=-all", _PYTHON, "-B", *arguments]
        return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", _PYTHON, "-B", *arguments]

    def environment(self) -> dict[str, str]:
        path = os.pathsep.join((str(self.folder), *self.packages))
        return {
            "PATH": "/usr/sbin:/usr/bin:/bin",
            "PYTHONPATH": path,
            "TMPDIR": str(self.temporary),
            "SECRET_KEY": "of the host",
        }

    def python(self, user: int, arguments: Sequence[str], seconds: float = 120) -> str:
        """What a program prints."""
        done = subprocess.run(
            self.command(user, arguments),
            capture_output=True,
            text=True,
            env=self.environment(),
            timeout=seconds,
            check=False,
        )
        assert not done.returncode, done.stderr[-3000:]
        return done.stdout

    def attempt(self, user: int, options: dict[str, Any]) -> dict[str, Any]:
        """The report of `attempted.py`."""
        printed = self.python(user, [str(self.folder / "attempted.py"), json.dumps(options)])
        report: dict[str, Any] = json.loads(printed)
        return report

    @contextmanager
    def living(self, user: int, options: dict[str, Any]) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
        """A host with a kernel and a daemon in it, and the numbers of their processes."""
        asked = json.dumps({**options, "live": True})
        command = self.command(user, [str(self.folder / "attempted.py"), asked])
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self.environment()) as process:
            try:
                assert process.stdout is not None
                yield process, json.loads(process.stdout.readline())["processes"]
            finally:
                process.kill()


@contextmanager
def prepared(bare: bool = True) -> Iterator[Host]:
    with tempfile.TemporaryDirectory(prefix="hosts-") as folder:
        os.chmod(folder, 0o755)
        yield Host(Path(folder), bare)


def missing(reason: str) -> None:
    """What a test needs is not here: in CI it has to be."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def need(layers: dict[str, str], user: int) -> None:
    """Skip if the machine has no such layers, or cannot run a host as the user."""
    for layer, reason in layers.items():
        if reason:
            missing(f"{layer}: {reason}")
    if user != os.getuid():
        if os.getuid() or shutil.which("setpriv") is None:
            missing("only root can start a host of another user")
        version = "import sys; sys.exit(sys.version_info < (3, 10))"
        if not os.path.exists(_PYTHON) or subprocess.run([_PYTHON, "-c", version], check=False).returncode:
            missing(f"{_PYTHON}: Python 3.10 or newer, which other users may read")
