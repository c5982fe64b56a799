"""The official methods on every model: chat, stream_chat, stream_generate, process_response.

Signatures, defaults and return values are those of each generation's official `modeling_chatglm.py`. If that code
is wrong, this code differs (docs/differences.md). Prompts and stop tokens come from the tokenizer and its `ChatFormat`;
`generate` of `transformers` generates the tokens. This module depends on no prompt syntax.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    Cache,
    DynamicCache,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from chatglm.chat.calls import parse_json_arguments, parse_python_call
from chatglm.chat.formats import chat_format, postprocess, postprocess_v1
from chatglm.chat.generations import OFFICIAL_SAMPLING, Generation
from chatglm.chat.messages import messages_from_pairs
from chatglm.chat.personas import Persona
from chatglm.chat.streaming import StreamDecoder
from chatglm.errors import InputError, NumericalError, TokenizerError, UnsupportedError
from chatglm.models.native import NativeCache, decoder_of
from chatglm.models.stepping import step_through

__all__ = ["ChatMixin", "DialogueCache", "FiniteScores", "NativeDialogueCache"]

Pair = tuple[str, str]
Turn = dict[str, Any]


class FiniteScores(LogitsProcessor):  # type: ignore[misc]
    """Refuses scores from which no token can be sampled.

    If a score is NaN, the official code gives all probability to one token (id 5), which hides broken weights.

    Raises:
        NumericalError: when it is called with a row that has NaN or +inf, or only −inf.
    """

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        best = scores.amax(dim=-1)
        if not torch.isfinite(best).all():
            row = int((~torch.isfinite(best)).nonzero()[0, 0])
            raise NumericalError(
                f"the model's scores for row {row} are not finite after {input_ids.shape[1]} tokens: the weights are "
                "damaged, or their precision is too low for them (try .float() or bfloat16)"
            )
        return scores


class _StopTexts(StoppingCriteria):  # type: ignore[misc]
    """Ends an answer when its newest tokens complete one of some texts.

    The criterion of `transformers` compares the strings of single tokens. So it does not find a text with a character
    that is split between tokens, such as an emoji in a byte-level vocabulary, and it takes seconds to prepare.

    Args:
        prompt: number of tokens in front of the answer.
    """

    def __init__(self, tokenizer: Any, texts: Sequence[str], prompt: int) -> None:
        self._tokenizer, self._texts, self._prompt = tokenizer, texts, prompt
        # Each token has at least one byte. Some more tokens are decoded, because decoding may drop a leading space.
        self._tail = max(len(text.encode("utf-8", "surrogatepass")) for text in texts) + 4

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        rows = input_ids[:, self._prompt :][:, -self._tail :].tolist()
        decoded = self._tokenizer.batch_decode(rows, skip_special_tokens=True)
        ended = [any(text in row for text in self._texts) for row in decoded]
        return torch.tensor(ended, dtype=torch.bool, device=input_ids.device)


class _KnowsIds(Cache):  # type: ignore[misc]
    """The keys and values of a dialogue, and the ids that they belong to.

    The ids make the reuse exact: the next turn keeps the common beginning of its prompt and these ids, and computes the
    rest. So answers with and without a cache are the same for any history.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.token_ids: list[int] = []

    def keep_common(self, ids: Sequence[int], virtual: int) -> int:
        """Remove everything after the common beginning with the prompt `ids`, whose last token is never kept.

        Args:
            virtual: number of P-tuning tokens at the front, which are always kept.

        Returns:
            the number of ids that the cache holds now.
        """
        common = 0
        for held, wanted in zip(self.token_ids, ids[:-1], strict=False):
            if held != wanted:
                break
            common += 1
        surplus = self.get_seq_length() - virtual - common
        if surplus > 0:
            self.crop(-surplus)
        self.token_ids = list(ids[:common])
        return common


class DialogueCache(_KnowsIds, DynamicCache):  # type: ignore[misc]
    """Keys and values of a dialogue as tensors."""


class NativeDialogueCache(_KnowsIds, NativeCache):
    """Keys and values of a dialogue in the native decoder's pages."""


