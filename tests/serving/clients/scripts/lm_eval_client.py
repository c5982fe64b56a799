"""lm-eval's `local-completions`: the likelihood of continuations, as its multiple-choice tasks ask for it.

Arguments: the server, a checkpoint folder, and where Python finds chatglm, for its tokenizer.
"""

from __future__ import annotations

import json
import math
import sys

sys.path += sys.argv[3:]  # behind this environment's own packages

from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI

import chatglm  # noqa: F401  (transformers' AutoTokenizer then knows the folder)

model = LocalCompletionsAPI(
    base_url=f"{sys.argv[1]}/v1/completions",
    model="demo",
    tokenizer=sys.argv[2],
    tokenizer_backend="huggingface",
    tokenized_requests=True,
    num_concurrent=1,
    max_retries=1,
    batch_size=1,
    max_length=512,
)
pairs = [("你好，", "我是演示模型"), ("你好，", "乱七八糟的字"), ("1+1=", "2"), ("1+1=", "9")]
asked = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]
scores = model.loglikelihood(asked)
rolling = model.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, ("你好，我是演示模型。",), 0)])
assert all(math.isfinite(score) for score, _ in scores)
print(
    json.dumps(
        {
            "scores": [score for score, _ in scores],
            "greedy": [bool(greedy) for _, greedy in scores],
            "rolling": rolling[0],
        }
    )
)
