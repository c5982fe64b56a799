"""The family's three tokenizers as `transformers` tokenizer classes, without code from the checkpoint's folder.

| class                    | generations                      | vocabulary file                                        |
|--------------------------|----------------------------------|--------------------------------------------------------|
| `IceTextTokenizer`       | ChatGLM-6B                       | `ice_text.model`, SentencePiece with whitespace pieces |
| `SentencePieceTokenizer` | ChatGLM2, ChatGLM3, CharacterGLM | `tokenizer.model`, SentencePiece with byte fallback    |
| `ChatGLM4Tokenizer`      | GLM-4                            | `tokenizer.model`, lines of base64 token and its rank  |

`ChatGLMTokenizer.from_pretrained(folder)` finds out which one a folder needs. Ids and texts are those of the official
`tokenization_chatglm.py` files, with one rule of our own: text never becomes a control token unless the caller says
`allow_special_tokens=True` (docs/differences.md, user-text-never-control).
"""

from __future__ import annotations

import base64
import codecs
import functools
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import sentencepiece
import tiktoken
from transformers import BatchEncoding, PreTrainedTokenizer
from transformers.utils import PaddingStrategy, cached_file

from chatglm.chat.generations import CONFIG_KEY, Generation, read_generation, read_json
from chatglm.errors import InputError, TokenizerError, UnsupportedError

__all__ = ["ChatGLM4Tokenizer", "ChatGLMTokenizer", "IceTextTokenizer", "SentencePieceTokenizer"]

SPACE = "▁"  # SentencePiece's visible blank
REPLACEMENT = "\ufffd"
# Noncharacters: valid in a Python string, never exchanged as text (Unicode, chapter 23.7).
_SENTINELS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")


