"""A worker process tries each new grammar before the engine's process compiles it.

`llguidance` follows rules and schemas by recursion, and an overflow of its stack ends the process. There is no
limit to the time for a grammar either. So a worker process compiles each new grammar first, on a smaller stack than
this process has and with limits of CPU time and memory, and lets it accept some tokens. If the worker dies, that
grammar is refused, and the next one gets a new worker.

The worker runs this module, too: `python -c "from chatglm.engine.compiling import work; work()"`. The module imports
nothing that takes long.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import queue
import random
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Collection, Sequence
from typing import Any, BinaryIO

from chatglm.errors import InputError, QueueFullError, UnsupportedError

__all__ = ["Prover", "limits_of", "problem_of", "vocabulary_of", "work"]

log = logging.getLogger("chatglm.engine")

WORKERS = 2
"""Most worker processes at a time; with more than one, a slow grammar does not delay all others."""
SECONDS = 3
"""Seconds of CPU time for one grammar."""
PATIENCE = 60.0
"""Seconds to wait for a free worker, and for its answer: a busy machine may slow it down."""
MEMORY = 768 << 20
"""Bytes that one grammar may take, in addition to what the worker itself needs."""
STACK = 1 << 20
"""Bytes of the worker's stack. Threads of the engine's process have 8 MiB on Linux and 16 MiB on macOS."""
WALKS, STEPS = 3, 12
"""Number of texts that are generated in a grammar's trial, and number of tokens of each."""
SLOWEST = 0.5
"""Most seconds of CPU time for one token in the trial."""
UNPROVEN_BYTES = 16 << 10
"""If no worker can be started, longer grammars are refused."""


# Used in both processes


def limits_of(library: Any) -> Any:
    """Limits on the work for one token: in the worst case (`s: s s s | s s | /[a-z]/`), 30 ms on a current CPU."""
    return library.LLParserLimits(
        max_items_in_row=2000, step_max_items=5000, max_lexer_states=100_000, verbose_errors=False
    )


def vocabulary_of(library: Any, tokens: Sequence[bytes], stop_ids: Collection[int]) -> Any:
    """A vocabulary in the form that llguidance takes."""

    class Vocabulary:
        eos_token_id = min(stop_ids)
        bos_token_id = None
        special_token_ids = sorted(stop_ids)

        def __call__(self, text: bytes) -> list[int]:  # only forcing would call this
            return []

    vocabulary: Any = Vocabulary()
    # llguidance marks control tokens with 0xFF, which never occurs in UTF-8.
    vocabulary.tokens = [b"" if token.startswith(b"\xff") else token for token in tokens]
    return library.LLTokenizer(library.TokenizerWrapper(vocabulary), eos_token=sorted(stop_ids))


def problem_of(matcher: Any) -> str:
    """The error of a matcher in one line; "" if there is none."""
    if not matcher.is_error():
        return ""
    said = matcher.get_error()
    if "panic" in said or "<backtrace>" in said:  # a bug of the library; the text has memory addresses
        return "the grammar library failed on it"
    if said.startswith("NoExtension"):
        return "no text satisfies it"
    return " ".join(said.replace("<non-verbose/>", " ").split())[:400] or "unknown error"


# The engine's side


