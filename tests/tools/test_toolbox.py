"""The one place that runs a call: whatever a tool does, there is an outcome."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from chatglm.chat.messages import ToolCall, ToolSpec
from chatglm.errors import InputError, ToolError
from chatglm.tools.functions import Function
from chatglm.tools.threads import LoopThread
from chatglm.tools.tool import Consent, Outcome, Tool
from chatglm.tools.toolbox import Toolbox
from waiting import until


def add(a: int, b: int = 2) -> int:
    """Adds two numbers."""
    return a + b


@contextlib.contextmanager
def box_of(*tools: Any, **options: Any) -> Iterator[Toolbox]:
    with Toolbox(tools, **options) as box:
        yield box


def now(box: Toolbox, name: str, permit: Any = None, **arguments: Any) -> Outcome:
    (outcome,) = box.call_now([ToolCall(name, arguments)], permit)
    return outcome


def test_a_call() -> None:
    with box_of(add) as box:
        outcome = now(box, "add", a="3")
        assert (outcome.text, outcome.failed, outcome.whole) == ("5", False, "")
        assert outcome.seconds > 0
        assert [spec.name for spec in box.specs] == ["add"]
        assert asyncio.run(box.call(ToolCall("add", {"a": 1, "b": 1}))).text == "2"


def test_functions_that_return_awaitables_are_awaited() -> None:
    async def later(text: str) -> str:
        await asyncio.sleep(0)
        return text

    def also(text: str) -> Awaitable[str]:
        return later(text)

    with box_of(later, also) as box:
        assert [now(box, name, text="x").text for name in ("later", "also")] == ["x", "x"]


def test_calls_of_a_turn_run_together_and_come_in_their_order() -> None:
    met = threading.Barrier(2, timeout=60)

    def meet(name: str) -> str:
        met.wait()
        return name

    async def meet_too(name: str) -> str:
        await asyncio.to_thread(met.wait)
        return name

    with box_of(meet, meet_too, seconds=100) as box:
        asked = [ToolCall("meet", {"name": "a"}), ToolCall("none", {}), ToolCall("meet_too", {"name": "b"})]
        first, unknown, second = box.call_now(asked)
        assert (first.text, second.text) == ("a", "b")
        assert unknown.text == "Tool `none` not found. Please use a provided tool: meet, meet_too."
        assert unknown.failed


def test_only_so_many_run_at_once() -> None:
    lock, running, most = threading.Lock(), 0, 0

    def count() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1

    with box_of(count, together=3) as box:
        outcomes = box.call_now([ToolCall("count", {})] * 40)
        assert [outcome.failed for outcome in outcomes] == [False] * 32 + [True] * 8
        assert most == 3


def test_one_box_serves_many_threads_and_loops() -> None:
    async def later(n: int) -> int:
        await asyncio.sleep(0.001)
        return n

    with box_of(add, later) as box, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: [o.text for o in box.call_now([ToolCall("later", {"n": n})] * 2)], range(40)))
        assert found == [[str(n)] * 2 for n in range(40)]
        found = list(pool.map(lambda n: asyncio.run(box.call(ToolCall("add", {"a": n}))).text, range(40)))
        assert found == [str(n + 2) for n in range(40)]


def test_names() -> None:
    def get_weather() -> str:
        return "sunny"

    def Echo() -> str:  # noqa: N802
        return "large"

    def echo() -> str:
        return "small"

    with box_of(get_weather, Echo, echo) as box:
        for name in ("get_weather", " get_weather\n", "functions.get_weather", "Get_Weather", "`get-weather`"):
            assert now(box, name).text == "sunny", name
        assert now(box, "Echo").text == "large"
        assert now(box, "echo").text == "small"
        for name in ("ECHO", "get weather", "", "x" * 10**6, "interpreter"):
            outcome = now(box, name)
            assert outcome.text.startswith("Tool `"), name
            assert outcome.failed
            assert len(outcome.text) < 250
    with pytest.raises(ToolError, match="two are named add"):
        Toolbox([add, add])


def test_the_interpreter_goes_by_both_names() -> None:
    class Runs:
        """Says what it would run."""

        spec, consent = ToolSpec({"type": "python"}), Consent.NEVER

        async def run(self, arguments: Any) -> Outcome:
            return Outcome(str(arguments["code"]))

    def python(x: int) -> str:
        return "a function of that name"

    with box_of(add) as box:
        conversation = box.also(Runs())
        for name in ("interpreter", "python", "Python", "functions.python"):
            assert now(conversation, name, code="1 + 1").text == "1 + 1"
        assert now(box.also(python), "python", x=1).text == "a function of that name"


# What tools do


class _BrokenError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


@pytest.mark.parametrize("kind", ["thread", "coroutine"])
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("no such city"), "Error: ValueError: no such city"),
        (KeyError("x"), "Error: KeyError: 'x'"),
        (_BrokenError(), "Error: _BrokenError"),
        (SystemExit(3), "Error: SystemExit: 3"),
        (KeyboardInterrupt(), "Error: KeyboardInterrupt"),
        (StopIteration(1), "StopIteration"),
        (asyncio.CancelledError(), "cancelled"),
        (MemoryError(), "Error: MemoryError"),
    ],
)
def test_what_a_tool_raises_is_told(kind: str, error: BaseException, words: str) -> None:
    def fail() -> None:
        raise error

    async def fail_later() -> None:
        await asyncio.sleep(0)
        raise error

    with box_of(fail if kind == "thread" else fail_later, add) as box:
        outcome = now(box, box.specs[0].name)
        assert words.lower() in outcome.text.lower()
        assert outcome.failed
        assert now(box, "add", a=1).text == "3"


@pytest.mark.parametrize(
    "answer",
    [None, 3, "text", Outcome(None), Outcome("x", pictures=None), Outcome("x", whole=7), Outcome("y" * 10**8)],  # type: ignore[arg-type]
)
def test_a_tool_of_ones_own_kind_that_answers_anything(answer: Any) -> None:
    class Odd:
        """Is not what it says it is."""

        spec, consent = Function.of(add).spec, Consent.NEVER

        async def run(self, arguments: Any) -> Any:
            return answer

    with box_of(Odd()) as box:
        outcome = now(box, "add")
        assert isinstance(outcome.text, str)
        assert len(outcome.text) < 1100
        assert len(outcome.whole.encode()) < 300_000


@pytest.mark.parametrize("asked", [ToolCall("add", None), ToolCall(None, {}), ToolCall(3, {}), ToolCall("add", [1])])  # type: ignore[arg-type]
def test_a_call_that_is_none(asked: Any) -> None:
    with box_of(add) as box:
        (outcome,) = box.call_now([asked])
        assert outcome.failed


def test_endless_recursion() -> None:
    def forever(n: int) -> int:
        return forever(n + 1)

    with box_of(forever) as box:
        assert "RecursionError" in now(box, "forever", n=0).text


def test_a_tool_that_hangs_is_given_up_and_counted() -> None:
    go = threading.Event()

    def hang() -> str:
        go.wait(60)
        return "late"

    with box_of(hang, add, seconds=0.05, together=8) as box:
        outcomes = box.call_now([ToolCall("hang", {})] * 8)
        assert {outcome.text for outcome in outcomes} == {"hang did not end within 0.05 seconds and was given up."}
        assert "8 calls before it have hung, and tools are off" in now(box, "add", a=1).text
        assert "tools are off" in asyncio.run(box.also().call(ToolCall("add", {"a": 1}))).text
        go.set()
        until(lambda: not now(box, "add", a=1).failed)  # they have ended after all


def test_a_coroutine_that_hangs_is_cancelled() -> None:
    told = []

    async def hang() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            told.append("cancelled")
            raise

    class Slow:
        """Has a time of its own."""

        spec, consent, seconds = Function.of(add).spec, Consent.NEVER, 60.0

        async def run(self, arguments: Any) -> Outcome:
            await asyncio.sleep(0.1)
            return Outcome("slow but good")

    with box_of(hang, Slow(), seconds=0.05) as box:
        assert "given up" in now(box, "hang").text
        assert told == ["cancelled"]
        assert now(box, "add").text == "slow but good"


def test_leaving_cancels_what_runs() -> None:
    begun, told = threading.Event(), []

    async def hang() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            told.append("cancelled")
            raise

    async def leave(box: Toolbox) -> None:
        task = asyncio.ensure_future(box.call_all([ToolCall("hang", {})] * 6))
        await asyncio.to_thread(begun.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with box_of(hang) as box:
        asyncio.run(leave(box))
        assert told == ["cancelled"] * 4
        assert box._shared.threads.abandoned == 0


# Whose permission it takes


def asking(*answers: bool) -> tuple[Callable[[ToolCall, Tool], Awaitable[bool]], list[str]]:
    heard: list[str] = []
    left = list(answers)

    async def permit(asked: ToolCall, tool: Tool) -> bool:
        heard.append(f"{tool.spec.name} {dict(asked.arguments)}")
        return left.pop(0)

    return permit, heard


def test_consent() -> None:
    ran = []

    def act(n: int) -> str:
        ran.append(n)
        return "done"

    tools = [Function.of(act, name=f"act_{kind.value}", consent=kind) for kind in Consent]
    with box_of(*tools) as box:
        for name in ("act_once", "act_always"):
            assert "nobody to ask" in now(box, name, n=1).text
        assert ran == []
        permit, heard = asking(False, True, True, True, True)
        assert "did not permit it" in now(box, "act_once", permit, n=1).text
        assert [now(box, "act_once", permit, n=n).text for n in (2, 3)] == ["done", "done"]
        assert [now(box, "act_always", permit, n=n).text for n in (4, 5)] == ["done", "done"]
        assert now(box, "act_never", permit, n=6).text == "done"
        assert ran == [2, 3, 4, 5, 6]
        assert heard == ["act_once {'n': 1}", "act_once {'n': 2}", "act_always {'n': 4}", "act_always {'n': 5}"]
        # Another conversation is asked again, and nobody is asked of a call that cannot be carried out.
        one, other = box.also(), box.also()
        assert now(one, "act_once", permit, n=7).text == "done"
        assert now(one, "act_once", n=8).text == "done"
        assert "nobody to ask" in now(other, "act_once", n=9).text
        assert "missing: n" in now(other, "act_once", permit).text
        assert len(heard) == 5


def test_nobody_is_asked_of_a_call_that_another_kind_of_tool_cannot_carry_out() -> None:
    class Order:
        spec, consent = Function.of(add).spec, Consent.ALWAYS

        def problem(self, arguments: Mapping[str, Any]) -> str:
            return "" if arguments.get("a") == 1 else "a must be 1"

        async def run(self, arguments: Mapping[str, Any]) -> Outcome:
            return Outcome("done")

    permit, heard = asking(True)
    with box_of(Order()) as box:
        assert now(box, "add", permit, a=2).text == "Arguments of add are wrong (a must be 1)."
        assert heard == []
        assert now(box, "add", permit, a=1).text == "done"
        assert len(heard) == 1


def test_a_permission_that_cannot_be_asked_for_is_none() -> None:
    async def permit(asked: ToolCall, tool: Tool) -> bool:
        raise ConnectionError("the page has gone")

    with box_of(Function.of(add, consent=Consent.ALWAYS)) as box:
        assert "the page has gone" in now(box, "add", permit, a=1).text


def test_what_runs_is_what_was_permitted() -> None:
    async def permit(asked: ToolCall, tool: Tool) -> bool:
        asked.arguments["numbers"].append(100)
        return True

    def total(numbers: list[Any]) -> int:
        """Adds them up."""
        return sum(numbers)

    class Total:
        """A tool of another kind."""

        spec, consent = Function.of(total).spec, Consent.ALWAYS

        async def run(self, arguments: Any) -> Outcome:
            return Outcome(str(sum(arguments["numbers"])))

    for tool in (Function.of(total, consent=Consent.ALWAYS), Total()):
        with box_of(tool) as box:
            assert now(box, "total", permit, numbers=[1, 2]).text == "3"


# Boxes of one conversation, and the end


def test_a_box_of_a_conversation() -> None:
    def own() -> str:
        return "own"

    with box_of(add) as box:
        conversation = box.also(own)
        assert [spec.name for spec in conversation.specs] == ["add", "own"]
        assert [spec.name for spec in box.specs] == ["add"]
        conversation.close()
        assert now(box, "add", a=1).text == "3"
        assert now(conversation, "own").text == "own"
        with pytest.raises(ToolError, match="two are named add"):
            box.also(add)
    for one in (box, conversation):
        assert "closed" in asyncio.run(one.call(ToolCall("add", {"a": 1}))).text


@pytest.mark.parametrize("options", [{"seconds": 0}, {"characters": 0}, {"whole": -1}, {"together": 0}])
def test_limits_must_be_some(options: Any) -> None:
    with pytest.raises(InputError, match="above 0"):
        Toolbox([add], **options)


def test_call_now_within_the_boxes_own_loop_does_not_wait_for_itself() -> None:
    async def inner() -> str:
        return str(box.call_now([ToolCall("add", {"a": 1})]))

    box = Toolbox([add, inner])
    with box:
        assert "must await" in now(box, "inner").text


def test_tools_that_print_and_close_streams() -> None:
    """In a program of its own, whose streams they are."""
    code = """if True:
        import sys
        from chatglm.chat.messages import ToolCall
        from chatglm.tools import Toolbox
        def noisy(text: str) -> str:
            print(text)
            sys.stdout.close()
            sys.stderr.close()
            return "done"
        with Toolbox([noisy], together=1) as box:
            first, second = box.call_now([ToolCall("noisy", {"text": "hello"})] * 2)
        assert first.text == "done", first
        assert second.failed and "ValueError" in second.text, second
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "hello\n"


