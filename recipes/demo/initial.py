"""Weights to begin with: a fresh model whose attention can already copy.

A model this small, in an hour, does not find out by itself how to copy a name from a question into an answer, on which
nearly everything here rests. So attention does not begin at random but in the shape that trained models have been found
to have: heads that look at the token before, heads that look for what stood behind an earlier copy of the current token
(Olsson et al. 2022, "In-context Learning and Induction Heads"), and values that come out as they went in (Trockman and
Kolter 2023, "Mimetic Initialization of Self-Attention Layers"). Where the current token stood several times, the copy
with the most similar words around it is preferred, so that the value that is copied is of the right one of two things.
All of it is trained on from there.

Shapes in comments: H hidden size, D channels of a head; rows of `query_key_value` are N query heads, G keys, G values.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from chatglm.models.chatglm import ChatGLMForConditionalGeneration

__all__ = ["begin"]

WORDS = 0.25  # deviation of the table's entries
WRITES = 0.6  # size of what a head adds to the stream; a word's entries come in with WORDS
NEAR = 7.5  # how sharply the first layer's heads look at their distance
AROUND = 4.0  # how sharply one of them looks at the last few places
MATCH = 0.8  # how sharply later heads look for an equal word
CONTEXT = 12  # channels of a later head that compare what stood around
COPYING = (1, 2, 3)  # layers with such heads


def begin(model: ChatGLMForConditionalGeneration, seed: int) -> None:
    """Fill a model's weights in place."""
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    hidden, width = config.hidden_size, config.kv_channels
    heads, groups = config.num_attention_heads, config.multi_query_group_num
    half = width // 2  # the first half of a head turns with the position, the second does not

    def rows(count: int) -> Tensor:
        """`count` orthonormal rows of H."""
        return torch.linalg.qr(torch.randn(hidden, count, generator=generator))[0].T.contiguous()

    def query(head: int) -> slice:
        return slice(head * width, (head + 1) * width)

    def key(group: int) -> slice:
        return slice((heads + group) * width, (heads + group + 1) * width)

    def value(group: int) -> slice:
        return slice((heads + groups + group) * width, (heads + groups + group + 1) * width)

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.fill_(1.0 if "norm" in name else 0.0)
            elif "word_embeddings" in name or "output_layer" in name:
                weight.normal_(std=WORDS, generator=generator)
            else:
                ends_block = name.endswith(("attention.dense.weight", "dense_4h_to_h.weight"))
                weight.normal_(std=weight.shape[1] ** -0.5 * (0.2 if ends_block else 1.0), generator=generator)
        model.transformer.encoder.final_layernorm.weight.fill_(WORDS)
        layers: Any = model.transformer.encoder.layers

        # The first layer: heads 0 and 1 bring what stands one and two places before; head 2 what stands in the last few
        # places, all together, and head 3 the same as seen from one place before.
        attention = layers[0].self_attention
        joint, bias, out = attention.query_key_value.weight, attention.query_key_value.bias, attention.dense.weight
        for group in (0, 1):
            joint[value(group)] = rows(width)
            joint[key(group)] *= 0.1
        seen = joint[value(0)].clone()
        fast = 5  # pairs of channels that turn quickly enough to tell neighbours apart
        angles = 10000.0 ** (-torch.arange(0, half, 2) / half)
        turns = angles[:fast]
        bias[key(0)][0 : 2 * fast : 2] = NEAR
        brought = []
        for head, distance in ((0, 1), (1, 2)):
            place = query(head)
            joint[place] *= 0.1
            # A query that is turned back by its distance meets the key at that distance.
            bias[place][0 : 2 * fast : 2] = NEAR * torch.cos(-turns * distance)
            bias[place][1 : 2 * fast : 2] = NEAR * torch.sin(-turns * distance)
            brought.append(rows(width).T)
            out[:, place] = WRITES * brought[head]
        first, last = 3, 9  # pairs that meet the better the nearer they are
        bias[key(1)][2 * first : 2 * last : 2] = AROUND
        seen_around = []
        for head, distance in ((2, 0), (3, 1)):
            place = query(head)
            joint[place] *= 0.1
            bias[place][2 * first : 2 * last : 2] = AROUND * torch.cos(-angles[first:last] * distance)
            bias[place][2 * first + 1 : 2 * last : 2] = AROUND * torch.sin(-angles[first:last] * distance)
            seen_around.append(rows(width).T)
            out[:, place] = 1.5 * WRITES * seen_around[-1]
        around, before = seen_around

        # Later: heads 0 and 1 look where the token before was the current one, in the half that does not turn; heads 2
        # and 3 where the token two before was the one before the current one. So what stood behind the same two tokens
        # gets the votes of all. In the channels that hardly turn, each also compares what stands around the current
        # token with what stood around the one before the other. Every head's value comes out as it went in.
        for layer in COPYING:
            attention = layers[layer].self_attention
            joint, out = attention.query_key_value.weight, attention.dense.weight
            for group, looked_for in ((0, MATCH * seen), (1, MATCH / WRITES * brought[0].T)):
                own = slice(group * CONTEXT, (group + 1) * CONTEXT)
                joint[key(group)] *= 0.1
                joint[key(group)][half:] = MATCH / WRITES * brought[group][:, :half].T
                joint[key(group)][half - CONTEXT : half] = MATCH / WRITES * before[:, own].T
                for head in range(group * heads // groups, (group + 1) * heads // groups):
                    joint[query(head)] *= 0.1
                    joint[query(head)][half:] = looked_for[:half]
                    joint[query(head)][half - CONTEXT : half] = MATCH / WRITES * around[:, own].T
            for group in range(groups):
                copied = rows(width)
                joint[value(group)] = copied
                for head in range(group * heads // groups, (group + 1) * heads // groups):
                    out[:, head * width : (head + 1) * width] = copied.T * WRITES * (0.5 if group else 1.0)