class Prover:
    """Tries grammars over one vocabulary in worker processes. May be used from any number of threads."""

    def __init__(self, tokens: Sequence[bytes], stop_ids: Collection[int]) -> None:
        self._tokens, self._stop_ids = tokens, sorted(stop_ids)
        self._prepare()

    def _prepare(self) -> None:
        self._pid = os.getpid()
        self._free: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(WORKERS):
            self._free.put(None)
        self._missing = 0.0  # time until which no worker is started, after it failed
        self._started: set[_Worker] = set()
        weakref.finalize(self, _end_all, self._started, self._pid)

    def prove(self, grammar: str) -> None:
        """Try a grammar.

        Args:
            grammar: a grammar in the form of `LLMatcher`.

        Raises:
            InputError: it is not well-formed.
            UnsupportedError: it needs more time, memory or depth than it may have.
            QueueFullError: too many other grammars are being tried.
        """
        answer = self._ask({"grammar": grammar})
        if answer is None:
            _check_unproven(grammar)
        elif problem := answer.get("problem"):
            raise (UnsupportedError if answer.get("unsupported") else InputError)(problem)

    def to_lark(self, gbnf: str) -> str:
        """Convert a grammar from GBNF to Lark's notation. Errors are those of `prove`."""
        answer = self._ask({"gbnf": gbnf})
        if answer is None:
            _check_unproven(gbnf)
            answer = _convert(gbnf)
        if problem := answer.get("problem"):
            raise (UnsupportedError if answer.get("unsupported") else InputError)(problem)
        return str(answer["lark"])

    def _ask(self, order: dict[str, Any]) -> dict[str, Any] | None:
        """A worker's answer; None if no worker can be started."""
        if self._pid != os.getpid():  # after a fork, the workers belong to the parent process
            for worker in self._started:
                worker.forget()
            self._prepare()
        if time.monotonic() < self._missing:
            return None
        one = self._take()
        try:
            if one is None:
                one = _Worker(self._tokens, self._stop_ids)
                self._started.add(one)
            answer = one.ask(order)
            if answer is not None:
                return answer
            self._started.discard(one)
            one.end()
            one = None
            return {
                "problem": "it takes too much time, memory or depth to compile; make it smaller or flatter",
                "unsupported": True,
            }
        except OSError as error:
            log.warning("grammars are compiled without a trial run: no process can be started for it (%s)", error)
            self._missing, one = time.monotonic() + PATIENCE, None
            return None
        except BaseException:  # such as Ctrl-C: an answer may be on its way, and the next order would get it
            if one is not None:
                self._started.discard(one)
                one.end()
                one = None
            raise
        finally:
            self._free.put(one)

    def _take(self) -> _Worker | None:
        """Wait for a free place. Returns its worker; None: it has none yet."""
        try:
            return self._free.get(timeout=PATIENCE)
        except queue.Empty:
            raise QueueFullError("many grammars are being compiled; try again later") from None


def _check_unproven(grammar: str) -> None:
    if len(grammar) > UNPROVEN_BYTES:
        raise UnsupportedError(
            f"{len(grammar):,} characters; at most {UNPROVEN_BYTES:,} are supported where no process can be started "
            "for a trial run"
        )


