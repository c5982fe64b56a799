"""Kernels of CPUs that the tests do not run on, under an emulator; and those of this one, by the same program."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from chatglm.kernels import native

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[1] / "src" / "chatglm" / "kernels" / "cpu"


def compare(compiler: str, variant: str, flags: list[str], folder: Path, run: list[str]) -> str:
    """Build the comparison with the portable kernels, run it; what it printed."""
    program = folder / variant
    sources = [HERE / "against_portable.cpp", SOURCE / f"isa_{variant}.cpp", SOURCE / "isa_portable.cpp"]
    objects = []
    for source in sources:
        objects.append(folder / f"{source.stem}.o")
        own = flags if source.stem == f"isa_{variant}" else []
        command = [compiler, "-std=c++20", "-O0", "-c", f"-I{SOURCE}", f"-DCHATGLM_CHECKED={variant}", *own]
        built = subprocess.run([*command, str(source), "-o", str(objects[-1])], capture_output=True, text=True)
        assert built.returncode == 0, built.stderr
    linked = subprocess.run(
        [compiler, "-static", *map(str, objects), "-o", str(program)], capture_output=True, text=True
    )
    assert linked.returncode == 0, linked.stderr
    done = subprocess.run([*run, str(program)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_neon(tmp_path: Path) -> None:
    native = platform.machine() in ("aarch64", "arm64")
    compiler = shutil.which("c++" if native else "aarch64-linux-gnu-g++")
    emulator = [] if native else [shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64") or ""]
    if compiler is None or emulator == [""]:
        pytest.skip(
            "this machine is no ARM one, and has no cross compiler with emulator (g++-aarch64-linux-gnu, qemu-user)"
        )
    said = compare(compiler, "neon", ["-march=armv8.2-a+dotprod"], tmp_path, emulator)
    assert said.startswith("neon: 0 of ")
    assert int(said.split()[3]) > 150


def test_avx_vnni(tmp_path: Path) -> None:
    """On any CPU with AVX2: what AVX-VNNI adds to that is two instructions, done by hand here."""
    compiler = shutil.which("c++")
    if compiler is None or "avx2" not in native.info().variants:
        pytest.skip("this CPU has no AVX2, or there is no C++ compiler")
    flags = ["-mavx2", "-mfma", "-mf16c", "-include", str(HERE / "vnni_by_hand.h")]
    said = compare(compiler, "avx_vnni", flags, tmp_path, [])
    assert said.startswith("avx-vnni: 0 of ")
    assert int(said.split()[3]) > 150


X86 = {
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx_vnni": ["-mavx2", "-mfma", "-mf16c", "-mavxvnni"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni", "-mfma", "-mf16c"],
}


@pytest.mark.parametrize("variant", X86)
def test_x86(variant: str, tmp_path: Path) -> None:
    """The comparison itself is tested by variants that the other tests know to be right."""
    compiler = shutil.which("c++")
    if platform.machine() not in ("x86_64", "AMD64") or compiler is None:
        pytest.skip("this machine is no x86-64 one, or has no C++ compiler")
    if variant.replace("_", "-") not in native.info().variants:
        pytest.skip(f"this CPU, or its compiler, has no {variant}")
    said = compare(compiler, variant, X86[variant], tmp_path, [])
    assert said.startswith(f"{variant.replace('_', '-')}: 0 of ")
