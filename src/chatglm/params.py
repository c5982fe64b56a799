"""Every option of generation, declared once. Command line, YAML, HTTP fields and documentation are made from it.

    params = SamplingParams(temperature=0.8, top_p=0.8, seed=1)
    params = SamplingParams.from_dict({"temperature": 0.2}, defaults=SamplingParams.from_generation_config(saved))

The defaults do not change the model's own distribution. The caller decides whether a model's generation_config.json
applies, by passing it as `defaults`, as above.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from chatglm.errors import InputError, UnsupportedError

__all__ = ["Option", "SamplingParams"]

Number: TypeAlias = int | float


@dataclass(frozen=True)
class Option:
    """Name, type, range and help of one option.

    Attributes:
        name: name of the field, and key in YAML and HTTP.
        kind: `number`, `integer`, `strings`, `ids`, `biases` (id to number) or `words` (lists of ids).
        default: default value; None: the option is off.
        help: description in one line.
        low, high: range of a number (of each number in `biases`, of each id), including both.
        above: `low` itself is excluded.
        optional: None is allowed.
    """

    name: str
    kind: str
    default: Any
    help: str
    low: Number | None = None
    high: Number | None = None
    above: bool = False
    optional: bool = False

    @property
    def flag(self) -> str:
        """The option's name on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def range(self) -> str:
        """The allowed range in words; "" if there is no limit."""
        if self.low is None:
            return ""
        least = f"above {self.low}" if self.above else f"at least {self.low}"
        if self.high is None:
            return least
        return f"above {self.low}, at most {self.high}" if self.above else f"from {self.low} to {self.high}"

    def schema(self) -> dict[str, Any]:
        """The option as JSON schema, for HTTP."""
        number: dict[str, Any] = {"type": "integer" if self.kind in ("integer", "ids", "words") else "number"}
        if self.low is not None:
            number["exclusiveMinimum" if self.above else "minimum"] = self.low
        if self.high is not None:
            number["maximum"] = self.high
        ids = {"type": "array", "items": number}
        text = {"type": "string", "minLength": 1}
        whole: dict[str, dict[str, Any]] = {
            "number": number,
            "integer": number,
            "strings": {"anyOf": [text, {"type": "array", "items": text}]},
            "ids": ids,
            "biases": {"type": "object", "propertyNames": {"pattern": "^[0-9]+$"}, "additionalProperties": number},
            "words": {"type": "array", "items": {**ids, "minItems": 1}},
        }
        found = whole[self.kind]
        if self.optional:
            found = {"anyOf": [found, {"type": "null"}]}
        return {**found, "default": _plain(self.default), "description": self.help}

    def read(self, value: Any) -> Any:
        """Convert a value from Python, YAML or JSON to the field's type.

        Raises:
            InputError: the value has another type or is out of range; names the option, the value and the range.
        """
        if value is None and self.optional:
            return None
        if isinstance(value, _READ.get(self.kind, ())):
            return value
        match self.kind:
            case "number" | "integer":
                return self._number(value, self.kind == "integer")
            case "strings":
                words = [value] if isinstance(value, str) else self._list(value)
                if not all(isinstance(word, str) and word for word in words):
                    raise self._wrong(value, "a string or a list of strings, none of them empty")
                return tuple(words)
            case "ids":
                return _Ids(self._number(item, True) for item in self._list(value))
            case "words":
                lists = _Words(
                    tuple(self._number(item, True) for item in self._list(word)) for word in self._list(value)
                )
                if not all(lists):
                    raise self._wrong(value, "lists of token ids, none of them empty")
                return lists
            case _:
                if not isinstance(value, Mapping):
                    raise self._wrong(value, "a mapping of token ids to numbers")
                return _Frozen({self._token(key, value): self._number(bias, False) for key, bias in value.items()})

    def _number(self, value: Any, whole: bool) -> Number:
        right = isinstance(value, int) if whole else isinstance(value, int | float)
        if isinstance(value, bool) or not right:
            raise self._wrong(value, "an integer" if whole else "a number")
        low = self.low if self.low is not None else -math.inf
        high = self.high if self.high is not None else math.inf
        if not whole:
            try:
                value = float(value)
            except OverflowError:
                value = math.inf
            if not math.isfinite(value):
                raise self._wrong(value, "a finite number")
        if not low <= value <= high or (self.above and value == low):
            raise self._wrong(value, self.range)
        number: Number = value
        return number

    def _list(self, value: Any) -> list[Any]:
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            raise self._wrong(value, "a list")
        return list(value)

    def _token(self, key: Any, value: Any) -> int:
        # JSON keys are always strings.
        if isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 20:
            key = int(key)
        if isinstance(key, bool) or not isinstance(key, int) or key < 0:
            raise self._wrong(value, f"a mapping of token ids to numbers ({key!r:.40} is not a token id)")
        return key

    def _wrong(self, value: Any, wanted: str) -> InputError:
        return InputError(f"{self.name} is {value!r:.80}; it must be {wanted}{' or null' if self.optional else ''}")


