"""Prompts to try, for each mode and language: those that the demo model answers right."""

from __future__ import annotations

__all__ = ["prompts_of"]

_PROMPTS: dict[tuple[str, str], tuple[str, ...]] = {
    ("chat", "zh"): ("你好", "法国的首都是哪里？", "3 加 5 等于几？", "请用 Python 写一个函数"),
    ("chat", "en"): ("Hello", "What is the capital of France?", "What is 3 plus 5?", "Who are you?"),
    ("tools", "zh"): ("北京今天天气怎么样？", "计算 12*34", "现在几点了？", "掷一次骰子"),
    ("tools", "en"): ("What is the weather in Paris?", "Compute 12*34", "What time is it?", "Roll a die"),
    ("code", "zh"): ("计算 12*34", "画出 sin 的图像", "1 到 100 的和是多少？", "把 [3, 1, 2] 排序"),
    ("code", "en"): ("Compute 12*34", "Plot the sine function", "What is the sum from 1 to 100?", "Sort [3, 1, 2]"),
}


def prompts_of(mode: str, language: str) -> tuple[str, ...]:
    """Four of them; none for modes whose empty state shows something else."""
    return _PROMPTS.get((mode, language), ())
