"""The declaration of the options: what is refused and how it says so, and what derives from it."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import pickle
import subprocess
import sys

import pytest

from chatglm.errors import InputError, UnsupportedError
from chatglm.params import SamplingParams


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tempreture": 1}, r"'tempreture' is not an option of generation; did you mean temperature\?"),
        ({"": 1}, r"known: temperature, top_k"),
        ({"temperature": -0.1}, r"temperature is -0\.1; it must be at least 0"),
        ({"temperature": float("nan")}, r"temperature is nan; it must be a finite number"),
        ({"temperature": 10**400}, r"temperature is inf; it must be a finite number"),
        ({"temperature": "1"}, r"temperature is '1'; it must be a number"),
        ({"temperature": None}, r"temperature is None; it must be a number$"),
        ({"top_k": 1.0}, r"top_k is 1\.0; it must be an integer"),
        ({"top_p": 0}, r"top_p is 0\.0; it must be above 0, at most 1"),
        ({"top_p": 1.01}, r"top_p is 1\.01"),
        ({"presence_penalty": 2.5}, r"presence_penalty is 2\.5; it must be from -2 to 2"),
        ({"n": True}, r"n is True; it must be an integer"),
        ({"seed": 2**63}, r"seed is 9223372036854775808; it must be from .* or null"),
        ({"max_new_tokens": 0}, r"max_new_tokens is 0; it must be at least 1 or null \(0 only with prompt_logprobs\)"),
        ({"logprobs": 21}, r"logprobs is 21; it must be from 0 to 20 or null"),
        ({"stop": ["a", ""]}, r"stop is \['a', ''\]"),
        ({"stop": 5}, r"stop is 5; it must be a list"),
        ({"stop_ids": "12"}, r"stop_ids is '12'; it must be a list"),
        ({"stop_ids": [-1]}, r"stop_ids is -1; it must be at least 0"),
        ({"bad_words_ids": [[]]}, r"bad_words_ids is \[\[\]\]; .* none of them empty"),
        ({"logit_bias": {"²": 1}}, r"'²' is not a token id"),
        ({"logit_bias": {5: 101}}, r"logit_bias is 101\.0; it must be from -100 to 100"),
        ({"logit_bias": [5]}, r"logit_bias is \[5\]; it must be a mapping"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SamplingParams.from_dict(values)


def test_values_as_json_has_them() -> None:
    params = SamplingParams.from_dict(
        {"stop": "。", "stop_ids": [7], "bad_words_ids": [[1, 2], [3]], "logit_bias": {"5": -100, "6": 2}, "top_p": 1}
    )
    assert params.stop == ("。",)
    assert params.bad_words_ids == ((1, 2), (3,))
    assert params.logit_bias == {5: -100.0, 6: 2.0}
    assert isinstance(params.top_p, float)
    again = SamplingParams.from_dict(json.loads(json.dumps(params.to_dict())))
    assert again == params
    assert hash(again) == hash(params)
    assert SamplingParams().to_dict() == {}


def test_parameters_do_not_change() -> None:
    given = {5: 1.0}
    params = SamplingParams(logit_bias=given)
    given[6] = 2.0
    assert params.logit_bias == {5: 1.0}
    with pytest.raises(TypeError, match="do not change"):
        params.logit_bias[6] = 1.0  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.top_k = 3  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(params)) == copy.deepcopy(params) == params  # noqa: S301


def test_defaults_lie_underneath() -> None:
    under = SamplingParams(temperature=0.8, top_p=0.8, max_length=100)
    assert SamplingParams.from_dict({"temperature": 0, "max_length": None}, under) == SamplingParams(
        temperature=0, top_p=0.8
    )


def test_room() -> None:
    assert SamplingParams().room(10) is None
    assert SamplingParams(max_new_tokens=5).room(10) == 5
    assert SamplingParams(max_length=12).room(10) == 2
    assert SamplingParams(max_new_tokens=5, max_length=12).room(10) == 2
    with pytest.raises(InputError, match=r"the prompt has 12 tokens, and max_length .* is 12"):
        SamplingParams(max_length=12).room(12)


def test_generation_config() -> None:
    glm4 = {
        "eos_token_id": [151329, 151336],
        "pad_token_id": 151329,
        "do_sample": True,
        "temperature": 0.8,
        "max_length": 128000,
        "top_p": 0.8,
        "transformers_version": "4.38.2",
        "num_beams": 1,
        "top_k": None,
    }
    assert SamplingParams.from_generation_config(glm4) == SamplingParams(
        temperature=0.8, top_p=0.8, top_k=50, max_length=128000, stop_ids=(151329, 151336)
    )
    greedy = SamplingParams.from_generation_config({"eos_token_id": 2, "temperature": 0.8, "top_p": 0.8, "top_k": 5})
    assert greedy == SamplingParams(temperature=0, stop_ids=(2,))
    assert SamplingParams.from_generation_config({"do_sample": True, "temperature": 0.5, "top_k": 0}).top_k == 0
    both = SamplingParams.from_generation_config({"max_length": 100, "max_new_tokens": 30})
    assert both == SamplingParams(temperature=0, max_new_tokens=30)
    with pytest.raises(UnsupportedError, match="num_beams is 4"):
        SamplingParams.from_generation_config({"num_beams": 4})
    with pytest.raises(InputError, match=r"top_p is 3\.0"):
        SamplingParams.from_generation_config({"do_sample": True, "top_p": 3})


def test_generate_reads_an_empty_file_alike() -> None:
    from transformers import GenerationConfig

    # What transformers fills in is what `from_generation_config` assumes.
    saved = GenerationConfig()._get_default_generation_params()
    assert saved["do_sample"] is False
    assert saved["top_k"] == 50
    assert saved["temperature"] == saved["top_p"] == saved["repetition_penalty"] == 1.0
    saved.pop("max_length")  # 20, which nobody wants
    assert SamplingParams.from_generation_config(saved) == SamplingParams.from_generation_config({})


def test_command_line() -> None:
    parser = argparse.ArgumentParser()
    SamplingParams.add_arguments(parser)
    said = parser.parse_args(
        ["--top-p", "0.5", "--max-new-tokens", "7", "--stop", "a", "--stop", "b", "--temperature", "0"]
    )
    assert SamplingParams.from_arguments(said, SamplingParams(top_k=3)) == SamplingParams(
        top_p=0.5, max_new_tokens=7, stop=("a", "b"), temperature=0, top_k=3
    )
    text = " ".join(parser.format_help().split())
    for option in SamplingParams.options():
        assert (option.flag in text) == (option.kind in ("number", "integer", "strings"))
    assert "(above 0, at most 1)" in text
    few = argparse.ArgumentParser()
    SamplingParams.add_arguments(few, ["seed"])
    assert few.parse_args(["--seed", "-3"]).seed == -3
    with pytest.raises(SystemExit):
        few.parse_args(["--top-p", "1"])


def test_schema_says_what_is_checked() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    whole = {
        "type": "object",
        "properties": {option.name: option.schema() for option in SamplingParams.options()},
        "additionalProperties": False,
    }
    jsonschema.Draft202012Validator.check_schema(whole)
    valid = jsonschema.Draft202012Validator(whole).is_valid
    defaults = {option.name: option.schema()["default"] for option in SamplingParams.options()}
    assert valid(defaults)
    assert SamplingParams.from_dict(defaults) == SamplingParams()
    for values in (
        {"temperature": 0},
        {"temperature": -1},
        {"top_p": 0},
        {"top_p": 1},
        {"seed": None},
        {"top_k": None},
        {"top_k": 1.5},
        {"stop": "a"},
        {"stop": [""]},
        {"logit_bias": {"5": 1}},
        {"logit_bias": {"x": 1}},
        {"logit_bias": {"5": 1000}},
        {"bad_words_ids": [[]]},
        {"bad_words_ids": [[1]]},
        {"logprobs": 20},
        {"logprobs": 21},
        {"nope": 1},
    ):
        try:
            SamplingParams.from_dict(values)
            fits = True
        except InputError:
            fits = False
        assert valid(values) == fits, values


def test_every_option_has_a_line_of_help() -> None:
    for option in SamplingParams.options():
        assert option.help
        assert "\n" not in option.help


def test_light() -> None:
    code = "import chatglm.params, sys; assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
