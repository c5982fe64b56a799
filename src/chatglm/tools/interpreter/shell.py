"""Runs a model's code with IPython, inside the sandbox; the host controls it by messages on a socket.

This file uses only the standard library and IPython, nothing of chatglm, so the sandbox needs no other file.

Printed text of a cell goes to file descriptors 1 and 2, as usual, so that the text of child processes has the right
place in it. Results, pictures and tracebacks are sent over the socket. After each of them, the shell waits until the
host has read the text before it. So all parts of a cell arrive in order, and a cell with too much output has to wait.

A frame is two lengths (4 bytes each, big-endian), JSON of the first length, and raw bytes of the second.

    host to shell                               shell to host
    settings   fonts: files with Chinese          ready    pid inside the sandbox
    run        code, number                       result   text, number
    import     names (of modules), number         picture  number; the raw bytes are a PNG file
    folder     old path, new path, number         error    text (a traceback), number
    read       number of a part that was read     done     number of the run, import or folder that has ended
"""

from __future__ import annotations

import base64
import builtins
import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType, ModuleType
from typing import Any, cast

import IPython.core
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets import Type
from traitlets.config import Config

__all__ = ["prepare", "serve"]

OFFICIAL = "/mnt/data"
"""The path of the conversation's folder in the official prompts."""
RESULT = 8 << 10
"""Most characters of one result's text, and of one traceback."""
PICTURE = 16 << 20
"""Most bytes of a picture that is sent. The host has a lower limit, and shows a note for larger pictures."""

_GLYPH = "这台机器没有能显示这些汉字的字体，请用英文标注图表。(No font here has them; label plots in English.)"
_INPUT = "input() cannot be used here: nobody can type an answer; write the value into the code"


