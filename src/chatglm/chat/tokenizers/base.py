"""The common base of all tokenizers: loading and saving, encoding, padding, prompts."""

from __future__ import annotations

import functools
import json
import logging
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from transformers import AddedToken, BatchEncoding, PreTrainedTokenizer
from transformers.utils import PaddingStrategy, cached_file, get_json_schema
from transformers.utils.chat_template_utils import DocstringParsingException, TypeHintParsingException

from chatglm.chat.formats import chat_format
from chatglm.chat.generations import CONFIG_KEY, Generation, read_generation, read_json
from chatglm.chat.messages import Message, ToolSpec, messages_from_pairs
from chatglm.chat.tokenizers.saved import check_vocabulary, read_saved
from chatglm.chat.tokenizers.templates import LONGEST, RenderedPrompt, check_operators, control_parts, shows
from chatglm.chat.vocabulary import Vocabulary
from chatglm.errors import ChatGLMError, InputError, TokenizerError, UnsupportedError

__all__ = ["ROLES", "ChatGLMTokenizer", "official_turns"]

ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
"""The role tokens of ChatGLM3 and GLM-4."""
MOST_ADDED = 1_000_000
"""The id of an added token is at most the size of the vocabulary plus this number."""
_PROMPT_STARTS = ("[gMASK]<sop>", "[gMASK]sop")


