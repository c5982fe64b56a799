"""What does a client of `chatglm serve` get on two CPU cores, beside llama.cpp's server and beside the bare decoder?

    python benchmarks/peers.py --folder PEERS --peers llama.cpp       # once
    python benchmarks/bench_serving.py --folder DIR --peer-folder PEERS [--parts throughput,overhead] [--rounds 5]

The model is bench_cpu.py's: a random int4 ChatGLM3-6B (kept in --folder, made if it is not there), and the same
matrices in Q4_0 for llama.cpp's `llama-server`. Both servers have as many threads, are asked at /v1/completions by
`chatglm.measure`, and are stopped (SIGSTOP) while something else is measured. As in bench_cpu.py a probe reads memory
between any two slices, slices that others disturbed are left out, and ratios are medians over pairs of the same turn in
the same mode of the host.

Parts:

- throughput: so many clients at once (--concurrency), each with a prompt of about 32 tokens of its own and an answer of
  --new-tokens: tokens/s of the answers, all clients together, from the first request to the end of the last. Greedy. A
  random model's text has nothing that prompt lookup could guess; how many tokens it guessed is shown.
- second-turn: a prompt of --history tokens and 16 tokens of answer; then both again and 32 tokens more. Time to the
  first token of the second, as a share of that of the first, which nobody has seen before. Ours alone.
- lookup: the demo model answers held-out questions of its corpus, with prompt lookup and without, by turns; the texts
  are compared. Ratio of the seconds for a whole answer (prompt read, then written), and from the first token on.
  Quoting: repeating three or four sentences, or a few words, and answering with a sentence of a passage. Elsewhere: all
  other skills.
- overhead: a step of the decoder alone, the same step through `Engine.step`, and as a client of the server sees it
  (from token to token, the client being on the same cores), with 1 and with 8 sequences: time beyond the decoder's.
  "guarded" is a server that asks for API keys, counts their limits and logs each request as JSON.

Prints tables for people and one JSON line, with every slice, for machines. Linux; a C compiler; two cores to itself.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

from bench_cpu import OURS, Bench, Slice, Spread, make_ours, tell
from common import machine
from engines import PATIENCE_S, Peer, Probe, Worker, WorkerError, touch

from chatglm.assistant import Assistant, Finish, RemoteAssistant
from chatglm.chat.messages import Message
from chatglm.engine.engine import Engine
from chatglm.loading import load_parts
from chatglm.measure import Clients, Level, Sample, Workload

HERE = Path(__file__).resolve().parent
LLAMA = "llama.cpp server"
PROMPT, LATER, FIRST_ANSWER = 32, 32, 16
QUOTING = ("quotes", "repeating", "passages")
PARTS = ("throughput", "second-turn", "lookup", "overhead")
KINDS = ("decoder", "engine", "server", "guarded")
KEY = "bench-key-with-limits-that-nobody-reaches"
LIMITS = {"requests_per_minute": 10**6, "tokens_per_minute": 10**9, "concurrency": 1000}


class Server:
    """A server in a process of its own, stopped except while it is asked; for `Bench` it is a worker.

    Args:
        command: with {port} where its port belongs.
        key: that it asks for.
    """

    def __init__(self, name: str, command: Sequence[str], threads: int, log: Path, key: str | None = None) -> None:
        self.name = name
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        environment = {**os.environ, "CHATGLM_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
        environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        with log.open("w") as output:
            self._process = subprocess.Popen(
                [word.format(port=self._port) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                preexec_fn=lambda: ctypes.CDLL(None).prctl(1, signal.SIGKILL),  # a stopped one would outlive us
            )
        self._log = log
        self._loads: dict[Workload, Clients] = {}
        self._assistant = RemoteAssistant(f"http://127.0.0.1:{self._port}/v1", key=key)
        self.levels: list[Level] = []
        try:
            self._wait()
        except BaseException:
            self.close()
            raise
        self._process.send_signal(signal.SIGSTOP)

    @contextmanager
    def awake(self) -> Iterator[None]:
        self._process.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGSTOP)

    def load(self, workload: Workload, concurrency: int, requests: int) -> Level:
        """Have clients at work.

        Raises:
            WorkerError: a request failed, or an answer is shorter than was asked for.
        """
        with self.awake():
            if workload not in self._loads:
                self._loads[workload] = Clients(self._assistant, workload)
            for _ in range(3):  # a random model may come upon a stop token, once in a long while
                level = self._loads[workload].run(concurrency, requests=requests)
                if level.failures:
                    raise WorkerError(f"{self.name}: {level.to_dict()['failure_words']}")
                if all(sample.new_tokens == workload.max_new_tokens for sample in level.good):
                    self.levels.append(level)
                    return level
        raise WorkerError(f"{self.name}: answers end early again and again")

    def ask(self, command: str) -> dict[str, Any]:
        """`load CONCURRENCY NEW_TOKENS`, or `step CONCURRENCY NEW_TOKENS`: seconds of all, or from token to token."""
        kind, *numbers = command.split()
        concurrency, tokens = map(int, numbers)
        level = self.load(_short(tokens), concurrency, concurrency)
        return {"seconds": level.seconds if kind == "load" else _step(level.good)}

    def cpu_ticks(self) -> int:
        """Its own, and those of the clients here."""
        ticks = 0
        for who in (self._process.pid, os.getpid()):
            fields = Path(f"/proc/{who}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks

    def guessed(self) -> int:
        """Tokens of prompt lookup that were right, as the server's metrics say."""
        with self.awake(), urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        name = "chatglm_engine_accepted_tokens_total"
        return int(sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)))

    def close(self) -> None:
        self._assistant.close()
        self._process.kill()
        self._process.wait()

    def _wait(self) -> None:
        end = time.monotonic() + PATIENCE_S
        while self._process.poll() is None and time.monotonic() < end:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/health", timeout=1):
                    return
            except OSError:
                time.sleep(0.1)
        last = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()][-1:]
        code = self._process.poll()
        what = f"no answer in {PATIENCE_S} s" if code is None else f"ended with {code}"
        raise WorkerError(f"{self.name}: {what}; {''.join(last)[-200:]}")