class _Interrupts:
    """SIGINT raises KeyboardInterrupt while a cell runs, but never in the middle of a message."""

    def __init__(self) -> None:
        self.running = False
        self._held = 0
        self._came = False

    def install(self) -> None:
        signal.signal(signal.SIGINT, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._held:
            self._came = True
        elif self.running:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def later(self) -> Iterator[None]:
        """Delay an interrupt until the block ends. Only the main thread needs this: handlers run there."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            if self._came and not self._held:
                self._came = False
                if self.running:
                    raise KeyboardInterrupt


class _Host:
    """The socket to the host. Only one thread at a time uses it, and forked children never use it."""

    def __init__(self, fd: int, interrupts: _Interrupts) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(True)
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._number = 0
        self._interrupts = interrupts
        os.register_at_fork(after_in_child=self._socket.close)

    def ask(self) -> dict[str, Any]:
        """The host's next message. While the main thread waits here, messages of other threads wait for the lock."""
        with self._lock:
            return self._receive()

    def tell(self, kind: str, **fields: Any) -> None:
        """Send a message that the host does not answer."""
        if os.getpid() == self._owner:
            with self._interrupts.later(), self._lock:
                self._send(kind, fields, b"")

    def show(self, kind: str, body: bytes = b"", **fields: Any) -> None:
        """Send a part of a cell's output, and wait until the host has read everything that was printed before."""
        if os.getpid() != self._owner:
            return
        with self._interrupts.later(), self._lock:
            _flush()
            self._number += 1
            self._send(kind, {**fields, "number": self._number}, body)
            while self._receive() != {"kind": "read", "number": self._number}:
                pass

    def _send(self, kind: str, fields: Mapping[str, Any], body: bytes) -> None:
        header = json.dumps({"kind": kind, **fields}).encode("ascii")
        self._socket.sendall(struct.pack(">II", len(header), len(body)) + header)
        if body:
            self._socket.sendall(body)

    def _receive(self) -> dict[str, Any]:
        size, _ = struct.unpack(">II", self._exactly(8))
        message: dict[str, Any] = json.loads(self._exactly(size))
        return message

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            part = self._socket.recv(min(size, 1 << 20))
            if not part:  # the host is gone
                os._exit(0)
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


class _Displays(DisplayPublisher):
    """Shows `display(…)` and figures."""

    def publish(self, data: Any, metadata: Any = None, source: Any = None, **_: Any) -> None:
        cast("_Shell", self.shell).show(data)

    def clear_output(self, wait: bool = False) -> None:
        pass


class _Results(DisplayHook):
    """Shows the value of a cell's last expression."""

    def write_output_prompt(self) -> None:
        pass

    def write_format_data(self, format_dict: Mapping[str, Any], md_dict: Any = None) -> None:
        cast("_Shell", self.shell).show(format_dict)


class _Shell(InteractiveShell):
    """IPython without its own files, a terminal, or a way to end the process."""

    displayhook_class = Type(_Results)
    display_pub_class = Type(_Displays)
    host: _Host | None = None
    folder = OFFICIAL

    def init_ipython_dir(self, ipython_dir: Any) -> None:
        pass

    def init_profile_dir(self, profile_dir: Any) -> None:
        pass

    def show(self, data: Mapping[str, Any]) -> None:
        """Show the picture if there is one, else the text, as in the official demo."""
        if self.host is None:
            return
        picture = data.get("image/png")
        if isinstance(picture, str):
            picture = base64.b64decode(picture)
        if isinstance(picture, bytes) and len(picture) <= PICTURE:
            self.host.show("picture", picture)
        elif isinstance(text := data.get("text/plain"), str):
            self.host.show("result", text=_cut(text))

    def showtraceback(self, exc_tuple: Any = None, *args: Any, **options: Any) -> None:
        """Show a traceback. A cell may end with `sys.exit()`, like a script; without a status, this is not an error."""
        kind, error, _ = self._get_exc_info(exc_tuple)
        if not issubclass(kind, SystemExit):
            super().showtraceback(exc_tuple, *args, **options)
        elif error.code not in (None, 0) and self.host is not None:
            self.host.show("error", text=_cut(f"SystemExit: {error.code}"))

    def _showtraceback(self, etype: Any, evalue: Any, stb: Sequence[str]) -> None:
        if self.host is not None:
            own = (__file__, os.path.dirname(IPython.core.__file__))
            lines = [part for part in stb if not part.lstrip().startswith(tuple(f"File {path}" for path in own))]
            self.host.show("error", text=_cut("\n".join(lines)))

    def system(self, cmd: str) -> None:
        """Run `!cmd` as a plain child process, because IPython would need a terminal."""
        done = subprocess.run(["/bin/sh", "-c", self.var_expand(cmd, depth=1)], stdin=subprocess.DEVNULL, check=False)
        self.user_ns["_exit_code"] = done.returncode

    def ask_exit(self) -> None:
        """Do nothing, so that `exit` and `quit` do not end the kernel."""


class _AfterImport(importlib.abc.MetaPathFinder):
    """Calls a function on a module after its first import."""

    def __init__(self, then: Mapping[str, Callable[[ModuleType], None]]) -> None:
        self._then = dict(then)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        then = self._then.pop(name, None)
        if then is None:
            return None
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            with contextlib.suppress(Exception):  # an error here must not make the package unusable
                then(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def prepare(policy: Mapping[str, Any]) -> None:
    """Import and set up everything that the shell needs. This is done before the seccomp filter is loaded.

    Args:
        policy: policy of the sandbox; `folder` is the path of the conversation's folder inside.
    """
    with contextlib.suppress(OSError):
        os.chdir(policy["folder"])
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    config = Config()
    config.HistoryManager.enabled = False
    config.HistoryManager.hist_file = ":memory:"
    config.InteractiveShell.colors = "nocolor"
    config.InteractiveShell.xmode = "Plain"
    config.InteractiveShell.cache_size = 0  # otherwise every large result stays in `Out`
    config.InteractiveShell.history_length = 0
    config.DisplayFormatter.active_types = ["text/plain", "image/png"]
    config.PlainTextFormatter.max_width = 120
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shell = _Shell.instance(config=config)
    shell.folder = policy["folder"]


def serve(fd: int) -> None:
    """Run cells until the host closes the socket. Does not return.

    Args:
        fd: descriptor of the stream socket.
    """
    shell = _Shell.instance()
    interrupts = _Interrupts()
    interrupts.install()
    owner = os.getpid()
    shell.host = host = _Host(fd, interrupts)
    printed = os.dup(1)
    sys.stdin = open(os.devnull)  # noqa: SIM115
    sys.stdout, sys.stderr = _printer(1), _printer(2)
    builtins.input = _no_input
    warnings.showwarning = _warnings(warnings.showwarning)
    sys.path.append(os.getcwd())  # last, so that a file in the folder hides no package
    sys.argv = ["kernel"]
    host.tell("ready", pid=owner)
    while True:
        message = host.ask()
        if message["kind"] == "settings":
            sys.meta_path.insert(0, _after_import(message["fonts"]))
            continue
        if message["kind"] == "folder":
            _move(message["old"], message["path"])
            shell.folder = message["path"] if shell.folder == message["old"] else shell.folder
        if message["kind"] == "import":
            for name in message["names"]:
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
        if message["kind"] == "run":
            for number in (1, 2):  # a cell may have closed or replaced them
                os.dup2(printed, number)
            interrupts.install()
            _run(shell, interrupts, _here(message["code"], shell.folder))
            if os.getpid() != owner:  # the cell has forked, and this is the child
                os._exit(0)
            if sys.stdout.closed or sys.stderr.closed:
                sys.stdout, sys.stderr = _printer(1), _printer(2)
        _flush()
        host.tell("done", number=message["number"])


def _run(shell: _Shell, interrupts: _Interrupts, code: str) -> None:
    try:
        interrupts.running = True
        try:
            shell.run_cell(code, store_history=True)
        finally:
            interrupts.running = False
    except KeyboardInterrupt:
        if shell.host is not None:
            shell.host.show("error", text="KeyboardInterrupt")
    except SystemExit:
        pass
    interrupts.running = False


def _here(code: str, folder: str) -> str:
    """Replace the official path of the folder in code by the real one. Only a namespace provides the official path."""
    return code if folder == OFFICIAL or set(folder) & set("'\"\\{}\n") else code.replace(OFFICIAL, folder)


def _printer(fd: int) -> io.TextIOWrapper:
    """A text file without a buffer, so that the next output of a child process comes after it."""
    raw: Any = io.FileIO(fd, "w", closefd=False)
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", newline="\n", write_through=True)


def _flush() -> None:
    for file in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            file.flush()


def _cut(text: str) -> str:
    """Cut the middle of a long text. The last rows of a table and the last lines of a traceback are important."""
    if len(text) <= RESULT:
        return text
    return f"{text[: RESULT // 2]}\n… ({len(text) - RESULT} characters left out) …\n{text[-(RESULT // 2) :]}"


def _no_input(prompt: object = "") -> str:
    raise EOFError(_INPUT)


def _move(old: str, new: str) -> None:
    """Adjust paths after the folder got another path. If it is mounted in the sandbox, nothing changes."""

    def moved(path: str) -> str:
        return new + path[len(old) :] if path == old or path.startswith(old + os.sep) else path

    for name, value in os.environ.items():
        os.environ[name] = moved(value)
    sys.path = [moved(entry) for entry in sys.path]
    if os.getcwd() == new:  # sets PWD, too
        os.chdir(new)


def _after_import(fonts: Sequence[str]) -> _AfterImport:
    return _AfterImport(
        {"pandas": _widen_tables, "matplotlib.font_manager": lambda module: _add_chinese(module, frozenset(fonts))}
    )


def _widen_tables(pandas: Any) -> None:
    """Let pandas write tables wider than 80 columns, which would break most of them into pieces."""
    pandas.set_option("display.width", 160)
    pandas.set_option("display.max_columns", 24)
    pandas.set_option("display.unicode.east_asian_width", True)


_CHINESE = (
    "cjk", "wenquanyi", "source han", "droid sans fallback", "ar pl", "simhei", "simsun", "yahei", "pingfang", "heiti",
    "songti", "hiragino sans gb", "arial unicode", "lxgw",
)  # fmt: skip
"""Parts of the names of fonts with Chinese characters, for machines without fontconfig."""
_NAMES = (
    "SimHei", "SimSun", "Microsoft YaHei", "KaiTi", "FangSong", "STSong", "STHeiti", "PingFang SC",
    "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Noto Sans CJK SC", "Source Han Sans CN", "Arial Unicode MS",
)  # fmt: skip
"""Fonts that code for Chinese plots often names; most servers do not have them."""


def _add_chinese(font_manager: Any, files: frozenset[str]) -> None:
    """Let matplotlib use a font with Chinese for characters that the default font lacks.

    This is not in a matplotlibrc, because only matplotlib knows the name under which it lists a font's file: of a
    collection (.ttc) it reads only the first face.
    """
    import matplotlib

    manager = font_manager.fontManager
    known = [font for font in manager.ttflist if font.fname in files]
    known = known or [font for font in manager.ttflist if any(part in font.name.lower() for part in _CHINESE)]
    if not known:
        return
    known.sort(key=lambda font: ("sans" not in font.name.lower(), "mono" in font.name.lower(), font.name))
    best = known[0].name
    families = {
        "font.family": ["DejaVu Sans", best],
        "axes.unicode_minus": False,  # many fonts with Chinese lack U+2212
    }
    for settings in (matplotlib.rcParams, matplotlib.rcParamsDefault, matplotlib.rcParamsOrig):
        settings.update(families)
    present = {font.name for font in manager.ttflist}
    for font in [font for font in known if font.name == best]:
        for name in _NAMES:
            if name not in present:
                alias = {field: getattr(font, field) for field in vars(font)}
                manager.ttflist.append(type(font)(**{**alias, "name": name}))


def _warnings(show: Callable[..., None]) -> Callable[..., None]:
    """Make a replacement of `warnings.showwarning`. matplotlib warns about each character that it cannot draw; instead,
    say once what to do.
    """

    def shown(message: Any, category: Any, filename: Any, lineno: Any, file: Any = None, line: Any = None) -> None:
        if str(message).startswith("Glyph ") and "CJK UNIFIED" in str(message):
            if not told:
                told.append(True)
                print(_GLYPH, file=sys.stderr)
        elif not str(message).startswith("To exit: "):  # IPython's warning about SystemExit
            show(message, category, filename, lineno, file, line)

    told: list[bool] = []
    return shown
