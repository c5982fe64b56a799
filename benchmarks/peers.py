"""Sets up the engines that bench_cpu.py and bench_serving.py compare with, from PyPI, in virtual environments.

    python benchmarks/peers.py --folder PEERS [--layers 28] [--peers llama.cpp,openvino,ftllm]

- llama.cpp: llama-cpp-python, compiled for this CPU, and `llama-server` out of the same source; a random ChatGLM in
  Q4_0, output and embedding as well.
- openvino: OpenVINO GenAI; a random model of the same sizes, exported by optimum-intel with symmetric int4 weights in
  all layers, once per channel and once in groups of 128.
- ftllm: fastllm without its CUDA libraries; it reads the bf16 folder that the export starts from.

What is there already is left alone. Needs a C++ compiler and CMake, 40 GB of disk (25 GB stay), 16 GiB of memory and a
quarter of an hour.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

WORKERS = Path(__file__).resolve().parent / "workers"
TRANSFORMERS = "transformers==5.5.4"
LLAMA_CPP = "llama-cpp-python==0.3.36"
FASTLLM_NEEDS = "requirements-fastllm.txt"


class Setup:
    """One folder of peers."""

    def __init__(self, folder: Path, layers: int, torch: str) -> None:
        self.folder, self.layers, self.torch = folder, layers, torch
        self.models = folder / "models" / str(layers)
        self.models.mkdir(parents=True, exist_ok=True)

    def llama_cpp(self) -> None:
        with Environment(self.folder / "venvs" / "llama.cpp") as environment:
            environment.install(
                LLAMA_CPP,
                "--no-binary=llama-cpp-python",
                CMAKE_ARGS="-DGGML_NATIVE=ON -DCMAKE_BUILD_TYPE=Release",
            )
            environment.install("gguf==0.19.0")
        made(environment.program("llama-server"), partial(self._llama_server, environment))
        self._random(environment, "gguf", self.models / "q4_0.gguf")

    def _llama_server(self, environment: Environment, target: Path) -> None:
        """llama.cpp's own server, out of the same source; bench_serving.py runs it."""
        with tempfile.TemporaryDirectory(dir=self.folder) as work:
            download = ("download", "--no-deps", "--no-binary=llama-cpp-python", "--quiet", "--dest", work)
            run(environment.program("pip"), *download, LLAMA_CPP)
            (archive,) = Path(work).glob("llama_cpp_python-*.tar.gz")
            shutil.unpack_archive(archive, work, filter="data")
            (source,) = Path(work).glob("llama_cpp_python-*/vendor/llama.cpp")
            build = Path(work) / "build"
            switches = [
                *("-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DBUILD_SHARED_LIBS=OFF"),
                # No page in the browser, and nothing that would be fetched for it.
                *(f"-DLLAMA_{name}=OFF" for name in ("OPENSSL", "BUILD_UI", "USE_PREBUILT_UI")),
                *(f"-DLLAMA_BUILD_{name}=OFF" for name in ("APP", "EXAMPLES", "TESTS")),
            ]
            run("cmake", "-S", source, "-B", build, *switches)
            run("cmake", "--build", build, "--target", "llama-server", "--parallel", os.cpu_count())
            shutil.copy2(build / "bin" / "llama-server", target)

    def openvino(self) -> None:
        with Environment(self.folder / "venvs" / "openvino") as environment:
            environment.install(self.torch)
            environment.install(
                "nncf==3.4.0", "openvino-genai==2026.4.1.0", TRANSFORMERS, "psutil", "requests", self.torch
            )
            # Their own requirements would bring a torchvision that belongs to another torch.
            environment.install("--no-deps", "optimum==2.3.0", "optimum-intel==2.2.0")
        plain = self._plain(environment)
        program = environment.program("optimum-cli")
        for name, group in (("openvino-channel", -1), ("openvino-group", 128)):
            words = ("export", "openvino", "--model", plain, "--task", "text-generation-with-past", "--weight-format")
            how = ("int4", "--sym", "--group-size", group, "--ratio", "1.0", "--all-layers")
            made(self.models / name, partial(run, program, *words, *how))

    def ftllm(self) -> None:
        with Environment(self.folder / "venvs" / "ftllm") as environment:
            environment.install("--no-deps", "ftllm==1.9.0")  # it asks for CUDA's libraries, which nothing here needs
            environment.install(TRANSFORMERS, "--requirement", str(WORKERS / FASTLLM_NEEDS))
        self._plain(environment)

    def _plain(self, environment: Environment) -> Path:
        return self._random(environment, "hf", self.models / "hf")

    def _random(self, environment: Environment, kind: str, target: Path) -> Path:
        script, program = WORKERS / "random_models.py", environment.program("python")
        return made(target, lambda part: run(program, script, kind, part, self.layers))


class Environment:
    """A virtual environment; what is done in the `with` block is done once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._done = (folder / "complete").exists()

    def __enter__(self) -> Environment:
        if not self._done:
            run(sys.executable, "-m", "venv", self.folder)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            (self.folder / "complete").touch()

    def program(self, name: str) -> Path:
        return self.folder / "bin" / name

    def install(self, *what: str, **variables: str) -> None:
        if not self._done:
            run(self.program("pip"), "install", "--no-input", "--quiet", *what, **variables)


def made(target: Path, make: Callable[[Path], object]) -> Path:
    """A file or folder that is there, or is made under another name first."""
    if not target.exists():
        part = target.with_name(f"part-{target.name}")
        shutil.rmtree(part, ignore_errors=True)
        make(part)
        part.rename(target)
    return target


def run(*command: object, **variables: str) -> None:
    words = [str(word) for word in command]
    print("$", *words, flush=True)
    subprocess.run(words, check=True, env={**os.environ, **variables})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--peers", default="llama.cpp,openvino,ftllm")
    parser.add_argument("--torch", default="torch==2.13.0", help="for the export; a CPU build's wheel, say")
    options = parser.parse_args()
    setup = Setup(options.folder.resolve(), options.layers, options.torch)
    known: dict[str, Callable[[], None]] = {
        "llama.cpp": setup.llama_cpp,
        "openvino": setup.openvino,
        "ftllm": setup.ftllm,
    }
    for name in options.peers.split(","):
        if name not in known:
            raise SystemExit(f"--peers: no {name!r}; there are {', '.join(known)}")
        known[name]()


if __name__ == "__main__":
    main()
