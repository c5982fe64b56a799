"""A tiny random SDXL, made from diffusers' classes, draws."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_painter import make_painter

from chatglm.chat.messages import ToolCall
from chatglm.errors import ToolError
from chatglm.tools import drawing
from chatglm.tools.drawing import Draw
from chatglm.tools.pictures import png_problem
from chatglm.tools.tool import Consent, Outcome
from chatglm.tools.toolbox import Toolbox
from waiting import until


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_painter(tmp_path_factory.mktemp("sdxl"))


@pytest.fixture(scope="module")
def draw(folder: Path) -> Iterator[Draw]:
    found = Draw(folder, device="cpu", steps=2)
    yield found
    found.close()


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def call(draw: Draw, **arguments: Any) -> Outcome:
    return asyncio.run(draw.run(arguments))


def test_what_a_model_is_shown(draw: Draw, folder: Path) -> None:
    shown = draw.spec.flat()
    assert (shown["name"], shown["parameters"]["required"]) == ("draw", ["prompt"])
    assert draw.consent is Consent.NEVER
    assert Draw(folder, cogview=True).spec.builtin == "cogview"


def test_pictures(draw: Draw) -> None:
    one = call(draw, prompt="a cat", seed=5)
    assert one.text == "[Image] (128x128, seed 5)"
    assert not png_problem(one.pictures[0])
    assert call(draw, prompt="a cat", seed="5").pictures == one.pictures
    assert call(draw, prompt="a cat", seed=6).pictures != one.pictures
    wide = call(draw, prompt="a dog", negative_prompt="a cat", size="130 x 64", steps=1)
    assert wide.text.startswith("[Image] (128x64, seed ")
    assert wide.pictures[0][16:24] == (128).to_bytes(4, "big") + (64).to_bytes(4, "big")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "missing: prompt"),
        ({"prompt": "  "}, "prompt is empty"),
        ({"prompt": "a" * 3000}, "at most 2000 characters"),
        ({"prompt": "a", "steps": 51}, "steps must be at most 50"),
        ({"prompt": "a", "seed": -1}, "seed must be at least 0"),
        ({"prompt": "a", "size": "1025x1024"}, "at most 1,048,576 pixels"),
        ({"prompt": "a", "size": "8x1024"}, "sides from 64"),
        ({"prompt": "a", "size": "large"}, "must be width x height"),
        ({"prompt": "a", "callback": "x"}, "unknown: callback"),
    ],
)
def test_arguments_are_bounded(draw: Draw, arguments: dict[str, Any], said: str) -> None:
    outcome = call(draw, **arguments)
    assert outcome.failed
    assert said in outcome.text


def test_a_toolbox_draws(draw: Draw, folder: Path) -> None:
    with Toolbox.open([folder]) as box:
        assert [spec.name for spec in box.specs] == ["draw"]
    with Toolbox([draw]) as box:
        (outcome,) = box.call_now([ToolCall("draw", {"prompt": "a cat", "seed": 1})])
    assert outcome.text == "[Image] (128x128, seed 1)"
    assert not png_problem(outcome.pictures[0])


def slowly(monkeypatch: pytest.MonkeyPatch, seconds: float) -> list[int]:
    """Each step of whatever is loaded takes longer; gets the steps."""
    load, steps = drawing._load, []

    def loaded(*given: Any) -> Any:
        pipeline = load(*given)
        forward = pipeline.unet.forward

        def step(*args: Any, **options: Any) -> Any:
            steps.append(threading.get_ident())
            time.sleep(seconds)
            return forward(*args, **options)

        pipeline.unet.forward = step
        return pipeline

    monkeypatch.setattr(drawing, "_load", loaded)
    return steps


def test_who_no_longer_waits_stops_it_within_a_step(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = slowly(monkeypatch, 0.05)
    draw = Draw(folder, device="cpu", steps=50)

    async def leave() -> None:
        task = asyncio.ensure_future(draw.run({"prompt": "a cat"}))
        while not steps:
            assert not task.done()
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(leave())
    assert call(draw, prompt="a dog", steps=1, seed=1).text == "[Image] (128x128, seed 1)"  # as soon as it has stopped
    assert len(steps) < 30
    draw.close()
    assert call(draw, prompt="a dog").text == "The tool that draws has been closed."


def test_one_draws_at_a_time_and_nobody_waits_for_ever(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slowly(monkeypatch, 0.2)
    draw = Draw(folder, device="cpu", seconds=1.0)

    async def both() -> list[Outcome]:
        return await asyncio.gather(draw.run({"prompt": "a", "steps": 50}), draw.run({"prompt": "b", "steps": 50}))

    texts = {outcome.text for outcome in asyncio.run(both())}
    assert texts <= {"The picture took too long, and was given up.", "Not drawn: other pictures took too long."}
    draw.close()


def test_memory_is_given_back(folder: Path) -> None:
    draw = Draw(folder, device="cpu", steps=1, idle=0.05)
    assert not call(draw, prompt="a").failed
    until(lambda: draw._painter._pipeline is None)
    assert not call(draw, prompt="a").failed
    draw.close()


def test_weights_that_are_damaged_are_an_observation(copy: Path) -> None:
    (copy / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"\xff" * 100)
    outcome = call(Draw(copy, device="cpu"), prompt="a")
    assert outcome.failed
    assert outcome.text.startswith("The picture could not be drawn (")


def change(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def test_folders_that_are_refused(copy: Path, folder: Path) -> None:
    index = copy / "model_index.json"

    def refused(said: str) -> None:
        with pytest.raises(ToolError, match=said):
            Draw(copy)
        shutil.rmtree(copy)
        shutil.copytree(folder, copy)

    change(index, _class_name="StableDiffusionPipeline")
    refused("holds a 'StableDiffusionPipeline'")
    change(index, _class_name=["pipeline", "Own"])
    refused("holds a ")
    change(index, unet=["unet_own", "UNet2DConditionModel"])
    refused("unet is .*unet_own.*, not diffusers's UNet2DConditionModel")
    change(index, scheduler=["diffusers", "DiffusionPipeline"])
    refused("scheduler is .* not one of those that are known")
    change(index, text_encoder=["transformers", "AutoModel"])
    refused("text_encoder is")
    change(index, safety_checker=["diffusers", "UNet2DConditionModel"])
    refused("safety_checker is")
    change(index, image_encoder=["transformers", "CLIPVisionModelWithProjection"])
    refused("image_encoder is")
    index.write_text("{")
    refused("neither JSON nor YAML")
    index.unlink()
    refused("cannot be read")
    change(copy / "unet" / "config.json", quantization_config={"quant_method": "bitsandbytes"})
    refused("quantization_config would load other files")
    change(copy / "text_encoder" / "config.json", auto_map={"AutoModel": "own.Model"})
    refused("auto_map would load")
    (copy / "text_encoder" / "adapter_config.json").write_text("{}")
    refused("has an adapter")
    (copy / "vae" / "diffusion_pytorch_model.safetensors").rename(copy / "vae" / "diffusion_pytorch_model.bin")
    refused("has no weights as safetensors, only .bin")
