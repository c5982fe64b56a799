"""Triton's kernels: in Triton's interpreter everywhere, and on a CUDA device where there is one."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cuda_grid
import pytest
import torch
from cuda_grid import CHECKS, DTYPES, Case, cases, packed_weight, ratio
from small import ids_for, small

from chatglm.kernels import cuda, reference
from chatglm.kernels.linear import linear
from chatglm.kernels.packing import GROUP_SIZES, unpack

on_cuda = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
HERE = Path(__file__).resolve().parent
CASES = cases()


def told(*command: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def interpreted() -> dict[str, Any]:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed (it is made for Linux)")
    path = os.pathsep.join((str(HERE), str(HERE.parent / "quantization")))
    variables = {"TRITON_INTERPRET": "1", "CHATGLM_KERNELS": "reference", "PYTHONPATH": path}
    found: dict[str, Any] = json.loads(told(str(HERE / "cuda_grid.py"), **variables).splitlines()[-1])
    return found


def chosen(bits: int, group_size: int, dtype: str) -> list[tuple[int, Case]]:
    return [(n, case) for n, case in enumerate(CASES) if case[:3] == (bits, group_size, dtype)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("group_size", [*GROUP_SIZES, 0])
@pytest.mark.parametrize("bits", [4, 8])
def test_interpreted(interpreted: dict[str, Any], bits: int, group_size: int, dtype: str) -> None:
    for number, case in chosen(bits, group_size, dtype):
        assert interpreted["ratios"][number] <= 1, (case, interpreted["ratios"][number])


@pytest.mark.parametrize("name", [*(check.__name__ for check in CHECKS), "interpreted_model"])
def test_interpreted_check(interpreted: dict[str, Any], name: str) -> None:
    assert interpreted["checks"][name] == ""


def test_the_grid_holds_everything() -> None:
    for place, wanted in enumerate(((4, 8), (*GROUP_SIZES, 0), tuple(DTYPES))):
        assert {case[place] for case in CASES} == set(wanted)
    for shape in cuda_grid.SHAPES:
        assert {case.count for case in CASES if case[3:5] == shape} == set(cuda_grid.COUNTS)


@pytest.mark.parametrize("bits", [4, 8])
def test_planes_hold_the_columns_of_the_words(bits: int) -> None:
    """Number i of the word at (tile, step, lane) belongs to the column that `in_planes` puts into plane i."""
    weight = packed_weight(21, 136, bits, 32)
    planes, steps = 32 // bits, weight.padded_columns * bits // 32
    columns = cuda.in_planes(torch.arange(1.0, 137)[None], bits, steps)[0]  # (planes, steps), 0: none
    assert columns.shape == (planes, steps)
    words = weight.data.view(torch.int32).view(-1, steps, 16)
    numbers = torch.stack(
        [(words >> (bits * n)) & (1 << bits) - 1 for n in range(planes)]
    )  # (planes, tiles, steps, 16)
    rows = (numbers - (1 << bits - 1)).permute(1, 3, 0, 2).flatten(0, 1).flatten(1)[:21]  # (rows, planes · steps)
    given = columns.flatten().long()
    integers, scales = torch.zeros(21, 137, dtype=torch.float64), unpack(weight)[1].double()
    integers[:, given] = rows.double()
    spread = scales.repeat_interleave(32, dim=1)[:, :136]
    assert torch.equal(integers[:, 1:] * spread, reference.dequantize(weight, torch.float64))


# Whether it is used


def test_a_cpu_is_not_taken() -> None:
    assert not cuda.takes("cpu", None, torch.float32)
    assert not cuda.takes("cuda", 0, torch.float64)


def test_the_reference_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATGLM_KERNELS", "reference")
    assert cuda.info() == cuda.Info("reference", "CHATGLM_KERNELS=reference")
    assert not cuda.takes("cuda", 0, torch.float16)


def test_without_triton() -> None:
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "from chatglm.kernels import cuda; import torch\n"
        "print(cuda.takes('cuda', 0, torch.float16), *vars(cuda.info()).values(), sep='|')"
    )
    assert told("-c", code, CHATGLM_KERNELS="auto").startswith("False|reference|triton cannot be imported (")


def test_triton_is_not_imported_without_need() -> None:
    code = "import sys, chatglm.kernels.linear, chatglm.quantization.linear; print('triton' in sys.modules)"
    torch_s_own = "import sys, torch, torch._dynamo; print('triton' in sys.modules)"
    assert told("-c", code) == "False\n" or told("-c", torch_s_own) == "True\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_machine_without_a_card_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed (it is made for Linux)")
    monkeypatch.setenv("CHATGLM_KERNELS", "auto")
    assert cuda.info() == cuda.Info("reference", "no CUDA device")


# On a card


class TestOnCuda:
    pytestmark = on_cuda

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("group_size", [*GROUP_SIZES, 0])
    @pytest.mark.parametrize("bits", [4, 8])
    def test_grid(self, bits: int, group_size: int, dtype: str) -> None:
        assert cuda.info().variant == "triton", cuda.info().reason
        for _, case in chosen(bits, group_size, dtype):
            assert ratio(case, "cuda", sums=4.0) <= 1, case

    @pytest.mark.parametrize("bits", [4, 8])
    @pytest.mark.parametrize("count", [1, 2, 16, 32, 64, 129, 300])
    def test_sizes_of_a_model(self, bits: int, count: int) -> None:
        """Every block size of `cuda._block`, on ChatGLM3-6B's widest layer."""
        for group_size in (128, 0):
            case = Case(bits, group_size, "bfloat16", 27392, 4096, count, True)
            assert ratio(case, "cuda", sums=4.0) <= 1, case

    @pytest.mark.parametrize("check", CHECKS)
    def test_check(self, check: Callable[[str], None]) -> None:
        check("cuda")

    def test_linear_goes_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        weight, inputs = packed_weight(37, 200, 4, 32, "cuda"), torch.randn(2, 200, device="cuda")
        wanted = cuda.linear(inputs, weight)
        assert torch.equal(linear(inputs, weight), wanted)
        monkeypatch.setattr(cuda, "linear", None)
        monkeypatch.setenv("CHATGLM_KERNELS", "reference")
        assert torch.allclose(linear(inputs, weight), wanted, atol=1e-3)

    def test_in_a_cuda_graph(self) -> None:
        weight = packed_weight(4096, 4096, 4, 128, "cuda")
        for count in (1, 5):
            inputs = torch.randn(count, 4096, device="cuda", dtype=torch.bfloat16)
            wanted = cuda.linear(inputs, weight)
            graph, held = torch.cuda.CUDAGraph(), torch.zeros_like(inputs)
            with torch.cuda.graph(graph):
                got = cuda.linear(held, weight)
            held.copy_(inputs)
            graph.replay()
            assert torch.equal(got, wanted)

    @pytest.mark.parametrize("bits", [4, 8])
    def test_a_model_generates(self, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
        model, ids = small("chatglm3").quantize(bits).cuda(), ids_for("chatglm3").cuda()
        logits = model(input_ids=ids).logits
        made = model.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=None)
        monkeypatch.setenv("CHATGLM_KERNELS", "reference")
        assert torch.allclose(logits, model(input_ids=ids).logits, atol=1e-3)
        assert torch.equal(made, model.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=None))

    @pytest.mark.parametrize("group_size", [0, 32])
    def test_a_compiled_step_with_cuda_graphs(self, group_size: int) -> None:
        from transformers import StaticCache

        model, ids = small("chatglm3").quantize(4, group_size=group_size).cuda(), ids_for("chatglm3").cuda()
        step = torch.compile(model, fullgraph=True, mode="reduce-overhead")
        logits = []
        for run in (model, step):
            cache = StaticCache(config=model.config, max_cache_len=32)
            with torch.no_grad():
                model(input_ids=ids, past_key_values=cache)
                fed = ids[:, -1:]
                for number in range(6):  # the graph is recorded in the second, replayed from the third on
                    where = torch.full((1, 1), ids.shape[1] + number, device="cuda")
                    torch.compiler.cudagraph_mark_step_begin()
                    scores = run(input_ids=fed, position_ids=where, past_key_values=cache).logits.clone()
                    fed = (ids[:, :1] + number) % 100 + 5  # the same for both, whatever they answer
                    logits.append(scores)
        for eager, compiled in zip(logits[:6], logits[6:], strict=True):
            assert torch.allclose(eager, compiled, atol=1e-4)
