"""Which kernels are used, and what says so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator

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


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., native.Info]]:
    """What is told with these variables set. The library is afterwards as it was."""
    lib = native.library()
    before = (lib.cg_variant(), lib.cg_threads()) if lib is not None else None

    def get(**variables: str) -> native.Info:
        with monkeypatch.context() as patch:
            patch.delenv("CHATGLM_NUM_THREADS", raising=False)
            for name, value in variables.items():
                patch.setenv(name, value)
            native._load_once.cache_clear()
            return native.info()

    yield get
    native._load_once.cache_clear()
    if lib is not None and before is not None:
        native.library()
        lib.cg_use(before[0])
        lib.cg_set_threads(before[1])


def needs_library() -> None:
    if native.library() is None:
        pytest.skip(f"no native kernels: {native.info().reason}")


def test_this_installation_has_the_library() -> None:
    """Where there is a compiler, which CI has, the library is built."""
    assert native.info().path is not None, native.info().reason


def test_every_variant_can_be_forced(chosen: Callable[..., native.Info]) -> None:
    needs_library()
    for variant in native.info().variants:
        info = chosen(CHATGLM_KERNELS=variant)
        assert (info.variant, info.reason) == (variant, f"CHATGLM_KERNELS={variant}")
    info = chosen(CHATGLM_KERNELS="reference")
    assert (info.variant, info.reason, info.variants) == ("reference", "CHATGLM_KERNELS=reference", ())


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"CHATGLM_KERNELS": "sse9"}, "CHATGLM_KERNELS=sse9: available on this CPU are "),
        ({"CHATGLM_NUM_THREADS": "many"}, "CHATGLM_NUM_THREADS=many: expected a number"),
        ({"CHATGLM_NUM_THREADS": "0"}, "CHATGLM_NUM_THREADS=0: expected a number"),
    ],
)
def test_what_is_not_there_is_refused_by_name(
    variables: dict[str, str], reason: str, chosen: Callable[..., native.Info]
) -> None:
    if "CHATGLM_KERNELS" in variables:
        needs_library()
    with pytest.raises(InputError, match=f"^{re.escape(reason)}"):
        chosen(**variables)


def test_threads(chosen: Callable[..., native.Info], caplog: pytest.LogCaptureFixture) -> None:
    needs_library()
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert chosen(CHATGLM_NUM_THREADS="1").threads == 1
    assert not caplog.records
    for many in ("100000", "9" * 5000):
        caplog.clear()
        assert chosen(CHATGLM_NUM_THREADS=many).threads == cpus
        (record,) = caplog.records
        assert record.getMessage().startswith("CHATGLM_NUM_THREADS=")
        assert f"may use {cpus} CPUs" in record.getMessage()
    for wrong in (0, -1, 1.5, True, "2", None):
        with pytest.raises(InputError, match="threads: expected an integer, at least 1"):
            native.set_threads(wrong)  # type: ignore[arg-type]


def test_a_new_process_obeys_and_says_so_once() -> None:
    needs_library()
    done = told(
        "from chatglm.kernels.native import info, library; library(); print(info().variant, info().threads)",
        CHATGLM_KERNELS="portable",
        CHATGLM_NUM_THREADS="100000",
    )
    assert done.stdout.startswith("portable ")
    assert done.stderr.count("CHATGLM_NUM_THREADS=") == 1


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
