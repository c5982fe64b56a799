"""`chatglm bench`: what clients see of a model or of a server, at several concurrencies."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatglm.cli.models import add_assistant_arguments, model_name, open_assistant, print_json, remote_urls
from chatglm.errors import DependencyError, InputError, ServiceError
from chatglm.output import replace_file

if TYPE_CHECKING:
    from chatglm.measure import Clients, Level


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_assistant_arguments(parser)
    parser.add_argument(
        "--concurrency",
        default="1,4,8",
        metavar="N,…",
        help="numbers of concurrent clients to measure, one after another (default: %(default)s)",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--requests",
        type=int,
        metavar="N",
        help="number of requests at each concurrency, rounded up to whole dialogues, at least one per client "
        "(default: 4 times clients times turns)",
    )
    length.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help="measure each concurrency for S seconds instead; after that, no new dialogue begins",
    )
    parser.add_argument(
        "--prompt-tokens", type=int, default=128, metavar="N", help="tokens of a prompt (default: %(default)s)"
    )
    parser.add_argument(
        "--max-new-tokens", type=int, default=64, metavar="N", help="tokens of an answer (default: %(default)s)"
    )
    parser.add_argument(
        "--may-stop",
        action="store_true",
        help="answers may end early (default: full length, if the model or server can be asked for it)",
    )
    parser.add_argument(
        "--shared-prefix",
        type=int,
        default=0,
        metavar="N",
        help="number of first tokens that all prompts share (default: %(default)s)",
    )
    parser.add_argument(
        "--turns", type=int, default=1, metavar="N", help="turns of each dialogue (default: %(default)s)"
    )
    parser.add_argument(
        "--turn-tokens",
        type=int,
        default=32,
        metavar="N",
        help="tokens that each later turn adds to the prompt (default: %(default)s)",
    )
    parser.add_argument(
        "--text",
        action="store_true",
        help="use plain texts, not dialogues; with --remote: /completions, not /chat/completions",
    )
    parser.add_argument(
        "--warmup", type=int, default=2, metavar="N", help="requests before the measurement (default: 2)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        help="random seed of the prompts (default: new prompts each time, which no server has in its cache)",
    )
    parser.add_argument(
        "--json",
        nargs="?",
        const="-",
        metavar="FILE",
        help="write one line of JSON to FILE; without FILE, print it instead of the table",
    )
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw the results (needs matplotlib)")


def run(arguments: argparse.Namespace) -> int:
    from chatglm.measure import Clients, Workload

    levels = _concurrency(arguments.concurrency)
    workload = Workload(
        prompt_tokens=arguments.prompt_tokens,
        max_new_tokens=arguments.max_new_tokens,
        shared_prefix=arguments.shared_prefix,
        turns=arguments.turns,
        turn_tokens=arguments.turn_tokens,
        hold=not arguments.may_stop,
        chat=not arguments.text,
        seed=secrets.randbelow(10**6) if arguments.seed is None else arguments.seed,
    )
    for name, least in (("requests", 1), ("warmup", 0)):
        if (value := getattr(arguments, name)) is not None and value < least:
            raise InputError(f"--{name} {value}: must be at least {least}")
    if arguments.seconds is not None and not arguments.seconds > 0:
        raise InputError(f"--seconds {arguments.seconds:g}: must be above 0")
    # Problems with the output are reported before minutes are spent.
    file = None if arguments.json in (None, "-") else Path(arguments.json)
    for wanted in filter(None, (file, arguments.picture)):
        if not wanted.parent.is_dir():
            raise InputError(f"{wanted}: there is no folder {wanted.parent}")
    if arguments.picture is not None:
        _figure()
    with open_assistant(arguments) as assistant:
        clients = Clients(assistant, workload)
        if arguments.warmup:
            clients.run(min(arguments.warmup, max(levels)), requests=arguments.warmup)
        results = [_measure(clients, count, arguments) for count in levels]
    if not any(level.good for level in results):
        kind, words = next(sample.failure for sample in results[0].samples if sample.failure is not None)
        raise ServiceError(
            f"none of {sum(len(level.samples) for level in results)} requests was answered; {kind}: {words}"
        )
    report = {
        "model": model_name(arguments),
        "remote": ", ".join(remote_urls(arguments)) or None,
        "machine": _machine(arguments),
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "workload": asdict(clients.workload),
        "counted": clients.counted,
        "levels": [level.to_dict() for level in results],
    }
    if clients.workload.hold != workload.hold:
        print("chatglm: the endpoint refuses min_tokens: answers may end early", file=sys.stderr)
    if arguments.json == "-":
        print_json(report)
    else:
        _show(report)
    if file is not None:
        replace_file(file, f"{json.dumps(report, ensure_ascii=False)}\n".encode())
    if arguments.picture is not None:
        _draw(report, arguments.picture)
    return 0


def _concurrency(text: str) -> list[int]:
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise InputError(f"--concurrency {text}: expected numbers of clients with commas between them, such as 1,4,8")
    return counts


def _measure(clients: Clients, concurrency: int, arguments: argparse.Namespace) -> Level:
    from tqdm import tqdm

    turns = arguments.turns
    requests = None if arguments.seconds is not None else arguments.requests or 4 * concurrency * turns
    expected = None if requests is None else turns * max(-(-requests // turns), concurrency)
    with tqdm(
        total=expected, desc=f"{concurrency} at once", unit="request", disable=not sys.stderr.isatty(), leave=False
    ) as bar:
        return clients.run(
            concurrency, requests=requests, seconds=arguments.seconds, watch=lambda sample: bar.update() and None
        )


def _machine(arguments: argparse.Namespace) -> dict[str, Any]:
    from chatglm.cli.info import collect

    names = ["chatglm", "python", "system", "cpu"]
    if arguments.remote is None:
        names += ["torch", "cuda", "kernels", "threads"]
    found = collect()
    return {name: found[name] for name in names}


# Output for people


def _show(report: dict[str, Any]) -> None:
    workload, levels = report["workload"], report["levels"]
    where = f"at {report['remote']}, measured from here" if report["remote"] else "in this process"
    print(f"{report['model']}, {where}")
    print(", ".join(f"{name} {_said(value)}" for name, value in report["machine"].items() if value not in ([], None)))
    print(_described(workload, levels, report["counted"]))
    later = workload["turns"] > 1
    print(f"\n{'':8}{'':10}{'first token, s':^24}", f"{'later turns, s':^24}" if later else "", sep="", end="")
    print(f"{'between tokens, ms':^24}{'tokens/s':^18}{'':8}")
    three = f"{'median':>8}{'p90':>8}{'p99':>8}"
    print(f"{'clients':>8}{'requests':>10}{three * (3 if later else 2)}{'total':>9}{'each':>9}{'cached':>8}")
    for level in levels:
        line = f"{level['concurrency']:8}{level['requests']:10}{_three(level['first_token_s'], 1, 3)}"
        if later:
            line += _three(level["first_token_later_turns_s"], 1, 3)
        line += _three(level["between_tokens_s"], 1000, 1)
        each, cached = level["tokens_per_second_each"], level["cached_share"]
        line += f"{level['tokens_per_second_total']:9.1f}{'' if each is None else f'{each:.1f}':>9}"
        print(f"{line}{'' if cached is None else f'{cached:.0%}':>8}")
    for level in levels:
        for kind, count in level["failures"].items():
            words = level["failure_words"][kind]
            print(
                f"concurrency {level['concurrency']}: failed requests: {count} of {level['requests']}: {kind}: "
                f"{words:.200}"
            )


def _said(value: Any) -> str:
    return " ".join(value) if isinstance(value, list) else str(value)


def _described(workload: dict[str, Any], levels: Sequence[dict[str, Any]], counted: bool) -> str:
    """The workload, with the lengths that it resulted in."""

    def came(name: str) -> str:
        answered = [level[name] for level in levels if level[name]["total"]]
        return f"{min(one['least'] for one in answered)} to {max(one['most'] for one in answered)}"

    kind = "dialogues" if workload["chat"] else "plain texts"
    text = f"{kind}; prompts of {workload['prompt_tokens']} tokens"
    if workload["shared_prefix"]:
        text += f", the first {workload['shared_prefix']} the same for all"
    if workload["turns"] > 1:
        text += f"; {workload['turns']} turns, each later one with {workload['turn_tokens']} more"
    held = "kept from ending early" if workload["hold"] else "which may end early"
    text += f"; answers of {workload['max_new_tokens']} tokens, {held}; greedy, seed {workload['seed']}\ncame: "
    if counted:
        text += f"prompts of {came('prompt_tokens')}, answers of {came('new_tokens')} tokens"
    else:
        text += f"answers of {came('new_tokens')} pieces; the server counts no tokens, so a word or piece counts as one"
    guessed = sum(level["guessed_tokens"] or 0 for level in levels)
    made = sum(level["new_tokens"]["total"] for level in levels)
    return text + (f"; {guessed / made:.0%} of the answers' tokens came from speculation" if guessed else "")


def _three(spread: dict[str, float] | None, factor: float, digits: int) -> str:
    if spread is None:
        return f"{'':24}"
    return "".join(f"{spread[name] * factor:8.{digits}f}" for name in ("median", "p90", "p99"))


# Files


def _figure() -> Any:
    """
    Raises:
        DependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise DependencyError("--picture needs matplotlib: pip install 'chatglm[training]'") from None
    figure = Figure(figsize=(12, 4), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _draw(report: dict[str, Any], file: Path) -> None:
    """A picture (PNG): speed and waiting over the number of clients. Needs no display."""
    import io

    levels = sorted(report["levels"], key=lambda level: int(level["concurrency"]))
    clients = [level["concurrency"] for level in levels]
    figure = _figure()
    speed, first, between = figure.subplots(1, 3)
    speed.plot(clients, [level["tokens_per_second_total"] for level in levels], "o-", label="all clients together")
    each = [(level["concurrency"], rate) for level in levels if (rate := level["tokens_per_second_each"]) is not None]
    if each:
        speed.plot(*zip(*each, strict=True), "s--", label="each request, from asking to its end")
    speed.set_title("speed")
    speed.set_ylabel("tokens/s")
    for axes, key, title in ((first, "first_token_s", "first token"), (between, "between_tokens_s", "between tokens")):
        found = [(level["concurrency"], level[key]) for level in levels if level[key] is not None]
        for name, style in (("median", "o-"), ("p90", "s--"), ("p99", "^:")):
            axes.plot([at for at, _ in found], [spread[name] * 1000 for _, spread in found], style, label=name)
        axes.set_title(title)
        axes.set_ylabel("ms")
    for axes in (speed, first, between):
        axes.set_xlabel("clients at once")
        axes.set_xticks(sorted(set(clients)))
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()
    workload = report["workload"]
    shape = f"prompts of {workload['prompt_tokens']} tokens, answers of {workload['max_new_tokens']}"
    figure.suptitle(f"{report['model']}: {shape}")
    image = io.BytesIO()
    figure.canvas.print_png(image)
    replace_file(file, image.getvalue())