def _short(tokens: int) -> Workload:
    # Not held to their length: what servers do for it differs.
    return Workload(prompt_tokens=PROMPT, max_new_tokens=tokens, hold=False, chat=False)


def _step(samples: Sequence[Sample]) -> float:
    """Seconds from token to token, once all have their first and until one has its last."""
    begin = max(sample.arrivals[0] for sample in samples)
    end = min(sample.arrivals[-1] for sample in samples)
    means = []
    for sample in samples:
        within = [arrival for arrival in sample.arrivals if begin <= arrival <= end]
        if len(within) < 2:
            raise WorkerError(
                "answers did not overlap; ask for more --steps, or give --tokenizer: most of these tokens have no text"
            )
        # A token that ends within a character shows with the next one: there are as many steps as fit.
        usual = statistics.median(late - early for early, late in itertools.pairwise(within))
        span = within[-1] - within[0]
        means.append(span / round(span / usual))
    return statistics.mean(means)


def guarded_server(ours: Path, options: argparse.Namespace, logs: Path, stack: ExitStack) -> Server:
    """Ours with API keys, limits and a log, warmed up."""
    keys = logs / "keys.yaml"
    keys.write_text(json.dumps({"keys": [{"key": KEY, "name": "bench", **LIMITS}]}))
    guards = ("--keys", str(keys), "--home", str(logs / "home"), "--log-format", "json")
    server = Server("guarded", (*_command(ours), *guards), options.threads, logs / "guarded.log", KEY)
    stack.callback(server.close)
    server.load(_short(4), 1, 1)
    return server


def _command(ours: Path) -> tuple[str, ...]:
    return (sys.executable, "-m", "chatglm.cli", "serve", "--model", str(ours), "--port", "{port}")


