"""Fields of requests that cannot change an answer: hints about caching, storage, tracing and the like, and neutral
values of options that are not supported.

This is the one list for all dialects. A request model (`dialect.Strict`) names the part that it reads; fields of that
part are accepted and have no effect, and the header `X-Chatglm-Ignored` of the response lists them. A field that would
change the text is not in this list: a dialect supports it, or refuses it by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "BATCH",
    "CALL",
    "CHATCHAT",
    "CLOUD_TOOL",
    "CONTENT_PART",
    "DROPPED_HEADER",
    "EMBEDDING",
    "IGNORED_HEADER",
    "ITEM",
    "MESSAGE",
    "NOTHING",
    "REQUEST",
    "RERANK",
    "STREAM_OPTIONS",
    "TOKENIZE",
    "TOOL",
    "Hints",
    "Notes",
    "neutral_values",
    "note_dropped",
    "note_ignored",
    "start_notes",
]

IGNORED_HEADER = "X-Chatglm-Ignored"
DROPPED_HEADER = "X-Chatglm-Dropped"

_MOST_CHARACTERS = 2000  # of a header's value; clients and proxies limit headers to about 8 KiB


@dataclass
class Notes:
    """What a response says about its request in headers.

    Attributes:
        ignored: names of fields that had no effect.
        dropped: parts of schemas that cannot be enforced, such as `tools.f: uniqueItems`, and what was cut of texts.
    """

    ignored: dict[str, None] = field(default_factory=dict)  # an ordered set
    dropped: dict[str, None] = field(default_factory=dict)

    def headers(self) -> dict[str, str]:
        found = {IGNORED_HEADER: self.ignored, DROPPED_HEADER: self.dropped}
        return {name: _header_value(notes) for name, notes in found.items() if notes}


def _header_value(notes: Mapping[str, None]) -> str:
    text = ", ".join(notes)
    text = "".join(character if " " <= character <= "~" else "?" for character in text)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 4]} ..."


_notes: ContextVar[Notes | None] = ContextVar("chatglm.serving notes", default=None)


def start_notes() -> Notes:
    """Collect the notes of a request: those made from now on in this task, its subtasks and their threads."""
    notes = Notes()
    _notes.set(notes)
    return notes


def note_ignored(name: str) -> None:
    """Say in the response that a field had no effect."""
    if (notes := _notes.get()) is not None:
        notes.ignored[name] = None


def note_dropped(what: str) -> None:
    """Say in the response that a part of a schema is not enforced, or that a text was cut."""
    if (notes := _notes.get()) is not None:
        notes.dropped[what] = None


ANY: Any = object()
"""A field whose value never matters."""


class Hints:
    """Fields of one part of a request that are accepted and ignored.

    Args:
        part: written before the names in `X-Chatglm-Ignored`; "" for the request itself.
        fields: by name the values that are accepted: `ANY`, or a tuple of neutral values.
    """

    def __init__(self, part: str, fields: Mapping[str, Any]) -> None:
        self.part, self.fields = part, dict(fields)

    def accept(self, name: str, value: Any) -> bool:
        """Whether the field can be ignored; if so, the response names it."""
        values = self.fields.get(name, ())
        if values is not ANY and not any(_same(value, neutral) for neutral in values):
            return False
        note_ignored(f"{self.part}.{name}" if self.part else name)
        return True

    def document(self, neutral: bool = True) -> dict[str, Any]:
        """JSON schemas of the fields, for the OpenAPI document.

        Args:
            neutral: also of those that may have neutral values only.
        """
        return {name: _schema(values) for name, values in self.fields.items() if neutral or values is ANY}


def _same(value: Any, neutral: Any) -> bool:
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)


def _schema(values: Any) -> dict[str, Any]:
    if values is ANY:
        return {"description": "accepted; has no effect"}
    return {"enum": [*values, None], "description": "only this value is supported"}


NOTHING = Hints("", {})

REQUEST = Hints(
    "",
    {
        # the caller, tracing, storage
        "user": ANY,
        "user_id": ANY,
        "safety_identifier": ANY,
        "metadata": ANY,
        "store": ANY,
        "request_id": ANY,
        "session_id": ANY,
        "trace_id": ANY,
        "chat_id": ANY,
        "conversation_id": ANY,
        "message_id": ANY,
        "rid": ANY,
        "tags": ANY,
        "client_metadata": ANY,
        "litellm_metadata": ANY,
        "litellm_call_id": ANY,
        "litellm_session_id": ANY,
        "litellm_trace_id": ANY,
        "usage": ANY,
        "user_profile_id": ANY,
        "workspace_id": ANY,
        "diagnostics": ANY,
        # versions of an interface
        "betas": ANY,
        "anthropic_beta": ANY,
        "anthropic_version": ANY,
        # what clients do with the connection
        "timeout": ANY,
        "request_timeout": ANY,
        "max_retries": ANY,
        "num_retries": ANY,
        "keep_alive": ANY,
        "extra_headers": ANY,
        "extra_query": ANY,
        "extra_body": ({},),
        # caching, tier, routing
        "service_tier": ANY,
        "prompt_cache_key": ANY,
        "prompt_cache_retention": ANY,
        "prompt_cache_options": ANY,
        "cache_prompt": ANY,
        "cache_salt": ANY,
        "cache_control": ANY,
        "prediction": ANY,
        "priority": ANY,
        "provider": ANY,
        "transforms": ANY,
        "route": ANY,
        "models": ANY,
        "data_parallel_rank": ANY,
        "guided_decoding_backend": ANY,
        "tool_stream": ANY,
        "inference_geo": ANY,
        "speed": ANY,
        "id_slot": ANY,
        "max_tool_calls": ANY,  # of tools that a server runs
        # reasoning, which these models cannot do
        "reasoning_effort": ANY,
        "reasoning": ANY,
        "verbosity": ANY,
        "include_reasoning": ANY,
        "separate_reasoning": ANY,
        "stream_reasoning": ANY,
        "reasoning_format": ANY,
        "thinking": ANY,
        "think": ANY,
        "enable_thinking": ANY,
        "thinking_budget": ANY,
        "chat_template_kwargs": (
            {},
            *({name: value} for name in ("enable_thinking", "thinking") for value in (True, False)),
        ),
        # neutral values of what is not supported
        "functions": ([], {}),
        "tools": ([],),
        "top_logprobs": (0,),
        "response_format": ({"type": "text"},),
        "bad_words": ([],),
        "logits_processors": ([],),
        "mm_processor_kwargs": ({},),
        "do_sample": (True,),
        "num_beams": (1,),
        "min_length": (0,),
        "no_repeat_ngram_size": (0,),
        "repeat_penalty": (1,),
        "detokenize": (True,),
        "enable_search": (False,),
        "safe_prompt": (False,),
        "deferred": (False,),
        "web_search_options": ({},),
        "plugins": ([],),
        "ref": ({}, {"enable": False}),
        "sensitive_word_check": ANY,  # there is no content check here
        "watermark_enabled": ANY,  # of pictures
        "extra": ({},),
        "mcp_servers": ([],),
        "documents": ([],),
        "best_of": (1,),
        "echo": (False,),
        "suffix": ("",),
        "use_beam_search": (False,),
        "length_penalty": (1,),
        "early_stopping": (False,),
        "ignore_eos": (False,),
        "skip_special_tokens": (True,),
        "spaces_between_special_tokens": (True,),
        "include_stop_str_in_output": (False,),
        "no_stop_trim": (False,),
        "add_generation_prompt": (True,),
        "add_special_tokens": (False,),
        "continue_final_message": (False,),
        "return_hidden_states": (False,),
        "return_token_ids": (False,),
        "return_tokens_as_token_ids": (False,),
        "return_progress": (False,),
        "timings_per_token": (False,),
        "n_probs": (0,),
        "typical_p": (1,),
        "typ_p": (1,),
        "tfs_z": (1,),
        "top_a": (0,),
        "epsilon_cutoff": (0,),
        "eta_cutoff": (0,),
        "top_n_sigma": (-1,),
        "mirostat": (0,),
        "mirostat_mode": (0,),
        "mirostat_tau": ANY,  # options of a sampler that is switched off
        "mirostat_eta": ANY,
        "dynatemp_range": (0,),
        "dynatemp_exponent": ANY,
        "dry_multiplier": (0,),
        "dry_base": ANY,
        "dry_allowed_length": ANY,
        "dry_penalty_last_n": ANY,
        "dry_sequence_breakers": ANY,
        "xtc_probability": (0,),
        "xtc_threshold": ANY,
    },
)
"""Fields of a whole request."""

MESSAGE = Hints(
    "messages",
    {
        "name": ANY,
        "id": ANY,
        "status": ANY,
        "metadata": ANY,
        "cache_control": ANY,
        "reasoning": ANY,
        "reasoning_content": ANY,
        "reasoning_details": ANY,
        "thinking_blocks": ANY,
        "provider_specific_fields": ANY,
        "extra_content": ANY,
        "annotations": ANY,
        "citations": ANY,  # of an answer from documents
        "answered": ANY,
        "unsupported": ANY,
        "docs": ANY,
        "tool_name": ANY,
        "parsed": ANY,
        "phase": ANY,
        "thinking": ANY,
        "signature": ANY,
        "created": ANY,
        "created_at": ANY,
        "createdAt": ANY,
        "timestamp": ANY,
        "model": ANY,
        "index": ANY,
        "finish_reason": ANY,
        "stop_reason": ANY,
        "stop_sequence": ANY,
        "usage": ANY,
        "usage_metadata": ANY,
        "response_metadata": ANY,
        "additional_kwargs": ANY,
        "artifact": ANY,
        "providerOptions": ANY,
        "providerMetadata": ANY,
        "provider_options": ANY,
        "tool_call_id": ANY,  # of other roles than tool
        "tool_calls": ([],),  # of other roles than assistant
        "invalid_tool_calls": ([],),
        "images": ([],),
        "type": ("message",),
        "is_error": (False,),
        "example": (False,),
        "refusal": ("",),
        "prefix": (False,),
        "partial": (False,),
    },
)
"""Fields of a message of any role."""

ITEM = Hints(
    "input",
    {
        "id": ANY,
        "status": ANY,
        "name": ANY,  # of results; their calls have it
        "caller": ANY,
        "phase": ANY,
        "created_by": ANY,
        "parsed_arguments": ANY,
        "providerOptions": ANY,
        "provider_options": ANY,
    },
)
"""Fields of an item of the Responses API that is not a message."""

CONTENT_PART = Hints(
    "messages.content",
    {
        "cache_control": ANY,
        "prompt_cache_breakpoint": ANY,
        "id": ANY,
        "index": ANY,
        "annotations": ANY,
        "citations": ANY,
        "logprobs": ANY,
        "parsed": ANY,
        "parsed_output": ANY,
        "provider_specific_fields": ANY,
        "providerOptions": ANY,
        "providerMetadata": ANY,
        "provider_options": ANY,
    },
)
CALL = Hints(
    "messages.tool_calls",
    {
        "index": ANY,
        "cache_control": ANY,
        "caller": ANY,
        "parsed_arguments": ANY,
        "thought_signature": ANY,
        "provider_specific_fields": ANY,
        "providerOptions": ANY,
        "providerMetadata": ANY,
        "extra_content": ANY,
    },
)
TOOL = Hints(
    "tools",
    {
        "cache_control": ANY,
        "eager_input_streaming": ANY,
        "allowed_callers": ANY,
        "metadata": ANY,
        "annotations": ANY,
        "providerOptions": ANY,
        "provider_options": ANY,
        "defer_loading": (False,),
        "async": (False,),
        "type": ("function",),  # within `function`
    },
)
CLOUD_TOOL = Hints(
    "tools",
    dict.fromkeys(
        ("web_search", "web_search_pro", "retrieval", "web_browser", "code_interpreter", "drawing_tool"), ANY
    ),
)
"""Fields of a switched-off tool that only ZhipuAI's cloud has: its settings, by its type."""

