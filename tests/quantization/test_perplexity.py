"""Perplexity: passages of text, each behind what the tokenizer begins with."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from small import small
from torch import nn

from chatglm.errors import InputError, NumericalError
from chatglm.quantization.perplexity import IGNORE, Passage, passages, perplexity


@pytest.mark.parametrize("version", ["chatglm", "chatglm2", "chatglm3", "glm4"])
def test_passages(version: str, loaded) -> None:
    _, tokenizer = loaded(version)
    prefix = tokenizer("")["input_ids"]
    texts = ["北京是中华人民共和国的首都。" * 7, "Hello world, this is a text."] * 3
    made = passages(tokenizer, texts, length=32)
    whole = [token for text in texts for token in tokenizer(text, add_special_tokens=False)["input_ids"]]
    learned = [t for passage in made for t in passage.targets.tolist() if t != IGNORE]
    assert learned == whole  # every token of the text once, in order
    for passage in made:
        assert len(passage.ids) == len(passage.targets) < 32
        assert passage.ids[: len(prefix)].tolist() == prefix
        assert passage.ids[len(prefix) :].tolist() == passage.targets[len(prefix) - 1 : -1].tolist()
    assert len(passages(tokenizer, texts, length=32, limit=2)) == 2
    for texts, length, match in ((["", ""], 32, "no text"), (["a"], 2, "too short")):
        with pytest.raises(InputError, match=match):
            passages(tokenizer, texts, length=length)


class Known(nn.Module):
    """Always the same scores."""

    device = torch.device("cpu")

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self.scores = torch.tensor(scores)

    def forward(self, input_ids: torch.Tensor, use_cache: bool) -> Any:
        class Output:
            logits = self.scores.expand(*input_ids.shape, -1)

        return Output


def test_perplexity() -> None:
    passage = Passage(torch.tensor([0, 1, 2]), torch.tensor([IGNORE, 0, 1]))
    assert perplexity(Known([0.0, 0.0, 0.0, 0.0]), [passage, passage]) == (pytest.approx(4), 4)
    odds = [math.log(0.5), math.log(0.25), math.log(0.25)]
    assert perplexity(Known(odds), [passage])[0] == pytest.approx((2 * 4) ** 0.5)
    with pytest.raises(InputError, match="no tokens to measure"):
        perplexity(Known([0.0]), [Passage(passage.ids, torch.full((3,), IGNORE))])
    with pytest.raises(NumericalError, match="not finite"):
        perplexity(Known([float("nan")] * 4), [passage])


def test_same_as_the_loss() -> None:
    model = small("chatglm3")
    ids = torch.randint(4, 140, (1, 20))
    with torch.no_grad():
        loss = float(model(input_ids=ids, labels=ids).loss)
    value, count = perplexity(model, [Passage(ids[0, :-1], ids[0, 1:])])
    assert count == 19
    assert value == pytest.approx(math.exp(loss), rel=1e-4)