def servers_of(ours: Path, options: argparse.Namespace, logs: Path, stack: ExitStack) -> list[Server]:
    """Those that can be had, ours first, warmed up."""
    commands: dict[str, tuple[str, ...]] = {OURS: _command(ours)}
    if "throughput" in options.parts:
        folder = options.peer_folder
        program = folder and folder / "venvs" / "llama.cpp" / "bin" / "llama-server"
        model = folder and folder / "models" / str(options.layers) / "q4_0.gguf"
        if folder is None:
            print(f"left out: {LLAMA}: no --peer-folder")
        elif missing := [str(path) for path in (program, model) if not path.exists()]:
            print(f"left out: {LLAMA}: {missing[0]} is not there (benchmarks/peers.py makes it)")
        else:
            commands[LLAMA] = _llama(program, model, options)
    servers = []
    for name, command in commands.items():
        touch(ours if name == OURS else model)
        try:
            server = Server(name, command, options.threads, logs / f"{name}.log")
        except WorkerError as error:
            if name == OURS:
                raise
            print(f"left out: {error}", flush=True)
            continue
        stack.callback(server.close)
        server.load(_short(4), 1, 1)
        servers.append(server)
    return servers


def _llama(program: Path, model: Path, options: argparse.Namespace) -> tuple[str, ...]:
    most = max(options.concurrency)
    room = most * (2 * PROMPT + options.new_tokens + 64)
    words: dict[str, object] = {
        "--model": model,
        "--host": "127.0.0.1",
        "--port": "{port}",
        "--threads": options.threads,
        "--threads-batch": options.threads,
        "--parallel": most,
        "--ctx-size": max(room, 4096),
        "--flash-attn": "on",
        "--cache-ram": 0,  # prompts never come again
    }
    return (str(program), *(str(part) for pair in words.items() for part in pair), "--kv-unified", "--no-webui")


# Parts


def throughput(bench: Bench, servers: Sequence[Server], options: argparse.Namespace) -> dict[str, Any]:
    before = servers[0].guessed()
    for number in range(options.rounds):
        order = [*servers[number % len(servers) :], *servers[: number % len(servers)]]
        for place, count in enumerate(options.concurrency):
            for server in order:
                command, tokens = f"load {count} {options.new_tokens}", count * options.new_tokens
                seconds = bench.try_to(server, command, f"{count} at once", (number, place), tokens)
                tell(f"  round {number + 1}: {server.name}: {count} at once: {tokens} tokens, {seconds:.2f} s")
    lines = [_compared(bench, f"{count} at once", server.name) for count in options.concurrency for server in servers]
    print(
        f"\n{'':12}{'server':20}{'slices':>7}{'tokens/s':>10}{'quartiles':>16}"
        f"{'ours ÷ it':>11}{'quartiles':>13}{'pairs':>6}"
    )
    for line in filter(None, lines):
        rate, ratio = line["rate"], line["ratio"]
        text = f"{line['metric']:12}{line['engine']:20}{rate.count:7}{rate.median:10.1f}"
        text += f"{f'{rate.low:.1f}–{rate.high:.1f}':>16}"
        if ratio:
            text += f"{ratio.median:10.2f}×{f'{ratio.low:.2f}–{ratio.high:.2f}':>13}{ratio.count:6}"
        print(text)
    guessed = servers[0].guessed() - before
    made = options.rounds * sum(options.concurrency) * options.new_tokens
    print(f"of ours, {guessed} of {made} tokens came from prompt lookup")
    prompts = {}
    for server in servers:
        sizes = [sample.usage.prompt_tokens for level in server.levels for sample in level.good if sample.usage]
        prompts[server.name] = [min(sizes), max(sizes)]
        print(f"{server.name}: prompts of {min(sizes)} to {max(sizes)} tokens")
    return {
        "guessed_tokens": guessed,
        "tokens": made,
        "prompts": prompts,
        "summary": [_plain(line) for line in lines if line],
    }


def _compared(bench: Bench, metric: str, name: str) -> dict[str, Any] | None:
    """Rates of a server, and ours by them: pairs of a turn in the same mode."""
    there = [s for s in bench.slices if s.metric == metric and s.mode != "disturbed"]
    mine = [s for s in there if s.engine == name]
    if not mine:
        return None
    ours: dict[tuple[int, ...], Slice] = {s.turn: s for s in there if s.engine == OURS}
    pairs = [ours[s.turn].rate / s.rate for s in mine if s.turn in ours and ours[s.turn].mode == s.mode]
    ratio = Spread.of(pairs) if name != OURS else None
    return {"metric": metric, "engine": name, "rate": Spread.of([s.rate for s in mine]), "ratio": ratio}


