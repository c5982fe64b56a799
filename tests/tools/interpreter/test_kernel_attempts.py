"""The attempts through a real kernel: what only its host's watchdog ends, and what IPython might add to get."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from attempts import Attempt, Surroundings
from hosts import NOBODY, need, prepared

from chatglm.tools.interpreter.kernel import RESTARTED, Kernel
from chatglm.tools.interpreter.limits import Cell, Limits
from chatglm.tools.interpreter.sandbox import Tier
from kernels import need_sandbox

IPython = pytest.importorskip("IPython")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sandboxes need Linux")

MIB = 1 << 20
LIMITS = Limits(
    memory=400 * MIB,
    file=16 * MIB,
    folder=64 * MIB,
    files=1000,
    processes=40,
    seconds=2.0,
    output=4 * MIB,
    shown=20_000,
)
SLOW = replace(LIMITS, seconds=20.0)  # for cells that are not to be stopped by the clock
TIME = ("13", "14")
CONFINED = ("00", "06", "07", "08", "11", "12", "20", "24", "25", "26", "28", "3", "40")  # the others: test_sandbox.py
ENDED = {
    "07": "400 MiB of memory",
    "08": "400 MiB of memory",
    "11": "64 MiB in its folder",
    "12": "1000 files",
    "14": "did not stop",
    "25": "4 MiB of output",
    "28": "announced a message",
    "36": "400 MiB of memory",
    "40": "400 MiB of memory",
    "41": "400 MiB of memory",
    "34": "deep",  # where temporary files lie in the folder
}


@pytest.fixture(scope="module")
def around() -> Iterator[Surroundings]:
    need_sandbox()
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGUSR2)}
    with Surroundings() as made:
        yield made
    assert before == {number: signal.getsignal(number) for number in before}


async def try_all(folder: Path, tier: Tier, limits: Limits, attempts: list[Attempt]) -> dict[str, tuple[Cell, str]]:
    """What came of each attempt, and what the next cell printed."""
    kernel = await Kernel.start(folder, limits, tier=tier)
    found = {}
    try:
        for attempt in attempts:
            cell = await kernel.run(attempt.code)
            after = await kernel.run("print(40 + 2)")
            found[attempt.name] = (cell, after.text.removeprefix(RESTARTED + "\n"))
            if cell.ended:
                await kernel.run(
                    "import shutil, os\nfor name in os.listdir(): shutil.rmtree(name) "
                    "if os.path.isdir(name) else os.unlink(name)"
                )
        poisoned = await kernel.run("import json; print(os.environ.get('POISONED'))")
        assert "1" not in poisoned.text
    finally:
        await kernel.close()
    return found


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("tier", ["full", "confined"])
def test_nothing_is_got_through_a_kernel(around: Surroundings, tier: Tier, stopped: bool) -> None:
    attempts = [each for each in around.attempts() if each.name.startswith(TIME) == stopped]
    if tier == "confined" and not stopped:
        attempts = [each for each in attempts if each.name.startswith(CONFINED)]
    asyncio.run(try_all(around.mine, tier, LIMITS, []))  # what is opened once, and stays
    before = open_files()
    found = asyncio.run(try_all(around.mine, tier, LIMITS if stopped else SLOW, attempts))
    assert open_files() == before
    for name, (cell, after) in found.items():
        assert "GOT" not in cell.text, (name, cell.text)
        assert after.rpartition("]\n")[2] == "42\n", (name, after)  # a note may be in front: the folder is full
        expected = ENDED.get(name[:2], "")
        if name.startswith("26"):  # its memory, or its length
            assert cell.ended or cell.error or len(cell.text) < 100_000
        elif name.startswith("13"):
            assert "interrupted" in cell.text
        elif name.startswith("34"):
            assert not cell.ended or (expected in cell.ended and tier == "confined")
        else:
            assert expected in cell.ended, (name, cell)
            assert bool(cell.ended) == bool(expected), (name, cell)
    assert around.arrived() == []
    left = [name for name in os.listdir(around.mine) if name == ".tmp"]
    assert left == []


@pytest.mark.parametrize("tier", ["full", "confined"])
def test_the_host_of_an_ordinary_user_sees_what_its_kernels_use(tier: Tier) -> None:
    """Root may look into every process; others only into those that let them."""
    user = os.getuid() or NOBODY - 6
    need({}, user)
    packages = Path(IPython.__file__).parents[1]
    if user != os.getuid() and not all(path.stat().st_mode & 0o001 for path in (packages, *packages.parents)):
        pytest.skip(f"{packages}: other users cannot read our packages")
    code = r"""
import asyncio, json, sys
from attempts import Surroundings
from chatglm.tools.interpreter.kernel import Kernel
from chatglm.tools.interpreter.limits import Limits

unnamed = "\n".join((
    "import os, time",
    "for _ in range(6):",
    "    f = os.open('f', os.O_RDWR | os.O_CREAT)",
    "    os.unlink('f')",
    "    os.write(f, bytes(16 << 20))",
    "time.sleep(2)",
))
async def main():
    with Surroundings() as around:
        limits = Limits(memory=400 << 20, file=16 << 20, folder=64 << 20, processes=40)
        kernel = await Kernel.start(around.mine, limits, tier=sys.argv[1])
        codes = [unnamed, *(each.code for each in around.attempts() if each.name[:2] in ("07", "08", "36", "40"))]
        print(json.dumps([(await kernel.run(code)).ended for code in codes]))
        await kernel.close()
asyncio.run(main())
"""
    with prepared(bare=False) as host:
        host.packages = (str(packages),)
        folder, *memory = json.loads(host.python(user, ["-c", code, tier]))
    assert "64 MiB in its folder" in folder
    assert all("400 MiB of memory" in each for each in memory), memory
