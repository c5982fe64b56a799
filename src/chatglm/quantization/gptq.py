"""GPTQ: chooses a layer's integers so that its outputs on real inputs change little (Frantar et al. 2022).

Columns of the weight are rounded one after the other. The rounding error of a column is compensated in the columns that
are not rounded yet, by means of the inverse of H = XᵀX, where X holds the inputs of the layer during calibration. This
is our own implementation of algorithm 1 of the paper. With `act_order`, columns with the largest inputs are rounded
first. Each group still has neighbouring columns, so the memory layout is the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from chatglm.errors import InputError, NumericalError, UnsupportedError
from chatglm.kernels.packing import PackedWeight, pack
from chatglm.kernels.reference import dequantize
from chatglm.quantization.linear import QuantizedLinear
from chatglm.quantization.schemes import Scheme, group_scales, integers_of, rows_at_once

__all__ = ["Blocks", "Hessian", "find_blocks", "gptq"]

_BLOCK = 128
"""Columns whose corrections are collected before the remaining columns are updated (the paper's lazy batch updates)."""
_STRIP = 2048
"""Rows or columns of a symmetric or triangular matrix that are computed at once. Only the needed part of each is
computed.
"""


class Hessian:
    """Accumulates XᵀX, in float32, over the inputs (…, columns) of a layer."""

    def __init__(self, columns: int, device: Any = None) -> None:
        self._sums = torch.zeros(columns, columns, device=device)
        self.count = 0

    def add(self, inputs: Tensor) -> None:
        """Add the inputs (…, columns) of one call of the layer."""
        rows = inputs.detach().reshape(-1, inputs.shape[-1]).float()
        for start in range(0, rows.shape[1], _STRIP):
            strip = slice(start, start + _STRIP)
            self._sums[strip, start:].addmm_(rows[:, strip].T, rows[:, start:])
        self.count += rows.shape[0]

    def matrix(self) -> Tensor:
        """XᵀX, (columns, columns). This is the accumulator itself, no copy: a later `add` changes it."""
        for stop in range(_STRIP, self._sums.shape[0], _STRIP):
            strip = slice(stop - _STRIP, stop)
            self._sums[stop:, strip] = self._sums[strip, stop:].T
        return self._sums


def gptq(
    weight: Tensor, hessian: Tensor, scheme: Scheme, *, act_order: bool = True, damping: float = 0.01
) -> tuple[PackedWeight, float]:
    """Quantise a weight (rows, columns) with GPTQ, given H = XᵀX (columns, columns) of its inputs.

    Args:
        act_order: round the columns with the largest inputs first.
        damping: this share of the mean of H's diagonal is added to the diagonal. It bounds the changes of columns that
            calibration hardly used.

    Returns:
        The packed integers, and their squared error ‖X(W − Ŵ)ᵀ‖².

    Raises:
        NumericalError: H holds NaN or infinity.
        InputError: the weight holds NaN or infinity, or values too large for float16 scales.
    """
    bits = scheme.bits
    rows, columns = weight.shape
    size = scheme.group_size or columns
    exact = weight.detach().to(hessian.device, torch.float32)
    if not _all_finite(exact):
        raise InputError("the weight holds NaN or infinity; it is damaged")
    importance = hessian.diagonal().clone()
    importance[importance == 0] = 1  # columns whose input was always zero
    order = _order(importance, act_order)
    upper, damped = _inverse_factor(hessian, importance, damping, order)

    groups = -(-columns // size)
    padded = nn.functional.pad(exact, (0, groups * size - columns)).unflatten(1, (groups, size))
    weigh = nn.functional.pad(importance, (0, groups * size - columns)).unflatten(0, (groups, size))
    if scheme.official:
        scales = (exact.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)).half()
    else:
        scales = torch.cat(
            [group_scales(part, bits, weigh) for part in padded.split(rows_at_once(columns, padded.device))]
        )
    if not bool(scales.isfinite().all()):
        raise InputError("the weight holds numbers too large for float16 scales; it is damaged")
    limit = -(2 ** (bits - 1) - 1) if scheme.official else -(2 ** (bits - 1))

    # The weight is transposed: each step then reads and writes memory in order.
    integers = torch.empty(columns, rows, dtype=torch.int8, device=exact.device)
    work = exact.T[order].contiguous()
    group_of = order // size
    cost = 0.0
    for start in range(0, columns, _BLOCK):
        stop = min(start + _BLOCK, columns)
        part = work[start:stop]
        errors = torch.empty_like(part)
        for i in range(stop - start):
            at = start + i
            group = int(group_of[at])
            if not act_order and not scheme.official and at % size == 0:
                # Groups are complete in this order, so a group's scale can use the weights as corrected so far. No
                # group is larger than a block.
                piece = part[i : i + size]
                inside = nn.functional.pad(piece.T, (0, size - piece.shape[0]))
                scales[:, group] = group_scales(inside, bits, weigh[group])
            scale = scales[:, group]
            steps = integers_of(part[i], scale, bits).clamp_(min=limit)
            integers[order[at]] = steps
            off = (part[i] - steps * scale.float()) / upper[at, at]
            errors[i] = off
            if i + 1 < stop - start:
                part[i + 1 :].addr_(upper[at, at + 1 : stop], off, alpha=-1)
        cost += float(errors.square().sum())
        if stop < columns:
            work[stop:].addmm_(upper[start:stop, stop:].T, errors, alpha=-1)
    del work, part, errors
    packed = pack(integers.T, scales, bits=bits, group_size=scheme.group_size)
    # `cost` includes what damping added to H's diagonal. Subtract this part.
    off = exact - dequantize(packed)
    added = damped - hessian.diagonal()
    return packed, max(cost - float(off.square_().sum(dim=0) @ added), 0.0)


def _order(diagonal: Tensor, act_order: bool) -> Tensor:
    if act_order:
        return diagonal.argsort(descending=True, stable=True)
    return torch.arange(len(diagonal), device=diagonal.device)


def _inverse_factor(hessian: Tensor, diagonal: Tensor, damping: float, order: Tensor) -> tuple[Tensor, Tensor]:
    """The upper Cholesky factor R of H⁻¹ = RᵀR, for the damped H with its columns in `order`; and the damped diagonal.

    H⁻¹ itself is not computed. Let J be the matrix that reverses the order of rows, and JHJ = LLᵀ. Then R = (JLJ)⁻¹.
    Besides `hessian`, at most two matrices of its size are in memory at a time.
    """
    if not _all_finite(hessian):
        raise NumericalError("the inputs of this layer in calibration are not finite; its model overflows")
    mean, around = float(diagonal.mean()), order.flip(0)
    for _ in range(8):
        damped = diagonal + damping * mean
        matrix = hessian[around]
        matrix = matrix[:, around]
        matrix.diagonal().copy_(damped[around])
        matrix, failed = torch.linalg.cholesky_ex(matrix)
        if not failed:
            matrix = matrix.flip(0, 1)
            _invert_upper(matrix)
            if _all_finite(matrix):
                return matrix, damped
        damping *= 10  # the inputs hardly differ, and rounding errors make H indefinite
    raise NumericalError("the inputs of this layer in calibration are degenerate; give more varied data")


def _all_finite(matrix: Tensor) -> bool:
    """Whether all values are finite, tested without a second matrix of booleans."""
    low, high = matrix.aminmax()  # both are NaN if a value is NaN
    return bool(low.isfinite() & high.isfinite())


def _invert_upper(matrix: Tensor) -> None:
    """Replace an upper triangular matrix by its inverse, in place."""
    strips = [slice(start, min(start + _STRIP, len(matrix))) for start in range(0, len(matrix), _STRIP)]
    for number, strip in enumerate(strips):
        unit = torch.eye(strip.stop - strip.start, device=matrix.device)
        own = torch.linalg.solve_triangular(matrix[strip, strip], unit, upper=True)
        above = matrix[: strip.start, strip] @ -own
        matrix[strip, strip] = own
        for rows in strips[:number]:
            matrix[rows, strip] = matrix[rows, rows.start : strip.start] @ above[rows.start :]


# A whole model, block by block


class _Reached(Exception):  # noqa: N818 — not an error
    """Raised in place of the first block when its arguments are recorded: the rest of the model need not run."""


def find_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Find the list of a model's blocks: its longest `nn.ModuleList`.

    Returns:
        The list's name in the model, and the list.

    Raises:
        UnsupportedError: the model has no `nn.ModuleList`.
    """
    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise UnsupportedError(f"{type(model).__name__}: has no list of blocks, which calibration needs")
    return max(lists, key=lambda pair: len(pair[1]))


class Blocks:
    """Calibrates and quantises a model block by block, with the weights of one block in memory at a time.

    Args:
        model: on the meta device, except its buffers.
        load: `load(name)` returns the weight of that name.
        linears: names of the layers to quantise.
        samples: token ids of the calibration texts, each (tokens,).
        known: returns the integers of a layer that an earlier, interrupted run stored, or None.
        watch: called after each pass of a sample through a block: the block's name, the number of passes so far, and
            the number of all passes through this block.
        device: where to compute, in float32.

    Raises:
        UnsupportedError: the model has a P-tuning prefix, or no list of blocks.
    """

    def __init__(
        self,
        model: Any,
        load: Callable[[str], Tensor],
        linears: Sequence[str],
        scheme: Scheme,
        samples: Sequence[Tensor],
        *,
        act_order: bool = True,
        known: Callable[[str], PackedWeight | None] = lambda name: None,
        watch: Callable[[str, int, int], None] = lambda name, done, total: None,
        device: Any = "cpu",
    ) -> None:
        if getattr(model.config, "pre_seq_len", None):
            raise UnsupportedError("calibration does not support a P-tuning prefix; quantise the model without it")
        self._model, self._load, self._scheme, self._act_order = model, load, scheme, act_order
        self._known, self._watch, self._device = known, watch, device
        self._prefix, self._blocks = find_blocks(model)
        self._inside: list[list[str]] = [
            [name for name in linears if name.startswith(f"{self._prefix}.{number}.")]
            for number in range(len(self._blocks))
        ]
        self._block_of = {name: number for number, names in enumerate(self._inside) for name in names}
        self._samples: Sequence[Tensor] = samples
        self._states: list[tuple[Tensor, tuple[Any, ...], dict[str, Any]]] | None = None
        self._next = 0
        self._found: dict[str, tuple[PackedWeight, float]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._block_of

    def take(self, name: str) -> tuple[PackedWeight, float]:
        """Integers of a layer, and the relative error of its outputs on the calibration inputs.

        All blocks up to the layer's block are calibrated first, unless this is done. A layer can be taken once.

        Raises:
            InputError, NumericalError: see `gptq`; the message names the layer.
        """
        while name not in self._found:
            self._advance()
        return self._found.pop(name)

    @torch.no_grad()
    def _advance(self) -> None:
        if self._states is None:
            self._states = self._first_inputs()
        number, names = self._next, self._inside[self._next]
        block = self._blocks[number]
        at = f"{self._prefix}.{number}."
        self._materialise(block, at)
        block.eval()
        known = {name: packed for name in names if (packed := self._known(name)) is not None}
        if len(known) < len(names):
            self._solve(block, at, names)
        for name in names:
            packed = known.get(name) or self._found[name][0]
            layer = block.get_submodule(name.removeprefix(at))
            assert isinstance(layer, nn.Linear)
            # A float layer of the rounded weights: the result must not depend on how this machine's kernels round
            # activations.
            made = QuantizedLinear.from_linear(layer, self._scheme, packed=packed).to_linear(torch.float32)
            block.set_submodule(name.removeprefix(at), made.to(self._device))
        if number + 1 < len(self._blocks):
            again = zip(self._outputs(block, at, second=True), self._states, strict=True)
            self._states = [(_states_of(output), args, kwargs) for output, (_, args, kwargs) in again]
        block.to("meta")
        self._next += 1

    def _solve(self, block: nn.Module, at: str, names: list[str]) -> None:
        layers = {name: cast(nn.Linear, block.get_submodule(name.removeprefix(at))) for name in names}
        hessians = {name: Hessian(layer.in_features, self._device) for name, layer in layers.items()}
        sizes = dict.fromkeys(names, 0.0)  # ‖XWᵀ‖²

        def see(name: str, layer: nn.Linear, inputs: tuple[Tensor], outputs: Tensor) -> None:
            hessians[name].add(inputs[0])
            made = outputs if layer.bias is None else outputs - layer.bias
            sizes[name] += float(made.square().sum())

        hooks = [layer.register_forward_hook(partial(see, name)) for name, layer in layers.items()]
        for _ in self._outputs(block, at):
            pass
        for hook in hooks:
            hook.remove()
        for name, layer in layers.items():
            hessian = hessians.pop(name)
            matrix, size = hessian.matrix().div_(max(hessian.count, 1)), sizes[name] / max(hessian.count, 1)
            try:
                packed, cost = gptq(layer.weight, matrix, self._scheme, act_order=self._act_order)
            except (InputError, NumericalError) as error:
                raise type(error)(f"{name}: {error}") from None
            self._found[name] = packed, (cost / size) ** 0.5 if size > 0 else 0.0

    def _outputs(self, block: nn.Module, at: str, *, second: bool = False) -> Iterator[Any]:
        """The block's output for every sample, in order."""
        assert self._states is not None
        samples = len(self._states)
        total = samples if self._next + 1 == len(self._blocks) else 2 * samples
        for number, (states, args, kwargs) in enumerate(self._states, 1 + second * samples):
            yield block(states, *args, **kwargs)
            self._watch(at.rstrip("."), number, total)

    def _first_inputs(self) -> list[tuple[Tensor, tuple[Any, ...], dict[str, Any]]]:
        """The arguments of the first block, for every sample: hidden states, and the other arguments."""
        model, blocks = self._model, self._blocks
        table = model.get_input_embeddings()
        name = next(name for name, module in model.named_modules() if module is table)
        self._materialise(table, f"{name}.")
        caught: list[tuple[Tensor, tuple[Any, ...], dict[str, Any]]] = []

        class Catcher(nn.Module):
            def __init__(self, inner: nn.Module) -> None:
                super().__init__()
                self.inner = inner

            def __getattr__(self, wanted: str) -> Any:  # some models read attributes of their blocks
                try:
                    return super().__getattr__(wanted)
                except AttributeError:
                    return getattr(super().__getattr__("inner"), wanted)

            def forward(self, states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
                caught.append((states, args, kwargs))
                raise _Reached

        first = blocks[0]
        blocks[0] = Catcher(first)
        try:
            for ids in self._samples:
                with contextlib.suppress(_Reached):
                    model(input_ids=ids[None].to(self._device), use_cache=False)
        finally:
            blocks[0] = first
            table.to("meta")
        return caught

    def _materialise(self, module: nn.Module, at: str) -> None:
        for name, _ in list(module.named_parameters()):
            owner, _, last = name.rpartition(".")
            weight = self._load(at + name).to(self._device, torch.float32)
            setattr(module.get_submodule(owner), last, nn.Parameter(weight, requires_grad=False))
        for name, buffer in list(module.named_buffers()):
            owner, _, last = name.rpartition(".")
            setattr(module.get_submodule(owner), last, buffer.to(self._device))


def _states_of(output: Any) -> Tensor:
    states: Tensor = output[0] if isinstance(output, tuple) else output
    return states