def spread(values: Sequence[float]) -> Spread:
    found = Spread.of(values)
    assert found is not None
    return found


def _plain(line: dict[str, Any]) -> dict[str, Any]:
    return {key: asdict(value) if isinstance(value, Spread) else value for key, value in line.items()}


def second_turn(server: Server, options: argparse.Namespace) -> dict[str, Any]:
    workload = Workload(
        prompt_tokens=options.history,
        max_new_tokens=FIRST_ANSWER,
        turns=2,
        turn_tokens=LATER,
        hold=False,
        chat=False,
    )
    dialogues = []
    for number in range(options.rounds):
        level = server.load(workload, 1, 2)
        dialogues.append(level.good)
        cold, warm = (sample.first for sample in level.good)
        tell(f"  round {number + 1}: first token after {cold:.2f} s, of the second turn after {warm:.3f} s")
    turns = [[dialogue[turn] for dialogue in dialogues] for turn in (0, 1)]
    found: dict[str, Any] = {
        name: {
            "prompt_tokens": statistics.median(sample.usage.prompt_tokens for sample in samples if sample.usage),
            "cached_tokens": statistics.median(sample.usage.cached_tokens for sample in samples if sample.usage),
            "first_token_s": asdict(spread([sample.first for sample in samples])),
        }
        for name, samples in zip(("cold", "second"), turns, strict=True)
    }
    shares = [second.first / cold.first for cold, second in dialogues]
    found["share"] = asdict(spread(shares))
    print(f"\n{'':14}{'prompt':>8}{'cached':>8}{'first token, s':>16}{'quartiles':>16}")
    for name in ("cold", "second"):
        row, times = found[name], found[name]["first_token_s"]
        around = f"{times['low']:.3f}–{times['high']:.3f}"
        print(f"{name:14}{row['prompt_tokens']:8.0f}{row['cached_tokens']:8.0f}{times['median']:16.3f}{around:>16}")
    print(f"second ÷ cold: {found['share']['median']:.4f}, that is 1/{1 / found['share']['median']:.0f}")
    return found


def lookup(options: argparse.Namespace) -> dict[str, Any]:
    sys.path.insert(0, str(HERE.parent / "recipes" / "demo"))
    from corpus import SKILLS, draw_sample, passages

    tasks: dict[str, list[tuple[list[Message], Any]]] = {"quotes": []}
    rng = Random("1 quotes held out")
    for number in range(options.tasks):
        chinese = number % 3 > 0
        quoted = passages.text(rng, "test", chinese, rng.randint(3, 4))
        tasks["quotes"].append(([Message("user", f"{'请重复：' if chinese else 'Repeat after me: '}{quoted}")], []))
    for name in SKILLS:
        rng, asked = Random(f"1 {name} held out"), tasks.setdefault(name, [])
        while len(asked) < options.tasks:
            sample = draw_sample(rng, "test", name)
            messages = [Message.from_dict(message, n) for n, message in enumerate(sample.messages)]
            places = [n for n, message in enumerate(messages) if message.role == "assistant"]
            asked += [(messages[:place], sample.tools) for place in places][: options.tasks - len(asked)]
    whole: dict[tuple[str, bool], list[float]] = defaultdict(list)  # seconds of each round
    after: dict[tuple[str, bool], list[float]] = defaultdict(list)
    tokens: dict[str, int] = {}
    with ExitStack() as stack:
        # The same weights for both: of two copies each would push the other out of the CPU's cache.
        model, _, form = load_parts(dtype="float32")
        both = {on: stack.enter_context(Assistant(form, Engine(model, speculate=on))) for on in (True, False)}
        before = {on: one.stats() for on, one in both.items()}
        for number in range(-1, options.rounds):  # the first one warms up, and lets lookup learn where it pays
            for name, asked in tasks.items():
                sums: dict[bool, list[tuple[float, float, int]]] = {True: [], False: []}
                for place, (messages, tools) in enumerate(asked):
                    texts = set()
                    for on in ((True, False), (False, True))[(number + place) % 2]:
                        times, text = _answer(both[on], messages, tools)
                        sums[on].append(times)
                        texts.add(text)
                    if len(texts) != 1:
                        raise SystemExit(f"lookup: {name}: not the same with and without: {texts}")
                if number < 0:
                    continue
                for on, of_all in sums.items():
                    whole[name, on].append(sum(each[0] for each in of_all))
                    after[name, on].append(sum(each[1] for each in of_all))
                tokens[name] = sum(each[2] for each in sums[True])
            tell(f"  round {number + 1} of lookup")
        stats = both[True].stats()
        proposed = stats.proposed_tokens - before[True].proposed_tokens
        accepted = stats.accepted_tokens - before[True].accepted_tokens
    groups = {name: [name] for name in tasks}
    groups |= {"QUOTING": list(QUOTING), "ELSEWHERE": [name for name in tasks if name not in QUOTING]}
    found: dict[str, Any] = {"proposed_tokens": proposed, "accepted_tokens": accepted}
    print(
        f"\n{'skill':12}{'answers':>9}{'tokens':>8}{'whole answer':>14}{'quartiles':>14}"
        f"{'after first':>13}{'quartiles':>14}"
    )
    for group, names in groups.items():
        line: dict[str, Any] = {
            "answers": options.tasks * len(names),
            "tokens": sum(tokens[name] for name in names),
        }
        for kind, seconds in (("whole", whole), ("after_first", after)):
            sums_on, sums_off = (
                [sum(parts) for parts in zip(*(seconds[name, on] for name in names), strict=True)]
                for on in (True, False)
            )
            line[kind] = spread([off / on for on, off in zip(sums_on, sums_off, strict=True)])
        text = f"{group:12}{line['answers']:9}{line['tokens']:8}"
        for kind, width in (("whole", 13), ("after_first", 12)):
            ratio = line[kind]
            text += f"{ratio.median:{width}.2f}×{f'{ratio.low:.2f}–{ratio.high:.2f}':>14}"
        print(text)
        found[group] = _plain(line)
    print(f"{accepted} of {proposed} guessed tokens were right")
    return found