class _Worker:
    """One process that tries grammars, one after the other."""

    def __init__(self, tokens: Sequence[bytes], stop_ids: Sequence[int]) -> None:
        if not sys.executable:
            raise OSError("the path of the Python program is unknown (sys.executable is empty)")
        code = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); " + (
            "from chatglm.engine.compiling import work; work()"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, json.dumps([part for part in sys.path if part])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # so that Ctrl-C in a terminal does not reach it
        )
        vocabulary = {"tokens": [token.decode("latin-1") for token in tokens], "stop_ids": list(stop_ids)}
        try:
            known = self.ask(vocabulary)
        except BaseException:  # such as Ctrl-C
            self.end()
            raise
        if known is None:
            self.end()
            raise OSError(f"it ended with code {self._process.returncode}")

    def ask(self, order: dict[str, Any]) -> dict[str, Any] | None:
        """The worker's answer; None: it died, or was ended because it took too long."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        ending = threading.Timer(PATIENCE, self._process.kill)
        ending.daemon = True
        ending.start()
        try:
            _write(self._process.stdin, order)
            return _read(self._process.stdout)
        except (OSError, ValueError):
            return None
        finally:
            ending.cancel()

    def end(self) -> None:
        self._process.kill()
        self._close()
        self._process.wait()

    def forget(self) -> None:
        """Drop the worker without ending it: it belongs to the process that this one was forked from."""
        self._process.returncode = 0  # otherwise Popen would wait for the process
        self._close()

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _end_all(workers: set[_Worker], pid: int) -> None:
    if pid == os.getpid():
        for worker in workers:
            worker.end()


def _write(pipe: BinaryIO | Any, message: dict[str, Any]) -> None:
    data = json.dumps(message).encode()
    pipe.write(len(data).to_bytes(8, "little") + data)
    pipe.flush()


def _read(pipe: BinaryIO | Any) -> dict[str, Any] | None:
    """Read the next message; None: the other process has ended."""
    size = pipe.read(8)
    data = pipe.read(int.from_bytes(size, "little")) if len(size) == 8 else b""
    return dict(json.loads(data)) if data else None


# The worker's side


def work() -> None:
    """The main function of a worker: answer orders from standard input until it closes or the parent process ends."""
    import llguidance

    orders, answers = sys.stdin.buffer, sys.stdout.buffer
    _leave_with_parent()
    first = _read(orders)
    if first is None:
        return
    tokens = [token.encode("latin-1") for token in first["tokens"]]
    tokenizer = vocabulary_of(llguidance, tokens, first["stop_ids"])
    _limit_memory()
    _write(answers, {})
    threading.stack_size(STACK)
    while (order := _read(orders)) is not None:
        _limit_time()
        _write(answers, _answer(llguidance, tokenizer, order))


def _answer(library: Any, tokenizer: Any, order: dict[str, Any]) -> dict[str, Any]:
    made: list[dict[str, Any]] = []

    def carry_out() -> None:
        made.append(_convert(order["gbnf"]) if "gbnf" in order else _try(library, tokenizer, order["grammar"]))

    job = threading.Thread(target=carry_out)
    job.start()
    job.join()
    return made[0] if made else {"problem": "the grammar library failed on it", "unsupported": True}


def _convert(gbnf: str) -> dict[str, Any]:
    from llguidance.gbnf_to_lark import any_to_lark

    try:
        return {"lark": any_to_lark(gbnf)}
    except RecursionError:
        return {"problem": "nested too deeply"}
    except Exception as error:  # it raises many kinds of errors
        return {"problem": f"{error!s:.300}"}


def _try(library: Any, tokenizer: Any, grammar: str) -> dict[str, Any]:
    """Compile a grammar, and generate the beginnings of some texts with it."""
    whole = library.LLMatcher(tokenizer, grammar, log_level=0, limits=limits_of(library))
    if problem := problem_of(whole):
        return {"problem": problem, "unsupported": _is_limit(problem)}
    chance = random.Random(0)
    for _ in range(WALKS):
        matcher = whole.deep_copy()
        for _ in range(STEPS):
            begin = time.thread_time()
            token = _any_of(matcher.compute_bitmask(), chance)
            if matcher.is_stopped() and not matcher.is_error():
                break
            taken = token is not None and matcher.consume_token(token)
            if problem := problem_of(matcher):
                return {"problem": problem, "unsupported": _is_limit(problem)}
            if token is None:
                return {"problem": "after some tokens no token is allowed, and the text must not end there either"}
            if not taken or time.thread_time() - begin > SLOWEST:
                return {"problem": "it takes too much time to follow", "unsupported": True}
    return {}


def _is_limit(problem: str) -> bool:
    return any(word in problem for word in ("nimplemented", "not supported", "oo many", "oo large", "oo big", "exceed",
                                            "limit", "Unable to determine", "failed on it"))  # fmt: skip


def _any_of(mask: bytes, chance: random.Random) -> int | None:
    """A random token that a mask allows; None: it allows none."""
    for _ in range(32):
        place = chance.randrange(len(mask))
        if mask[place]:
            break
    else:
        places = [place for place, byte in enumerate(mask) if byte]
        if not places:
            return None
        place = chance.choice(places)
    return place * 8 + chance.choice([bit for bit in range(8) if mask[place] >> bit & 1])


def _leave_with_parent() -> None:
    """End this process when the parent process ends. Usually standard input is closed then, but another child of the
    parent may hold it open.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(2)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with open("/proc/self/statm", encoding="ascii") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _limit_time() -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        most = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + SECONDS, most))
