"""Streams the last text of a chain, for which many tutorials rewrite three classes of LangChain.

Chains of `langchain_classic` return their result as a whole, even if the model streams; only callbacks get the tokens.
So the chain runs in a thread, and its tokens go through a queue. If the reader stops early, the chain ends at its next
token.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.language_models import BaseLanguageModel

from chatglm.errors import DependencyError, InputError

if TYPE_CHECKING:
    from langchain_core.outputs import ChatGenerationChunk, GenerationChunk

__all__ = ["astream_predict", "astream_summary", "stream_predict", "stream_summary"]

_ROOM = 256
"""Most pieces that wait for the reader. If there are more, the model waits."""
_TAG = "chatglm:streamed"


class _Left(BaseException):
    """Nobody reads any more. It is not an `Exception`, so that a chain that catches these ends, too."""


class _Listener(BaseCallbackHandler):
    """Puts the tokens of models that have a tag into a queue."""

    raise_error = True  # so that `_Left` ends the chain

    def __init__(self, tag: str | None) -> None:
        self.pieces: queue.Queue[str | None] = queue.Queue(_ROOM)  # None: the end
        self.left = threading.Event()
        self.said = False
        self._tag = tag
        self._heard: set[UUID] = set()

    def on_llm_start(self, serialized: Any, prompts: list[str], *, run_id: UUID, **kwargs: Any) -> None:
        self._begin(run_id, kwargs)

    def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._begin(run_id, kwargs)

    def _begin(self, run_id: UUID, kwargs: dict[str, Any]) -> None:
        if self.left.is_set():
            raise _Left
        if self._tag is None or self._tag in (kwargs.get("tags") or ()):
            self._heard.add(run_id)

    def on_llm_new_token(
        self,
        token: str,
        *,
        chunk: GenerationChunk | ChatGenerationChunk | None = None,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        if self.left.is_set():
            raise _Left
        if token and run_id in self._heard:
            self.say(token)

    def say(self, text: str) -> None:
        self.said = True
        while True:
            if self.left.is_set():
                raise _Left
            try:
                return self.pieces.put(text, timeout=0.1)
            except queue.Full:
                continue

    def end(self) -> None:
        while True:
            try:
                return self.pieces.put(None, timeout=0.1)
            except queue.Full:
                if self.left.is_set():
                    return None


class _Chain:
    """A chain that runs in a thread, and the pieces of its text."""

    def __init__(self, run: Callable[[_Listener], str], tag: str | None = None) -> None:
        self._run, self._listener = run, _Listener(tag)
        self._errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._work, name="chatglm chain", daemon=True)

    def _work(self) -> None:
        listener = self._listener
        try:
            result = self._run(listener)
            if not listener.said and result:  # the model does not stream
                listener.say(result)
        except _Left:
            pass
        except BaseException as error:
            self._errors.append(error)
        finally:
            listener.end()

    def pieces(self) -> Generator[str]:
        self._thread.start()
        try:
            while (piece := self._next()) is not None:
                yield piece
        finally:
            self._leave()

    async def apieces(self) -> AsyncGenerator[str]:
        self._thread.start()
        try:
            while (piece := await asyncio.to_thread(self._next)) is not None:
                yield piece
        finally:
            await asyncio.shield(asyncio.to_thread(self._leave))

    def _next(self) -> str | None:
        piece = self._listener.pieces.get()
        if piece is None and self._errors:
            raise self._errors[0]
        return piece

    def _leave(self) -> None:
        self._listener.left.set()
        self._thread.join()


def stream_predict(chain: Any, **inputs: Any) -> Generator[str]:
    """Stream the text of a chain: of `LLMChain.predict(**inputs)`, or of any chain whose result is one text.

    The chain's model streams. Closing the generator ends the chain and its thread at the next token.

    Raises:
        Exception: any error of the chain.
    """
    return _predicting(chain, inputs).pieces()


def astream_predict(chain: Any, **inputs: Any) -> AsyncGenerator[str]:
    """`stream_predict` for coroutines."""
    return _predicting(chain, inputs).apieces()


def _predicting(chain: Any, inputs: dict[str, Any]) -> _Chain:
    return _Chain(lambda listener: _run(_streaming(chain), inputs, [listener]))


def stream_summary(
    llm: BaseLanguageModel[Any],
    documents: Sequence[Document],
    *,
    chain_type: Literal["stuff", "map_reduce", "refine"] = "map_reduce",
    **options: Any,
) -> Generator[str]:
    """Stream the summary of documents by `load_summarize_chain(llm, chain_type)`.

    With "map_reduce" only the last phase is streamed, which joins the summaries of the documents. With "refine" only
    the last document's round is streamed.

    Args:
        options: further options of `load_summarize_chain`, such as `map_prompt` and `combine_prompt`.

    Raises:
        DependencyError: `langchain-classic` is not installed.
        InputError: there are no documents, or the type of the chain is unknown. Also the errors of the model.
    """
    return _summarising(llm, documents, chain_type, options).pieces()


def astream_summary(
    llm: BaseLanguageModel[Any],
    documents: Sequence[Document],
    *,
    chain_type: Literal["stuff", "map_reduce", "refine"] = "map_reduce",
    **options: Any,
) -> AsyncGenerator[str]:
    """`stream_summary` for coroutines."""
    return _summarising(llm, documents, chain_type, options).apieces()


def _summarising(
    llm: BaseLanguageModel[Any], documents: Sequence[Document], chain_type: str, options: dict[str, Any]
) -> _Chain:
    try:
        from langchain_classic.chains.summarize import load_summarize_chain
    except ImportError as error:
        raise DependencyError("stream_summary needs langchain-classic: pip install langchain-classic") from error
    if chain_type not in ("stuff", "map_reduce", "refine"):
        raise InputError(f"chain_type={chain_type!r:.40}: must be stuff, map_reduce or refine")
    if not documents:
        raise InputError("documents: there are none to summarise")
    model = _told(llm)  # it streams in every phase, so that an abandoned chain ends at its next token
    inputs = {"input_documents": list(documents)}
    if chain_type == "map_reduce":
        chain = load_summarize_chain(
            model, chain_type="map_reduce", **{**options, "reduce_llm": _tagged(options.get("reduce_llm") or model)}
        )
        return _Chain(lambda listener: _run(chain, inputs, [listener]), _TAG)
    chain = load_summarize_chain(model, chain_type=chain_type, **options)
    last = len(inputs["input_documents"]) if chain_type == "refine" else 1
    return _Chain(lambda listener: _run(chain, inputs, [_LastOf(listener, last)]), _TAG)


class _LastOf(BaseCallbackHandler):
    """Passes only the last of `count` answers on to a listener."""

    raise_error = True

    def __init__(self, listener: _Listener, count: int) -> None:
        self._listener, self._left = listener, count

    def on_llm_start(self, serialized: Any, prompts: list[str], *, run_id: UUID, **kwargs: Any) -> None:
        self._begin(run_id)

    def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._begin(run_id)

    def _begin(self, run_id: UUID) -> None:
        self._left -= 1
        self._listener._begin(run_id, {"tags": () if self._left else (_TAG,)})

    def on_llm_new_token(self, token: str, *, run_id: UUID, **kwargs: Any) -> None:
        self._listener.on_llm_new_token(token, run_id=run_id)


def _run(chain: Any, inputs: dict[str, Any], callbacks: list[BaseCallbackHandler]) -> str:
    """Run a chain, and return its single text.

    Raises:
        InputError: the chain has several results.
    """
    result = chain.invoke(inputs, {"callbacks": callbacks})
    if isinstance(result, str):
        return result
    if isinstance(result, dict):
        keys = getattr(chain, "output_keys", None) or [key for key in result if key not in inputs]
        if len(keys) == 1:
            return str(result[keys[0]])
        raise InputError(
            f"the chain has {len(keys)} results ({', '.join(map(str, keys))}), but exactly one text is expected"
        )
    return str(getattr(result, "content", result))


def _streaming(chain: Any) -> Any:
    """The chain with a streaming model. It is a copy if the model can stream, but does not."""
    model = getattr(chain, "llm", None)
    if isinstance(model, BaseLanguageModel) and not getattr(model, "streaming", True):
        return chain.model_copy(update={"llm": _told(model)})
    return chain


def _told(model: Any, **more: Any) -> Any:
    """A copy of a model that streams. `model_copy` marks `streaming` as set, which LangChain checks."""
    streams = "streaming" in getattr(type(model), "model_fields", {})
    return model.model_copy(update={**({"streaming": True} if streams else {}), **more})


def _tagged(model: Any) -> Any:
    return _told(model, tags=[*(getattr(model, "tags", None) or ()), _TAG])
