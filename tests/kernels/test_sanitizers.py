"""The native code under AddressSanitizer and UndefinedBehaviorSanitizer: the same tests, in a build of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from chatglm.kernels import native

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FILES = [str(HERE / name) for name in ("test_linear.py", "test_decoder.py")]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The instrumented library, and the runtime that has to be loaded before Python."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None or shutil.which("cmake") is None:
        pytest.skip("this machine has no C++ compiler, or no cmake")
    runtime = subprocess.run([compiler, "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip()
    if not os.path.isabs(runtime):
        pytest.skip(f"{compiler} has no AddressSanitizer that can be loaded first")
    folder = tmp_path_factory.mktemp("sanitized")
    runnable = ";".join(native.info().variants).replace("-", "_") or "all"  # to build the others takes minutes
    for command in (
        ["cmake", "-S", str(ROOT), "-B", str(folder), "-DCHATGLM_SANITIZE=ON", f"-DCHATGLM_VARIANTS={runnable}"],
        ["cmake", "--build", str(folder), "--parallel", "2"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("libchatglm_kernels.*")), runtime


def test_no_byte_is_touched_that_is_not_ours(built: tuple[Path, str]) -> None:
    library, runtime = built
    code = (
        "import sys, pytest; from pathlib import Path; from chatglm.kernels import native; "
        f"native._find = lambda: Path({str(library)!r}); "
        f"sys.exit(pytest.main(['-q', '-x', '-p', 'no:cacheprovider', {', '.join(map(repr, FILES))}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        # Python and torch leave memory behind at their end; what this looks for is in ours.
        env={
            **os.environ,
            "LD_PRELOAD": runtime,
            "ASAN_OPTIONS": "detect_leaks=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        },
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert " passed" in done.stdout