class _Frozen(dict[int, float]):
    """A dict that can be hashed, so that `SamplingParams` can be hashed."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("parameters do not change; make new ones with dataclasses.replace")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> Any:
        return _Frozen, (dict(self),)


class _Ids(tuple[Number, ...]):
    """A list that `Option.read` has checked. It may be long, and is passed on without being checked again."""

    __slots__ = ()


class _Words(tuple[tuple[Number, ...], ...]):
    __slots__ = ()


# Types of checked values of these kinds. `Option.read` does not check them again.
_READ: Mapping[str, type] = {"ids": _Ids, "words": _Words, "biases": _Frozen}


def _plain(value: Any) -> Any:
    """A field's value in the form of JSON and YAML."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


def _option(kind: str, default: Any, line: str, **known: Any) -> Any:
    return field(default=default, metadata={"kind": kind, "help": line, **known})


@dataclass(frozen=True)
class SamplingParams:
    """Options of generation: how tokens are chosen, and when an answer ends. The help and the range of each field are
    in `options()`.

    Scores are changed in this order: penalties, logit_bias, bad words, the constraint of the output, temperature,
    top_k, top_p, min_p. Values are checked when an object is made.

    Raises:
        InputError: a value is of the wrong type or out of range; names field, value and range.
    """

    temperature: float = _option(
        "number", 1.0, "scores are divided by it before a token is drawn; 0: always the likeliest token", low=0
    )
    top_k: int = _option("integer", 0, "draw only from this many of the likeliest tokens; 0: from all", low=0)
    top_p: float = _option(
        "number",
        1.0,
        "after top_k, draw only from the likeliest tokens that together have this probability",
        low=0,
        high=1,
        above=True,
    )
    min_p: float = _option(
        "number",
        0.0,
        "leave out tokens whose probability is below this share of the highest one",
        low=0,
        high=1,
    )
    repetition_penalty: float = _option(
        "number", 1.0, "above 1: tokens of the prompt and the answer are less likely to be repeated", low=0, above=True
    )
    presence_penalty: float = _option(
        "number", 0.0, "subtracted from the score of every token that is already in the answer", low=-2, high=2
    )
    frequency_penalty: float = _option(
        "number", 0.0, "subtracted from a token's score for each time it is already in the answer", low=-2, high=2
    )
    logit_bias: Mapping[int, float] = _option(
        "biases", _Frozen(), "added to the scores of single tokens, by id", low=-100, high=100
    )
    bad_words_ids: tuple[tuple[int, ...], ...] = _option(
        "words", (), "sequences of token ids that are never generated, each as a list", low=0
    )
    seed: int | None = _option(
        "integer",
        None,
        "the same seed gives the same answer, whatever else runs; null: a new seed each time",
        low=-(2**63),
        high=2**63 - 1,
        optional=True,
    )
    stop: tuple[str, ...] = _option("strings", (), "strings that end the answer and are not part of it")
    stop_ids: tuple[int, ...] = _option("ids", (), "token ids that end the answer, besides the model's own", low=0)
    max_new_tokens: int | None = _option(
        "integer", None, "longest answer in tokens; 0 only with prompt_logprobs", low=0, optional=True
    )
    max_length: int | None = _option("integer", None, "longest prompt and answer together", low=1, optional=True)
    min_new_tokens: int = _option("integer", 0, "no stop id is generated before this many tokens", low=0)
    n: int = _option("integer", 1, "how many answers to one prompt", low=1, high=128)
    logprobs: int | None = _option(
        "integer",
        None,
        "return the log probability of every token, and of this many of the likeliest tokens at its place",
        low=0,
        high=20,
        optional=True,
    )

    prompt_logprobs: int | None = _option(
        "integer",
        None,
        "return the log probability of every token of the prompt, and of this many of the likeliest tokens at its "
        "place",
        low=0,
        high=20,
        optional=True,
    )

    def __post_init__(self) -> None:
        for option in self.options():
            object.__setattr__(self, option.name, option.read(getattr(self, option.name)))
        if self.max_new_tokens == 0 and self.prompt_logprobs is None:
            raise InputError("max_new_tokens is 0; it must be at least 1 or null (0 only with prompt_logprobs)")

    @classmethod
    def options(cls) -> tuple[Option, ...]:
        """Every option, in the order of the fields."""
        return _OPTIONS

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], defaults: SamplingParams | None = None) -> SamplingParams:
        """Read options from YAML or JSON values.

        Args:
            defaults: values of the options that are not in `values`.

        Raises:
            InputError: a key is unknown (the message names it and the most similar one), or a value does not fit.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"options of generation: expected a mapping of names to values, got {values!r:.80}")
        for name in values:
            if name not in _BY_NAME:
                near = difflib.get_close_matches(str(name), _BY_NAME, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(_BY_NAME)}"
                raise InputError(f"{name!r:.80} is not an option of generation; {hint}")
        return dataclasses.replace(defaults or cls(), **values)

    def to_dict(self) -> dict[str, Any]:
        """The options that differ from the defaults, as JSON and YAML values; `from_dict` reads it."""
        values = {option: getattr(self, option.name) for option in _OPTIONS}
        return {option.name: _plain(value) for option, value in values.items() if value != option.default}

    @classmethod
    def from_generation_config(cls, config: Mapping[str, Any]) -> SamplingParams:
        """Read the contents of a generation_config.json as `generate` of `transformers` does.

        Decoding is greedy unless do_sample is true; then top_k is 50 if the file does not set it. max_length is used
        only if the file has no max_new_tokens.

        Raises:
            InputError: a value does not fit.
            UnsupportedError: the file asks for something that would change the text and is not supported here, such
                as beams.
        """
        given = {name: value for name, value in config.items() if value is not None}
        for name, neutral in _NEUTRAL.items():
            if name in given and given[name] not in neutral:
                raise UnsupportedError(
                    f"generation_config.json: {name} is {given[name]!r:.60}, which this engine does not support; "
                    "use model.generate, or remove it from the file"
                )
        values = {name: given[name] for name in _OF_GENERATE if name in given}
        if "max_new_tokens" in given:
            values.pop("max_length", None)
        if "eos_token_id" in given:
            ids = given["eos_token_id"]
            values["stop_ids"] = ids if isinstance(ids, list | tuple) else [ids]
        if "stop_strings" in given:
            values["stop"] = given["stop_strings"]
        if "num_return_sequences" in given:
            values["n"] = given["num_return_sequences"]
        if given.get("do_sample", False):
            values.setdefault("top_k", 50)
        else:  # generate ignores these in greedy decoding
            values = {name: value for name, value in values.items() if name not in ("top_k", "top_p", "min_p")}
            values["temperature"] = 0
        return cls.from_dict(values)

    @classmethod
    def add_arguments(cls, parser: argparse._ActionsContainer, names: Iterable[str] | None = None) -> None:
        """Add these options to a command line, or to a group of it; `from_arguments` reads them.

        Args:
            names: the options to add. `logit_bias` and the lists of ids are always left out, because nobody types them.
        """
        typed = ("number", "integer", "strings")
        for option in _OPTIONS:
            if option.kind in typed and (names is None or option.name in names):
                text = option.help + (f" ({option.range})" if option.kind != "strings" and option.range else "")
                if option.kind == "strings":  # one value for each flag; words after it are not values
                    parser.add_argument(option.flag, action="append", metavar="TEXT", help=text)
                elif option.kind == "integer":
                    parser.add_argument(option.flag, type=int, metavar="N", help=text)
                else:
                    parser.add_argument(option.flag, type=float, metavar="X", help=text)

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace, defaults: SamplingParams | None = None) -> SamplingParams:
        """Read the options of a command line with `add_arguments`.

        Raises:
            InputError: a value is out of range.
        """
        given = {name: value for name in _BY_NAME if (value := getattr(arguments, name, None)) is not None}
        return cls.from_dict(given, defaults)

    def room(self, prompt: int) -> int | None:
        """The largest number of tokens that may follow a prompt of this length; None: these options set no limit.

        If both `max_new_tokens` and `max_length` are set, both limits apply.

        Raises:
            InputError: max_length leaves no room for an answer.
        """
        if self.max_length is None:
            return self.max_new_tokens
        if prompt >= self.max_length:
            raise InputError(
                f"the prompt has {prompt} tokens, and max_length (prompt and answer together) is {self.max_length}: "
                "shorten the prompt, or raise max_length"
            )
        left = self.max_length - prompt
        return left if self.max_new_tokens is None else min(left, self.max_new_tokens)

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always chosen."""
        return self.temperature == 0


_OPTIONS = tuple(
    Option(item.name, default=item.default, **item.metadata) for item in dataclasses.fields(SamplingParams)
)
_BY_NAME = {option.name: option for option in _OPTIONS}

# Keys of a generation_config.json that have the same meaning here.
_OF_GENERATE: Sequence[str] = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "bad_words_ids",
    "max_new_tokens",
    "max_length",
    "min_new_tokens",
)
# Keys that would change the text, each with the values that do not. Other keys (cache, padding ids, versions) do not
# affect the text.
_NEUTRAL: Mapping[str, Sequence[Any]] = {
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "penalty_alpha": (0,),
    "dola_layers": (),
    "min_length": (0,),
    "typical_p": (1,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "top_h": (),
    "no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1,),
    "encoder_no_repeat_ngram_size": (0,),
    "diversity_penalty": (0,),
    "exponential_decay_length_penalty": (),
    "sequence_bias": (),
    "suppress_tokens": ([],),
    "begin_suppress_tokens": ([],),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "guidance_scale": (1,),
    "watermarking_config": (),
    "max_time": (),
    "token_healing": (False,),
}