class ChatMixin:
    """The official methods. Their signatures depend on the generation of the tokenizer:

    ==================  ===============================================================================================
    ChatGLM-6B          `chat(tokenizer, query, history=None, max_length=2048, num_beams=1, do_sample=True, top_p=0.7,
                        temperature=0.95, logits_processor=None, **kwargs)`; history: pairs (query, response)
    ChatGLM2-6B         the same, `max_length=8192, top_p=0.8, temperature=0.8`
    ChatGLM3, GLM-4     `chat(tokenizer, query, history=None, role="user", max_length=8192, …)` as ChatGLM2;
                        history: dicts with role, content, and metadata or tools
    CharacterGLM        `chat(tokenizer, session_meta, query, history=None, max_length=8192, num_beams=1,
                        do_sample=True, top_p=0.9, temperature=0.9, repetition_penalty=1.6, …)`; history: pairs
    ==================  ===============================================================================================

    `stream_chat` takes the same without `num_beams`, and (ChatGLM2 on) `past_key_values=None,
    return_past_key_values=False`. Other arguments go to `generate`. `max_length` counts prompt and answer;
    `max_new_tokens` replaces it. `temperature=0` decodes greedily. The caller's history is never changed.
    """

    config: Any
    device: torch.device

    def chat(self, *args: Any, **kwargs: Any) -> tuple[Any, list[Any]]:
        """Answer one query.

        Args:
            args: the tokenizer first; for the others, see the class.
            kwargs: see the class. With `stop_strings` the answer ends at the first of these texts, which is part of it.
                `streamer` gets the ids while they are generated. `tokenizer`, which `generate` needs for some options,
                need not be given again.

        Returns:
            the response and a new history that ends with it. The response is a string; for ChatGLM3 and GLM-4 it is a
            dict `{"name", "parameters"}` if the model called a tool of the history's system message, and `{"name",
            "content"}` if it wrote code for the interpreter or a malformed call.

        Raises:
            InputError: an argument is wrong, or the prompt leaves no room below `max_length`.
            TokenizerError: the tokenizer belongs to another model.
            NumericalError: the model returned NaN.
        """
        tokenizer, args = _take_tokenizer(args, kwargs)
        return _dialogue(self, tokenizer).chat(*args, **kwargs)

    def stream_chat(self, *args: Any, **kwargs: Any) -> Iterator[tuple[Any, ...]]:
        """`chat`, token by token: yields (response so far, new history), and the cache with `return_past_key_values`.

        Text ends at whole characters, and the last yield equals `chat`'s result. Pass the cache as `past_key_values`
        with the next query. Closing the iterator stops the generation.

        Raises:
            InputError, TokenizerError, NumericalError: see `chat`; a NumericalError comes at the failing token.
            UnsupportedError: beams cannot be streamed; or a cache is used with ChatGLM-6B.
        """
        tokenizer, args = _take_tokenizer(args, kwargs)
        return _dialogue(self, tokenizer).stream_chat(*args, **kwargs)

    def build_inputs(self, tokenizer: Any, query: str, history: Sequence[Pair] | None = None) -> Any:
        """A prompt of ChatGLM-6B or ChatGLM2 as tensors on the model's device, for `generate`."""
        return tokenizer([tokenizer.build_prompt(query, history)], return_tensors="pt").to(self.device)

    def process_response(self, output: str, history: Sequence[Turn] | None = None) -> Any:
        """Turn decoded text into what `chat` returns.

        For ChatGLM3 and GLM-4, `(output, history)` returns (response, new history); for ChatGLM-6B and ChatGLM2,
        `(output)` returns the cleaned text. Tool arguments are parsed, never executed.

        Raises:
            InputError: the history is missing, or is given for a model that does not take one.
        """
        generation = self.config.generation
        if generation in (Generation.CHATGLM3, Generation.GLM4):
            if history is None:
                raise InputError("process_response(output, history): this model's form needs the history")
            return _process_turns(output.split("<|assistant|>"), history, generation)
        if history is not None:
            raise InputError("process_response(output): this model's form takes no history")
        return postprocess_v1(output) if generation == Generation.CHATGLM else postprocess(output)

    @torch.no_grad()
    def stream_generate(
        self,
        input_ids: Tensor | None = None,
        generation_config: Any = None,
        logits_processor: Any = None,
        stopping_criteria: Any = None,
        prefix_allowed_tokens_fn: Any = None,
        return_past_key_values: bool = False,
        **kwargs: Any,
    ) -> Iterator[Any]:
        """`generate` as a stream: yields the growing ids (batch, tokens) after every token, including the last one.

        Args:
            input_ids: (batch, tokens) prompts.
            return_past_key_values: yield (ids, cache) instead.
            kwargs: arguments of `generate`.

        Raises:
            InputError: `input_ids` is missing.
            NumericalError: the model returned NaN.
            UnsupportedError: beams cannot be streamed.
        """
        if input_ids is None:
            raise InputError("stream_generate needs input_ids of shape (batch, tokens)")
        cache = kwargs.pop("past_key_values", None)
        if cache is None and return_past_key_values:
            cache = DynamicCache(config=self.config)
        if cache is not None:
            kwargs["past_key_values"] = cache
        tokens = step_through(
            self,
            input_ids,
            generation_config=generation_config,
            logits_processor=_processors(logits_processor),
            stopping_criteria=stopping_criteria,
            prefix_allowed_tokens_fn=prefix_allowed_tokens_fn,
            **kwargs,
        )
        ids = input_ids
        for token in tokens:
            ids = torch.cat([ids, token[:, None].to(ids)], dim=-1)
            yield (ids, cache) if return_past_key_values else ids


