"""Logs of a run: JSON lines for programs, a progress bar or plain lines for people, and a plot at the end."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm
from transformers import TrainerCallback

from chatglm.errors import DependencyError, InputError

__all__ = ["JsonLog", "Progress", "draw", "read_log"]


class JsonLog(TrainerCallback):  # type: ignore[misc]
    """Appends the logs of the Trainer to a file, one JSON object in each line, flushed at once.

    Args:
        file: made if it does not exist.
        upto: the step from which a resumed run continues. Lines of later steps are dropped, as they will be written
            again.
    """

    def __init__(self, file: Path, upto: int = 0) -> None:
        self._file = file
        kept = [record for record in read_log(file) if record["step"] <= upto] if file.exists() and upto else []
        # An earlier run ended with a summary. As it is continued now, that summary is dropped.
        kept = [record for record in kept if "train_loss" not in record]
        draft = file.with_name(f".{file.name}.partial")
        draft.write_text("".join(_line(record) for record in kept), "utf-8")
        draft.replace(file)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and logs:
            with self._file.open("a", encoding="utf-8") as stream:
                stream.write(_line({"step": state.global_step, **logs}))


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def read_log(file: Path) -> list[dict[str, Any]]:
    """The records of a log. An incomplete last line, left by a crash, is ignored.

    Raises:
        InputError: the file cannot be read, or another line is not a record; the message names the line.
    """
    try:
        lines = file.read_text("utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read ({error})") from None
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            record["step"] = int(record["step"])
        except (ValueError, KeyError, TypeError):
            if number == len(lines) and not line.endswith("\n"):
                break
            raise InputError(f"{file}:{number}: not a line of a training log; move the file away") from None
        records.append(record)
    return records


class Progress(TrainerCallback):  # type: ignore[misc]
    """Shows progress: on a terminal a bar with speed and remaining time, elsewhere a plain line for every record."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._bar: Any = None
        self._begun = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero and self._stream.isatty():
            self._bar = tqdm(
                total=state.max_steps, initial=state.global_step, file=self._stream, unit="step", dynamic_ncols=True
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or not logs:
            return
        if self._bar is not None and "loss" in logs:
            self._bar.set_postfix_str(_said(logs, ("loss", "tokens_per_second")))
        if self._bar is None or "loss" not in logs:
            scored = [name for name in logs if name.startswith(("eval_rouge", "eval_bleu"))]
            names = ["loss", "eval_loss", "train_loss", "learning_rate", "tokens_per_second", *scored]
            if text := _said(logs, names):
                line = f"step {state.global_step}/{state.max_steps}  {text}"
                print(line, file=self._stream) if self._bar is None else self._bar.write(line, file=self._stream)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.close()

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _said(logs: Mapping[str, Any], names: Iterable[str]) -> str:
    short = {"tokens_per_second": "tokens/s", "learning_rate": "lr"}
    return "  ".join(f"{short.get(n, n)} {logs[n]:.4g}" for n in names if isinstance(logs.get(n), int | float))


def draw(records: Iterable[Mapping[str, Any]], file: Path, title: str = "") -> None:
    """Draw training and evaluation loss over steps as a PNG file. Needs no display.

    Raises:
        DependencyError: matplotlib is not installed.
        InputError: no record has a loss.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise DependencyError("the loss picture needs matplotlib: pip install 'chatglm[training]'") from None
    records = list(records)
    lines = {
        label: [(record["step"], record[key]) for record in records if key in record]
        for label, key in (("training", "loss"), ("evaluation", "eval_loss"))
    }
    if not any(lines.values()):
        raise InputError("no record has a loss to draw")
    figure = Figure(figsize=(8, 5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="step", ylabel="loss per learned token", title=title)
    for label, points in lines.items():
        if points:
            # A line through a single point is invisible, so points get markers.
            axes.plot(*zip(*points, strict=True), label=label, marker="o" if len(points) < 30 else None, markersize=3)
    axes.grid(alpha=0.3)
    axes.legend()
    draft = file.with_name(f".{file.name}.partial")
    with draft.open("wb") as stream:
        canvas.print_png(stream)
    draft.replace(file)
