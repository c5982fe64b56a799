"""How fast does an int4 ChatGLM3-6B run on two CPU cores, beside other engines and beside what the machine can do?

    python benchmarks/peers.py --folder PEERS           # once: the other engines, each in an environment of its own
    python benchmarks/bench_cpu.py --folder DIR --peer-folder PEERS [--peers llama.cpp,openvino,ftllm] [--rounds 3]

Ours is a folder in the official ChatGLM3-6B layout, random weights, that `chatglm quantize --head --embedding` made
into 4 bits in groups of 128 (kept in --folder; made from --source, or from a random fp16 checkpoint of 12.5 GB that is
then removed), loaded with `load_to_answer` and run by the `Engine`, as chat and serve do, greedy, without guessing
ahead. Others have the same matrices, all of them 4 bits (workers/random_models.py), and are run the way that is fast
with them (workers/with_*.py); every engine picks its tokens itself, greedily. What is not set up is named and left out.

Files are in the page cache, read there as `load_to_answer` has them read: in pages of 2 MiB where the file system can.
--small-pages adds ours from a copy that the page cache holds in pages of 4 KiB, as file systems without large folios
do, once as it is and once with `huge_pages=True`.

How it is measured:

- Each engine is a process that holds its model and does one command at a time. While one works the others are stopped
  (SIGSTOP), so that no idle thread of theirs spins. Engines take turns slice by slice (0.3 to 1 s of decoding, or one
  prompt), in an order that changes from round to round. Where memory does not hold all of them they come in groups,
  each beside ours.
- Between any two slices a probe (probe.c) reads 512 MiB again and again for 0.15 s with as many pinned threads. On a
  shared host the bandwidth can jump within seconds, so figures are sorted by it: fast where the median reading before
  and after a slice is at least --fast GB/s, slow where the best reading on both sides is below --slow, else mixed. The
  thresholds fit the machine of results/bench_cpu.md.
- A slice is left out where other processes, or the host (steal), took more than a tenth of the cores' time in it.
- Ratios are medians over pairs: our slice and a peer's of the same turn, both in the same mode; and, in the last table,
  over all pairs.
- decode @32, @2048: a sequence's next tokens at that context; batch 4, 8: so many sequences decoded together at context
  32, all their tokens counted; prefill: a prompt's tokens, up to the first new token.
- Start: a fresh process, files in the page cache, from its start to the first new token of a prompt of 8 tokens;
  interpreter and imports apart. Memory: peak resident memory of that process after it also read 2,048 tokens,
  anonymous and file-backed pages apart, and how much of it was in huge pages then.
- Limits, for ours: decode against the bytes that a step must read (weights and scales of layers and head, keys and
  values) at the bandwidth read around the slice: at the best of the probe's passes of 10 to 20 ms, and at their median,
  which is what nothing but reading gets over as long as a slice; prefill against the highest peak of int8 multiply-add
  instructions (VNNI) that the probe measured between rounds, counting two operations a weight of the layers and token,
  and no attention.

Prints tables for people and one JSON line, with every slice, for machines. Linux; a C compiler; two cores to itself.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from common import machine
from engines import Peer, Probe, Reading, Worker, WorkerError, available, cpu_times, drop, running, touch
from full_size import make

HERE = Path(__file__).resolve().parent
OURS = "chatglm"
IN_SMALL_PAGES = "chatglm, small pages"
COPIED = "chatglm, --huge-pages"
GIB = 1 << 30
TICKS = os.sysconf("SC_CLK_TCK")
SLOW_START_S = 60.0
"""An engine that needs longer for a prompt reads it in the first round only."""
DISTURBED = 0.1
UNKNOWN_NEED = 8 * GIB
SPARE = 2 * GIB


KINDS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "llama.cpp": (("llama.cpp Q4_0", "with_llama_cpp.py", "q4_0.gguf"),),
    "openvino": (
        ("OpenVINO int4 per channel", "with_openvino.py", "openvino-channel"),
        ("OpenVINO int4 group 128", "with_openvino.py", "openvino-group"),
    ),
    "ftllm": (("fastllm int4g, 1 thread", "with_fastllm.py", "hf"),),
}


@dataclass(frozen=True)
class Cell:
    """One thing to measure: reading prompts, and then slices of so many steps."""

    batch: int
    context: int
    prefill: str | None = None
    decode: str | None = None
    steps: int = 0
    slices: int = 0
    repeats: int = 1


CELLS = (
    Cell(1, 32, decode="decode @32", steps=8, slices=6),
    Cell(1, 512, prefill="prefill 512", repeats=2),
    Cell(4, 32, decode="batch 4", steps=5, slices=4),
    Cell(8, 32, decode="batch 8", steps=5, slices=4),
    Cell(1, 2048, prefill="prefill 2048", decode="decode @2048", steps=6, slices=4),
)
METRICS = ("decode @32", "decode @2048", "batch 4", "batch 8", "prefill 512", "prefill 2048")
CONTEXTS = {cell.decode: cell for cell in CELLS if cell.decode}


@dataclass
class Slice:
    """One measured stretch of one engine; `turn` is equal for slices that are neighbours."""

    engine: str
    metric: str
    turn: tuple[int, ...]
    rate: float
    seconds: float
    before: Reading
    after: Reading
    others: float
    mode: str = ""


# Measuring


@dataclass
class Bench:
    """What one run knows and has measured."""

    probe: Probe
    fast: float
    slow: float
    cells: Sequence[Cell] = CELLS
    slices: list[Slice] = field(default_factory=list)
    too_slow: set[tuple[str, int]] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)

    def measure(self, worker: Worker, command: str, metric: str | None, turn: tuple[int, ...], tokens: int) -> float:
        """One command as one slice; without a metric it is only carried out. Seconds."""
        if metric is None:
            return float(worker.ask(command)["seconds"])
        before = self.probe.read()
        (busy, stolen), own, begin = cpu_times(), worker.cpu_ticks(), time.monotonic()
        seconds = float(worker.ask(command)["seconds"])
        wall, own = time.monotonic() - begin, worker.cpu_ticks() - own
        now_busy, now_stolen = cpu_times()
        others = max(0, now_busy - busy - own) + now_stolen - stolen
        after = self.probe.read()
        share = others / TICKS / wall / len(os.sched_getaffinity(0))
        # A tick is 10 ms: over a short slice a few of them say nothing.
        made = Slice(worker.name, metric, turn, tokens / seconds, seconds, before, after, share if others > 4 else 0.0)
        made.mode = self.mode(made)
        self.slices.append(made)
        return seconds

    def mode(self, made: Slice) -> str:
        if made.others > DISTURBED:
            return "disturbed"
        if min(made.before.median, made.after.median) >= self.fast:
            return "fast"
        if max(made.before.best, made.after.best) < self.slow:
            return "slow"
        return "mixed"

    def round(self, workers: Sequence[Worker], group: int, number: int) -> None:
        """Every cell once, engines taking turns."""
        order = [*workers[number % len(workers) :], *workers[: number % len(workers)]]
        for place, cell in enumerate(self.cells):
            there = [worker for worker in order if (worker.name, place) not in self.too_slow]
            begin, go_on = f"start {cell.batch} {cell.context}", f"decode {cell.steps}"
            for again, worker in itertools.product(range(cell.repeats), there):
                turn = (group, number, place, again)
                seconds = self.try_to(worker, begin, cell.prefill, turn, cell.batch * cell.context)
                if seconds > SLOW_START_S:
                    self.too_slow.add((worker.name, place))
                tell(f"  round {number + 1}: {worker.name}: {begin}: {seconds:.2f} s")
            for again, worker in itertools.product(range(cell.slices), there):
                self.try_to(worker, go_on, cell.decode, (group, number, place, again), cell.batch * cell.steps)

    def try_to(self, worker: Worker, command: str, metric: str | None, turn: tuple[int, ...], tokens: int) -> float:
        """`measure`, unless the engine has failed before; one that fails now is named."""
        if worker.name in self.failed:
            return 0.0
        try:
            return self.measure(worker, command, metric, turn, tokens)
        except WorkerError as error:
            if worker.name == OURS:
                raise
            print(f"left out from here on: {error}", flush=True)
            self.failed.add(worker.name)
            return 0.0


def start_and_memory(peers: Sequence[Peer], threads: int, loads: int, logs: Path) -> tuple[dict[str, Any], list[Peer]]:
    """Times of fresh starts and peaks of memory; and the engines that could be started."""
    found: dict[str, dict[str, Any]] = {peer.name: {"starts": []} for peer in peers}
    well = list(peers)
    for number, peer in itertools.product(range(loads + 1), peers):
        if peer not in well:
            continue
        touch(Path(peer.model), peer.small_pages)
        try:
            worker = Worker(peer, threads, logs / f"{peer.name}.log", watch=number == 0)
            try:
                if worker.memory is None:
                    found[peer.name]["starts"].append(worker.start_seconds)
                else:  # the first start warms up, and has its memory watched
                    worker.ask("start 1 2048")
                    found[peer.name]["memory"] = {**worker.memory.peak, "huge": worker.in_huge_pages()}
                    found[peer.name]["about"] = worker.ask("about")
            finally:
                worker.close()
        except WorkerError as error:
            print(f"left out: {error}", flush=True)
            well.remove(peer)
        tell(f"  start {number}: {peer.name}: {found[peer.name]}")
    return found, well


def groups_of(peers: Sequence[Peer], needs: dict[str, int], room: int) -> list[list[Peer]]:
    """Peers that fit into memory together, in their order; ours has had its part."""
    groups: list[list[Peer]] = []
    left = 0
    for peer in peers:
        if not groups or needs[peer.name] > left:
            groups.append([])
            left = room
        groups[-1].append(peer)
        left -= needs[peer.name]
    return groups or [[]]


# What is measured


def make_ours(folder: Path, source: Path | None, tokenizer: Path | None, layers: int) -> Path:
    """The packed folder; one that is there is used as it is."""
    packed = folder / f"int4-{layers}"
    if (packed / "config.json").is_file():
        if tokenizer:
            shutil.copyfile(tokenizer, packed / "tokenizer.model")
        return packed
    plain = source or folder / f"fp16-{layers}"
    if source is None:
        make(plain, layers, "safetensors")
    found = json.loads((plain / "config.json").read_text())["num_layers"]
    if found != layers:
        raise SystemExit(f"{plain} has {found} layers, not {layers}")
    command = ["quantize", str(plain), "--output", str(packed), "--head", "--embedding"]
    subprocess.run([sys.executable, "-m", "chatglm.cli", *command], check=True, stdout=sys.stderr)
    if source is None:
        shutil.rmtree(plain)
    from chatglm.loading import demo_folder

    shutil.copyfile(tokenizer or demo_folder() / "tokenizer.model", packed / "tokenizer.model")
    shutil.copyfile(demo_folder() / "tokenizer_config.json", packed / "tokenizer_config.json")
    return packed


def find_peers(kinds: Iterable[str], folder: Path | None, layers: int) -> Iterator[Peer]:
    for kind in kinds:
        if kind not in KINDS:
            raise SystemExit(f"--peers: no {kind!r}; there are {', '.join(KINDS)}")
        for name, script, model in KINDS[kind]:
            if folder is None:
                print(f"left out: {name}: no --peer-folder")
                continue
            python, path = folder / "venvs" / kind / "bin" / "python", folder / "models" / str(layers) / model
            if missing := [str(part) for part in (python, path) if not part.exists()]:
                print(f"left out: {name}: {missing[0]} is not there (benchmarks/peers.py makes it)")
                continue
            yield Peer(name, str(python), script, str(path))


# What came of it


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    count: int
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        if not values:
            return None
        parts = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
        return cls(len(values), parts[1], parts[0], parts[2])


def summary(bench: Bench, names: Sequence[str], limits: Limits) -> Iterator[dict[str, Any]]:
    """A line for each mode, metric and engine that was measured; mode `any`: all slices that were not disturbed."""
    for mode, metric, name in itertools.product(("fast", "slow", "any"), METRICS, names):
        there = [s for s in bench.slices if s.metric == metric and s.mode != "disturbed" and mode in (s.mode, "any")]
        mine = [s for s in there if s.engine == name]
        if not mine:
            continue
        ours = {s.turn: s.rate for s in there if s.engine == OURS}
        pairs = [ours[s.turn] / s.rate for s in mine if s.turn in ours] if name != OURS else []
        shares = [share for s in mine if name in (OURS, IN_SMALL_PAGES, COPIED) and (share := limits(s)) is not None]
        of_best, of_median = zip(*shares, strict=True) if shares else ((), ())
        yield {
            "mode": mode,
            "metric": metric,
            "engine": name,
            "rate": Spread.of([s.rate for s in mine]),
            "bandwidth": statistics.median((s.before.best + s.after.best) / 2 for s in mine),
            "ratio": Spread.of(pairs),
            "of_limit": Spread.of(of_best),
            "of_median": Spread.of(of_median),
        }


Limits = Callable[[Slice], tuple[float, float] | None]


def limits_of(about: dict[str, Any], peak: float) -> Limits:
    """What a slice of ours reached, as a share of what the machine can do: at best, and at the median reading."""

    def share(s: Slice) -> tuple[float, float] | None:
        if s.metric.startswith("prefill"):
            reached = s.rate * 2 * float(about["layer_weights"]) / 1e9
            return (reached / peak, reached / peak) if peak else None
        cell = CONTEXTS[s.metric]
        # The context grows by a slice's steps; the little that is added is not counted.
        size: float = about["weight_bytes"] + cell.batch * cell.context * about["cache_bytes_per_token"]
        reached = s.rate / cell.batch * size / 1e9
        return 2 * reached / (s.before.best + s.after.best), 2 * reached / (s.before.median + s.after.median)

    return share


def show(lines: Sequence[dict[str, Any]]) -> None:
    for mode, of_mode in itertools.groupby(lines, key=lambda line: line["mode"]):
        print(f"\n{'all slices' if mode == 'any' else f'{mode} mode'}")
        print(
            f"{'':14}{'engine':28}{'slices':>6}{'tokens/s':>10}{'quartiles':>16}{'GB/s':>7}"
            f"{'ours ÷ it':>11}{'quartiles':>13}{'pairs':>6}{'of best':>10}{'of median':>11}"
        )
        before = None
        for line in of_mode:
            rate, ratio, limit = line["rate"], line["ratio"], line["of_limit"]
            text = f"{line['metric'] if line['metric'] != before else '':14}{line['engine']:28}{rate.count:6}"
            text += f"{rate.median:10.1f}{f'{rate.low:.1f}–{rate.high:.1f}':>16}{line['bandwidth']:7.0f}"
            if ratio:
                text += f"{ratio.median:10.2f}×{f'{ratio.low:.2f}–{ratio.high:.2f}':>13}{ratio.count:6}"
            if limit:
                text += f"{limit.median:{10 if ratio else 40}.0%}{line['of_median'].median:11.0%}"
            print(text)
            before = line["metric"]


def show_starts(starts: dict[str, Any]) -> None:
    print("\nfresh process to first token, medians, s; peak resident memory with 2,048 tokens read, GiB")
    names = ("imports", "load and first token", "whole")
    print(
        f"{'engine':28}{'imports':>9}{'load, first token':>19}{'whole':>8}{'resident':>10}{'anonymous':>11}{'files':>7}"
        f"{'huge':>7}"
    )
    for name, found in starts.items():
        if not found["starts"] or "memory" not in found:
            continue
        imports, first, whole = (statistics.median(start[key] for start in found["starts"]) for key in names)
        resident, anonymous, files, huge = (value / GIB for value in found["memory"].values())
        print(
            f"{name:28}{imports:9.2f}{first:19.2f}{whole:8.2f}{resident:10.2f}{anonymous:11.2f}{files:7.2f}{huge:7.2f}"
        )


def tell(text: str) -> None:
    if sys.stderr.isatty() or os.environ.get("BENCH_PROGRESS"):
        print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where our checkpoint is kept (default: made anew and removed)")
    parser.add_argument("--source", type=Path, help="an fp16 folder to quantise instead of a random one")
    parser.add_argument("--tokenizer", type=Path, help="ChatGLM3's tokenizer.model (default: the demo model's)")
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--starts", type=int, default=3, help="timed fresh processes of each engine (default: 3)")
    parser.add_argument("--peers", default=",".join(KINDS), help=f"of {', '.join(KINDS)} (default: all; '' for none)")
    parser.add_argument("--only", default=",".join(METRICS), help=f"of {', '.join(METRICS)} (default: all)")
    parser.add_argument("--peer-folder", type=Path, help="that benchmarks/peers.py filled")
    parser.add_argument(
        "--small-pages", action="store_true", help="ours from a copy in small pages, too (3 GB of disk)"
    )
    parser.add_argument("--fast", type=float, default=70.0, help="GB/s from which the mode is fast (default: 70)")
    parser.add_argument("--slow", type=float, default=60.0, help="GB/s below which it is slow (default: 60)")
    options = parser.parse_args()
    only = options.only.split(",")
    if unknown := set(only) - set(METRICS):
        parser.error(f"--only: {', '.join(sorted(unknown))}: there are {', '.join(METRICS)}")
    cells = [cell for cell in CELLS if {cell.prefill, cell.decode} & set(only)]

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the engines end too, and what was measured is shown
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chatglm-bench-")))
        program = work / "probe"
        flags = ["-O3", "-march=native", "-pthread"]
        subprocess.run(["cc", *flags, str(HERE / "probe.c"), "-o", str(program)], check=True)
        about_machine = machine()
        print(f"{about_machine}\nChatGLM3-6B's sizes, random int4, {options.layers} layers, {options.threads} threads")
        peers = list(find_peers(filter(None, options.peers.split(",")), options.peer_folder, options.layers))
        folder = make_ours(options.folder or work, options.source, options.tokenizer, options.layers)
        ours = Peer(OURS, sys.executable, "with_chatglm.py", str(folder))
        if options.small_pages:
            copy = work / "small"
            shutil.copytree(folder, copy)
            drop(copy)
            small = replace(ours, name=IN_SMALL_PAGES, model=str(copy), small_pages=True)
            peers[:0] = [small, replace(small, name=COPIED, options=("--huge-pages",))]
        starts, well = start_and_memory([ours, *peers], options.threads, options.starts, work)
        if ours not in well:
            raise SystemExit("ours did not start")
        probe = Probe(program, options.threads)
        stack.callback(probe.close)
        bench = Bench(probe, options.fast, options.slow, cells)
        needs = {name: found.get("memory", {}).get("resident", UNKNOWN_NEED) for name, found in starts.items()}
        room = available() - needs[OURS] - SPARE
        groups = groups_of([peer for peer in well if peer != ours], needs, room)
        peaks = [probe.peak()]
        try:
            for place, group in enumerate(groups):
                with running([ours, *group], options.threads, work) as workers:
                    for number in range(options.rounds):
                        bench.round(workers, place, number)
                        peaks.append(probe.peak())
        except KeyboardInterrupt:
            print("stopped early; what was measured until then:")
    peak = max(peaks)
    lines = list(summary(bench, [peer.name for peer in well], limits_of(starts[OURS]["about"], peak)))
    for name, found in starts.items():
        print(f"{name}: {found.get('about', {})}")
    if best := [reading.best for reading in probe.readings]:
        spread = f"{min(best):.0f} to {max(best):.0f}"
        print(f"bandwidth: {len(best)} readings, median {statistics.median(best):.0f}, {spread} GB/s")
    counts = {mode: sum(s.mode == mode for s in bench.slices) for mode in ("fast", "slow", "mixed", "disturbed")}
    print(f"slices: {counts}; int8 peak {peak:,.0f} Gop/s; groups: {[[peer.name for peer in g] for g in groups]}")
    show_starts(starts)
    show(lines)
    report = {
        "machine": about_machine,
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "layers": options.layers,
        "threads": options.threads,
        "thresholds": {"fast": options.fast, "slow": options.slow},
        "int8_gops": peaks,
        "bandwidth": [[reading.best, reading.median] for reading in probe.readings],
        "engines": starts,
        "groups": [[peer.name for peer in group] for group in groups],
        "summary": [
            {key: asdict(value) if isinstance(value, Spread) else value for key, value in line.items()}
            for line in lines
        ],
        "slices": [asdict(s) for s in bench.slices],
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
