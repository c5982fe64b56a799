"""What Triton's kernels must compute, and how far off they may be; run as a program, the same in Triton's interpreter.

The interpreter is chosen when Triton is imported, for the whole process: so `test_cuda.py` runs this file as a process
of its own, on CPU tensors, and reads one line of JSON. On a CUDA device it calls `ratio` itself.
"""

from __future__ import annotations

import itertools
import json
import sys
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from test_packing import drawn

from chatglm.kernels import cuda, reference
from chatglm.kernels.packing import GROUP_SIZES, PackedWeight, pack

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
UNITS = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Half a unit in the last place, relative."""
TINY = {"float32": 1e-30, "float16": 2.0**-25, "bfloat16": 1e-30}
"""The same where numbers are so small that it is no longer relative."""

SHAPES = ((37, 300), (16, 128), (66, 1001), (5, 33))
"""Rows that fill no tile, no group, no block of outputs; one group; several; odd columns."""
COUNTS = (1, 3, 17, 70)


class Case(NamedTuple):
    bits: int
    group_size: int
    dtype: str
    rows: int
    columns: int
    count: int
    biased: bool


def cases() -> list[Case]:
    """Every combination of widths, groups, types and counts, each in two of the shapes, with and without bias."""
    found = []
    kinds = itertools.product((4, 8), (*GROUP_SIZES, 0), DTYPES, COUNTS)
    for number, (bits, group_size, dtype, count) in enumerate(kinds):
        for turn in range(2):
            shape = SHAPES[(number + number // 4 + turn * (1 + number // 12)) % 4]
            found.append(Case(bits, group_size, dtype, *shape, count, bool(turn)))
    # Rows so long that even one row of inputs is a loop: 256 words at a time.
    found += [Case(4, 128, "float16", 20, 4200, 1, True), Case(8, 0, "float32", 20, 2100, 1, False)]
    return found


def packed_weight(rows: int, columns: int, bits: int, group_size: int, device: str = "cpu") -> PackedWeight:
    integers, scales = drawn(rows, columns, bits, group_size)
    return pack(integers, scales, bits=bits, group_size=group_size).to(device)


def ratio(case: Case, device: str, sums: float = 1.0) -> float:
    """The largest error, as a part of what is allowed.

    Products of integers and inputs are rounded to float32, and added in some order: n terms are off by at most n + 2
    roundings of the sum of their sizes (n - 1 sums, the product itself, scale, bias). For more than one row of inputs
    each weight may be rounded to the inputs' type. The result is rounded once.

    Args:
        sums: how many float32 roundings an addition counts as: matrix units do not round to nearest.
    """
    weight = packed_weight(case.rows, case.columns, case.bits, case.group_size, device)
    dtype, unit, tiny = DTYPES[case.dtype], UNITS[case.dtype], TINY[case.dtype]
    generator = torch.Generator().manual_seed(case.count)
    inputs = (torch.randn(case.count, case.columns, generator=generator) * 3).to(dtype).to(device)
    bias = torch.randn(case.rows, generator=generator).to(dtype).to(device) if case.biased else None
    got = cuda.linear(inputs, weight, bias)
    assert (got.dtype, tuple(got.shape), got.device) == (dtype, (case.count, case.rows), inputs.device)
    numbers = reference.dequantize(weight, torch.float64)  # exact: at most 8 + 11 bits
    exact, sizes = inputs.double() @ numbers.T, inputs.double().abs() @ numbers.abs().T
    if bias is not None:
        exact, sizes = exact + bias.double(), sizes + bias.double().abs()
    most = (case.columns + 3) * UNITS["float32"] * sums * sizes
    if case.count > 1:
        most = most + unit * sizes + tiny * inputs.double().abs().sum(dim=1, keepdim=True)
    most = most + unit * (exact.abs() + most) + tiny
    off = (got.double() - exact).abs()
    return float((off / most).max()) if bool(off.isfinite().all()) else float("inf")


# What else must hold, anywhere


def any_strides(device: str) -> None:
    weight = packed_weight(37, 200, 4, 32, device)
    wide = torch.randn(2, 3, 400, device=device)
    inputs = wide[..., 100:300]  # rows that do not follow one another
    assert cuda.linear(inputs, weight).shape == (2, 3, 37)
    assert torch.equal(cuda.linear(inputs, weight), cuda.linear(inputs.contiguous(), weight))
    columns = wide[0].T[:200]  # (200, 3): inputs that are columns of something
    assert torch.equal(cuda.linear(columns.T, weight), cuda.linear(columns.T.contiguous(), weight))
    assert torch.equal(cuda.linear(columns.T[0], weight), cuda.linear(columns.T[:1].contiguous(), weight)[0])
    assert cuda.linear(inputs[:0], weight).shape == (0, 3, 37)


def unaligned_weights(device: str) -> None:
    weight = packed_weight(32, 256, 4, 128, device)
    data = torch.empty(len(weight.data) + 1, dtype=torch.uint8, device=device)[1:].copy_(weight.data)
    moved = PackedWeight(data, weight.scales, 32, 256, 4, 128)
    inputs = torch.randn(1, 256, device=device)
    assert torch.equal(cuda.linear(inputs, moved), cuda.linear(inputs, weight))


def weights_become_their_numbers(device: str) -> None:
    for bits, group_size in itertools.product((4, 8), (*GROUP_SIZES, 0)):
        for rows, columns in SHAPES:
            weight = packed_weight(rows, columns, bits, group_size, device)
            for dtype in DTYPES.values():
                assert torch.equal(cuda.dequantize(weight, dtype), reference.dequantize(weight, dtype))


def broken_numbers_are_not_hidden(device: str) -> None:
    weight = packed_weight(16, 128, 8, 64, device)
    for count in (1, 3):
        inputs = torch.randn(count, 128, device=device)
        inputs[0, 70] = float("nan")
        got = cuda.linear(inputs, weight)
        assert not got[0].isfinite().any()
        assert got[1:].isfinite().all()


def wrong_width_is_refused(device: str) -> None:
    from chatglm.errors import InputError

    try:
        cuda.linear(torch.randn(2, 64, device=device), packed_weight(16, 128, 4, 64, device))
    except InputError as error:
        assert "takes 128 inputs, got 64" in str(error)  # noqa: PT017 — this file may run without pytest
    else:
        raise AssertionError("nothing was raised")


def operator_is_one_for_torch(device: str) -> None:
    """Its schema, its fake kernel and its tracing are as torch wants them."""
    for count in (1, 5):
        weight = packed_weight(37, 200, 4, 32, device)
        arguments = (torch.randn(count, 200, device=device), weight.data, weight.scales, None, 37, 200, 4, 32)
        torch.library.opcheck(torch.ops.chatglm.packed_linear.default, arguments)


def graph_is_whole(device: str) -> None:
    """Dynamo traces the layer without a break, and it computes the same."""
    for count in (1, 5):
        weight, bias = packed_weight(37, 200, 4, 32, device), torch.randn(37, device=device)
        compiled = torch.compile(lambda x, w=weight, b=bias: cuda.linear(x, w, b), fullgraph=True, backend="aot_eager")
        inputs = torch.randn(count, 200, device=device)
        assert torch.equal(compiled(inputs), cuda.linear(inputs, weight, bias))


CHECKS: tuple[Callable[[str], None], ...] = (
    any_strides,
    unaligned_weights,
    weights_become_their_numbers,
    broken_numbers_are_not_hidden,
    wrong_width_is_refused,
    operator_is_one_for_torch,
    graph_is_whole,
)


def interpreted_model(device: str) -> None:
    """A quantised model generates through these kernels what it generates through torch, and trains its inputs."""
    from small import ids_for, small

    from chatglm.kernels import linear as dispatch

    for bits, group_size in ((4, 0), (8, 32)):
        model = small("chatglm3").quantize(bits, group_size=group_size)
        ids = ids_for("chatglm3")
        options: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
        plain, logits = model.generate(ids, **options), model(input_ids=ids).logits
        used = []

        def run(*given: Any, used: list[int] = used, own: Any = cuda.linear) -> Any:
            used.append(1)
            return own(*given)

        takes, cuda.takes = cuda.takes, lambda *_: True
        cuda.linear, own = run, cuda.linear
        try:
            assert torch.equal(model.generate(ids, **options), plain)
            assert len(used) == 2 * 4 * 4, "four steps, two blocks of four layers"
            assert torch.allclose(model(input_ids=ids).logits, logits, atol=1e-4)
            layer = model.transformer.encoder.layers[0].mlp.dense_4h_to_h
            inputs = torch.randn(3, 38, requires_grad=True)
            dispatch.linear(inputs, layer.packed()).sum().backward()
            assert torch.allclose(inputs.grad, layer.dequantized().sum(dim=0).expand(3, -1), atol=1e-5)
        finally:
            cuda.takes, cuda.linear = takes, own


def correct_bfloat16() -> None:
    """Triton 3.9's interpreter cuts float32 off to bfloat16, where a card rounds, and multiplies bfloat16 matrices as
    if their bits were integers. Here both are as on a card; float32 holds every bfloat16 number.
    """
    import numpy as np
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    dot, cast = InterpreterBuilder.create_dot, InterpreterBuilder.cast_impl

    def widened(handle: Any) -> Any:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        return TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return dot(self, widened(a), widened(b), *rest)

    def cast_impl(self: Any, src: Any, dst_type: Any) -> Any:
        if (src.dtype.scalar, dst_type.scalar) != (tl.float32, tl.bfloat16):
            return cast(self, src, dst_type)
        rounded = torch.from_numpy(np.ascontiguousarray(src.data)).to(torch.bfloat16)
        return TensorHandle(rounded.view(torch.int16).numpy().view(np.uint16), tl.bfloat16)

    InterpreterBuilder.create_dot, InterpreterBuilder.cast_impl = create_dot, cast_impl


def main() -> None:
    correct_bfloat16()
    found: dict[str, Any] = {"ratios": [ratio(case, "cpu") for case in cases()], "checks": {}}
    for check in (*CHECKS, interpreted_model):
        try:
            check("cpu")
            found["checks"][check.__name__] = ""
        except Exception:
            found["checks"][check.__name__] = traceback.format_exc()
    print(json.dumps(found))


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