def _processors(given: Any) -> LogitsProcessorList:
    """The caller's processors (a list, a single one, or None), after the check for NaN."""
    extra = [] if given is None else list(given) if isinstance(given, list | tuple) else [given]
    return LogitsProcessorList([FiniteScores(), *extra])


def _process_turns(parts: Sequence[str], history: Sequence[Turn], generation: Generation) -> tuple[Any, list[Turn]]:
    """Append the assistant messages of one reply to a history. Returns the response and the new history.

    Args:
        parts: texts of the messages, without their `<|assistant|>` headers.
    """
    turns: list[Turn] = copy.deepcopy(list(history))
    offered = bool(turns) and turns[0].get("role") == "system" and "tools" in turns[0]
    response: Any = ""
    for part in parts:
        metadata, newline, content = part.partition("\n")
        if not newline:
            metadata, content = "", part
        if not metadata.strip():
            content = content.strip()
            turns.append({"role": "assistant", "metadata": metadata, "content": content})
            response = postprocess(content)
            continue
        turns.append({"role": "assistant", "metadata": metadata, "content": content})
        name, parameters = metadata.strip(), None
        if offered:
            parameters = (
                parse_python_call(content) if generation == Generation.CHATGLM3 else parse_json_arguments(content)
            )
        response = (
            {"name": name, "content": content} if parameters is None else {"name": name, "parameters": parameters}
        )
    return response, turns