BATCH = Hints("", {"auto_delete_input_file": ANY})  # files are deleted when they expire

CHATCHAT = Hints(
    "",
    {
        # how a base is stored, split and searched, which is the same for all bases here
        "vector_store_type": ANY,
        "vs_type": ANY,
        "embed_model": ANY,
        "chunk_size": ANY,
        "chunk_overlap": ANY,
        "zh_title_enhance": ANY,
        "not_refresh_vs_cache": ANY,
        "override_custom_docs": ANY,
        "delete_content": ANY,
        "allow_empty_kb": ANY,
        "file_description": ("",),
        # of the database of messages that their page has
        "message_id": ANY,
        "conversation_id": ANY,
    },
)
"""Fields of requests to Langchain-Chatchat."""

STREAM_OPTIONS = Hints("stream_options", {"include_obfuscation": ANY, "continuous_usage_stats": (False,)})

_ASKER = dict.fromkeys(("user", "user_id", "request_id", "metadata", "priority", "extra_body", "timeout"), ANY)

EMBEDDING = Hints(
    "",
    {
        **_ASKER,
        "sensitive_word_check": ANY,
        "truncate_prompt_tokens": (-1,),
        "truncate": (True,),
        "add_special_tokens": (True,),
        "embed_dtype": ("float32",),
    },
)
"""Fields of requests for embeddings."""

RERANK = Hints(
    "",
    {
        **_ASKER,
        "max_chunks_per_doc": (1,),
        "rank_fields": (["text"],),
        "truncate_prompt_tokens": (-1,),
        "raw_scores": (False,),
        "return_embeddings": (False,),
        "return_text": ANY,
    },
)
"""Fields of requests for rerank."""

TOKENIZE = Hints(
    "",
    {
        **_ASKER,
        "continue_final_message": (False,),
        "chat_template_kwargs": ({},),
        "mm_processor_kwargs": ({},),
    },
)
"""Fields of requests to `/tokenize` and `/detokenize`."""

_ALL = (REQUEST, MESSAGE, ITEM, CONTENT_PART, CALL, TOOL, STREAM_OPTIONS, EMBEDDING, RERANK, TOKENIZE)


def neutral_values(name: str) -> tuple[Any, ...]:
    """The only values that a field may have; () if it is not one of those that are accepted with some values only."""
    for hints in _ALL:
        values = hints.fields.get(name)
        if values is not None and values is not ANY:
            return tuple(values)
    return ()
