"""Programs in a terminal that tests type into and look at, by tmux."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

PATIENCE = float(os.environ.get("TMUX_PATIENCE", 120))
"""Seconds; machines that run tests are busy."""


class Terminal:
    """One program in a terminal of a tmux server."""

    def __init__(self, server: str, name: str) -> None:
        self._server, self._name = server, name

    def _tmux(self, *words: str, **options: object) -> str:
        return _tmux(self._server, *words, **options)

    def keys(self, *names: str) -> None:
        """Press keys, by tmux's names: `Enter`, `C-c`, `M-Enter`."""
        self._tmux("send-keys", "-t", self._name, *names)

    def type(self, text: str) -> None:
        """Type a text."""
        self._tmux("send-keys", "-t", self._name, "-l", text)

    def paste(self, text: str) -> None:
        """Paste a text, as terminals do for programs that ask for it."""
        self._tmux("load-buffer", "-", input=text)
        self._tmux("paste-buffer", "-p", "-r", "-t", self._name)

    def text(self) -> str:
        """All that was ever shown, lines that were wrapped as one."""
        return self._tmux("capture-pane", "-p", "-J", "-S", "-", "-t", self._name).rstrip()

    def screen(self, colors: bool = False) -> str:
        """What is seen now."""
        return self._tmux("capture-pane", "-p", *(["-e"] if colors else []), "-t", self._name)

    def until(self, right: Callable[[str], object] | str, seconds: float = PATIENCE) -> str:
        """Wait until something is shown; returns all that is."""
        end = time.monotonic() + seconds
        while True:
            text = self.text()
            if re.search(right, text) if isinstance(right, str) else right(text):
                return text
            assert time.monotonic() < end, f"not shown within {seconds:g} s: {right}\n{text[-3000:]}"
            time.sleep(0.05)

    def pid(self) -> int:
        """Of the program."""
        return int(self._tmux("display-message", "-p", "-t", self._name, "#{pane_pid}"))

    def close(self) -> None:
        subprocess.run(["tmux", "-L", self._server, "kill-session", "-t", self._name], capture_output=True)


@contextmanager
def tmux_server() -> Iterator[Callable[..., Terminal]]:
    """Start programs in terminals; all of them end with this."""
    if shutil.which("tmux") is None:
        if os.environ.get("CI"):
            pytest.fail("tmux must be there in CI (tests/packages.sh)")
        pytest.skip("needs tmux")
    server = f"chatglm-{os.getpid()}-{secrets.token_hex(4)}"
    count = 0

    def start(
        command: Sequence[str], *, width: int = 90, height: int = 40, environment: dict[str, str] | None = None
    ) -> Terminal:
        nonlocal count
        count += 1
        name = f"t{count}"
        words = ["env", *(f"{key}={value}" for key, value in (environment or {}).items()), *command]
        # The status is seen, and the terminal stays for whoever looks at it.
        line = f"trap : INT; {shlex.join(words)}; echo \"[status $?]\"; trap '' INT; exec sleep 1000"
        size = ["-x", str(width), "-y", str(height)]
        history = ["set-option", "-g", "history-limit", "20000", ";"]
        _tmux(server, "-f", "/dev/null", "start-server", ";", *history, "new-session", "-d", *size, "-s", name, line)
        return Terminal(server, name)

    try:
        yield start
    finally:
        subprocess.run(["tmux", "-L", server, "kill-server"], capture_output=True)
        folder = Path(os.environ.get("TMUX_TMPDIR", "/tmp"), f"tmux-{os.getuid()}")
        (folder / server).unlink(missing_ok=True)  # tmux leaves its socket


def _tmux(server: str, *words: str, **options: object) -> str:
    done = subprocess.run(
        ["tmux", "-u", "-L", server, *words], capture_output=True, text=True, encoding="utf-8", timeout=60, **options
    )  # type: ignore[call-overload]
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return str(done.stdout)
