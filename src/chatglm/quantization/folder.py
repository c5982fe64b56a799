"""Quantises a checkpoint folder into another one, layer by layer, so that the whole model is never in memory.

The result is written file by file into a hidden folder `.NAME.quantising` beside the final place. That folder gets its
config.json last, so a killed run leaves nothing that looks like a checkpoint. The same command continues a killed run.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chatglm import hub
from chatglm.errors import ChatGLMError, CheckpointError, InputError, UnsupportedError
from chatglm.kernels.packing import PackedWeight, shapes
from chatglm.models.checkpoint import check_folder, read_json, weight_files
from chatglm.models.weights import About
from chatglm.output import LOCK, locked, reporting_disk_errors
from chatglm.quantization.gptq import Blocks
from chatglm.quantization.gptq_format import from_gptq, gptq_config, to_gptq
from chatglm.quantization.schemes import (
    Scheme,
    from_official,
    official_shape,
    quantize,
    relative_error,
    to_official,
)
from chatglm.quantization.settings import QuantizationConfig
from chatglm.quantization.store import Source, StreamWriter
from chatglm.quantization.swap import Chosen, choose

__all__ = ["Job", "Layer", "Report", "quantize_folder"]

SHARD_BYTES = 1 << 30
"""Size of a weight file of the result. A run that was killed repeats at most one such file."""

_PROGRESS = "progress.json"
_LAYERS = "layers.jsonl"
_KEPT = (".json", ".model", ".txt", ".jinja", ".tiktoken")
"""Suffixes of files that are copied: tokenizer, generation defaults, templates."""


@dataclass(frozen=True)
class Job:
    """Settings of `quantize_folder`.

    Args:
        scheme: bits and group size.
        method: `rtn`: round each weight to the nearest integer; `gptq`: choose integers by the layer's outputs on
            calibration texts.
        head, embedding: quantise the output head or the input embedding too. Both are rounded to nearest with either
            method.
        act_order: GPTQ only: start with the columns with the largest inputs.
        layout: of the result: `chatglm` (with the official scheme: official names and bytes), or `gptq`, the format of
            AutoGPTQ.

    Raises:
        InputError: the settings do not go together.
    """

    scheme: Scheme
    method: str = "rtn"
    head: bool = False
    embedding: bool = False
    act_order: bool = True
    layout: str = "chatglm"

    def __post_init__(self) -> None:
        if self.method not in ("rtn", "gptq"):
            raise InputError(f"method is {self.method!r}; it must be rtn or gptq")
        if self.layout not in ("chatglm", "gptq"):
            raise InputError(f"layout is {self.layout!r}; it must be chatglm or gptq")
        if self.layout == "gptq" and (self.scheme.bits != 4 or self.scheme.official or self.embedding):
            raise InputError(
                "GPTQ's layout needs 4 bits, groups, and an embedding that is not quantised; otherwise use chatglm's "
                "own layout"
            )


@dataclass(frozen=True)
class Layer:
    """Result of one layer: the relative error of its weights; with GPTQ, also of its outputs in calibration."""

    name: str
    rows: int
    columns: int
    weight_error: float
    output_error: float | None = None


@dataclass
class Report:
    """Result of a run; `report.json` in the new folder.

    Attributes:
        bytes_before, bytes_after: sizes of the weight files.
        perplexity: of a text, before and after, if it was measured.
        made_from: weights and settings. The same ones give the same folder.
        done_before: an earlier call did the same work, so nothing was done.
    """

    source: str
    output: str
    scheme: str
    method: str
    bytes_before: int
    bytes_after: int
    seconds: float
    layers: list[Layer] = field(default_factory=list)
    perplexity: dict[str, Any] | None = None
    made_from: dict[str, Any] | None = None
    done_before: bool = False

    def lines(self) -> Iterator[str]:
        """Lines of a table: one line for the layers of the same name in all blocks, then totals."""
        kinds: dict[str, list[Layer]] = {}
        for layer in self.layers:
            kinds.setdefault(re.sub(r"\.\d+\.", ".*.", layer.name), []).append(layer)
        width = max((len(name) for name in kinds), default=0)
        outputs = any(layer.output_error is not None for layer in self.layers)
        yield f"{'layer':<{width}}  count  weight error mean   max" + (
            "     output error mean   max" if outputs else ""
        )
        for name, layers in kinds.items():
            errors = [layer.weight_error for layer in layers]
            line = f"{name:<{width}}  {len(layers):>5}  {sum(errors) / len(errors):>17.4f}  {max(errors):.4f}"
            seen = [layer.output_error for layer in layers if layer.output_error is not None]
            yield line + (f"  {sum(seen) / len(seen):>20.4f}  {max(seen):.4f}" if seen else "")
        yield (
            f"{self.scheme}, {self.method}: {self.bytes_before / 1e6:,.1f} MB became {self.bytes_after / 1e6:,.1f} MB "
            f"({self.bytes_after / max(self.bytes_before, 1):.1%}) in {self.seconds:.0f} s"
        )
        if self.perplexity is not None:
            yield (
                f"perplexity of {self.perplexity['text']} ({self.perplexity['tokens']:,} tokens): "
                f"{self.perplexity['before']:.4f} before, {self.perplexity['after']:.4f} after"
            )

    def write(self, folder: Path) -> None:
        """Write `report.json` into a folder."""
        _write_json(folder / "report.json", {n: value for n, value in asdict(self).items() if n != "done_before"})

    @classmethod
    def of_same(cls, folder: Path, made_from: dict[str, Any]) -> Report | None:
        """The report in a finished folder, if that was made from the same weights with the same settings, else None."""
        try:
            about = json.loads((folder / "report.json").read_text("utf-8"))
            if about.get("made_from") != made_from or not (folder / "config.json").is_file():
                return None
            weight_files(folder)
            layers = [Layer(**layer) for layer in about["layers"]]
            return cls(**{**about, "layers": layers, "output": str(folder), "done_before": True})
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None


Progress = Callable[[str, int, int], None]
"""Called with the name of the layer that is done, the number of layers done, and the number of all layers."""


def quantize_folder(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    job: Job,
    *,
    calibration: Sequence[Tensor] = (),
    device: str = "cpu",
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress = lambda name, done, total: None,
    watch: Progress = lambda name, done, total: None,
) -> Report:
    """Quantise the checkpoint in `source` and write a checkpoint to `output`.

    The architecture can be any that `transformers` (with this package) supports. The same call continues a run that was
    killed. If `output` holds the result of the same call already, its report is returned and nothing is done.

    Args:
        calibration: token ids of the texts for GPTQ, each (tokens,).
        device: where to compute.
        overwrite: replace a checkpoint in `output`.
        shard_bytes: size limit of a weight file of the result.
        progress: called after each layer.
        watch: called while GPTQ's texts pass through a block of layers, which takes minutes: the block's name, the
            number of passes done, and the number of all passes.

    Raises:
        CheckpointError: the source is incomplete, damaged or quantised already.
        OutputError: the disk is full. After freeing space, the same call continues.
        InputError: `output` exists, or another process writes to it; GPTQ has no calibration texts; or the model has no
            linear layer, or one that cannot be written in the layout.
        UnsupportedError: GPTQ cannot calibrate this model.
        NumericalError: with GPTQ, the inputs of a layer in calibration are not finite, or not varied enough.
    """
    source, output = hub.folder(source, any_family=True), Path(output).expanduser()
    began = time.monotonic()
    if job.method == "gptq" and not calibration:
        raise InputError("gptq: needs calibration texts; give some, or round with method rtn")
    config = _check_source(source)
    files = weight_files(source)
    made_from = _fingerprint(source, files, job, calibration, shard_bytes)
    if not overwrite and (report := Report.of_same(output, made_from)) is not None:
        return report
    _check_output(source, output, overwrite)
    model = _skeleton(source, config)
    chosen = choose(model, head=job.head, embedding=job.embedding)
    tensors = Source(files)
    plan = _Plan(model, chosen, job, tensors)
    with _draft(output, made_from) as draft:
        layers = _write_weights(draft, plan, tensors, model, job, calibration, device, shard_bytes, progress, watch)
        _write_rest(source, draft, config, job)
        weights = sorted(file for file in draft.iterdir() if file.suffix == ".safetensors")
        report = Report(
            source=str(source),
            output=str(output),
            scheme=str(job.scheme),
            method=job.method,
            bytes_before=sum(file.stat().st_size for file in files),
            bytes_after=sum(file.stat().st_size for file in weights),
            seconds=time.monotonic() - began,
            layers=layers,
            made_from=made_from,
        )
        report.write(draft)
        _check_output(source, output, overwrite)  # something may have come there meanwhile
        _take_place(draft, output)
    return report


# Checks, and the plan


def _check_source(source: Path) -> Any:
    """Check that a folder is complete and not quantised; returns its configuration."""
    from transformers import AutoConfig

    if not source.is_dir() or read_json(source / "config.json").get("model_type") == "chatglm":
        check_folder(source)
    else:
        weight_files(source)
    try:
        config = AutoConfig.from_pretrained(source)
    except ChatGLMError:
        raise
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{source / 'config.json'}: {str(error).splitlines()[0]}") from None
    if getattr(config, "quantization_config", None) is not None:
        raise CheckpointError(f"{source}: is quantised already; give the folder with the original weights")
    return config


def _check_output(source: Path, output: Path, overwrite: bool) -> None:
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; give a folder for the result")
    if source.resolve().is_relative_to(output.resolve()):
        raise InputError(f"{output}: this folder holds the weights to quantise; choose another folder for the result")
    held = sorted(entry.name for entry in output.iterdir()) if output.is_dir() else []
    if held and not overwrite:
        raise InputError(f"{output}: exists already; choose another folder, or add --overwrite")
    if held and "config.json" not in held:
        raise InputError(
            f"{output}: is not a checkpoint (no config.json), so it is not overwritten; choose another folder"
        )
    allowed = (*_KEPT, ".safetensors", ".py")
    for name in held:
        if not (output / name).is_file() or not name.endswith(allowed):
            raise InputError(
                f"{output}: has {name} in it, which does not belong to a checkpoint; choose another folder"
            )


def _skeleton(source: Path, config: Any) -> Any:
    """The model of a folder on the meta device, without its weights."""
    from accelerate import init_empty_weights
    from transformers import AutoModel, AutoModelForCausalLM

    try:
        auto = AutoModel if config.model_type == "chatglm" else AutoModelForCausalLM
        with init_empty_weights(include_buffers=False):
            return auto.from_config(config).eval()
    except ChatGLMError:
        raise
    except (ValueError, KeyError) as error:
        raise UnsupportedError(
            f"{source / 'config.json'}: model_type {config.model_type!r} is not a language model of transformers "
            f"({str(error).splitlines()[0]:.120})"
        ) from None


class _Plan:
    """The tensors of the result, in the order of the model: for each source name, the tensors that it becomes."""

    def __init__(self, model: Any, chosen: Chosen, job: Job, source: Source) -> None:
        self.job, self.chosen = job, chosen
        known = list(dict.fromkeys(model.state_dict()))
        place = {name: number for number, name in enumerate(known)}
        ignored = [re.compile(p) for p in (getattr(model, "_keys_to_ignore_on_load_unexpected", None) or [])]
        names = [name for name in source.about if not any(pattern.search(name) for pattern in ignored)]
        if chosen.tied is not None:  # one weight under two names: the head's tensor is used, as in the official code
            table, head = (f"{name}.weight" for name in chosen.tied)
            if table in names and head in names:
                names.remove(table)
        names.sort(key=lambda name: place.get(name, len(place)))
        self.modules: dict[str, str] = {f"{m}.weight": m for m in (*chosen.linears, *chosen.embeddings)}
        if lost := [name for name in self.modules if name not in names and not self._elsewhere(name, names)]:
            raise CheckpointError(
                f"weights that are missing in the files: {len(lost)} (first: {lost[0]}); the folder is incomplete, or "
                "config.json describes another model"
            )
        self.units: list[tuple[str, dict[str, About]]] = []
        for name in names:
            about = source.about[name]
            if name not in self.modules:
                self.units.append((name, {name: about}))
                continue
            layer = model.get_submodule(self.modules[name])
            if about[0] != tuple(layer.weight.shape):
                raise CheckpointError(
                    f"{name} has the shape {about[0]} in the files, but {tuple(layer.weight.shape)} in config.json's "
                    "model"
                )
            self.units.append((name, self.made_of(self.modules[name], *about[0])))

    def _elsewhere(self, name: str, names: list[str]) -> bool:
        tied = [f"{module}.weight" for module in self.chosen.tied or ()]
        return name in tied and any(other in names for other in tied)

    def made_of(self, module: str, rows: int, columns: int) -> dict[str, About]:
        """Names, shapes and types of the tensors that a layer becomes."""
        scheme = self.job.scheme
        if self.job.layout == "gptq":
            size = scheme.group_size
            if columns % size or rows % 8:
                raise InputError(
                    f"{module}: {rows}x{columns} cannot be written in GPTQ's layout in groups of {size}, which needs "
                    "a multiple of 8 rows, and complete groups; use chatglm's own layout"
                )
            return {
                f"{module}.qweight": ((columns // 8, rows), torch.int32),
                f"{module}.qzeros": ((columns // size, rows // 8), torch.int32),
                f"{module}.scales": ((columns // size, rows), torch.float16),
                f"{module}.g_idx": ((columns,), torch.int32),
            }
        if scheme.official:
            made: dict[str, About] = {
                f"{module}.weight": (official_shape(rows, columns, scheme.bits), torch.int8),
                f"{module}.weight_scale": ((rows,), torch.float16),
            }
        else:
            size, scales = shapes(rows, columns, scheme.bits, scheme.group_size)
            made = {f"{module}.weight": ((size,), torch.uint8), f"{module}.weight_scale": (scales, torch.float16)}
        if self.chosen.tied is not None and self.chosen.embeddings and module in self.chosen.tied:
            # The bytes are stored once, the scales under both names.
            other = next(name for name in self.chosen.tied if name != module)
            made[f"{other}.weight_scale"] = made[f"{module}.weight_scale"]
        return made

    def encode(self, module: str, packed: PackedWeight) -> dict[str, Tensor]:
        """The tensors of a packed layer, as listed by `made_of`."""
        if self.job.layout == "gptq":
            return {f"{module}.{kind}": tensor for kind, tensor in to_gptq(packed).items()}
        weight, scales = to_official(packed) if self.job.scheme.official else (packed.data, packed.scales)
        return {f"{module}.weight": weight, f"{module}.weight_scale": scales}

    def decode(self, module: str, read: Callable[[str], Tensor], rows: int, columns: int) -> PackedWeight:
        """The inverse of `encode`, for tensors that an earlier run wrote."""
        scheme = self.job.scheme
        if self.job.layout == "gptq":
            kinds = ("qweight", "qzeros", "scales", "g_idx")
            return from_gptq({kind: read(f"{module}.{kind}") for kind in kinds}, scheme.group_size)
        weight, scales = read(f"{module}.weight"), read(f"{module}.weight_scale")
        if scheme.official:
            return from_official(weight, scales, scheme.bits)
        return PackedWeight(weight, scales, rows, columns, scheme.bits, scheme.group_size)

    def shards(self, limit: int) -> list[list[tuple[str, dict[str, About]]]]:
        """Distribute the units over files of at most `limit` bytes; a larger unit gets a file of its own."""
        shards: list[list[tuple[str, dict[str, About]]]] = []
        room = 0
        for unit in self.units:
            size = sum(torch.empty(s, dtype=d, device="meta").nbytes for s, d in unit[1].values())
            if not shards or size > room:
                shards.append([])
                room = limit
            shards[-1].append(unit)
            room -= size
        return shards


# The draft


def _fingerprint(
    source: Path, files: Sequence[Path], job: Job, calibration: Sequence[Tensor], shard_bytes: int
) -> dict[str, Any]:
    """Identifies weights and settings. A draft is only continued if it was started with the same fingerprint."""
    seen = hashlib.sha256()
    for ids in calibration:
        seen.update(ids.numpy().tobytes() + b"|")
    stats = {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in files}
    config = hashlib.sha256((source / "config.json").read_bytes()).hexdigest()
    about = {
        "source": str(source.resolve()),
        "config": config,
        "files": stats,
        "job": asdict(job),
        "shard": shard_bytes,
    }
    return {**about, "calibration": seen.hexdigest(), "version": 1}


@contextmanager
def _draft(output: Path, fingerprint: dict[str, Any]) -> Iterator[Path]:
    """The hidden folder beside `output`, created or found again, and locked. It stays if the block fails."""
    output = output.resolve()
    draft = output.with_name(f".{output.name}.quantising")
    try:
        draft.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output}: cannot be made ({error.strerror}); choose another folder") from None
    hint = f"; the finished part is in {draft}; run the same command again to continue"
    with reporting_disk_errors(output, hint), locked(draft / LOCK, output):
        try:
            begun = json.loads((draft / _PROGRESS).read_text("utf-8"))
        except (OSError, ValueError):
            begun = None
        if begun != fingerprint:  # other settings or other weights
            for entry in draft.iterdir():
                if entry.name != LOCK:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            _write_json(draft / _PROGRESS, fingerprint)
        yield draft


def _write_weights(
    draft: Path,
    plan: _Plan,
    source: Source,
    model: nn.Module,
    job: Job,
    calibration: Sequence[Tensor],
    device: str,
    shard_bytes: int,
    progress: Progress,
    watch: Progress,
) -> list[Layer]:
    shards = plan.shards(shard_bytes)
    files = [
        draft / ("model.safetensors" if len(shards) == 1 else f"model-{n:05}-of-{len(shards):05}.safetensors")
        for n in range(1, len(shards) + 1)
    ]
    (draft / "config.json").unlink(missing_ok=True)  # a killed run may have written it: the draft is not complete yet
    done = {file for file in files if file.is_file()}
    written = Source(sorted(done))
    layers = {layer.name: layer for layer in _read_layers(draft / _LAYERS)}

    def known(module: str) -> PackedWeight | None:
        first = next(iter(plan.made_of(module, *source.about[f"{module}.weight"][0])))
        if first not in written.about:
            return None
        return plan.decode(module, written.get, *source.about[f"{module}.weight"][0])

    def load(name: str) -> Tensor:
        tied = [f"{module}.weight" for module in plan.chosen.tied or ()]
        if name in tied:  # one weight has two names, of which the files may hold only one; the head's is preferred
            name = next(one for one in reversed(tied) if one in source.about)
        return source.get(name)

    blocks = None
    if job.method == "gptq":
        blocks = Blocks(
            model,
            load,
            plan.chosen.linears,
            job.scheme,
            calibration,
            act_order=job.act_order,
            known=known,
            watch=watch,
            device=device,
        )
    total = sum(name in plan.modules for name, _ in plan.units)
    count = 0
    with (draft / _LAYERS).open("a", encoding="utf-8") as log:
        for file, units in zip(files, shards, strict=True):
            if file in done:
                count += sum(name in plan.modules for name, _ in units)
                continue
            writer = StreamWriter(file, {name: about for _, made in units for name, about in made.items()})
            try:
                for name, made in units:
                    module = plan.modules.get(name)
                    if module is None:
                        writer.put(name, source.get(name))
                        continue
                    weight = source.get(name).to(device)
                    seen = None
                    try:
                        if blocks is not None and module in blocks:
                            packed, seen = blocks.take(module)
                        else:
                            packed = quantize(weight, job.scheme)
                    except InputError as error:
                        raise CheckpointError(f"{name}: {error}") from None
                    tensors = plan.encode(module, packed)
                    scales = tensors.get(f"{module}.weight_scale")
                    for wanted in made:
                        writer.put(wanted, tensors[wanted] if wanted in tensors else _given(scales))
                    layer = Layer(module, packed.rows, packed.columns, relative_error(weight, packed), seen)
                    layers[module] = layer
                    log.write(json.dumps(asdict(layer)) + "\n")
                    log.flush()
                    count += 1
                    progress(module, count, total)
                    del weight, packed, tensors, scales
                writer.close()
            except BaseException:
                writer.drop()
                raise
    if len(files) > 1:
        weight_map = {
            n: file.name for file, units in zip(files, shards, strict=True) for _, made in units for n in made
        }
        size = sum(torch.empty(s, dtype=d, device="meta").nbytes for _, made in plan.units for s, d in made.values())
        index = {"metadata": {"total_size": size}, "weight_map": weight_map}
        _write_json(draft / "model.safetensors.index.json", index)
    return [layers[module] for name, _ in plan.units if (module := plan.modules.get(name)) in layers]


def _given(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor


def _read_layers(file: Path) -> Iterator[Layer]:
    """Read the results that an earlier run wrote. The last line may be incomplete if the run was killed."""
    if not file.is_file():
        return
    for line in file.read_text("utf-8", errors="replace").splitlines():
        try:
            yield Layer(**json.loads(line))
        except (ValueError, TypeError):
            continue


# The other files, and the final place


def _write_rest(source: Path, draft: Path, config: Any, job: Job) -> None:
    """Write all other files of a checkpoint; config.json last."""
    kept = (*_KEPT, ".py") if job.scheme.official else _KEPT
    for entry in source.iterdir():
        name = entry.name
        if not entry.is_file() or name in ("config.json", "report.json") or name.startswith("."):
            continue
        if name.endswith(kept) and not name.endswith(".index.json"):
            shutil.copyfile(entry, draft / name)
    about = read_json(source / "config.json")
    for gone in ("quantization_bit", "quantization_embeddings"):
        about.pop(gone, None)
    if (generation := getattr(config, "chatglm_generation", None)) is not None:
        about["chatglm_generation"] = generation
    both = job.head and job.embedding
    tied = getattr(config, "tie_word_embeddings", False)
    if job.layout == "gptq":
        about["quantization_config"] = gptq_config(job.scheme, head=job.head, act_order=job.act_order)
    elif job.scheme.official and config.model_type == "chatglm" and (both or tied or not (job.head or job.embedding)):
        about["quantization_bit"] = job.scheme.bits
        if job.head or job.embedding:
            about["quantization_embeddings"] = True
    else:
        made = QuantizationConfig(job.scheme.bits, job.scheme.group_size, head=job.head, embedding=job.embedding)
        about["quantization_config"] = made.to_dict()
    _write_json(draft / "config.json", about)


def _take_place(draft: Path, output: Path) -> None:
    output = output.resolve()
    for name in (_LAYERS, _PROGRESS, LOCK):
        (draft / name).unlink()
    if not output.exists():
        draft.rename(output)
        return
    old = draft.with_suffix(".old")
    shutil.rmtree(old, ignore_errors=True)
    output.rename(old)
    draft.rename(output)
    shutil.rmtree(old)


def _write_json(file: Path, content: Any) -> None:
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
    part.rename(file)
