"""GPTQ: better than rounding where it counts, on matrices and on a model that has learned something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small import VOCABULARY, small
from torch import Tensor

from chatglm import AutoModel
from chatglm.errors import InputError, NumericalError, UnsupportedError
from chatglm.kernels.packing import unpack
from chatglm.quantization.folder import Job, quantize_folder
from chatglm.quantization.gptq import Hessian, find_blocks, gptq
from chatglm.quantization.linear import QuantizedLinear
from chatglm.quantization.perplexity import IGNORE, Passage, perplexity
from chatglm.quantization.schemes import Scheme, quantize

SCHEMES = [Scheme(4), Scheme(4, 32), Scheme(4, 0), Scheme(8, 64), Scheme(8, 0)]


def inputs_of(columns: int, rows: int = 1500, seed: int = 0) -> Tensor:
    """Correlated, of very different sizes, as activations are."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(rows, columns, generator=generator) @ torch.randn(columns, columns, generator=generator)
    return mixed * torch.rand(columns, generator=generator) ** 2


def output_error(weight: Tensor, packed: Any, inputs: Tensor) -> float:
    layer = QuantizedLinear(packed.columns, packed.rows, Scheme(packed.bits, packed.group_size), packed=packed)
    return float((inputs @ (weight - layer.dequantized()).T).norm() / (inputs @ weight.T).norm())


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("act_order", [False, True])
def test_outputs_come_nearer_than_by_rounding(scheme: Scheme, act_order: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatglm.quantization.gptq._STRIP", 64)  # several, and a part of one
    columns = 200
    weight, inputs = torch.randn(48, columns, generator=torch.Generator().manual_seed(1)), inputs_of(columns)
    hessian = Hessian(columns)
    for part in inputs.split(400):
        hessian.add(part)
    assert hessian.count == 1500
    torch.testing.assert_close(hessian.matrix(), inputs.T @ inputs, rtol=1e-4, atol=1)
    packed, cost = gptq(weight, hessian.matrix(), scheme, act_order=act_order)
    assert (cost**0.5 / float((inputs @ weight.T).norm())) == pytest.approx(
        output_error(weight, packed, inputs), rel=0.01
    )
    held_out = inputs_of(columns)[:500]
    assert output_error(weight, packed, held_out) < 0.85 * output_error(weight, quantize(weight, scheme), held_out)
    integers, _ = unpack(packed)
    if scheme.official:
        assert int(integers.min()) >= -(2 ** (scheme.bits - 1) - 1)


def test_without_correlation_it_is_rounding() -> None:
    """With H = identity there is nothing to make good in other columns."""
    weight = torch.randn(16, 128, generator=torch.Generator().manual_seed(1))
    for scheme in (Scheme(4, 32), Scheme(8, 0), Scheme(4, 0)):
        packed, _ = gptq(weight, torch.eye(128), scheme, act_order=False)
        integers, scales = unpack(packed)
        plain, plain_scales = unpack(quantize(weight, scheme))
        assert torch.equal(scales, plain_scales)
        assert (integers != plain).float().mean() < 0.001  # ties in another precision


def test_same_inputs_same_integers() -> None:
    weight, hessian = torch.randn(16, 96), inputs_of(96).T @ inputs_of(96)
    assert torch.equal(gptq(weight, hessian, Scheme(4))[0].data, gptq(weight, hessian, Scheme(4))[0].data)


def test_degenerate_inputs() -> None:
    """Columns that are never used, inputs that are all alike, too few inputs: damped, not refused."""
    weight = torch.randn(16, 96)
    dead = inputs_of(96)
    dead[:, ::3] = 0
    for inputs in (dead, dead[:1].expand(50, -1), dead[:7], torch.zeros(3, 96)):
        packed, cost = gptq(weight, inputs.T @ inputs, Scheme(4, 32))
        assert unpack(packed)[1].isfinite().all()
        layer = QuantizedLinear(96, 16, Scheme(4, 32), packed=packed)
        real = float((inputs @ (weight - layer.dequantized()).T).square().sum())
        assert cost == pytest.approx(real, rel=0.02, abs=1e-5 + 1e-4 * float((inputs @ weight.T).square().sum()))
    with pytest.raises(NumericalError, match="not finite"):
        gptq(weight, torch.full((96, 96), float("inf")), Scheme(4, 32))
    weight[0, 0] = float("nan")
    with pytest.raises(InputError, match="NaN"):
        gptq(weight, torch.eye(96), Scheme(4, 32))


# A model that has learned something


def chain(rows: int, length: int, seed: int) -> Tensor:
    """Texts of a made-up language: what follows depends on the two ids before, with some noise. (rows, length)"""
    rule = torch.randint(4, VOCABULARY, (17, 17, 3), generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, VOCABULARY, (rows, length), generator=generator)
    choice = torch.randint(0, 3, (rows, length), generator=generator)
    noise = torch.rand(rows, length, generator=generator) < 0.05
    for at in range(2, length):
        follows = rule[ids[:, at - 2] % 17, ids[:, at - 1] % 17, choice[:, at]]
        ids[:, at] = torch.where(noise[:, at], ids[:, at], follows)
    return ids


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("taught")
    torch.manual_seed(0)
    model = small("chatglm3", hidden_size=64, ffn_hidden_size=128, num_attention_heads=8, multi_query_group_num=2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.3)
    model.train()
    steps = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(steps, 4e-3, total_steps=300)
    for step in range(300):
        ids = chain(24, 33, step)
        model(input_ids=ids[:, :-1], shift_labels=ids[:, 1:]).loss.backward()
        steps.step()
        schedule.step()
        steps.zero_grad()
    model.eval().save_pretrained(folder)
    return folder


def passages_of(seed: int, count: int = 24) -> list[Passage]:
    ids = chain(count, 64, seed)
    targets = ids[:, 1:].clone()
    targets[:, :2] = IGNORE
    return [Passage(a, b) for a, b in zip(ids[:, :-1], targets, strict=True)]


@pytest.mark.parametrize("scheme", [Scheme(4, 128), Scheme(4, 0)], ids=str)
def test_perplexity_is_better_than_by_rounding(scheme: Scheme, taught: Path, tmp_path: Path) -> None:
    measured = passages_of(10_000)
    before, count = perplexity(AutoModel.from_pretrained(taught), measured)
    assert count == 24 * 61
    assert before < VOCABULARY / 4  # it has learned the language
    calibration = [passage.ids for passage in passages_of(20_000, 48)]
    found = {}
    for name, job in (
        ("rtn", Job(scheme)),
        ("gptq", Job(scheme, method="gptq")),
        ("in order", Job(scheme, method="gptq", act_order=False)),
    ):
        report = quantize_folder(taught, tmp_path / name, job, calibration=calibration if job.method == "gptq" else ())
        found[name], _ = perplexity(AutoModel.from_pretrained(tmp_path / name), measured)
        assert all((layer.output_error is not None) == (job.method == "gptq") for layer in report.layers)
    assert before < found["gptq"] < found["rtn"], (before, found)
    if not scheme.official:  # a whole row is coarse: large columns must come first
        assert found["in order"] < found["rtn"]
    assert found["gptq"] - before < (0.9 if scheme.official else 0.8) * (found["rtn"] - before)


@pytest.mark.parametrize("kind", ["chatglm", "llama"])
def test_other_models(kind: str, tmp_path: Path) -> None:
    """Blocks that are called otherwise, other arguments: ChatGLM-6B's masks, other families' signatures."""
    small(kind).save_pretrained(tmp_path / "plain")
    generator = torch.Generator().manual_seed(3)
    calibration = [torch.randint(4, 140, (length,), generator=generator) for length in (20, 31, 20, 40)]
    if kind == "chatglm":
        for number, ids in enumerate(calibration):
            ids[number : number + 2] = torch.tensor([151, 154])
    seen: list[tuple[str, int, int]] = []
    report = quantize_folder(
        tmp_path / "plain",
        tmp_path / "q",
        Job(Scheme(4, 32), method="gptq"),
        calibration=calibration,
        watch=lambda *step: seen.append(step),
    )
    first, *_, last = dict.fromkeys(name for name, _, _ in seen)
    assert [step for step in seen if step[0] == first] == [(first, number, 8) for number in range(1, 9)]
    assert [step for step in seen if step[0] == last] == [(last, number, 4) for number in range(1, 5)]  # for its inputs
    assert all(layer.output_error < 0.12 for layer in report.layers)  # type: ignore[operator]


def test_refusals(tmp_path: Path) -> None:
    small("chatglm3", pre_seq_len=2).save_pretrained(tmp_path / "prefix")
    with pytest.raises(UnsupportedError, match="P-tuning prefix"):
        quantize_folder(
            tmp_path / "prefix", tmp_path / "q", Job(Scheme(4), method="gptq"), calibration=[torch.arange(4, 20)]
        )
    assert not (tmp_path / "q").exists()
    with pytest.raises(UnsupportedError, match="no list of blocks"):
        find_blocks(torch.nn.Linear(2, 2))
    with pytest.raises(InputError, match="calibration"):
        quantize_folder(tmp_path / "prefix", tmp_path / "q", Job(Scheme(4), method="gptq"))
