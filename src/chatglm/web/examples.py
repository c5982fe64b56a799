"""Prompts to try, for each mode and language. The demo model answers them right at temperature 0
(`tests/web/test_examples.py`)."""

from __future__ import annotations

__all__ = ["PROMPTS", "prompts_of"]

PROMPTS: dict[tuple[str, str], tuple[str, ...]] = {
    ("chat", "zh"): ("你是谁？", "你能做什么？", "3加5等于几？", "讲个笑话"),
    ("chat", "en"): ("Who are you?", "What can you do?", "What is 12 + 30?", "Tell me a joke"),
    ("tools", "zh"): ("查一下北京的天气", "上海的天气怎么样？", "东京现在几点了？", "12*34 等于多少？"),
    ("tools", "en"): (
        "What is the weather in Paris?",
        "What is the weather in London?",
        "What time is it in Paris?",
        "What time is it in London?",
    ),
    ("code", "zh"): ("计算 123*456", "画出 sin 的图像", "求 1 到 100 的和", "求 [1, 2, 3, 4] 的平均值"),
    ("code", "en"): (
        "Compute 12*34",
        "Plot the sine function",
        "What is the sum of 1 to 100?",
        "Compute the mean of [1, 2, 3, 4]",
    ),
}


def prompts_of(mode: str, language: str) -> tuple[str, ...]:
    """Four of them; none for modes whose empty state shows something else."""
    return PROMPTS.get((mode, language), ())