def _take_tokenizer(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    """The tokenizer, which is the first argument or a keyword, and the other arguments."""
    named = kwargs.pop("tokenizer", None)
    if not args:
        if named is None:
            raise InputError("chat and stream_chat need the tokenizer as their first argument")
        return named, args
    if named is not None and named is not args[0]:
        raise InputError("tokenizer: two different ones are given; leave the keyword out")
    return args[0], args[1:]


def _dialogue(model: Any, tokenizer: Any) -> _Pairs | _Roles | _Character:
    generation = getattr(tokenizer, "generation", None)
    if generation is None:
        raise TokenizerError(
            f"{type(tokenizer).__name__} is not a tokenizer of this family; load it with chatglm's AutoTokenizer from "
            "the model's own folder"
        )
    expected = model.config.generation
    first, other = Generation.CHATGLM, Generation.GLM4
    if (generation == first) != (expected == first) or (generation == other) != (expected == other):
        raise TokenizerError(
            f"this is a {generation} tokenizer and the model is {expected}; load both from the same folder"
        )
    kinds: dict[Generation, type[_Pairs] | type[_Roles] | type[_Character]] = {
        Generation.CHATGLM: _Pairs,
        Generation.CHATGLM2: _Pairs,
        Generation.CHATGLM3: _Roles,
        Generation.GLM4: _Roles,
        Generation.CHARACTERGLM: _Character,
    }
    return kinds[generation](model, tokenizer)


class _Dialogue:
    """One call of `chat` or `stream_chat`: makes the prompt and the arguments of `generate`, and reads the reply."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.generation: Generation = tokenizer.generation
        self.format = chat_format(tokenizer)
        self.header: int | None = None

    def _options(
        self, prompt: Sequence[int], max_length: int, do_sample: bool, temperature: float, top_p: float, kwargs: Turn
    ) -> Turn:
        """The arguments of `generate`."""
        options = {**kwargs, "logits_processor": _processors(kwargs.get("logits_processor"))}
        options.setdefault("eos_token_id", sorted(self.format.stop_ids))
        if temperature < 0:
            raise InputError(f"temperature is {temperature}; it must be 0 (greedy) or positive")
        for name, single in (("num_return_sequences", 1), ("return_dict_in_generate", False)):
            if options.get(name, single) != single:
                raise InputError(f"{name}={options[name]}: a chat gives one answer, as text; use generate for more")
        if texts := _stop_texts(options.pop("stop_strings", None)):
            given = options.get("stopping_criteria") or []
            several = given if isinstance(given, list | tuple) else [given]
            ours = _StopTexts(self.tokenizer, texts, len(prompt))
            options["stopping_criteria"] = StoppingCriteriaList([*several, ours])
        for config in (options.get("generation_config"), self.model.generation_config):
            if getattr(config, "stop_strings", None) or getattr(config, "token_healing", None):
                options["tokenizer"] = self.tokenizer
        options["do_sample"] = bool(do_sample and temperature > 0)
        if options["do_sample"]:
            options |= {"temperature": temperature, "top_p": top_p}
        else:  # else generate warns about sampling options that it does not use, also those of a generation_config
            options |= {"temperature": None, "top_p": None, "top_k": None}
        if options.get("max_new_tokens") is not None:
            options["max_length"] = None  # else generate warns about the one in GLM-4's generation_config.json
        else:
            if len(prompt) >= max_length:
                raise InputError(
                    f"the prompt has {len(prompt)} tokens, and max_length (prompt and answer together) is "
                    f"{max_length}: drop early turns from the history, or raise max_length"
                )
            options.pop("max_new_tokens", None)
            config = options.get("generation_config") or self.model.generation_config
            if (most := config.max_new_tokens) is None:
                options["max_length"] = max_length
            else:  # generate would ignore max_length
                options |= {"max_length": None, "max_new_tokens": min(most, max_length - len(prompt))}
        return options

    def _inputs(self, prompt: Sequence[int]) -> Turn:
        ids = torch.tensor([list(prompt)], device=self.model.device)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def _reply(self, prompt: Sequence[int], **options: Any) -> list[str]:
        """The texts of a complete answer, without the stop token that ended it and the padding after it."""
        stops = _as_set(options["eos_token_id"])
        reader = _Reader(self.tokenizer, self.header)
        for token_id in self.model.generate(**self._inputs(prompt), **options)[0, len(prompt) :].tolist():
            if token_id in stops:
                break
            reader.feed(token_id)
        reader.close()
        return reader.parts

    def _stream(
        self, prompt: Sequence[int], cache: Any, keep_cache: bool, **options: Any
    ) -> Iterator[tuple[list[str], Any]]:
        """Stream an answer: yields its texts so far, and the cache if one is used."""
        if cache is not None and not isinstance(cache, _KnowsIds):
            raise InputError(
                f"past_key_values is a {type(cache).__name__}; pass what stream_chat(…, return_past_key_values=True) "
                "yielded, or None"
            )
        virtual = self.model.config.pre_seq_len or 0
        if cache is None and keep_cache:
            decoder = None if virtual else decoder_of(self.model, packed=True)
            cache = DialogueCache(config=self.model.config) if decoder is None else NativeDialogueCache(decoder, 1)
        if cache is not None:
            cache.keep_common(prompt, virtual)
            options |= {"past_key_values": cache, "use_cache": True}  # whatever generation_config.json says
        stops = _as_set(options["eos_token_id"])
        reader = _Reader(self.tokenizer, self.header)
        ids: list[int] = []
        yielded = False
        for number, token in enumerate(step_through(self.model, **self._inputs(prompt), **options)):
            if cache is not None:  # the newest token is not in the cache yet
                cache.token_ids = [*prompt] if number == 0 else cache.token_ids
                cache.token_ids += ids[-1:]
            if (token_id := int(token[0])) in stops:
                continue
            ids.append(token_id)
            if reader.feed(token_id):
                yielded = True
                yield reader.parts, cache
        if reader.close() or not yielded:  # an empty answer is still an answer
            yield reader.parts, cache


def _stop_texts(given: Any) -> list[str]:
    """`stop_strings` as a list.

    Raises:
        InputError: a value is not a text, or is empty.
    """
    texts = [given] if isinstance(given, str) else list(given or [])
    if not all(isinstance(text, str) and text for text in texts):
        raise InputError(f"stop_strings: expected texts that are not empty, got {given!r:.80}")
    return texts


def _as_set(ids: int | Sequence[int] | None) -> set[int]:
    return {ids} if isinstance(ids, int) else set(ids or ())


class _Reader:
    """Decodes a reply into texts: one, or several if the id `header` begins another message."""

    def __init__(self, tokenizer: Any, header: int | None) -> None:
        self.parts = [""]
        self._decoder = StreamDecoder(tokenizer, skip_special_tokens=header is None)
        self._header, self._header_text = header, "" if header is None else tokenizer.decode([header])

    def feed(self, token_id: int) -> bool:
        """Add a token. Returns whether there is new text, which always ends at a whole character."""
        piece = self._decoder.feed(token_id)
        if token_id == self._header:
            self.parts[-1] += piece.removesuffix(self._header_text)
            self.parts.append("")
        else:
            self.parts[-1] += piece
        return bool(piece)

    def close(self) -> bool:
        """Add the bytes of an incomplete character that were held back. Returns whether there were any."""
        piece = self._decoder.close()
        self.parts[-1] += piece
        return bool(piece)


class _PairHistory(_Dialogue):
    """A dialogue whose history is a list of (query, response)."""

    def _yield(
        self, query: str, history: Sequence[Pair] | None, steps: Iterator[Any], with_cache: bool
    ) -> Iterator[tuple[Any, ...]]:
        for parts, cache in steps:
            response = self.model.process_response(parts[0])
            step = response, [*(history or []), (query, response)]
            yield (*step, cache) if with_cache else step


class _Pairs(_PairHistory):
    """ChatGLM-6B and ChatGLM2-6B: the history is a list of (query, response)."""

    def chat(
        self,
        query: str,
        history: Sequence[Pair] | None = None,
        max_length: int | None = None,
        num_beams: int = 1,
        do_sample: bool = True,
        top_p: float | None = None,
        temperature: float | None = None,
        logits_processor: Any = None,
        **kwargs: Any,
    ) -> tuple[str, list[Pair]]:
        prompt = self.format.prompt(messages_from_pairs(history or [], query))
        kwargs |= {"num_beams": num_beams, "logits_processor": logits_processor}
        options = self._options(prompt, *self._defaults(max_length, do_sample, temperature, top_p), kwargs)
        response = self.model.process_response(self._reply(prompt, **options)[0])
        return response, [*(history or []), (query, response)]

    def stream_chat(
        self,
        query: str,
        history: Sequence[Pair] | None = None,
        past_key_values: Any = None,
        max_length: int | None = None,
        do_sample: bool = True,
        top_p: float | None = None,
        temperature: float | None = None,
        logits_processor: Any = None,
        return_past_key_values: bool = False,
        **kwargs: Any,
    ) -> Iterator[tuple[Any, ...]]:
        if self.generation == Generation.CHATGLM:
            if isinstance(past_key_values, int):  # ChatGLM-6B's fourth argument is max_length
                past_key_values, max_length = None, past_key_values
            if past_key_values is not None or return_past_key_values:
                raise UnsupportedError(
                    "past_key_values: ChatGLM-6B reads its whole prompt in both directions, so keys and values of an "
                    "earlier turn are not those of the next"
                )
        prompt = self.format.prompt(messages_from_pairs(history or [], query))
        kwargs["logits_processor"] = logits_processor
        options = self._options(prompt, *self._defaults(max_length, do_sample, temperature, top_p), kwargs)
        return self._yield(
            query,
            history,
            self._stream(prompt, past_key_values, return_past_key_values, **options),
            return_past_key_values,
        )

    def _defaults(
        self, max_length: int | None, do_sample: bool, temperature: float | None, top_p: float | None
    ) -> tuple[int, bool, float, float]:
        length, official = 2048 if self.generation == Generation.CHATGLM else 8192, OFFICIAL_SAMPLING[self.generation]
        if self.model.config.generation == Generation.CHATGLM2 and self.model.config.rope_ratio != 1:
            length = self.model.config.seq_length  # ChatGLM2-6B-32k
        return (
            length if max_length is None else max_length,
            do_sample,
            official["temperature"] if temperature is None else temperature,
            official["top_p"] if top_p is None else top_p,
        )


class _Roles(_Dialogue):
    """ChatGLM3-6B and GLM-4: the history is a list of dicts, with tools in the system message."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__(model, tokenizer)
        self.header = tokenizer.get_command("<|assistant|>")

    def chat(
        self,
        query: str,
        history: Sequence[Turn] | None = None,
        role: str = "user",
        max_length: int | None = None,
        num_beams: int = 1,
        do_sample: bool = True,
        top_p: float = 0.8,
        temperature: float = 0.8,
        logits_processor: Any = None,
        **kwargs: Any,
    ) -> tuple[Any, list[Turn]]:
        prompt = self._prompt(query, history, role)
        kwargs |= {"num_beams": num_beams, "logits_processor": logits_processor}
        options = self._options(prompt, self._max_length(max_length), do_sample, temperature, top_p, kwargs)
        turns = [*(history or []), {"role": role, "content": query}]
        return _process_turns(self._reply(prompt, **options), turns, self.generation)

    def stream_chat(
        self,
        query: str,
        history: Sequence[Turn] | None = None,
        role: str = "user",
        past_key_values: Any = None,
        max_length: int | None = None,
        do_sample: bool = True,
        top_p: float = 0.8,
        temperature: float = 0.8,
        logits_processor: Any = None,
        return_past_key_values: bool = False,
        **kwargs: Any,
    ) -> Iterator[tuple[Any, ...]]:
        prompt = self._prompt(query, history, role)
        kwargs["logits_processor"] = logits_processor
        options = self._options(prompt, self._max_length(max_length), do_sample, temperature, top_p, kwargs)
        turns = [*(history or []), {"role": role, "content": query}]
        return self._yield(
            turns, self._stream(prompt, past_key_values, return_past_key_values, **options), return_past_key_values
        )

    def _yield(self, turns: list[Turn], steps: Iterator[Any], with_cache: bool) -> Iterator[tuple[Any, ...]]:
        for parts, cache in steps:
            step = _process_turns(parts, turns, self.generation)
            yield (*step, cache) if with_cache else step

    def _prompt(self, query: str, history: Sequence[Turn] | None, role: str) -> list[int]:
        if not isinstance(query, str):
            raise InputError(f"query: expected a string, got {type(query).__name__}")
        inputs = self.tokenizer.build_chat_input(query, history=list(history or []), role=role)
        return list(inputs["input_ids"][0].tolist())

    def _max_length(self, given: int | None) -> int:
        if given is not None:
            return given
        long = self.generation == Generation.CHATGLM3 and self.model.config.seq_length > 8192
        return self.model.config.seq_length if long else 8192


class _Character(_PairHistory):
    """CharacterGLM-6B: `session_meta` (user_info, bot_info, bot_name, user_name) and a list of (query, response)."""

    def chat(
        self,
        session_meta: dict[str, str],
        query: str,
        history: Sequence[Pair] | None = None,
        max_length: int = 8192,
        num_beams: int = 1,
        do_sample: bool = True,
        top_p: float = 0.9,
        temperature: float = 0.9,
        repetition_penalty: float = 1.6,
        logits_processor: Any = None,
        **kwargs: Any,
    ) -> tuple[str, list[Pair]]:
        prompt = self._prompt(session_meta, query, history)
        kwargs |= {
            "num_beams": num_beams,
            "logits_processor": logits_processor,
            "repetition_penalty": repetition_penalty,
        }
        options = self._options(prompt, max_length, do_sample, temperature, top_p, kwargs)
        response = self.model.process_response(self._reply(prompt, **options)[0])
        return response, [*(history or []), (query, response)]

    def stream_chat(
        self,
        session_meta: dict[str, str],
        query: str,
        history: Sequence[Pair] | None = None,
        past_key_values: Any = None,
        max_length: int = 8192,
        do_sample: bool = True,
        top_p: float = 0.9,
        temperature: float = 0.9,
        repetition_penalty: float = 1.6,
        logits_processor: Any = None,
        return_past_key_values: bool = False,
        **kwargs: Any,
    ) -> Iterator[tuple[Any, ...]]:
        prompt = self._prompt(session_meta, query, history)
        kwargs |= {"logits_processor": logits_processor, "repetition_penalty": repetition_penalty}
        options = self._options(prompt, max_length, do_sample, temperature, top_p, kwargs)
        return self._yield(
            query,
            history,
            self._stream(prompt, past_key_values, return_past_key_values, **options),
            return_past_key_values,
        )

    def _prompt(self, session_meta: dict[str, str], query: str, history: Sequence[Pair] | None) -> list[int]:
        return self.format.with_persona(Persona(**session_meta)).prompt(messages_from_pairs(history or [], query))