def test_a_program_ends_although_tools_hang() -> None:
    code = """if True:
        import time
        from chatglm.chat.messages import ToolCall
        from chatglm.tools import Toolbox
        def hang() -> None:
            time.sleep(600)
        box = Toolbox([hang], seconds=0.1)
        print(box.call_now([ToolCall("hang", {})])[0].text)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "given up" in done.stdout


def test_a_coroutine_that_does_not_let_itself_be_cancelled() -> None:
    go = threading.Event()

    async def stubborn() -> str:
        while not go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)
        return "late"

    with box_of(stubborn, add, seconds=0.05) as box:
        assert "given up" in now(box, "stubborn").text
        assert box._shared.threads.abandoned == 1
        assert now(box, "add", a=1).text == "3"
        go.set()
        until(lambda: box._shared.threads.abandoned == 0)


def test_no_room_for_a_thread(monkeypatch: Any) -> None:
    def start(self: Any) -> None:
        raise RuntimeError("can't start new thread")

    async def here() -> str:
        return "here"

    with box_of(add, here) as box:
        assert now(box, "here").text == "here"  # the loop's thread is there
        monkeypatch.setattr(threading.Thread, "start", start)
        assert "can't start new thread" in now(box, "add", a=1).text
        assert now(box, "here").text == "here"


def test_a_box_in_a_fork() -> None:
    code = """if True:
        import os
        from chatglm.chat.messages import ToolCall
        from chatglm.tools import Toolbox
        def pid() -> int:
            return os.getpid()
        box = Toolbox([pid])
        asked = [ToolCall("pid", {})]
        assert box.call_now(asked)[0].text == str(os.getpid())
        if os.fork() == 0:
            right = box.call_now(asked)[0].text == str(os.getpid())
            box.close()
            os._exit(0 if right else 1)
        assert os.wait()[1] == 0
        box.close()
    """
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)


def test_a_tool_that_closes_its_own_box() -> None:
    async def shut() -> str:
        box.close()
        return "shut"

    box = Toolbox([shut, add])
    assert "closed" in now(box, "shut").text
    assert "closed" in now(box, "add", a=1).text
    assert "closed" in asyncio.run(box.call(ToolCall("add", {"a": 1}))).text


def test_a_box_that_is_closed_while_a_thread_waits() -> None:
    begun = threading.Event()

    async def hang() -> None:
        begun.set()
        await asyncio.sleep(60)

    with ThreadPoolExecutor(1) as pool, box_of(hang) as box:
        waiting = pool.submit(now, box, "hang")
        assert begun.wait(60)
        box.close()
        assert "closed" in waiting.result(60).text


def test_a_loop_that_nobody_has_any_more_ends() -> None:
    ended = threading.Event()

    async def waits() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async def begun() -> threading.Thread:
        kept.append(asyncio.create_task(waits()))
        await asyncio.sleep(0)
        return threading.current_thread()

    kept: list[asyncio.Task[None]] = []
    loop = LoopThread()
    thread = loop.run(begun())
    del loop
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()
    assert ended.is_set()
    again = LoopThread()
    thread = again.run(begun())
    again.close()
    assert not thread.is_alive()
    del again  # a second end would find a closed loop
    gc.collect()
