"""How heavy is the page, when can somebody write, and how soon is a token on the screen?

    python benchmarks/page_browser.py [--rounds 5] [--tokens 100] [--json FILE]

The page of this package in a Chromium of the system, served by this process; its model says what is written here, at
--rate tokens/s. All three share the machine.

- page: bytes that come over the network for an empty conversation (HTML, styles, scripts, icon; compressed where the
  server does it), and how many requests, by a browser that was never there.
- ready: from asking for the page to the moment at which its scripts have ended, for a new browser and for one that
  was there.
- delta: from the engine's step to the frame that shows its text: median, 95 of 100, most.

Prints a table for people and one JSON line for machines.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import machine

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "tests" / name) for name in ("", "web")]

from browser import Site, answered, browsing, send  # noqa: E402

GOAL_BYTES, GOAL_READY, GOAL_DELTA = 60_000, 1.0, 0.1
FRAMES = """() => {
  window.frames_seen = [];
  let seen = 0;
  const look = () => {
    const shown = document.querySelector(".answer .text")?.textContent.length ?? 0;
    if (shown !== seen) {
      seen = shown;
      const now = performance.timeOrigin + performance.now();
      requestAnimationFrame(() => window.frames_seen.push([shown, now]));  // the frame after it, which is painted
    }
    requestAnimationFrame(look);
  };
  look();
}"""


def loaded(browser: Any, url: str) -> dict[str, float]:
    """Bytes, requests and seconds of a page that is loaded for the first time, and seconds of the second time."""
    context = browser.new_context(viewport={"width": 1200, "height": 800}, locale="zh-CN")
    page = context.new_page()
    client = context.new_cdp_session(page)
    client.send("Network.enable")
    sizes: list[int] = []
    client.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    seconds = []
    for _ in range(2):
        begun = time.perf_counter()
        page.goto(url, wait_until="commit")
        page.wait_for_selector("body[data-ready]", state="attached")
        seconds.append(time.perf_counter() - begun)
        page.wait_for_load_state("networkidle")
        if len(seconds) == 1:
            first = {"bytes": sum(sizes), "requests": len(sizes)}
    context.close()
    return {**first, "ready": seconds[0], "again": seconds[1]}


def deltas(browser: Any, site: Site, tokens: int, rate: float) -> list[float]:
    """Seconds from each step of the engine to the frame that shows its text."""
    engine = site.engine
    text = "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。" * (tokens // 24 + 1)
    question = site.say("背一首诗", text[:tokens], delay=1 / rate)
    reply = engine.script[question][0]
    decode = site.write.form.tokenizer.decode
    steps: list[tuple[int, float]] = []
    step = engine.step

    def watched() -> Any:
        before = engine.made
        events = step()
        if engine.made > before:
            steps.append((engine.made - start, time.time() * 1000))
        return events

    context = browser.new_context(viewport={"width": 1200, "height": 800}, locale="zh-CN")
    page = context.new_page()
    page.goto(f"{site.url}/new")
    page.wait_for_selector("body[data-ready]", state="attached")
    page.evaluate(FRAMES)
    start, engine.step = engine.made, watched  # type: ignore[method-assign]
    try:
        send(page, question)
        answered(page)
    finally:
        engine.step = step  # type: ignore[method-assign]
    frames = page.evaluate("window.frames_seen")
    context.close()
    found = []
    for made, stepped in steps:
        length = len(decode(reply[:made]).strip())
        shown = next((at for count, at in frames if count >= length and at >= stepped), None)
        if length and shown is not None:
            found.append((shown - stepped) / 1000)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=100, help="of each answer")
    parser.add_argument("--rate", type=float, default=20.0, help="tokens/s")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, browsing() as browser:
        site = Site(Path(folder))
        try:
            loads = [loaded(browser, f"{site.url}/new") for _ in range(arguments.rounds)]
            waits = [
                one for _ in range(arguments.rounds) for one in deltas(browser, site, arguments.tokens, arguments.rate)
            ]
        finally:
            site.close()
    waits.sort()
    result = {
        "machine": machine(),
        "bytes": max(one["bytes"] for one in loads),
        "requests": max(one["requests"] for one in loads),
        "ready": statistics.median(one["ready"] for one in loads),
        "ready_again": statistics.median(one["again"] for one in loads),
        "deltas": len(waits),
        "delta": statistics.median(waits),
        "delta_95": waits[int(len(waits) * 0.95)],
        "delta_most": waits[-1],
    }
    print(f"page    {result['bytes'] / 1000:.1f} kB in {result['requests']} requests (goal {GOAL_BYTES / 1000:.0f} kB)")
    print(f"ready   {result['ready']:.2f} s, {result['ready_again']:.2f} s again (goal {GOAL_READY:.1f} s)")
    print(
        f"delta   {result['delta'] * 1000:.0f} ms, 95 of 100 within {result['delta_95'] * 1000:.0f} ms, most "
        f"{result['delta_most'] * 1000:.0f} ms, of {len(waits)} (goal {GOAL_DELTA * 1000:.0f} ms)"
    )
    line = json.dumps(result, ensure_ascii=False)
    print(line)
    if arguments.json:
        arguments.json.write_text(line + "\n", encoding="utf-8")
    kept = result["bytes"] <= GOAL_BYTES and result["ready"] <= GOAL_READY and result["delta"] <= GOAL_DELTA
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
