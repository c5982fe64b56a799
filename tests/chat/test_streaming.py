"""A stream is the whole, in pieces that are never half of anything."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatglm import AutoTokenizer
from chatglm.chat.streaming import StreamDecoder
from chatglm.errors import InputError
from conftest import VERSIONS

LAW = settings(max_examples=200, deadline=None)
TEXT = st.text(st.characters(blacklist_categories=("Cs",)), max_size=30)


@pytest.fixture(scope="session")
def tokenizers(checkpoint) -> dict[str, Any]:
    return {name: AutoTokenizer.from_pretrained(checkpoint(name)) for name in VERSIONS}


def run(decoder: StreamDecoder, ids: list[int]) -> list[str]:
    return [*(decoder.feed(i) for i in ids), decoder.close()]


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("version", VERSIONS)
def test_stream_equals_decode(version: str, skip: bool, tokenizers) -> None:
    """For text, and for any ids at all: cut characters, control tokens, rows beyond the vocabulary."""
    tokenizer = tokenizers[version]
    controls = st.sampled_from(sorted(tokenizer.control_ids))
    any_ids = st.lists(st.integers(0, len(tokenizer) + 50) | controls | st.integers(0, 300), max_size=12)

    @LAW
    @given(any_ids | TEXT.map(tokenizer.encode_text))
    def law(ids: list[int]) -> None:
        decoder = StreamDecoder(tokenizer, skip_special_tokens=skip)
        pieces = run(decoder, ids)
        assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=skip) == decoder.text

    law()


@pytest.mark.parametrize("version", VERSIONS)
def test_text_that_goes_on_keeps_its_blanks(version: str, tokenizers) -> None:
    """A prompt and its completion, put together, are what all the tokens say."""
    tokenizer = tokenizers[version]
    ids = tokenizer.encode_text("one two three")
    for place in range(1, len(ids)):
        decoder = StreamDecoder(tokenizer, goes_on=True)
        assert tokenizer.decode(ids[:place]) + "".join(run(decoder, ids[place:])) == tokenizer.decode(ids)


@pytest.mark.parametrize("version", VERSIONS)
def test_no_half_characters(version: str, tokenizers) -> None:
    tokenizer = tokenizers[version]
    text = "👋🏽😀野家𠮷"
    pieces = run(StreamDecoder(tokenizer), tokenizer.encode_text(text))
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)
    cut = tokenizer.encode_text(text)[:-1]
    pieces = run(StreamDecoder(tokenizer), cut)
    assert "\ufffd" in pieces[-1]  # what never became whole is not lost without a trace
    assert not any("\ufffd" in piece for piece in pieces[:-1])


@pytest.mark.parametrize("version", VERSIONS)
def test_stop_strings(version: str, tokenizers) -> None:
    """The text before the stop string that is complete first is all that ever comes out."""
    tokenizer = tokenizers[version]
    stops = st.lists(st.text("ab好", min_size=1, max_size=4), min_size=1, max_size=3)

    @LAW
    @given(st.text("ab好c", max_size=20), stops)
    def law(text: str, stop: list[str]) -> None:
        ids = tokenizer.encode_text(text)
        whole = tokenizer.decode(ids)
        places = [(whole.find(word) + len(word), whole.find(word)) for word in stop if word in whole]
        decoder = StreamDecoder(tokenizer, stop=stop)
        shown = ""
        expected = whole[: min(places)[1]] if places else whole
        for piece in run(decoder, ids):
            shown += piece
            assert expected.startswith(shown)
        assert shown == expected
        assert decoder.stopped == bool(places)

    law()


def test_bad_stop(tokenizers) -> None:
    for stop in ("</s>", [""], [1]):
        with pytest.raises(InputError, match="stop"):
            StreamDecoder(tokenizers["chatglm3"], stop=stop)  # type: ignore[arg-type]