def _answer(assistant: Assistant, messages: Sequence[Message], tools: Any) -> tuple[tuple[float, float, int], str]:
    """Seconds of all, seconds from the first piece on, tokens; and the answer."""
    begin = time.perf_counter()
    first, made, parts = 0.0, 0, []
    for delta in assistant.stream(messages, tools=tools, params={"temperature": 0, "max_new_tokens": 200}):
        first = first or time.perf_counter()
        if isinstance(delta, Finish):
            made = delta.usage.completion_tokens
        else:
            parts.append(getattr(delta, "text", "") or getattr(delta, "arguments", ""))
    end = time.perf_counter()
    return (end - begin, end - first, made), "".join(parts)


def overhead(bench: Bench, servers: dict[str, Server], worker: Worker, options: argparse.Namespace) -> dict[str, Any]:
    """
    Args:
        servers: by the kind of step that is measured of them.
    """
    steps, batches = options.steps, (1, 8)
    for number, (place, batch) in itertools.product(range(options.rounds), enumerate(batches)):
        worker.ask(f"start {batch} {PROMPT + steps // 2}")  # so that contexts are alike
        worker.ask("engine 1")
        for again in range(options.slices):
            orders = list(itertools.permutations(KINDS))
            for kind in orders[(number * options.slices + again) % len(orders)]:
                metric, turn = f"{kind} {batch}", (number, place, again)
                if kind in servers:
                    bench.measure(servers[kind], f"step {batch} {steps + 1}", metric, turn, batch)
                else:
                    bench.measure(worker, f"{kind} {steps}", metric, turn, batch * steps)
        tell(f"  round {number + 1}: overhead with {batch}")
    found = {}
    print(
        f"\n{'sequences':>9}{'':4}{'':10}{'slices':>7}{'step, ms':>10}{'quartiles':>16}"
        f"{'beyond the decoder':>20}{'quartiles':>16}{'pairs':>6}"
    )
    for batch in batches:
        there = [s for s in bench.slices if s.metric.split()[-1] == str(batch) and s.mode != "disturbed"]
        base = {s.turn: s for s in there if s.metric == f"decoder {batch}"}
        for kind in KINDS:
            mine = [s for s in there if s.metric == f"{kind} {batch}"]
            times = Spread.of([batch / s.rate * 1000 for s in mine])
            pairs = [base[s.turn].rate / s.rate - 1 for s in mine if s.turn in base and base[s.turn].mode == s.mode]
            beyond = Spread.of(pairs) if kind != "decoder" else None
            found[f"{kind} {batch}"] = _plain({"step_ms": times, "beyond": beyond})
            if times is None:
                continue
            text = (
                f"{batch:9}{'':4}{kind:10}{times.count:7}{times.median:10.2f}{f'{times.low:.2f}–{times.high:.2f}':>16}"
            )
            if beyond:
                text += f"{beyond.median:20.1%}{f'{beyond.low:.1%} to {beyond.high:.1%}':>16}{beyond.count:6}"
            print(text)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--folder", type=Path, help="where our checkpoint is kept (default: made anew and removed)")
    parser.add_argument("--source", type=Path, help="an fp16 folder to quantise instead of a random one")
    parser.add_argument(
        "--tokenizer",
        type=Path,
        help="ChatGLM3's tokenizer.model (default: the demo model's, with a text for few of these tokens)",
    )
    parser.add_argument("--peer-folder", type=Path, help="that benchmarks/peers.py filled")
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrency", default="1,4,8", help="throughput: clients at once (default: 1,4,8)")
    parser.add_argument("--new-tokens", type=int, default=48, help="throughput: of an answer (default: 48)")
    parser.add_argument("--history", type=int, default=2000, help="second-turn: tokens of the first prompt")
    parser.add_argument("--tasks", type=int, default=40, help="lookup: answers of each skill (default: 40)")
    parser.add_argument("--steps", type=int, default=16, help="overhead: steps of a slice (default: 16)")
    parser.add_argument("--slices", type=int, default=4, help="overhead: of each kind and round (default: 4)")
    parser.add_argument("--fast", type=float, default=70.0, help="GB/s from which the mode is fast (default: 70)")
    parser.add_argument("--slow", type=float, default=60.0, help="GB/s below which it is slow (default: 60)")
    options = parser.parse_args()
    options.parts = options.parts.split(",")
    options.concurrency = [int(count) for count in options.concurrency.split(",")]
    if unknown := set(options.parts) - set(PARTS):
        raise SystemExit(f"--parts: no {', '.join(unknown)}; there are {', '.join(PARTS)}")

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the servers end too
    about, found = machine(), {}
    print(f"{about}\nChatGLM3-6B's sizes, random int4, {options.layers} layers, {options.threads} threads", flush=True)
    slices: list[Slice] = []
    readings: list[list[float]] = []
    if "lookup" in options.parts:
        found["lookup"] = lookup(options)
    if set(options.parts) != {"lookup"}:
        with ExitStack() as stack:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chatglm-bench-")))
            program = work / "probe"
            flags = ["-O3", "-march=native", "-pthread"]
            subprocess.run(["cc", *flags, str(HERE / "probe.c"), "-o", str(program)], check=True)
            probe = Probe(program, options.threads)
            stack.callback(probe.close)
            bench = Bench(probe, options.fast, options.slow)
            ours = make_ours(options.folder or work, options.source, options.tokenizer, options.layers)
            servers = servers_of(ours, options, work, stack)
            if "throughput" in options.parts:
                found["throughput"] = throughput(bench, servers, options)
            if "second-turn" in options.parts:
                found["second-turn"] = second_turn(servers[0], options)
            if "overhead" in options.parts:
                peer = Peer("decoder and engine", sys.executable, "with_engine.py", str(ours))
                worker = Worker(peer, options.threads, work / "engine.log")
                stack.callback(worker.close)
                both = {"server": servers[0], "guarded": guarded_server(ours, options, work, stack)}
                found["overhead"] = {"about": worker.ask("about"), **overhead(bench, both, worker, options)}
            slices, readings = bench.slices, [[reading.best, reading.median] for reading in probe.readings]
        modes = {mode: sum(s.mode == mode for s in slices) for mode in ("fast", "slow", "mixed", "disturbed")}
        print(f"\nslices: {modes}")
    report = {
        "machine": about,
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "options": {key: value for key, value in vars(options).items() if not isinstance(value, Path)},
        "bandwidth": readings,
        "parts": found,
        "slices": [asdict(s) for s in slices],
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
