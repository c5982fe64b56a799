"""A tool that draws pictures on this machine, with a Stable Diffusion XL folder of diffusers.

The folder's weights must be safetensors files, and its parts must be classes of diffusers and transformers that are
listed here. So nothing in it is executed or unpickled, and nothing is downloaded. The size of pictures and the number
of steps are limited. Only one picture is drawn at a time. The model is loaded for the first one, and its memory is
freed when it has not been used for some time. Pictures are not filtered; whoever offers the tool is responsible for the
model.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import io
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from chatglm.chat.messages import ToolSpec
from chatglm.errors import DependencyError, ToolError
from chatglm.tools.documents import read_document
from chatglm.tools.parameters import checked
from chatglm.tools.pictures import png_problem
from chatglm.tools.threads import Threads
from chatglm.tools.tool import Consent, Outcome

__all__ = ["Draw", "open_painter"]

MOST_PIXELS = 1024 * 1024
MOST_STEPS = 50

_PIPELINE = "StableDiffusionXLPipeline"
_SIDES = (64, 2048)
_MOST_PROMPT = 2000  # characters; the text encoders read 77 tokens of it
_SCHEDULERS = (
    "DDIMScheduler", "DDPMScheduler", "DEISMultistepScheduler", "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler", "DPMSolverSinglestepScheduler", "EDMDPMSolverMultistepScheduler",
    "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler", "KDPM2DiscreteScheduler", "LCMScheduler", "LMSDiscreteScheduler",
    "PNDMScheduler", "TCDScheduler", "UniPCMultistepScheduler",
)  # fmt: skip
# The parts of a pipeline, and the classes that each may have. Drawing from a text needs no other parts.
_PARTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "vae": ("diffusers", ("AutoencoderKL",)),
    "unet": ("diffusers", ("UNet2DConditionModel",)),
    "scheduler": ("diffusers", _SCHEDULERS),
    "text_encoder": ("transformers", ("CLIPTextModel",)),
    "text_encoder_2": ("transformers", ("CLIPTextModelWithProjection",)),
    "tokenizer": ("transformers", ("CLIPTokenizer", "CLIPTokenizerFast")),
    "tokenizer_2": ("transformers", ("CLIPTokenizer", "CLIPTokenizerFast")),
}
_OPTIONAL = ("image_encoder", "feature_extractor")  # only for pictures as input
_WEIGHTS = ("vae", "unet", "text_encoder", "text_encoder_2")
# Settings with which the libraries would load other files.
_LOADING = ("auto_map", "quantization_config", "adapter_config")

_PROPERTIES: dict[str, Any] = {
    "prompt": {"type": "string", "description": "what to draw, in English, in detail", "maxLength": _MOST_PROMPT},
    "size": {"type": "string", "description": "width x height in pixels, such as 1024x768"},
    "negative_prompt": {"type": "string", "description": "what must not be seen", "maxLength": _MOST_PROMPT},
    "steps": {"type": "integer", "minimum": 1, "maximum": MOST_STEPS},
    "seed": {
        "type": "integer",
        "description": "the same seed draws the same picture",
        "minimum": 0,
        "maximum": 2**32 - 1,
    },
}
_PARAMETERS = {"type": "object", "properties": _PROPERTIES, "required": ["prompt"], "additionalProperties": False}


def open_painter(folder: str | Path) -> Draw:
    """Make a `Draw` for a folder.

    Raises:
        ToolError, DependencyError: see `Draw`.
    """
    return Draw(folder)


class Draw:
    """Draws a picture that a model describes. It changes nothing, so it needs no consent.

    Attributes:
        seconds: longest time of a call, including waiting for others and loading.
    """

    consent = Consent.NEVER

    def __init__(
        self,
        folder: str | Path,
        *,
        cogview: bool = False,
        device: str | None = None,
        steps: int = 30,
        guidance: float = 5.0,
        seconds: float = 300.0,
        idle: float = 300.0,
    ) -> None:
        """
        Args:
            folder: folder of a `StableDiffusionXLPipeline`, written by `save_pretrained` of diffusers.
            cogview: make the tool GLM-4's own `{"type": "cogview"}`, which its prompt describes; else it is a function.
            device: torch's name of a device; default: the first available of CUDA, Apple's MPS and the CPU.
            steps: default number of steps of a call.
            guidance: how strictly the prompt is followed.
            seconds: time limit of a call.
            idle: seconds without a call after which the memory is freed.

        Raises:
            ToolError: the folder is not such a model, is incomplete, or needs files that are not supported; or `steps`
                is out of range.
            DependencyError: diffusers is not installed.
        """
        if not 1 <= steps <= MOST_STEPS:
            raise ToolError(f"draw: steps: from 1 to {MOST_STEPS}, got {steps!r:.40}")
        if importlib.util.find_spec("diffusers") is None:
            raise DependencyError('the tool that draws needs diffusers: pip install "chatglm[image]"')
        self.seconds = seconds
        self._steps, self._guidance, self._seconds = steps, guidance, seconds - 1 if seconds > 10 else seconds
        self._spec = ToolSpec({"type": "cogview"} if cogview else _function())
        self._painter = _Painter(Path(folder), device, idle)
        self._threads = Threads()

    @property
    def spec(self) -> ToolSpec:
        return self._spec

    def close(self) -> None:
        """Free the memory. If a picture is being drawn, it is cancelled."""
        self._painter.close()

    async def run(self, arguments: Mapping[str, Any]) -> Outcome:
        values, problem = checked(arguments, _PARAMETERS)
        if not problem:
            width, height, problem = self._painter.size(values.get("size"))
        if not problem and not values["prompt"].strip():
            problem = "prompt is empty"
        if problem:
            return Outcome(f"Arguments of {self._spec.name} are wrong ({problem}).", failed=True)
        seed = values.get("seed", random.randrange(2**32))
        end, stopped = time.monotonic() + self._seconds, threading.Event()
        options = {
            "prompt": values["prompt"],
            "negative_prompt": values.get("negative_prompt"),
            "width": width,
            "height": height,
            "num_inference_steps": values.get("steps", self._steps),
            "guidance_scale": self._guidance,
        }
        work = functools.partial(self._painter.paint, options, seed, lambda: stopped.is_set() or time.monotonic() > end)
        try:
            picture = await self._threads.run(work)
        except asyncio.CancelledError:
            stopped.set()
            raise
        if isinstance(picture, str):
            return Outcome(picture, failed=True)
        return Outcome(f"[Image] ({width}x{height}, seed {seed})", pictures=(picture,))


def _function() -> dict[str, Any]:
    return {"name": "draw", "description": "Draw a picture and show it to the user.", "parameters": _PARAMETERS}


class _StoppedError(Exception):
    """Nobody waits for the picture any more, or its time limit is reached."""


class _Painter:
    """The model. Any thread may call it. It draws one picture after the other."""

    def __init__(self, folder: Path, device: str | None, idle: float) -> None:
        self._side = _check(folder)
        self._folder, self._device, self._idle = folder, device, idle
        self._lock = threading.Lock()
        self._pipeline: Any = None
        self._timer: threading.Timer | None = None
        self._closed = False

    def size(self, given: str | None) -> tuple[int, int, str]:
        """Width and height in pixels, and what is wrong with them; "" if nothing is."""
        if given is None:
            return self._side, self._side, ""
        if (match := re.fullmatch(r"\s*([0-9]{1,5})\s*[xX×*]\s*([0-9]{1,5})\s*", given)) is None:
            return 0, 0, f"size must be width x height, such as 1024x768, got {given!r:.40}"
        width, height = int(match[1]), int(match[2])
        if width * height > MOST_PIXELS or not all(_SIDES[0] <= side <= _SIDES[1] for side in (width, height)):
            words = f"sides from {_SIDES[0]} to {_SIDES[1]} and at most {MOST_PIXELS:,} pixels are drawn"
            return 0, 0, f"size is {width}x{height}; {words}"
        return width // 8 * 8, height // 8 * 8, ""

    def paint(self, options: Mapping[str, Any], seed: int, over: Callable[[], bool]) -> bytes | str:
        """Draw a picture. Returns a PNG file, or an error message. Never raises.

        Args:
            options: arguments of the pipeline.
            over: tells whether the picture is not needed any more.
        """
        while not self._lock.acquire(timeout=0.1):
            if over():
                return "Not drawn: other pictures took too long."
        try:
            if self._timer is not None:
                self._timer.cancel()
            if self._closed:
                return "The tool that draws has been closed."
            return self._painted(options, seed, lambda: self._closed or over())
        except _StoppedError:
            return "The picture took too long, and was given up."
        except Exception as error:
            kind = type(error).__name__
            if "OutOfMemory" in kind or isinstance(error, MemoryError):
                self._pipeline = None
                return "There is not enough memory to draw this; a smaller size may do."
            return f"The picture could not be drawn ({kind}: {str(error)[:200]})."
        finally:
            if not self._closed:
                self._timer = threading.Timer(self._idle, self._rest)
                self._timer.daemon = True
                self._timer.start()
            else:
                self._forget()
            self._lock.release()

    def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._lock.acquire(blocking=False):  # otherwise the drawing thread does it
            try:
                self._forget()
            finally:
                self._lock.release()

    def _rest(self) -> None:
        if self._lock.acquire(blocking=False):
            try:
                self._forget()
            finally:
                self._lock.release()

    def _forget(self) -> None:
        if self._pipeline is not None:
            import torch

            self._pipeline = None
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _painted(self, options: Mapping[str, Any], seed: int, over: Callable[[], bool]) -> bytes | str:
        import torch

        if self._pipeline is None:
            self._pipeline = _load(self._folder, self._device)

        def stepped(pipeline: Any, step: int, time: Any, values: Mapping[str, Any]) -> Mapping[str, Any]:
            if over():
                raise _StoppedError
            return values

        if over():
            raise _StoppedError
        generator = torch.Generator("cpu").manual_seed(seed)  # the same picture on every device
        with torch.inference_mode():
            made = self._pipeline(**options, generator=generator, callback_on_step_end=stepped).images[0]
        file = io.BytesIO()
        made.save(file, "PNG")
        data = file.getvalue()
        problem = png_problem(data)
        return f"The picture could not be drawn ({problem})." if problem else data


def _check(folder: Path) -> int:
    """Check that a folder holds a supported model. Returns the default side of its pictures in pixels.

    Raises:
        ToolError: the folder is not supported; the message says why.
    """
    index = read_document(folder / "model_index.json")
    if index.get("_class_name") != _PIPELINE:
        raise ToolError(f"{folder}: holds a {index.get('_class_name')!r:.60}; only {_PIPELINE} is supported")
    for name, part in index.items():
        if name.startswith("_") or name in ("force_zeros_for_empty_prompt", "add_watermarker"):
            continue
        if name in _OPTIONAL and part in ([None, None], None):
            continue
        library, classes = _PARTS.get(name, ("", ()))
        if not isinstance(part, list) or len(part) != 2 or part[0] != library or part[1] not in classes:
            known = f"{library}'s {' or '.join(classes)}" if 0 < len(classes) < 4 else "one of those that are known"
            raise ToolError(f"{folder}: model_index.json: {name:.60} is {part!r:.100}, not {known}")
    if missing := _PARTS.keys() - index.keys():
        raise ToolError(f"{folder}: model_index.json: lacks {', '.join(sorted(missing))}")
    for name in _WEIGHTS:
        settings = read_document(folder / name / "config.json")
        if found := [key for key in _LOADING if settings.get(key)]:
            raise ToolError(
                f"{folder / name}: config.json: {', '.join(found)} would load other files, which is not supported; "
                "remove it"
            )
        if (folder / name / "adapter_config.json").exists():
            raise ToolError(f"{folder / name}: has an adapter, which is not supported; merge it")
        if _variant(folder, name) is None:
            kinds = sorted({path.suffix for path in (folder / name).iterdir() if path.suffix != ".json"})
            raise ToolError(f"{folder / name}: has no weights as safetensors, only {', '.join(kinds) or 'nothing'}")
    return _side(folder)


def _side(folder: Path) -> int:
    sample = read_document(folder / "unet" / "config.json").get("sample_size")
    blocks = read_document(folder / "vae" / "config.json").get("block_out_channels")
    scale = 2 ** (len(blocks) - 1) if isinstance(blocks, list) and 0 < len(blocks) < 8 else 8
    side = sample * scale if isinstance(sample, int) and not isinstance(sample, bool) else 1024
    return min(max(side // 8 * 8, _SIDES[0]), 1024)


def _variant(folder: Path, name: str) -> Literal["", "fp16"] | None:
    """The variant of a part's safetensors files; None: it has no such files."""
    base = "diffusion_pytorch_model" if name in ("vae", "unet") else "model"
    for variant in ("", "fp16"):
        dotted = f".{variant}" if variant else ""
        names = (f"{base}{dotted}.safetensors", f"{base}.safetensors.index{dotted}.json")
        if any((folder / name / one).is_file() for one in names):
            return variant  # type: ignore[return-value]
    return None


def _load(folder: Path, device: str | None) -> Any:
    """Load the pipeline of a folder.

    Raises:
        Exception: diffusers, transformers and torch raise many kinds of errors if files are damaged.
    """
    import diffusers
    import torch
    import transformers

    if device is None:
        mps = torch.backends.mps.is_available()
        device = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    half = {_variant(folder, name) for name in _WEIGHTS} == {"fp16"}
    with _silent(diffusers, transformers):
        pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(
            str(folder),
            dtype=torch.float32 if torch.device(device).type == "cpu" else torch.float16,
            variant="fp16" if half else None,
            use_safetensors=True,
            local_files_only=True,
            add_watermarker=False,
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


@contextlib.contextmanager
def _silent(*libraries: Any) -> Iterator[None]:
    """Hide the progress bars of libraries during the block."""
    shown = [one.utils.logging for one in libraries if one.utils.logging.is_progress_bar_enabled()]
    for logging in shown:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        for logging in shown:
            logging.enable_progress_bar()