class ChatGLMTokenizer(PreTrainedTokenizer):  # type: ignore[misc]
    """What the three have in common, and the way in: `from_pretrained` returns the one that a folder needs.

    Attributes:
        generation: whose prompts `build_chat_input` and its like make.
        allow_special_tokens: whether special strings in text become control ids, as in the official code.
        control_ids: every id that is not text.
    """

    padding_side = "left"
    model_input_names = ["input_ids", "attention_mask", "position_ids"]  # noqa: RUF012
    saved_class = "ChatGLMTokenizer"
    """The name in tokenizer_config.json, which is the official one."""

    generation: Generation
    control_ids: frozenset[int]

    def __init__(self, *, generation: str | Generation, allow_special_tokens: bool = False, **kwargs: Any) -> None:
        self.generation = Generation(generation)
        self.allow_special_tokens = bool(allow_special_tokens)
        # Control tokens are ours to recognise; transformers' own lists of them would split user text.
        for name in ("added_tokens_decoder", "auto_map", "extra_special_tokens", CONFIG_KEY):
            kwargs.pop(name, None)
        for name in ("model_specific_special_tokens", "special_tokens", "additional_special_tokens"):
            kwargs.pop(name, None)
        super().__init__(allow_special_tokens=allow_special_tokens, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load the tokenizer of a checkpoint folder.

        Args:
            pretrained_model_name_or_path: the folder, or the name of a repository on the hub.
            allow_special_tokens: let text become control ids, as the official tokenizers of ChatGLM-6B and GLM-4 do.
            generation: overrides what the folder says of itself (`chatglm2`, `chatglm3`, …).

        Raises:
            TokenizerError: the vocabulary file is missing or damaged; names the file.
        """
        kwargs.pop("trust_remote_code", None)
        folder = _local_folder(pretrained_model_name_or_path, kwargs)
        tokenizer_file = folder / "tokenizer_config.json"
        saved = read_json(tokenizer_file) if tokenizer_file.is_file() else {}
        generation = Generation(kwargs.pop("generation", None) or saved.get(CONFIG_KEY) or read_generation(folder))
        kind = cls._kind(generation)
        vocabulary = folder / kind.vocab_files_names["vocab_file"]
        if not vocabulary.is_file():
            raise TokenizerError(f"{vocabulary}: no such file; a {generation} checkpoint needs it, download it again")
        if kind is IceTextTokenizer and "num_image_tokens" not in {**saved, **kwargs}:
            config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
            kwargs["num_image_tokens"] = 20_000 if config.get("vocab_size", 0) > 150_000 else 0
        load = PreTrainedTokenizer.from_pretrained.__func__
        try:
            return load(kind, str(folder), *args, generation=generation.value, **kwargs)
        except OSError as error:
            # transformers puts one sentence of its own in place of what went wrong with a vocabulary.
            if isinstance(error.__context__, TokenizerError):
                raise error.__context__ from None
            raise

    @classmethod
    def _kind(cls, generation: Generation) -> type[ChatGLMTokenizer]:
        kinds: dict[Generation, type[ChatGLMTokenizer]] = {
            Generation.CHATGLM: IceTextTokenizer,
            Generation.GLM4: ChatGLM4Tokenizer,
        }
        return kinds.get(generation, SentencePieceTokenizer)

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

    # Vocabulary: what a subclass provides

    vocab_file: str

    def encode_text(self, text: str) -> list[int]:
        """Ids of ordinary text: no prefix, and never a control id, whatever the text says."""
        raise UnsupportedError("encode_text")  # pragma: no cover

    def _pieces(self, text: str) -> list[Any]:
        """Tokens of ordinary text as `tokenize` shows them."""
        raise UnsupportedError("_pieces")  # pragma: no cover

    def _special_names(self) -> dict[str, int]:
        """The strings that `allow_special_tokens` recognises in text."""
        raise UnsupportedError("_special_names")  # pragma: no cover

    def _commands(self) -> dict[str, int]:
        """Every control token by name."""
        raise UnsupportedError("_commands")  # pragma: no cover

    def detokenizer(self, *, spaces_between_special_tokens: bool = True) -> Detokenizer:
        """A fresh decoder, one id at a time."""
        raise UnsupportedError("detokenizer")  # pragma: no cover

    def token_bytes(self, token_id: int) -> bytes:
        """What an id contributes to the text, as UTF-8; b"" for control ids and rows beyond the vocabulary."""
        raise UnsupportedError("token_bytes")  # pragma: no cover

    # Shared behaviour

    def get_command(self, token: str) -> int:
        """The id of a control token by its name.

        Raises:
            InputError: there is none of that name.
        """
        commands = self._commands()
        if token not in commands:
            raise InputError(f"{token!r} is not a control token of {self.generation}; known: {', '.join(commands)}")
        return commands[token]

    def get_prefix_tokens(self) -> list[int]:
        """The ids that stand in front of every prompt."""
        return []

    def tokenize(
        self, text: str, pair: str | None = None, add_special_tokens: bool = False, **kwargs: Any
    ) -> list[Any]:
        """Tokens of a text (str; bytes in GLM-4)."""
        allow = kwargs.pop("allow_special_tokens", self.allow_special_tokens)
        tokens: list[Any] = []
        for part, is_special in self._split(text, self._special_names() if allow else {}):
            tokens += [part] if is_special else self._pieces(part)
        return tokens

    def _split(self, text: str, names: Mapping[str, int]) -> Iterator[tuple[str, bool]]:
        """The text cut at special strings, longest first; tells which parts are special."""
        if not names:
            if text:
                yield text, False
            return
        pattern = "(" + "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)) + ")"
        for part in re.split(pattern, text):
            if part:
                yield part, part in names

    def _encode_plus(self, text: Any, *args: Any, **kwargs: Any) -> BatchEncoding:
        # Text is turned into ids here, so that it need not survive a detour through token strings.
        allow = kwargs.pop("allow_special_tokens", self.allow_special_tokens)
        names = self._special_names() if allow else {}

        def encode(item: Any) -> Any:
            if isinstance(item, str):
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
            # An empty list would pass for an empty batch.
            return self.prepare_for_model(ids, pair_ids=kwargs.pop("text_pair", None), **_model_arguments(kwargs))
        if isinstance(text, list | tuple) and text and isinstance(text[0], str):
            rows = [
                self._encode_plus(
                    item,
                    **{
                        **kwargs,
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
        """Padding, and the positions that go with it: 0 where there is padding, then 0, 1, 2 …"""
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
        decoder = self.detokenizer(spaces_between_special_tokens=spaces_between_special_tokens)
        ids = [token_ids] if isinstance(token_ids, int) else [int(i) for i in token_ids]
        text = "".join(
            [*(decoder.feed(i) for i in ids if not (skip_special_tokens and i in self.control_ids)), decoder.flush()]
        )
        return self.clean_up_tokenization(text) if clean_up_tokenization_spaces else text

    def convert_tokens_to_string(self, tokens: list[Any]) -> str:
        return str(self._decode(self.convert_tokens_to_ids(tokens)))

    @property
    def all_special_tokens(self) -> list[str]:
        """Names of all control tokens."""
        return list(self._commands())

    @property
    def all_special_ids(self) -> list[int]:
        """Ids of all control tokens."""
        return list(self._commands().values())

    def __len__(self) -> int:
        return self.vocab_size

    @functools.cached_property
    def _vocabulary(self) -> dict[Any, int]:
        names = {self._convert_id_to_token(token_id): token_id for token_id in range(len(self))}
        return {**names, **self._commands()}

    def get_vocab(self) -> dict[Any, int]:
        return dict(self._vocabulary)

    def _add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:
        fresh = [
            str(token)
            for token in new_tokens or []
            if str(token) and str(token) not in self._commands() and self._convert_token_to_id(str(token)) is None
        ]
        if fresh:
            raise UnsupportedError(
                f"cannot add {', '.join(map(repr, fresh[:3]))}: the vocabulary is the checkpoint's, and text is never "
                "split at added tokens"
            )
        return 0

    def _convert_token_to_id_with_added_voc(self, token: Any) -> int:
        token_id = self._commands().get(token, None)
        if token_id is None:
            token_id = self._convert_token_to_id(token)
        return self._unknown_id if token_id is None else int(token_id)

    _unknown_id = 0

    # Prompts: thin calls; the format knows them

    def build_prompt(self, query: str, history: Sequence[tuple[str, str]] | None = None) -> str:
        """The text of a prompt of ChatGLM-6B or ChatGLM2: rounds of question and answer."""
        from chatglm.chat.formats import chat_format
        from chatglm.chat.messages import messages_from_pairs

        return chat_format(self).text(messages_from_pairs(history or [], query))

    def build_single_message(self, role: str, metadata: str, message: str, tokenize: bool = True) -> Any:
        """One message of ChatGLM3 or GLM-4 as ids (or text): header, a line of metadata, content.

        Raises:
            InputError: the role is not system, user, assistant or observation.
            UnsupportedError: the generation's prompts have no such messages.
        """
        raise UnsupportedError(f"build_single_message: prompts of {self.generation} are not made of such messages")

    def build_chat_input(
        self, query: str, history: Sequence[Mapping[str, Any]] | None = None, role: str = "user"
    ) -> BatchEncoding:
        """A prompt of ChatGLM3 or GLM-4 as tensors (1, tokens): `input_ids`, `attention_mask`, `position_ids`.

        Args:
            history: messages as the official code takes them, `{"role", "content"}`, and `"metadata"` or `"tools"`.
            role: whose turn `query` is; an observation answers a tool call.

        Raises:
            InputError: a message is not of that form.
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

        ChatGLM-6B, ChatGLM2 and ChatGLM3 are rendered by their `ChatFormat`, which gives the official
        `build_chat_input` ids; GLM-4 by the template in its folder; any by a `chat_template` that is passed.
        `tokenize=False` gives text, for reading.
        """
        from chatglm.chat.formats import chat_format

        template = chat_template or (self.chat_template if self._renders_template or not tokenize else None)
        batched = bool(conversation) and not isinstance(conversation[0], Mapping)
        dialogues = list(conversation) if batched else [conversation]
        options = {
            "tools": tools,
            "documents": documents,
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": continue_final_message,
        }
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
        if template is None and (documents or kwargs or continue_final_message):
            named = [
                *kwargs,
                *(["documents"] if documents else []),
                *(["continue_final_message"] if continue_final_message else []),
            ]
            raise UnsupportedError(f"{', '.join(named)}: the prompt of {self.generation} has no place for it")
        if not tokenize:
            if template is not None:
                return super().apply_chat_template(
                    conversation, chat_template=template, tokenize=False, **options, **kwargs
                )
            texts = [chat_format(self).text(_messages(d), tools or (), add_generation_prompt) for d in dialogues]
            return texts if batched else texts[0]

        if template is None:
            rows = [chat_format(self).ids(_messages(d), tools or (), add_generation_prompt) for d in dialogues]
        else:
            rows = [self._render(template, dialogue, options, kwargs) for dialogue in dialogues]
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

    def _render(self, template: str, dialogue: Any, options: dict[str, Any], kwargs: dict[str, Any]) -> list[int]:
        """Ids of a rendered template, in which a special string counts only where the template itself wrote it.

        Every special string in what the caller gave is broken with a character that occurs nowhere else; after
        rendering, the text is split at the special strings that are whole, and the character is taken out again.
        """
        names = self._commands()
        given = json.dumps([dialogue, options, kwargs], ensure_ascii=False, default=str)
        sentinel = next((mark for mark in _SENTINELS if mark not in given and mark not in template), None)
        if sentinel is None:
            raise InputError("the messages use every noncharacter from U+FDD0 to U+FDEF; they cannot be told apart")
        pattern = re.compile("|".join(re.escape(name) for name in sorted(names, key=len, reverse=True) if name))

        def shield(value: Any) -> Any:
            if isinstance(value, str):
                return pattern.sub(lambda found: found[0][0] + sentinel + found[0][1:], value)
            if isinstance(value, Mapping):
                return {key: shield(item) for key, item in value.items()}
            if isinstance(value, list | tuple):
                return [shield(item) for item in value]
            return value

        text = super().apply_chat_template(
            shield(dialogue), chat_template=template, tokenize=False, **shield(options), **shield(kwargs)
        )
        ids: list[int] = []
        for part, is_special in self._split(text, names):
            ids += [names[part]] if is_special else self.encode_text(part.replace(sentinel, ""))
        return ids


def _messages(dialogue: Sequence[Any]) -> list[Any]:
    from chatglm.chat.messages import Message

    return [
        item if isinstance(item, Message) else Message.from_dict(item, index) for index, item in enumerate(dialogue)
    ]


def _model_arguments(kwargs: dict[str, Any]) -> dict[str, Any]:
    """`_encode_plus`' arguments in the names of `prepare_for_model`."""
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
    """The folder that holds a checkpoint's small files: the one named, or the hub's copy of it."""
    folder = Path(name)
    if folder.is_dir():
        return folder / kwargs.get("subfolder", "")
    if folder.exists() or str(name).count("/") != 1 or str(name).startswith((".", "/", "~")):
        raise TokenizerError(f"{name}: no such folder; give the path of a downloaded ChatGLM checkpoint")
    options = {key: kwargs[key] for key in ("cache_dir", "revision", "token", "local_files_only") if key in kwargs}
    for file in ("tokenizer_config.json", "ice_text.model", "tokenizer.model"):
        cached_file(name, file, _raise_exceptions_for_missing_entries=False, **options)
    return Path(cached_file(name, "config.json", **options)).parent


class Detokenizer:
    """Ids to text, one at a time: `feed` returns the text that is certain, `flush` what is left of a cut character.

    `decode` and the streaming decoder both run on it, so they cannot differ.
    """

    def feed(self, token_id: int) -> str:
        raise UnsupportedError("feed")  # pragma: no cover

    def flush(self) -> str:
        raise UnsupportedError("flush")  # pragma: no cover


# SentencePiece


class _SentencePieceDetokenizer(Detokenizer):
    """SentencePiece's own way to decode (its `Decode`), written as steps: blanks at the start of the text are dropped,
    runs of byte pieces are read as UTF-8, and every byte that is none becomes U+FFFD by itself.
    """

    def __init__(self, tokenizer: _SentencePieceBase) -> None:
        self._of = tokenizer
        self._bytes = bytearray()
        self._at_start, self._dropped_blank = True, False
        self._any_text = False

    def feed(self, token_id: int) -> str:
        piece = self._of.piece_bytes(token_id)
        if isinstance(piece, int):  # one byte of a character
            self._bytes.append(piece)
            return self._take(final=False)
        text = self._take(final=True)
        if self._dropped_blank or self._any_text:
            self._at_start = False
        word = piece
        self._dropped_blank = False
        if self._at_start and token_id not in self._of.literal_ids and word.startswith(SPACE):
            word = word[len(SPACE) :]
            self._dropped_blank = not self._of.drops_all_leading_blanks
        word = word if token_id in self._of.literal_ids else word.replace(SPACE, " ")
        self._any_text = self._any_text or bool(word)
        return text + word

    def flush(self) -> str:
        return self._take(final=True)

    def _take(self, final: bool) -> str:
        out: list[str] = []
        while self._bytes:
            length = _character_length(self._bytes)
            if length == 0 and not final:
                break
            if length > 0:
                out.append(self._bytes[:length].decode("utf-8"))
            else:
                out.append(REPLACEMENT)
            del self._bytes[: max(length, 1)]
        text = "".join(out)
        self._any_text = self._any_text or bool(text)
        return text


def _character_length(data: bytearray) -> int:
    """Bytes of the UTF-8 character that `data` begins with; 0 if it may still become one, −1 if it cannot."""
    try:
        codecs.utf_8_decode(bytes(data[:4]), "strict", False)
    except UnicodeDecodeError as error:
        if error.start == 0:
            return -1
    text, used = codecs.utf_8_decode(bytes(data[:4]), "ignore", False)
    if used == 0 or not text:
        return 0
    return len(text[0].encode("utf-8"))


def _whole(text: str) -> str:
    """Text as Unicode: a surrogate without its partner, which JSON can spell, becomes U+FFFD, as in GLM-4's encoder."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


class _SentencePieceBase(ChatGLMTokenizer):
    """The two SentencePiece tokenizers: pieces, and control tokens that are pieces or stand behind them."""

    def __init__(self, vocab_file: str, *, offset: int, **kwargs: Any) -> None:
        self.vocab_file = str(vocab_file)
        self._processor = _read_sentencepiece(self.vocab_file)
        self._offset = offset
        blank = self._processor.decode([SPACE, SPACE, "a"])
        self.drops_all_leading_blanks = blank == "a"
        self.literal_ids = frozenset(self._literals())
        self.control_ids = frozenset(self._commands().values())
        super().__init__(**kwargs)

    def _literals(self) -> dict[int, str]:
        """Ids whose text is not their piece: control tokens that the official decode spells out, and whitespace."""
        return {}

    def encode_text(self, text: str) -> list[int]:
        ids = self._processor.encode(self._prepare(_whole(text)))
        return [i + self._offset for i in ids] if self._offset else list(ids)

    def _pieces(self, text: str) -> list[Any]:
        return list(self._processor.encode(self._prepare(_whole(text)), out_type=str))

    def _prepare(self, text: str) -> str:
        return text

    def _known(self, token_id: int) -> bool:
        return self._offset <= token_id < self._offset + self._processor.get_piece_size()

    @functools.cached_property
    def _literal_texts(self) -> dict[int, str]:
        return self._literals()

    def piece_bytes(self, token_id: int) -> int | str:
        """A byte piece as its number; any other as the text that it stands for, with blanks still visible (▁)."""
        if (literal := self._literal_texts.get(token_id)) is not None:
            return literal
        if token_id in self.control_ids or not self._known(token_id):
            return ""
        piece_id = token_id - self._offset
        if self._processor.is_byte(piece_id):
            return int(self._processor.id_to_piece(piece_id)[3:5], 16)
        return str(self._processor.id_to_piece(piece_id))

    def token_bytes(self, token_id: int) -> bytes:
        if token_id in self.control_ids:
            return b""
        piece = self.piece_bytes(token_id)
        if isinstance(piece, int):
            return bytes([piece])
        return (piece if token_id in self.literal_ids else piece.replace(SPACE, " ")).encode("utf-8")

    def detokenizer(self, *, spaces_between_special_tokens: bool = True) -> Detokenizer:
        return _SentencePieceDetokenizer(self)

    def _convert_token_to_id(self, token: str) -> int | None:
        token_id = self._processor.piece_to_id(token)
        known = token_id != self._processor.unk_id() or token == self._processor.id_to_piece(token_id)
        return token_id + self._offset if known else None


def _read_sentencepiece(file: str) -> Any:
    processor = sentencepiece.SentencePieceProcessor()
    try:
        loaded = processor.Load(file)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise TokenizerError(f"{file}: not a whole SentencePiece model ({error}); download it again") from None
    if not loaded or processor.get_piece_size() == 0:
        raise TokenizerError(f"{file}: not a whole SentencePiece model; download it again")
    return processor


class IceTextTokenizer(_SentencePieceBase):
    """ChatGLM-6B: whitespace has pieces of its own, and prompts end in `[gMASK] <sop>`.

    Args:
        num_image_tokens: ids in front of the text's; 20,000 in the first release (vocabulary 150528), later 0.
    """

    vocab_files_names = {"vocab_file": "ice_text.model"}  # noqa: RUF012

    def __init__(
        self,
        vocab_file: str,
        generation: str | Generation = Generation.CHATGLM,
        num_image_tokens: int = 0,
        bos_token: str = "<sop>",
        eos_token: str = "<eop>",
        end_token: str = "</s>",
        mask_token: str = "[MASK]",
        gmask_token: str = "[gMASK]",
        pad_token: str = "<pad>",
        unk_token: str = "<unk>",
        **kwargs: Any,
    ) -> None:
        self.num_image_tokens = int(num_image_tokens)
        names = {
            "bos_token": bos_token,
            "eos_token": eos_token,
            "mask_token": mask_token,
            "pad_token": pad_token,
            "unk_token": unk_token,
        }
        self._names = {name: str(token) for name, token in names.items()}
        self.end_token, self.gmask_token = str(end_token), str(gmask_token)
        for name in ("do_lower_case", "remove_space"):
            kwargs.pop(name, None)
        super().__init__(
            vocab_file,
            offset=self.num_image_tokens,
            generation=generation,
            num_image_tokens=num_image_tokens,
            **names,
            **kwargs,
        )
        missing = [t for t in (*self._names.values(), self.end_token, self.gmask_token) if t not in self._commands()]
        if missing:
            raise TokenizerError(f"{vocab_file}: has no piece {missing[0]!r}; it is not ChatGLM-6B's ice_text.model")

    @functools.cached_property
    def _control_pieces(self) -> dict[str, int]:
        processor = self._processor
        return {
            processor.id_to_piece(i): i + self._offset
            for i in range(processor.get_piece_size())
            if processor.is_control(i) or processor.is_unknown(i)
        }

    def _commands(self) -> dict[str, int]:
        return self._control_pieces

    def _special_names(self) -> dict[str, int]:
        return {name: self._control_pieces[name] for name in self._names.values()}

    def _literals(self) -> dict[int, str]:
        literals = {self._processor.piece_to_id("<n>"): "\n", self._processor.piece_to_id("<|tab|>"): "\t"}
        for count in range(2, 81):
            literals[self._processor.piece_to_id(f"<|blank_{count}|>")] = " " * count
        literals.pop(self._processor.unk_id(), None)
        literals[self._processor.unk_id()] = " \u2047 "  # how SentencePiece shows what it does not know
        return {token_id + self._offset: text for token_id, text in literals.items()}

    def _prepare(self, text: str) -> str:
        text = text.replace("\n", "<n>").replace("\t", "<|tab|>")
        # Longest runs first; a run of more than 80 blanks is split.
        return re.sub(
            " {2,}", lambda run: "".join(f"<|blank_{n}|>" if n > 1 else " " for n in _blank_runs(len(run[0]))), text
        )

    @property
    def vocab_size(self) -> int:
        return int(self._processor.get_piece_size()) + self.num_image_tokens

    @property
    def gmask_token_id(self) -> int:
        return self._control_pieces[self.gmask_token]

    @property
    def end_token_id(self) -> int:
        return self._control_pieces[self.end_token]

    def _convert_id_to_token(self, index: int) -> str:
        if index < self.num_image_tokens:
            return f"<image_{index}>"
        return str(self._processor.id_to_piece(index - self._offset)) if self._known(index) else ""

    def _convert_token_to_id(self, token: str) -> int | None:
        image = re.fullmatch(r"<image_(\d+)>", token)
        if image and int(image[1]) < self.num_image_tokens:
            return int(image[1])
        return super()._convert_token_to_id(token)

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        suffix = [self.gmask_token_id, self.bos_token_id]
        return [*token_ids_0, *suffix, *([*token_ids_1, self.eos_token_id] if token_ids_1 is not None else [])]

    def _pad(
        self,
        encoded_inputs: Any,
        max_length: int | None = None,
        padding_strategy: PaddingStrategy = PaddingStrategy.DO_NOT_PAD,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
    ) -> dict[str, Any]:
        """Left padding with the official mask (1, s, s; True = masked) and positions (2, s); without padding, ids only.

        Raises:
            UnsupportedError: padding on the right.
        """
        if (padding_side or self.padding_side) != "left":
            raise UnsupportedError(
                "padding_side='right': ChatGLM-6B's positions are counted from the right; use 'left'"
            )
        ids = encoded_inputs["input_ids"]
        if padding_strategy == PaddingStrategy.DO_NOT_PAD:
            encoded_inputs.pop("attention_mask", None)
            return dict(encoded_inputs)
        length = len(ids) if padding_strategy == PaddingStrategy.LONGEST or max_length is None else max_length
        if pad_to_multiple_of:
            length = -(-length // pad_to_multiple_of) * pad_to_multiple_of
        extra = max(length - len(ids), 0)
        sop = ids.index(self.bos_token_id) if self.bos_token_id in ids else len(ids)
        blank = next((t for t in (self.gmask_token_id, self.mask_token_id) if t in ids), None)
        place = 0 if blank is None else ids.index(blank)
        if return_attention_mask is not False:
            masked = [
                [True] * extra + [key > query and key >= sop for key in range(len(ids))] for query in range(len(ids))
            ]
            encoded_inputs["attention_mask"] = [[[True] * (extra + len(ids))] * extra + masked]
            encoded_inputs["position_ids"] = [
                [0] * extra + [i if i < sop or blank is None else place for i in range(len(ids))],
                [0] * extra + [max(i - sop + 1, 0) for i in range(len(ids))],
            ]
        encoded_inputs["input_ids"] = [self.pad_token_id] * extra + list(ids)
        return dict(encoded_inputs)


def _blank_runs(count: int) -> list[int]:
    """How a run of blanks is spelled: pieces for 80, then one for the rest."""
    whole, rest = divmod(count, 80)
    return [80] * whole + ([rest] if rest else [])


class SentencePieceTokenizer(_SentencePieceBase):
    """ChatGLM2, ChatGLM3, CharacterGLM and CodeGeeX2: control tokens stand behind the pieces, prompts begin with
    `[gMASK] sop`. ChatGLM3 has role tokens besides.

    Args:
        encode_special_tokens: ChatGLM3's official option: role tokens in text become their ids.
    """

    vocab_files_names = {"vocab_file": "tokenizer.model"}  # noqa: RUF012
    BEHIND = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop")

    def __init__(
        self,
        vocab_file: str,
        generation: str | Generation = Generation.CHATGLM3,
        encode_special_tokens: bool = False,
        **kwargs: Any,
    ) -> None:
        self._has_roles = Generation(generation) == Generation.CHATGLM3
        self.encode_special_tokens = bool(encode_special_tokens)
        for name in ("do_lower_case", "remove_space", "eos_token", "pad_token", "unk_token", "bos_token"):
            kwargs.pop(name, None)
        super().__init__(
            vocab_file,
            offset=0,
            generation=generation,
            encode_special_tokens=encode_special_tokens,
            eos_token="</s>",
            pad_token="<unk>",
            unk_token="<unk>",
            **kwargs,
        )

    @functools.cached_property
    def _behind(self) -> dict[str, int]:
        size = self._processor.get_piece_size()
        return {name: size + n for n, name in enumerate([*self.BEHIND, *(ROLES if self._has_roles else ())])}

    def _commands(self) -> dict[str, int]:
        # The model file calls id 0 <unk>, and the checkpoints pad with it.
        processor = self._processor
        pad = processor.pad_id() if processor.pad_id() >= 0 else processor.unk_id()
        return {"<bos>": processor.bos_id(), "<eos>": processor.eos_id(), "<pad>": pad, **self._behind}

    def _special_names(self) -> dict[str, int]:
        if self.encode_special_tokens:
            return {name: self._behind[name] for name in ROLES if name in self._behind}
        return {}

    def tokenize(
        self, text: str, pair: str | None = None, add_special_tokens: bool = False, **kwargs: Any
    ) -> list[Any]:
        kwargs.setdefault("allow_special_tokens", self.allow_special_tokens or self.encode_special_tokens)
        return super().tokenize(text, pair, add_special_tokens, **kwargs)

    def _encode_plus(self, text: Any, *args: Any, **kwargs: Any) -> BatchEncoding:
        kwargs.setdefault("allow_special_tokens", self.allow_special_tokens or self.encode_special_tokens)
        return super()._encode_plus(text, *args, **kwargs)

    def _literals(self) -> dict[int, str]:
        # ChatGLM3 spells its control tokens out when it decodes, ChatGLM2 shows nothing.
        return {token_id: name for name, token_id in self._behind.items()} if self._has_roles else {}

    @property
    def vocab_size(self) -> int:
        return int(self._processor.get_piece_size()) + len(self._behind)

    def _convert_id_to_token(self, index: int) -> str:
        if index in self.control_ids:
            return self._literal_texts.get(index, "")
        return str(self._processor.id_to_piece(index)) if self._known(index) else ""

    def _convert_token_to_id(self, token: str) -> int | None:
        if token in ("</s>", "<s>", "<unk>"):
            return int(self._processor.piece_to_id(token))
        return super()._convert_token_to_id(token)

    def get_prefix_tokens(self) -> list[int]:
        return [self.get_command("[gMASK]"), self.get_command("sop")]

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        ids = [*self.get_prefix_tokens(), *token_ids_0]
        return ids if token_ids_1 is None else [*ids, *token_ids_1, self.get_command("<eos>")]

    def build_single_message(self, role: str, metadata: str, message: str, tokenize: bool = True) -> Any:
        if not self._has_roles:
            return super().build_single_message(role, metadata, message, tokenize)
        header = _header(role)
        if not tokenize:
            return f"{header}{metadata}\n{message}"
        # Each part is encoded by itself, so each begins with SentencePiece's blank.
        return [self.get_command(header), *self.encode_text(f"{metadata}\n"), *self.encode_text(message)]

    def build_chat_input(
        self, query: str, history: Sequence[Mapping[str, Any]] | None = None, role: str = "user"
    ) -> BatchEncoding:
        if not self._has_roles:
            return super().build_chat_input(query, history, role)
        ids = [i for message in _history_messages(history, query, role) for i in self.build_single_message(*message)]
        return self._tensors([*self.get_prefix_tokens(), *ids, self.get_command("<|assistant|>")])


def _header(role: str) -> str:
    header = f"<|{role}|>"
    if header not in ROLES:
        raise InputError(f"role {role!r}: must be system, user, assistant or observation")
    return header


def _history_messages(
    history: Sequence[Mapping[str, Any]] | None, query: str, role: str
) -> Iterable[tuple[str, str, str]]:
    """Role, metadata and content of every message of an official history, and of the query."""
    for number, item in enumerate(history or []):
        if not isinstance(item, Mapping) or not isinstance(item.get("content"), str) or "role" not in item:
            raise InputError(f"history[{number}]: expected a dict with `role` and a string `content`, got {item!r:.80}")
        content = item["content"]
        if item["role"] == "system" and "tools" in item:
            content = content + "\n" + json.dumps(item["tools"], indent=4, ensure_ascii=False)
        yield item["role"], item.get("metadata") or "", content
    if not isinstance(query, str):
        raise InputError(f"query: expected a string, got {type(query).__name__}")
    yield role, "", query


# GLM-4


class _ByteDetokenizer(Detokenizer):
    """Bytes read as UTF-8 with Python's errors="replace"; control tokens as words between blanks."""

    def __init__(self, tokenizer: ChatGLM4Tokenizer, spaces: bool) -> None:
        self._of, self._blank = tokenizer, " " if spaces else ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._any_text = self._after_special = False

    def feed(self, token_id: int) -> str:
        name = self._of.special_text(token_id)
        if name is None:
            text = self._decoder.decode(self._of.token_bytes(token_id))
            return self._with_blank(text)
        text = self.flush()
        blank = self._blank if self._any_text else ""
        self._any_text = self._after_special = True
        return text + blank + name

    def flush(self) -> str:
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return self._with_blank(text)

    def _with_blank(self, text: str) -> str:
        if not text:
            return ""
        blank = self._blank if self._after_special else ""
        self._any_text, self._after_special = True, False
        return blank + text


class ChatGLM4Tokenizer(ChatGLMTokenizer):
    """GLM-4: byte-pair encoding over bytes, lossless; prompts begin with `[gMASK]<sop>`."""

    vocab_files_names = {"vocab_file": "tokenizer.model"}  # noqa: RUF012
    saved_class = "ChatGLM4Tokenizer"
    # How text is cut before merging; \p{N}{1,3} groups digits by three (official tokenization_chatglm.py).
    PATTERN = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
        r"\s+(?!\S)|\s+"
    )
    SPECIAL = (
        "<|endoftext|>",
        "[MASK]",
        "[gMASK]",
        "[sMASK]",
        "<sop>",
        "<eop>",
        *ROLES,
        "<|begin_of_image|>",
        "<|end_of_image|>",
        "<|begin_of_video|>",
        "<|end_of_video|>",
    )
    _renders_template = True

    def __init__(
        self,
        vocab_file: str,
        generation: str | Generation = Generation.GLM4,
        added_tokens_decoder: Mapping[int, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.vocab_file = str(vocab_file)
        ranks = _read_ranks(self.vocab_file)
        self._encoding = tiktoken.Encoding(name="glm4", pat_str=self.PATTERN, mergeable_ranks=ranks, special_tokens={})
        self._ranks = len(ranks)
        self._bytes = {rank: token for token, rank in ranks.items()}
        named = {str(token): int(token_id) for token_id, token in (added_tokens_decoder or {}).items()}
        self._by_name = named or {name: self._ranks + n for n, name in enumerate(self.SPECIAL)}
        self._by_id = {token_id: name for name, token_id in self._by_name.items()}
        self.control_ids = frozenset(self._by_id)
        for name in ("do_lower_case", "remove_space"):
            kwargs.pop(name, None)
        kwargs = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", **kwargs}
        super().__init__(generation=generation, **kwargs)

    @property
    def added_tokens_decoder(self) -> dict[int, Any]:
        """The control tokens, as tokenizer_config.json lists them."""
        from transformers import AddedToken

        return {i: AddedToken(name, normalized=False, special=True) for i, name in sorted(self._by_id.items())}

    @property
    def vocab_size(self) -> int:
        return self._ranks

    def __len__(self) -> int:
        return self._ranks + len(self._by_name)

    def _commands(self) -> dict[str, int]:
        return self._by_name

    def _special_names(self) -> dict[str, int]:
        return self._by_name

    def special_text(self, token_id: int) -> str | None:
        """The name of a control id; None for text."""
        return self._by_id.get(token_id)

    def encode_text(self, text: str) -> list[int]:
        return list(self._encoding.encode_ordinary(text))

    def _pieces(self, text: str) -> list[Any]:
        return [self._bytes[i] for i in self._encoding.encode_ordinary(text)]

    def token_bytes(self, token_id: int) -> bytes:
        return self._bytes.get(token_id, b"")

    def detokenizer(self, *, spaces_between_special_tokens: bool = True) -> Detokenizer:
        return _ByteDetokenizer(self, spaces_between_special_tokens)

    def _convert_id_to_token(self, index: int) -> Any:
        return self._by_id.get(index) or self._bytes.get(index, "")

    def _convert_token_to_id(self, token: Any) -> int | None:
        data = token.encode("utf-8") if isinstance(token, str) else token
        try:
            return int(self._encoding.encode_single_token(data))
        except KeyError:
            return None

    def _convert_token_to_id_with_added_voc(self, token: Any) -> int:
        token_id = self._by_name.get(token) if isinstance(token, str) else None
        token_id = self._convert_token_to_id(token) if token_id is None else token_id
        if token_id is None:
            raise InputError(f"{token!r} is not a token of this vocabulary")
        return token_id

    def get_prefix_tokens(self) -> list[int]:
        return [self._by_name["[gMASK]"], self._by_name["<sop>"]]

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        if token_ids_1 is not None:
            raise UnsupportedError("text_pair: GLM-4 has no form for a pair of texts; join them yourself")
        return [*self.get_prefix_tokens(), *token_ids_0]

    def build_single_message(self, role: str, metadata: str, message: str, tokenize: bool = True) -> Any:
        header = _header(role)
        if not tokenize:
            return f"{header}{metadata}\n{message}"
        return [self.get_command(header), *self.encode_text(f"{metadata}\n"), *self.encode_text(message)]

    def build_chat_input(
        self, query: str, history: Sequence[Mapping[str, Any]] | None = None, role: str = "user"
    ) -> BatchEncoding:
        from chatglm.chat.formats import chat_format

        _header(role)
        turns = [*(history or []), {"role": role, "content": query}]
        return self._tensors(chat_format(self).prompt(_messages(turns)))


def _read_ranks(file: str) -> dict[bytes, int]:
    """Lines of base64 token and rank (the format of tiktoken's .tiktoken files).

    Raises:
        TokenizerError: the file cannot be read as that; names file and line.
    """
    ranks: dict[bytes, int] = {}
    try:
        lines = Path(file).read_bytes().splitlines()
    except OSError as error:
        raise TokenizerError(f"{file}: cannot be read ({error})") from None
    for number, line in enumerate(lines, 1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except ValueError:
            raise TokenizerError(
                f"{file}, line {number}: expected a base64 token and its rank, found {line[:40]!r}; download it again"
            ) from None
    if not ranks or set(ranks.values()) != set(range(len(lines))) or len(ranks) != len(lines):
        raise TokenizerError(f"{file}: ranks are missing or doubled; download it again")
    if missing := [byte for byte in range(256) if bytes([byte]) not in ranks]:
        raise TokenizerError(f"{file}: has no token for byte {missing[0]}; download it again")
    return ranks
