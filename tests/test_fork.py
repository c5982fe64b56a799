"""After a fork a parent's assistant says that it cannot be used, and one that is loaded in the child works."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

HEAD = """
import asyncio, gc, multiprocessing, os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import torch
from chatglm import load
from chatglm.errors import EngineError
from chatglm.kernels import native
native.set_threads(min(2, os.cpu_count()))

def child_of(work):
    child = os.fork()
    if not child:
        try:
            signal.alarm(100)  # rather than to hang
            work()
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
            code = 1
        os._exit(code)
    assert os.waitpid(child, 0)[1] == 0

def refused(call):
    try:
        call()
    except EngineError as error:
        assert "made before a fork" in str(error) and "load it in the child" in str(error), error
    else:
        raise AssertionError("it answered")

ASKED = {"temperature": 0, "max_new_tokens": 8}
"""


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", HEAD + code], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


def test_fork_while_it_answers() -> None:
    """Whatever the parent's threads were doing; torch has several threads in the parent, and in the child."""
    run("""
torch.set_num_threads(2)
a = torch.randn(2_000_000).exp().sum()  # so that torch's threads are there
parent = load(dtype="float32")
wanted = parent.reply("你好", params=ASKED).content
stop = threading.Event()
def keep_busy():
    while not stop.is_set():
        assert parent.reply("你好", params=ASKED).content == wanted
busy = threading.Thread(target=keep_busy)
busy.start()
open_stream = parent.stream("你好", params={"max_new_tokens": 500, "min_new_tokens": 500})
next(open_stream)

def work():
    for call in (
        lambda: parent.reply("你好"),
        lambda: next(parent.stream_text("你好")),
        lambda: parent.reply("q", response_format={"type": "json_object"}),
        lambda: asyncio.run(parent.areply("你好")),
        lambda: list(open_stream),
    ):
        refused(call)
    assert "made before a fork" in parent.problem()
    parent.stats()
    open_stream.close()
    parent.close()
    torch.set_num_threads(2)
    torch.randn(2_000_000).exp().sum()
    for threads in (1, 2):
        native.set_threads(threads)
        with load(dtype="float32") as own:
            assert own.reply("你好", params=ASKED).content == wanted

for _ in range(2):
    child_of(work)
open_stream.close()
assert parent.reply("你好", params=ASKED).content == wanted  # nothing has changed for the parent
stop.set()
busy.join()
parent.close()
""")


def test_pools_of_processes_and_grandchildren() -> None:
    run("""
parent = load(dtype="float32")
wanted = parent.reply("你好", params=ASKED).content
own = None

def answer(number):
    global own
    refused(lambda: parent.reply("你好"))
    own = own or load(dtype="float32")
    return own.reply("你好", params=ASKED).content

with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map_async(answer, range(4)).get(150) == [wanted] * 4

def work():
    with load(dtype="float32") as own:
        assert own.reply("你好", params=ASKED).content == wanted
        child_of(lambda: refused(lambda: own.reply("你好")))
        assert own.reply("你好", params=ASKED).content == wanted

child_of(work)
""")


def test_a_child_that_ends_does_not_wait_for_the_parent_s_threads() -> None:
    run("""
parent = load(dtype="float32")
parent.reply("你好", params=ASKED)
child = os.fork()
if not child:
    signal.alarm(100)
    del parent
    gc.collect()
    sys.exit(0)  # with all that Python does at its end
assert os.waitpid(child, 0)[1] == 0
assert parent.reply("你好", params=ASKED).content
""")