class ChatGLMTokenizer(Vocabulary, PreTrainedTokenizer):  # type: ignore[misc]
    """Base class of the three tokenizers; its `from_pretrained` returns the class that a folder needs.

    Attributes:
        generation: the generation whose prompts `build_chat_input` and similar methods make.
        allow_special_tokens: whether special strings in text become control ids, as in the official code.
        control_ids: all ids that are not text.
    """

    padding_side = "left"
    model_input_names = ["input_ids", "attention_mask", "position_ids"]  # noqa: RUF012
    saved_class = "ChatGLMTokenizer"
    """The name in tokenizer_config.json, which is the official one."""

    kinds: ClassVar[dict[Generation, type[ChatGLMTokenizer]]] = {}
    """The class for each generation. Subclasses register themselves."""

    def __init_subclass__(cls, generations: Iterable[Generation] = (), **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        ChatGLMTokenizer.kinds.update(dict.fromkeys(generations, cls))

    # Tokens that the caller or the folder added: text tokens and control tokens. These mappings are replaced, never
    # changed in place.
    _added_text: Mapping[str, int] = MappingProxyType({})
    _added_special: Mapping[str, int] = MappingProxyType({})
    _added_pattern: re.Pattern[str] | None = None
    _is_ready = False

    def __init__(
        self,
        *,
        generation: str | Generation,
        allow_special_tokens: bool = False,
        added_tokens_decoder: Mapping[int, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.generation = Generation(generation)
        self.allow_special_tokens = bool(allow_special_tokens)
        # This class recognises control tokens itself: with lists of them, transformers would split user text at them.
        for name in ("auto_map", "extra_special_tokens", CONFIG_KEY):
            kwargs.pop(name, None)
        for name in ("model_specific_special_tokens", "special_tokens", "additional_special_tokens"):
            kwargs.pop(name, None)
        super().__init__(allow_special_tokens=allow_special_tokens, **kwargs)
        for token_id, token in sorted((added_tokens_decoder or {}).items()):
            # Folders list control tokens here, too. The vocabulary file determines the ids inside the vocabulary.
            if token_id >= self.vocab_size and token_id not in self.control_ids and not self._is_known(str(token)):
                if token_id > self.vocab_size + MOST_ADDED:
                    raise TokenizerError(
                        f"tokenizer_config.json: added token {str(token)!r:.80} has the id {token_id}, far behind the "
                        f"vocabulary's {self.vocab_size}"
                    )
                self._put(str(token), token_id, bool(getattr(token, "special", False)))
        self._is_ready = True

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load the tokenizer of a checkpoint folder.

        Args:
            pretrained_model_name_or_path: the folder, or the name of a repository on the hub.
            allow_special_tokens: let text become control ids, as the official tokenizers of ChatGLM-6B and GLM-4 do.
            generation: overrides the generation found in the folder (`chatglm2`, `chatglm3`, …).

        Raises:
            TokenizerError: the vocabulary file is missing or damaged, or a setting is wrong; names the file.
            CheckpointError: another file of the folder cannot be read.
            ConfigError: the `chatglm_generation` key in config.json has an unknown value.
        """
        kwargs.pop("trust_remote_code", None)
        folder = _local_folder(pretrained_model_name_or_path, kwargs)
        saved = read_saved(folder)
        generation = Generation(kwargs.pop("generation", None) or saved.get(CONFIG_KEY) or read_generation(folder))
        kind = cls.kinds[generation]
        vocabulary = folder / kind.vocab_files_names["vocab_file"]
        check_vocabulary(vocabulary, generation)
        kwargs["vocab_file"] = str(vocabulary)  # even if the folder names another file
        kwargs |= kind._defaults(folder, {**saved, **kwargs})
        if "added_tokens_decoder" not in saved and (folder / "added_tokens.json").is_file():
            kwargs.setdefault("added_tokens_decoder", _added_by_older_releases(folder, saved))
        load = PreTrainedTokenizer.from_pretrained.__func__
        try:
            return load(kind, str(folder), *args, generation=generation.value, **kwargs)
        except OSError as error:
            # transformers replaces an error about a vocabulary by a general one.
            if isinstance(error.__context__, TokenizerError):
                raise error.__context__ from None
            raise
        except ChatGLMError:
            raise
        except Exception as error:  # any error of transformers about a field that is not checked above
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise TokenizerError(f"{folder / 'tokenizer_config.json'}: cannot be used ({reason:.200})") from error

    @classmethod
    def _defaults(cls, folder: Path, saved: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of the class that follow from the folder's other files.

        Args:
            saved: the arguments in tokenizer_config.json and from the caller.
        """
        return {}

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        """Write tokenizer_config.json and the vocabulary under their official names."""
        files = super().save_pretrained(save_directory, *args, **kwargs)
        path = Path(save_directory) / "tokenizer_config.json"
        config = read_json(path)
        for name in ("auto_map", "generation", "backend", "is_local", "local_files_only", "extra_special_tokens"):
            config.pop(name, None)
        config |= {"tokenizer_class": self.saved_class, CONFIG_KEY: self.generation.value}
        path.write_text(json.dumps(config, indent=2, ensure_ascii=False, sort_keys=True) + "\n", "utf-8")
        return files

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        target = Path(save_directory) / f"{filename_prefix or ''}{self.vocab_files_names['vocab_file']}"
        if target.resolve() != Path(self.vocab_file).resolve():
            shutil.copyfile(self.vocab_file, target)
        return (str(target),)

    # Methods that a subclass provides, in addition to those of `Vocabulary`

    def _pieces(self, text: str) -> list[Any]:
        """Tokens of ordinary text, as `tokenize` returns them."""
        raise UnsupportedError("_pieces")  # pragma: no cover

    def _special_names(self) -> Mapping[str, int]:
        """The strings that `allow_special_tokens` recognises in text."""
        raise UnsupportedError("_special_names")  # pragma: no cover

    # Shared behaviour

    def tokenize(
        self, text: str, pair: str | None = None, add_special_tokens: bool = False, **kwargs: Any
    ) -> list[Any]:
        """Tokens of a text (str; bytes in GLM-4)."""
        if isinstance(text, RenderedPrompt):
            return list(self.convert_ids_to_tokens(list(text.ids)))
        allow = kwargs.pop("allow_special_tokens", self.allow_special_tokens)
        tokens: list[Any] = []
        for part, is_special in self._split(text, self._special_names() if allow else {}):
            if is_special:
                tokens.append(part)
            elif self._added_pattern is None:
                tokens += self._pieces(part)
            else:
                tokens += self.convert_ids_to_tokens(self.encode_text(part))
        return tokens

    def _split(self, text: str, names: Mapping[str, int]) -> Iterator[tuple[str, bool]]:
        """Cut a text at special strings, at the longest if several match; tells which parts are special."""
        if not names:
            if text:
                yield text, False
            return
        pattern = "(" + "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)) + ")"
        for part in re.split(pattern, text):
            if part:
                yield part, part in names

    def _encode_plus(self, text: Any, *args: Any, **kwargs: Any) -> BatchEncoding:
        # Text is converted to ids directly: token strings in between could change it.
        if isinstance(text, RenderedPrompt):
            kwargs["add_special_tokens"] = False  # its ids contain them already
        allow = kwargs.pop("allow_special_tokens", self.allow_special_tokens)
        names = self._special_names() if allow else {}

        def encode(item: Any) -> Any:
            if isinstance(item, RenderedPrompt):
                return list(item.ids)
            if isinstance(item, str):
                if not names and item.startswith(_PROMPT_STARTS):
                    _warn_of_lost_ids()
                ids: list[int] = []
                for part, is_special in self._split(item, names):
                    ids += [names[part]] if is_special else self.encode_text(part)
                return ids
            return item

        if kwargs.get("is_split_into_words"):
            return super()._encode_plus(text, *args, **kwargs)
        if kwargs.get("text_pair") is not None:
            pair = kwargs["text_pair"]
            kwargs["text_pair"] = encode(pair) if isinstance(pair, str) else [encode(item) for item in pair]
        if isinstance(text, str):
            ids = encode(text)
            # `transformers` would take an empty list for an empty batch.
            return self.prepare_for_model(ids, pair_ids=kwargs.pop("text_pair", None), **_model_arguments(kwargs))
        if isinstance(text, list | tuple) and text and isinstance(text[0], str):
            rows = [
                self._encode_plus(
                    item,
                    **{
                        **kwargs,
                        "allow_special_tokens": allow,
                        "return_tensors": None,
                        "text_pair": None,
                        "padding_strategy": PaddingStrategy.DO_NOT_PAD,
                        "return_attention_mask": False,
                    },
                )
                for item in text
            ]
            if kwargs.get("text_pair") is not None:
                return super()._encode_plus([encode(item) for item in text], *args, **kwargs)
            columns = {name: [row[name] for row in rows] for name in rows[0]}
            padded = self.pad(
                columns,
                padding=kwargs["padding_strategy"].value,
                max_length=kwargs.get("max_length"),
                pad_to_multiple_of=kwargs.get("pad_to_multiple_of"),
                padding_side=kwargs.get("padding_side"),
                return_attention_mask=kwargs.get("return_attention_mask"),
            )
            return BatchEncoding(padded, tensor_type=kwargs.get("return_tensors"))
        return super()._encode_plus(text, *args, **kwargs)

    def _pad(
        self,
        encoded_inputs: Any,
        max_length: int | None = None,
        padding_strategy: PaddingStrategy = PaddingStrategy.DO_NOT_PAD,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
    ) -> dict[str, Any]:
        """Pad the ids, and add position ids: 0 for padding, and 0, 1, 2 … for tokens."""
        ids = encoded_inputs["input_ids"]
        if return_attention_mask is False:
            return dict(
                super()._pad(encoded_inputs, max_length, padding_strategy, pad_to_multiple_of, padding_side, False)
            )
        encoded_inputs.setdefault("attention_mask", [1] * len(ids))
        encoded_inputs.setdefault("position_ids", list(range(len(ids))))
        padded: dict[str, Any] = super()._pad(
            encoded_inputs, max_length, padding_strategy, pad_to_multiple_of, padding_side, True
        )
        zeros = [0] * (len(padded["input_ids"]) - len(padded["position_ids"]))
        if (padding_side or self.padding_side) == "left":
            padded["position_ids"] = zeros + padded["position_ids"]
        else:
            padded["position_ids"] = padded["position_ids"] + zeros
        return padded

    def _decode(
        self,
        token_ids: int | Sequence[int],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        spaces_between_special_tokens: bool = True,
        **kwargs: Any,
    ) -> str:
        text = self.to_text(
            [token_ids] if isinstance(token_ids, int) else [int(i) for i in token_ids],
            skip_special_tokens=skip_special_tokens,
            spaces_between_special_tokens=spaces_between_special_tokens,
        )
        return self.clean_up_tokenization(text) if clean_up_tokenization_spaces else text

    def convert_tokens_to_string(self, tokens: list[Any]) -> str:
        return str(self._decode(self.convert_tokens_to_ids(tokens)))

    def _own_size(self) -> int:
        """Number of ids of the checkpoint's own vocabulary, which are 0 to this number minus 1."""
        return int(self.vocab_size)

    def __len__(self) -> int:
        return max(
            [self._own_size(), *(i + 1 for names in (self._added_text, self._added_special) for i in names.values())]
        )

    @functools.cached_property
    def _vocabulary(self) -> dict[Any, int]:
        names = {self._convert_id_to_token(token_id): token_id for token_id in range(self._own_size())}
        return {**names, **self._added_text, **self._commands()}

    def get_vocab(self) -> dict[Any, int]:
        return dict(self._vocabulary)

    # Added tokens

    def _is_known(self, token: str) -> bool:
        return token in self._commands() or token in self._added_text or self._convert_token_to_id(token) is not None

    def _add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:
        """Give new tokens the ids after the vocabulary, from `len(tokenizer)` on.

        The models' embeddings have unused rows after the vocabulary (184 in ChatGLM-6B, 226 in ChatGLM3, 209 in GLM-4).
        New tokens use these rows first. Further ones need `model.resize_token_embeddings(len(tokenizer))`.

        Raises:
            InputError: a token is not a string, or contains only spaces.
            UnsupportedError: an `AddedToken` with `lstrip`, `rstrip` or `single_word`.
        """
        fresh: dict[str, bool] = {}
        for token in new_tokens or []:
            if not isinstance(token, str | AddedToken):
                raise InputError(f"add_tokens: expected texts, got {type(token).__name__}")
            name = str(token)
            if not name or self._is_known(name):
                continue
            if not name.strip():
                raise InputError("add_tokens: a token of spaces only would split every text at its spaces")
            for option in ("lstrip", "rstrip", "single_word"):
                if isinstance(token, AddedToken) and getattr(token, option):
                    raise UnsupportedError(f"add_tokens: {option} of {name!r} is not supported; leave it out")
            fresh.setdefault(name, special_tokens or bool(getattr(token, "special", False)))
        for name, special in fresh.items():
            self._put(name, len(self), special)
        return len(fresh)

    def add_special_tokens(
        self, special_tokens_dict: Mapping[str, Any], replace_extra_special_tokens: bool = True, **kwargs: Any
    ) -> int:
        """Add control tokens, and set `pad_token`, `eos_token` … if the key is one of these. Returns the number of
        new tokens.

        Text becomes such a token only with `allow_special_tokens=True`, like any other control token.

        Raises:
            InputError: a key is not a kind of special token, or a token is not a string, or contains only spaces.
            UnsupportedError: an `AddedToken` with `lstrip`, `rstrip` or `single_word`.
        """
        given = dict(special_tokens_dict)
        replace_extra_special_tokens = kwargs.pop("replace_additional_special_tokens", replace_extra_special_tokens)
        unknown = given.keys() - {*self.SPECIAL_TOKENS_ATTRIBUTES, "additional_special_tokens", "extra_special_tokens"}
        if unknown or kwargs:
            raise InputError(f"add_special_tokens: {sorted([*unknown, *kwargs])[0]!r} is not a kind of special token")
        values = [item for value in given.values() for item in (value if isinstance(value, list | tuple) else [value])]
        added = self._add_tokens(values, special_tokens=True)
        super().add_special_tokens(given, replace_extra_special_tokens)
        return added

    def _put(self, name: str, token_id: int, special: bool) -> None:
        if special:
            self._added_special = {**self._added_special, name: token_id}
            self.control_ids |= {token_id}
        else:
            self._added_text = {**self._added_text, name: token_id}
            names = sorted(self._added_text, key=len, reverse=True)
            self._added_pattern = re.compile("(" + "|".join(map(re.escape, names)) + ")")
        # transformers saves tokens from here.
        self._added_tokens_decoder[token_id] = AddedToken(name, normalized=False, special=special)
        self._added_tokens_encoder[name] = token_id
        self.__dict__.pop("_vocabulary", None)

    def encode_text(self, text: str) -> list[int]:
        if self._added_pattern is None:
            return self._encode_part(text, True, True)
        ids: list[int] = []
        parts = self._added_pattern.split(text)
        for place, part in enumerate(parts):
            if place % 2:
                ids.append(self._added_text[part])
            elif part:
                ids += self._encode_part(part, place == 0, place == len(parts) - 1)
        return ids

    def _encode_part(self, text: str, is_first: bool, is_last: bool) -> list[int]:
        """Ids of text between added tokens.

        Args:
            is_first, is_last: no added token comes before it, or after it.
        """
        raise UnsupportedError("_encode_part")  # pragma: no cover

    def __setattr__(self, key: str, value: Any) -> None:
        name = key.removesuffix("_id")
        if self._is_ready and value is not None and name in self.SPECIAL_TOKENS_ATTRIBUTES:
            if name != key:
                key, value = name, self._name_of(key, value)
            if not self._is_known(str(value)):
                raise InputError(
                    f"{key}: {str(value)!r} is not a token of this vocabulary; "
                    f"add_special_tokens({{{key!r}: {str(value)!r}}}) adds it"
                )
        super().__setattr__(key, value)

    def _name_of(self, key: str, token_id: Any) -> str:
        """The token of an id, for `pad_token_id = …`."""
        if not isinstance(token_id, int) or isinstance(token_id, bool):
            raise InputError(f"{key}: expected an id, got {token_id!r:.80}")
        token = self._token_of(token_id)
        if not isinstance(token, str) or not token:
            raise InputError(f"{key}: no token has the id {token_id}; ids of tokens go from 0 to {len(self) - 1}")
        return token

    def _token_of(self, token_id: int) -> Any:
        names = {**self._added_text, **self._commands()}
        found = [name for name, known in names.items() if known == token_id]
        return found[0] if found else self._convert_id_to_token(token_id) if 0 <= token_id < len(self) else ""

    # Names of older releases of transformers, and of the official tokenizers

    def encode_plus(self, text: Any, text_pair: Any = None, **kwargs: Any) -> BatchEncoding:
        """The same as `tokenizer(text, …)`: its name before transformers 5."""
        return self(text, text_pair, **kwargs)

    def batch_encode_plus(self, batch_text_or_text_pairs: Any, **kwargs: Any) -> BatchEncoding:
        """The same as `tokenizer([text, …], …)`: its name before transformers 5."""
        return self(list(batch_text_or_text_pairs), **kwargs)

    def _convert_token_to_id_with_added_voc(self, token: Any) -> int:
        token_id = self._commands().get(token, self._added_text.get(token))
        if token_id is None:
            token_id = self._convert_token_to_id(token)
        return self._unknown_id if token_id is None else int(token_id)

    _unknown_id = 0

    # Prompts: these methods only call the `ChatFormat`

    def build_prompt(self, query: str, history: Sequence[tuple[str, str]] | None = None) -> str:
        """The text of a prompt of ChatGLM-6B or ChatGLM2: rounds of question and answer.

        Raises:
            InputError: an entry of `history` is not a pair of strings, or `query` is not a string.
        """
        return chat_format(self).text(messages_from_pairs(history or [], query))

    _has_roles = False
    """Whether prompts are made of messages with a role token, a line of metadata and content."""

    def build_single_message(self, role: str, metadata: str, message: str, tokenize: bool = True) -> Any:
        if not self._has_roles:
            return super().build_single_message(role, metadata, message, tokenize)
        token = _role_token(role)
        if not tokenize:
            return f"{token}{metadata}\n{message}"
        # Each part is encoded separately, so each begins with the space that SentencePiece adds.
        return [self.get_command(token), *self.encode_text(f"{metadata}\n"), *self.encode_text(message)]

    def build_chat_input(
        self, query: str, history: Sequence[Mapping[str, Any]] | None = None, role: str = "user"
    ) -> BatchEncoding:
        """A prompt of ChatGLM3 or GLM-4 as tensors (1, tokens): `input_ids`, `attention_mask`, `position_ids`.

        Args:
            history: messages as the official code takes them, `{"role", "content"}`, and `"metadata"` or `"tools"`.
            role: role of `query`; an observation answers a tool call.

        Raises:
            InputError: a message does not have this form.
            UnsupportedError: this generation's prompts are not made of such messages.
        """
        raise UnsupportedError(
            f"build_chat_input: prompts of {self.generation} are not made of such messages; use build_prompt"
        )

    def _tensors(self, ids: list[int]) -> BatchEncoding:
        return self.prepare_for_model(ids, add_special_tokens=False, return_tensors="pt", prepend_batch_axis=True)

    def apply_chat_template(
        self,
        conversation: Any,
        tools: Any = None,
        documents: Any = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool | str = False,
        tokenize: bool = True,
        **kwargs: Any,
    ) -> Any:
        """`transformers`' method. Text of messages can never become a control token.

        ChatGLM-6B, ChatGLM2 and ChatGLM3 are rendered by their `ChatFormat`, which gives the ids of the official
        `build_chat_input`; GLM-4 by the template in its folder. If a `chat_template` is given, it renders any of
        them.

        Args:
            tools: dicts (`{"name", "parameters"}` or OpenAI's form of it), or typed Python functions with a docstring
                in Google's style. A template that does not take tools gets them in a system message, as the official
                GLM-4 code does.
            tokenize: False: return the text, a `RenderedPrompt`. The tokenizer converts it to the same ids.

        Raises:
            InputError: a message or a tool is not valid, or the template fails.
            UnsupportedError: this prompt has no place for an argument.
        """
        batched = bool(conversation) and not isinstance(conversation[0], Mapping | Message)
        dialogues = list(conversation) if batched else [conversation]
        known = (
            "sanitize_control_tokens",
            "padding",
            "truncation",
            "max_length",
            "return_tensors",
            "return_dict",
            "return_assistant_tokens_mask",
            "tokenizer_kwargs",
        )
        settings = {name: kwargs.pop(name) for name in known if name in kwargs}
        if settings.pop("return_assistant_tokens_mask", False):
            raise UnsupportedError("return_assistant_tokens_mask: use ChatFormat.example, which gives ids and mask")
        specs = _tool_specs(tools)
        template = self._template(chat_template)
        if template is None:
            given = {**kwargs, "documents": documents, "continue_final_message": continue_final_message}
            if named := [name for name, value in given.items() if value or name in kwargs]:
                raise UnsupportedError(f"{', '.join(named)}: the prompt of {self.generation} has no place for it")
            prompts = [self._format_prompt(dialogue, specs, add_generation_prompt) for dialogue in dialogues]
        else:
            options = {
                **kwargs,
                "documents": documents,
                "add_generation_prompt": add_generation_prompt,
                "continue_final_message": continue_final_message,
            }
            own = chat_template is None
            prompts = [self._template_prompt(template, own, dialogue, specs, options) for dialogue in dialogues]
        if not tokenize:
            return prompts if batched else prompts[0]
        rows = [list(prompt.ids) for prompt in prompts]
        if settings.get("truncation") and (limit := settings.get("max_length")):
            rows = [row[:limit] if self.truncation_side == "right" else row[-limit:] for row in rows]
        tensors = settings.get("return_tensors")
        padded = self.pad(
            {"input_ids": rows},
            padding=settings.get("padding", False),
            max_length=settings.get("max_length"),
        )
        if not batched and tensors is None:
            padded = BatchEncoding({name: value[0] for name, value in padded.items()})
        result = BatchEncoding(dict(padded), tensor_type=tensors)
        return result if settings.get("return_dict", True) else result["input_ids"]

    _renders_template = False
    """Whether the template in the folder makes the prompts, instead of the `ChatFormat`."""

    def _template(self, given: str | None) -> str | None:
        if given is None and not (self._renders_template and self.chat_template):
            return None
        template = self.get_chat_template(given)
        if not isinstance(template, str) or len(template) > LONGEST:
            raise InputError(f"chat_template: expected a text of at most {LONGEST} characters")
        check_operators(template)
        return template

    def _format_prompt(self, dialogue: Any, tools: Sequence[ToolSpec], prompt: bool) -> RenderedPrompt:
        messages, form = _messages(dialogue), chat_format(self)
        return RenderedPrompt(form.text(messages, tools, prompt), form.ids(messages, tools, prompt))

    def _template_prompt(
        self, template: str, own: bool, dialogue: Any, tools: Sequence[ToolSpec], options: dict[str, Any]
    ) -> RenderedPrompt:
        """Render a template.

        Args:
            own: it is the checkpoint's own template, written for the official form of messages.
        """

        def render(given: Mapping[str, Any]) -> str:
            text: str = super(ChatGLMTokenizer, self).apply_chat_template(
                chat_template=template, tokenize=False, **given
            )
            return text

        messages = _messages(dialogue)
        shown: list[Any] = [m.to_dict() if isinstance(m, Message) else m for m in dialogue]
        if own and "tool_calls" not in template:
            shown = [entry for message in messages for entry in chat_format(self).entries(message)]
        offered = [dict(tool.wrapped()) for tool in tools] or None
        given = {"conversation": shown, "tools": offered, **options}
        if offered and not shows(render, given, "tools"):
            if not own:
                raise UnsupportedError("tools: this chat template has no place for them")
            # Put the tools into a system message, as the official GLM-4 code and `ChatFormat` do.
            if shown and "tools" in shown[0]:
                shown[0] = {name: value for name, value in shown[0].items() if name != "tools"}
            given |= {"conversation": [{"role": "system", "content": "", "tools": offered}, *shown], "tools": None}
        if options["documents"] and not shows(render, given, "documents"):
            raise UnsupportedError(f"documents: the chat template of {self.generation} has no place for them")
        names = self._commands()
        parts = control_parts(render, given, names)
        ids: list[int] = []
        for part, is_control in parts:
            ids += [names[part]] if is_control else self.encode_text(part)
        return RenderedPrompt("".join(part for part, _ in parts), ids)


def _tool_specs(tools: Any) -> tuple[ToolSpec, ...]:
    """Read tools. For a Python function, the specification is made from its signature and docstring.

    Raises:
        InputError: one of them is not a tool, or a function lacks annotations or a docstring.
    """
    if tools is None:
        return ()
    listed = list(tools) if isinstance(tools, list | tuple) else [tools] if callable(tools) else tools
    if not isinstance(listed, list):
        return ToolSpec.list_from(listed)
    return ToolSpec.list_from([_schema(tool, number) if callable(tool) else tool for number, tool in enumerate(listed)])


def _schema(function: Any, number: int) -> Any:
    try:
        return get_json_schema(function)
    except (DocstringParsingException, TypeHintParsingException, TypeError, ValueError) as error:
        raise InputError(f"tools[{number}]: no tool can be made of {function!r:.80}: {error}") from None


def _messages(dialogue: Sequence[Any]) -> list[Message]:
    return [
        item if isinstance(item, Message) else Message.from_dict(item, index) for index, item in enumerate(dialogue)
    ]


def _added_by_older_releases(folder: Path, saved: Mapping[str, Any]) -> dict[int, AddedToken]:
    """The tokens in added_tokens.json. special_tokens_map.json and `saved` say which of them are control tokens."""
    file = folder / "special_tokens_map.json"
    about = [saved, read_json(file) if file.is_file() else {}]
    special: set[str] = set()
    for key, value in (item for fields in about for item in fields.items()):
        if key.endswith("_token") or key in ("additional_special_tokens", "extra_special_tokens"):
            for token in value if isinstance(value, list) else [value]:
                special.add(str(token.get("content")) if isinstance(token, Mapping) else str(token))
    made: dict[int, AddedToken] = {}
    for name, token_id in read_json(folder / "added_tokens.json").items():
        if not isinstance(token_id, int) or isinstance(token_id, bool) or not 0 <= token_id < 1 << 30:
            raise TokenizerError(
                f"{folder / 'added_tokens.json'}: {name!r:.80} has the id {token_id!r:.80}; it must be a number from 0 "
                "on"
            )
        made[token_id] = AddedToken(name, normalized=False, special=name in special)
    return made


def _model_arguments(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Convert arguments of `_encode_plus` to those of `prepare_for_model`."""
    kwargs = dict(kwargs)
    for name in ("is_split_into_words", "split_special_tokens", "sanitize_control_tokens"):
        kwargs.pop(name, None)
    return {
        "padding": kwargs.pop("padding_strategy", PaddingStrategy.DO_NOT_PAD).value,
        "truncation": kwargs.pop("truncation_strategy").value if "truncation_strategy" in kwargs else False,
        "prepend_batch_axis": True,
        **kwargs,
    }


def _local_folder(name: Any, kwargs: Mapping[str, Any]) -> Path:
    """The folder with a checkpoint's small files: the named one, or that of a repository on the hub, in the cache."""
    folder = Path(name)
    if folder.is_dir():
        return folder / kwargs.get("subfolder", "")
    if folder.exists() or str(name).count("/") != 1 or str(name).startswith((".", "/", "~")):
        raise TokenizerError(f"{name}: no such folder; give the path of a downloaded ChatGLM checkpoint")
    options = {key: kwargs[key] for key in ("cache_dir", "revision", "token", "local_files_only") if key in kwargs}
    for file in ("tokenizer_config.json", "ice_text.model", "tokenizer.model"):
        cached_file(name, file, _raise_exceptions_for_missing_entries=False, **options)
    return Path(cached_file(name, "config.json", **options)).parent


@functools.cache
def _warn_of_lost_ids() -> None:
    """Warn, once in a process, that a rendered prompt was encoded as plain text."""
    logging.getLogger("chatglm").warning(
        "A text that begins with %s was encoded as plain text: its control tokens became letters. If it comes from "
        "apply_chat_template, call that with tokenize=True; or load the tokenizer with allow_special_tokens=True and "
        "encode with add_special_tokens=False, if you trust all of the text.",
        " or ".join(_PROMPT_STARTS),
    )


def _role_token(role: str) -> str:
    token = f"<|{role}|>"
    if token not in ROLES:
        raise InputError(f"role {role!r}: must be system, user, assistant or observation")
    return token


def official_turns(history: Sequence[Mapping[str, Any]] | None, query: str, role: str) -> list[Mapping[str, Any]]:
    """The messages of an official history, and the query as the last one.

    Raises:
        InputError: an entry or the query has no text, or the role is unknown.
    """
    turns = list(history or [])
    for number, item in enumerate(turns):
        if not isinstance(item, Mapping) or not isinstance(item.get("content"), str) or "role" not in item:
            raise InputError(f"history[{number}]: expected a dict with `role` and a string `content`, got {item!r:.80}")
    if not isinstance(query, str):
        raise InputError(f"query: expected a string, got {type(query).__name__}")
    _role_token(role)
    return [*turns, {"role": role, "content": query}]
