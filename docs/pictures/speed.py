"""Draw the speeds of `benchmarks/results/bench_cpu.json` as bars: `python docs/pictures/speed.py`.

It writes `speed.svg` (English) and `speed.zh.svg` (Chinese) beside this file. The same results give the same bytes of
data: each picture has the figures that it shows in its description, and a test compares them with the results.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parents[1] / "benchmarks" / "results" / "bench_cpu.json"

ENGINES = {
    "chatglm": "chatglm",
    "llama.cpp Q4_0": "llama.cpp",
    "OpenVINO int4 per channel": "OpenVINO (channel)",
    "OpenVINO int4 group 128": "OpenVINO (group 128)",
    "fastllm int4g, 1 thread": "fastllm",
}
PANELS = {
    "decode @32": ("One answer", "单个回答"),
    "batch 4": ("Four answers at once", "四个回答同时进行"),
    "batch 8": ("Eight answers at once", "八个回答同时进行"),
    "prefill 512": ("Reading a prompt of 512 tokens", "读入 512 个 token 的提示"),
}
TITLES = (
    "ChatGLM3-6B, int4, on two CPU cores: tokens per second",
    "ChatGLM3-6B int4，两个 CPU 核：每秒 token 数",
)
OURS, OTHERS, INK = "#2a6d63", "#b9c4c1", "#5c6966"  # read on white and on black


def figures(file: Path = RESULTS) -> dict[str, dict[str, float]]:
    """Median tokens/s of each engine in each panel, while the host's memory was in its slower mode."""
    rows: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))["summary"]
    rates = {(row["metric"], row["engine"]): row["rate"]["median"] for row in rows if row["mode"] == "slow"}
    return {panel: {engine: round(rates[panel, engine], 1) for engine in ENGINES} for panel in PANELS}


def draw(language: int, file: Path) -> None:
    """One picture; `language` is 0 for English and 1 for Chinese."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    settings = {
        "font.family": ["DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP"],
        "svg.hashsalt": "chatglm",
        "svg.fonttype": "path",
        "text.color": INK,
    }
    shown = figures()
    with pyplot.rc_context(settings):
        figure, axes = pyplot.subplots(2, 2, figsize=(9, 4.4), layout="constrained")
        figure.suptitle(TITLES[language], fontsize=12, fontweight="bold" if language == 0 else "normal")
        for axis, (panel, titles) in zip(axes.flat, PANELS.items(), strict=True):
            rates = list(shown[panel].values())
            colours = [OURS, *[OTHERS] * (len(rates) - 1)]
            bars = axis.barh(list(ENGINES.values()), rates, color=colours, height=0.72)
            axis.bar_label(bars, labels=[f"{rate:g}" for rate in rates], padding=4, fontsize=9)
            axis.set_title(titles[language], fontsize=10, loc="left", color=INK)
            axis.set_xlim(0, max(rates) * 1.15)
            axis.invert_yaxis()
            axis.tick_params(left=False, labelsize=9, labelcolor=INK)
            axis.xaxis.set_visible(False)
            axis.spines[:].set_visible(False)
        about = {"Date": None, "Description": json.dumps(shown, ensure_ascii=False)}
        figure.savefig(file, transparent=True, metadata=about)
        pyplot.close(figure)


if __name__ == "__main__":
    draw(0, HERE / "speed.svg")
    draw(1, HERE / "speed.zh.svg")
