"""What people use around a model: pipelines, streamers, pickles, deep copies, a larger vocabulary. And no chatter."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from transformers import TextIteratorStreamer, pipeline

from conftest import VERSIONS

OPTIONS = {"max_new_tokens": 4, "do_sample": False}


@pytest.mark.parametrize("version", VERSIONS)
def test_tokenizers_travel(version: str, loaded) -> None:
    """To the workers of a data loader, for one."""
    _, tokenizer = loaded(version)
    for again in (pickle.loads(pickle.dumps(tokenizer)), copy.deepcopy(tokenizer)):  # noqa: S301
        assert again.encode("你好 [gMASK]\n") == tokenizer.encode("你好 [gMASK]\n")
        assert again.decode(again.encode("你好")) == tokenizer.decode(tokenizer.encode("你好"))


@pytest.mark.parametrize("version", VERSIONS)
def test_pipeline(version: str, loaded) -> None:
    model, tokenizer = loaded(version)
    pipe = pipeline("text-generation", model=model, tokenizer=tokenizer)
    messages = [{"role": "user", "content": "你好"}]
    answer = pipe(messages, **OPTIONS)[0]["generated_text"][-1]["content"]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
    expected = model.generate(**ids, **OPTIONS)[0, ids["input_ids"].shape[1] :]
    assert answer == tokenizer.decode(expected, skip_special_tokens=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_streamer(version: str, loaded) -> None:
    model, tokenizer = loaded(version)
    inputs = tokenizer("你好", return_tensors="pt")
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True)
    ids = model.generate(**inputs, **OPTIONS, streamer=streamer)
    assert "".join(streamer) == tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :])


@pytest.mark.parametrize("version", VERSIONS)
def test_larger_vocabulary(version: str, loaded) -> None:
    model, tokenizer = loaded(version)
    larger = copy.deepcopy(model)
    rows = model.config.vocab_size
    larger.resize_token_embeddings(rows + 8, mean_resizing=False)
    assert larger.config.vocab_size == rows + 8
    inputs = tokenizer("你好", return_tensors="pt")
    with torch.no_grad():
        scores = larger(**inputs).logits
        assert scores.shape[-1] == rows + 8
        torch.testing.assert_close(scores[..., :rows], model(**inputs).logits)


def test_chatting_says_nothing_but_the_answer(checkpoint) -> None:
    """No warning of ours or of transformers' on the ways that README shows."""
    code = """
import sys
from chatglm import AutoModel, AutoTokenizer
from transformers.utils import logging
logging.disable_progress_bar()
def use(path):
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=True)
    model = AutoModel.from_pretrained(path, trust_remote_code=True).float().eval()
    _, history = model.chat(tokenizer, "你好", max_new_tokens=3)
    model.chat(tokenizer, "你好", history=history, temperature=0, max_new_tokens=3)
    model.chat(tokenizer, "你好", do_sample=False, num_beams=2, max_length=40)
    for _ in model.stream_chat(tokenizer, "你好", history=[], max_length=40): pass
    for _ in model.stream_chat(tokenizer, "你好", history=history, max_new_tokens=3): pass
for path in sys.argv[1:]:
    use(path)
"""
    paths = [str(checkpoint(version)) for version in VERSIONS]
    command = [sys.executable, "-W", "error", "-c", code, *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
