"""Which kernels are used, and what says so."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from chatglm.errors import InputError
from chatglm.kernels import native


def told(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )


SHOW = "from chatglm.kernels.native import info; print(*vars(info()).values(), sep='|')"


def needs_library() -> None:
    if native.library() is None:
        pytest.skip(f"no native kernels: {native.info().reason}")


def test_this_installation_has_the_library() -> None:
    """Where there is a compiler, which CI has, the library is built."""
    assert native.info().path is not None, native.info().reason


def test_every_variant_can_be_forced() -> None:
    needs_library()
    for variant in native.info().variants:
        assert told(SHOW, CHATGLM_KERNELS=variant).stdout.startswith(f"{variant}|CHATGLM_KERNELS={variant}|")
    assert told(SHOW, CHATGLM_KERNELS="reference").stdout.startswith("reference|CHATGLM_KERNELS=reference|()|")


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"CHATGLM_KERNELS": "sse9"}, "CHATGLM_KERNELS=sse9: this CPU has "),
        ({"CHATGLM_NUM_THREADS": "many"}, "CHATGLM_NUM_THREADS=many: expected a number"),
        ({"CHATGLM_NUM_THREADS": "0"}, "CHATGLM_NUM_THREADS=0: expected a number"),
    ],
)
def test_what_is_not_there_is_refused_by_name(variables: dict[str, str], reason: str) -> None:
    if "CHATGLM_KERNELS" in variables:
        needs_library()
    assert reason in told(SHOW, **variables).stderr


def test_threads() -> None:
    needs_library()
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert told(SHOW, CHATGLM_NUM_THREADS="1").stdout.split("|")[3] == "1"
    for many in ("100000", "9" * 5000):
        shown = told(SHOW, CHATGLM_NUM_THREADS=many)
        assert shown.stdout.split("|")[3] == str(cpus)
        assert shown.stderr.count("CHATGLM_NUM_THREADS=") == 1
        assert f"may use {cpus} CPUs" in shown.stderr
    for wrong in (0, -1, 1.5, True, "2", None):
        with pytest.raises(InputError, match="threads: expected an integer, at least 1"):
            native.set_threads(wrong)  # type: ignore[arg-type]


def test_no_more_threads_than_cpus(caplog: pytest.LogCaptureFixture) -> None:
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    before = native.info().threads
    try:
        assert native.set_threads(10**6) == cpus
        assert len(caplog.records) == 1
        assert native.set_threads(1) == 1
        assert len(caplog.records) == 1
    finally:
        native.set_threads(before)


def test_cores_of_a_cgroup(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"/sys/fs/cgroup/cpu.max": "150000 100000"}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for cpu in range(8):  # four cores with two threads each
        files[f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"] = f"{cpu % 4},{cpu % 4 + 4}"
    monkeypatch.setattr(native, "_read", lambda path: files.get(path, ""))
    assert native._usable_cores() == 2
    files["/sys/fs/cgroup/cpu.max"] = "max 100000"
    assert native._usable_cores() == 4
    files.clear()
    assert native._usable_cores() == 8


def test_a_forked_child_computes_too() -> None:
    """Threads do not survive a fork: the child starts its own."""
    needs_library()
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    code = """
import os, torch
from chatglm.kernels import native
lib = native.library()
lib.cg_set_threads(3)
weight, inputs = torch.randn(64, 64), torch.randn(5, 64)
wanted = native.linear(lib, inputs, weight)
child = os.fork()
if not child:
    os._exit(0 if torch.equal(native.linear(lib, inputs, weight), wanted) else 1)
assert os.waitpid(child, 0)[1] == 0
assert torch.equal(native.linear(lib, inputs, weight), wanted)
"""
    done = told(code)
    assert done.returncode == 0, done.stderr


def test_several_python_threads_may_call_at_once() -> None:
    needs_library()
    from concurrent.futures import ThreadPoolExecutor

    lib = native.library()
    weights = [torch.randn(80, 96) for _ in range(8)]
    inputs = torch.randn(3, 96)
    wanted = [native.linear(lib, inputs, weight) for weight in weights]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda weight: native.linear(lib, inputs, weight), weights * 20))
    assert all(torch.equal(one, wanted[number % 8]) for number, one in enumerate(got))
