"""Decides which tokens of which sequences go through the model in the next step. It uses no tensors.

A task is a sequence that is being generated. It waits, then it runs with pages of its own. It may be preempted: then it
loses its pages, keeps its ids, and waits again at its old place. A step has a budget of tokens, and takes

1. the last token of every running task whose other tokens are computed, so that prompts do not delay answers;
2. prompts, in pieces: the oldest prompt gets half of the budget that is left, and those with the fewest missing tokens
   get the rest. So a long prompt makes progress, and short ones do not wait for it;
3. proposed tokens (speculation), if some budget is left. They never cause a preemption.

Tasks belong to clients. The next task to be admitted is the oldest one of the client with the fewest running tasks; a
client's own tasks begin in order of arrival. There are two exceptions. A task whose text begins like a prompt that is
being read waits until it can share those pages, and others may be admitted before it. And if a task needs more pages
than are free, a limited number of tasks of other clients may be admitted before it.

If all places are taken, or if there are no pages for a client without a running task, the newest tasks of the client
with the most tasks or pages are preempted.

Every task finishes: preemption takes the newest task of a client, and never the oldest of all tasks, so the oldest
running task always runs to its end. If the oldest of all tasks waits, its client has nothing running, so it is admitted
next.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Any, Literal

from chatglm.engine.pages import Match, PageTable, root_key
from chatglm.errors import EngineError, InputError, QueueFullError

__all__ = ["Plan", "Scheduler", "Span", "Task"]

_SIDE_BY_SIDE = 4
"""Number of prompts that are read at the same time. More are read only if all fit into one step, because each needs
all its pages."""
_ASIDE = 16
"""Most tasks that are skipped because they wait for pages of a prompt that is being read."""
_PASSES = 64
"""Most tasks of other clients that may be admitted before a task that needs more pages than are free."""


@dataclass(eq=False, slots=True)
class Task:
    """One sequence: a prompt, and the tokens generated so far.

    Args:
        ids: all tokens so far. `Scheduler.advance` appends tokens; nobody else changes them.
        limit: maximum length in tokens.
        salt: everything else that its keys and values depend on (adapter, learned prefix). Only tasks with the same
            salt share pages.
        block: number of first tokens that attend to one another in both directions. They go through the model together,
            and their pages are shared only with an equal block. 0: each token attends only to those before it.
        score: number of first tokens whose scores are wanted. Each of these is computed once, even if it is cached.
        client: the client that it belongs to; places and pages are shared fairly between clients. "": the client
            without a name.
        answers: number of answers: this task, and those that will fork from it.
        owner: any object of the caller.

    Attributes:
        scored: how many of the wanted scores were computed.
        proposal: tokens that may come next. The caller sets them before `plan`, which takes as many as fit.
        computed: number of first tokens whose keys and values are in `pages`.
        pages: its pages, in order; a learned prefix lies in front of the first token.
        reused: number of tokens of the prompt that came from the prefix cache.
        state: new, waiting, running or finished. A preempted task waits; its keys and values are computed again.
        rank: order of arrival; forks have the first number of their origin.
    """

    ids: list[int]
    limit: int
    salt: str = ""
    block: int = 0
    owner: Any = None
    score: int = 0
    client: str = ""
    answers: int = 1
    scored: int = field(default=0, init=False)
    proposal: list[int] = field(default_factory=list, init=False)
    computed: int = field(default=0, init=False)
    pages: list[int] = field(default_factory=list, init=False)
    reused: int = field(default=0, init=False)
    state: Literal["new", "waiting", "running", "finished"] = field(default="new", init=False)
    rank: tuple[int, int] = field(default=(0, 0), init=False)
    _keys: list[bytes] = field(default_factory=list, init=False)  # of the text before each full page, and after all
    _admitted: bool = field(default=False, init=False)  # whether it was ever admitted
    _turn: int = field(default=0, init=False)  # order of the last admission
    _passed: int = field(default=0, init=False)  # how many later tasks were admitted before it
    _refused: int = field(default=-1, init=False)  # pages that were available when it was last refused; -1: it was not

    @property
    def remaining(self) -> int:
        """Number of tokens that must be computed before the next one can be chosen."""
        return len(self.ids) - self.computed

    @property
    def scoring(self) -> bool:
        """Whether wanted scores are still missing."""
        return self.scored < self.score


@dataclass(frozen=True)
class Span:
    """Tokens of one task that go through the model.

    Attributes:
        start: position of the first of them.
        count: number of tokens, including the proposal.
        proposal: proposed tokens after the task's last one.
        wanted: number of last tokens whose scores are needed: 0 inside a prompt, else 1 + length of the proposal.
    """

    task: Task
    start: int
    count: int
    proposal: tuple[int, ...]
    wanted: int

    @property
    def ids(self) -> list[int]:
        """Ids of the task up to the last token of the span. It is the task's own list if that is all of them."""
        if self.start + self.count == len(self.task.ids):
            return self.task.ids
        return [*self.task.ids[: self.start + self.count - len(self.proposal)], *self.proposal]


@dataclass(frozen=True)
class Plan:
    """What to do in one step.

    Attributes:
        copies: (source, target) of pages to copy first, one after the other.
        spans: tokens that go through the model; at most one span of each task.
    """

    copies: list[tuple[int, int]]
    spans: list[Span]


class Scheduler:
    """Schedules tasks over a table of pages.

    Args:
        table: the pages; only the scheduler may allocate any.
        budget: most tokens of a step. Only a block may be longer: it goes through the model in one step.
        max_running: most tasks that run at once.
        max_waiting: most answers that wait for their beginning. If there are several clients, a client may always fill
            an equal share of the queue, even if others have filled all of it.

    Attributes:
        preemptions: how often a task lost its pages.
        reused: number of tokens that came from the prefix cache.

    Raises:
        InputError: a number is not positive, or `budget` is not greater than `max_running`.
    """

    def __init__(self, table: PageTable, *, budget: int = 512, max_running: int = 64, max_waiting: int = 256) -> None:
        if min(max_running, max_waiting) < 1:
            raise InputError(f"max_running {max_running}, max_waiting {max_waiting}: both have to be at least 1")
        if budget <= max_running:
            raise InputError(
                f"budget {budget}: it has to be greater than max_running ({max_running}), or no prompt is read"
            )
        self.table, self.budget, self.max_running, self.max_waiting = table, budget, max_running, max_waiting
        self.preemptions = self.reused = 0
        self._queues: dict[str, list[Task]] = {}  # waiting tasks of each client, by rank
        self._running: list[Task] = []  # by rank
        self._places: dict[str, int] = {}  # number of running tasks of each client
        self._numbers = count()
        self._turns = count()
        self._copies: list[tuple[int, int]] = []
        self._prefixes: dict[str, tuple[int, list[int]]] = {}

    @property
    def waiting(self) -> Sequence[Task]:
        """The waiting tasks, the oldest first."""
        return sorted(chain.from_iterable(self._queues.values()), key=_rank)

    @property
    def waiting_count(self) -> int:
        return sum(map(len, list(self._queues.values())))

    @property
    def idle(self) -> bool:
        return not (self._running or self._queues)

    @property
    def running(self) -> Sequence[Task]:
        """The running tasks, the oldest first."""
        return self._running

    def add_prefix(self, salt: str, tokens: int) -> list[int]:
        """Pin pages for a learned prefix (P-tuning v2), in front of every task with this salt.

        Args:
            tokens: number of virtual tokens.

        Returns:
            the pages of the prefix. The caller must write them before the next step.

        Raises:
            InputError: the salt has a prefix already, there are tasks, or the memory is too small.
        """
        if salt in self._prefixes or not self.idle:
            raise InputError(
                f"prefix of {salt!r}: there is one already, or tasks are running; add the prefix before the first task"
            )
        pages = -(-tokens // self.table.page_tokens)
        if tokens < 1 or pages >= self.table.available:
            raise InputError(
                f"prefix of {tokens} tokens needs {pages} pages; {self.table.available} are available, and one of them "
                "must stay free"
            )
        self._prefixes[salt] = (tokens, self.table.allocate(pages))
        return list(self._prefixes[salt][1])

    def submit(self, task: Task) -> None:
        """Queue a new task.

        Raises:
            InputError: it has no tokens or more than its limit, its limit is too long for the memory, or it has more
                answers than may wait.
            QueueFullError: too many answers wait.
            EngineError: the task is not new.
        """
        if task.state != "new":
            raise EngineError(f"the submitted task is {task.state}; only a new one can be submitted")
        if not 0 < len(task.ids) <= task.limit or not 0 <= task.block <= len(task.ids):
            raise InputError(f"{len(task.ids)} tokens, {task.block} of them a block, with a limit of {task.limit}")
        own = self._pages_for(task, task.limit) - self._prefix(task)[0] // self.table.page_tokens
        pinned = sum(len(pages) for _, pages in self._prefixes.values())
        if own > self.table.total - pinned:
            raise InputError(
                f"{task.limit} tokens take {own} pages of key/value memory, and there are {self.table.total - pinned}; "
                "shorten the prompt, ask for fewer new tokens, or give the engine more memory"
            )
        self.check_size(task.answers)
        self._check_queue(task)
        task.rank = (next(self._numbers), 0)
        self._wait(task)

    def check_size(self, answers: int) -> None:
        """Check a number of answers.

        Raises:
            InputError: so many answers never fit into the queue at once.
        """
        if answers > self.max_waiting:
            raise InputError(
                f"{answers} answers are asked for at once (prompts times n), and at most {self.max_waiting} may wait; "
                "ask for fewer at a time"
            )

    def _check_queue(self, task: Task) -> None:
        total = own = 0
        for client, queue in self._queues.items():
            count = sum(each.answers for each in queue if not each._admitted)
            total, own = total + count, own + (count if client == task.client else 0)
        share = self.max_waiting // len({*self._queues, *self._places, task.client})
        # Never more than twice the limit: otherwise one caller with many names could queue any number.
        room = total + task.answers <= self.max_waiting
        if not room and not (own + task.answers <= share and total + task.answers <= 2 * self.max_waiting):
            raise QueueFullError(f"{total} requests are waiting, which is the limit; try again later")

    def fork(self, task: Task, start: int, tokens: Sequence[int], owner: Any = None) -> Task:
        """Make a task from the first `start` tokens of a running one, which are computed, and other tokens after them.

        It shares the full pages, and gets a copy of the last one. If it cannot run at once, it waits with the rank of
        the running task, and finds the full pages in the index later.

        Raises:
            EngineError: the task is not running, has computed fewer tokens, or there are no or too many new tokens.
        """
        twin = Task([*task.ids[:start], *tokens], task.limit, task.salt, task.block, owner, client=task.client)
        possible = task.state == "running" and task.block <= start <= task.computed
        if not possible or not start < len(twin.ids) <= twin.limit:
            raise EngineError(f"fork of a task that is {task.state} at {task.computed}: {start} + {len(tokens)} tokens")
        twin.rank, twin._admitted = (task.rank[0], next(self._numbers)), True
        full, rest = divmod(self._prefix(task)[0] + start, self.table.page_tokens)
        missing = self._pages_for(twin, len(twin.ids)) - full
        if len(self._running) >= self.max_running or self.table.available < missing or self._owes(task.client):
            self._wait(twin)
            return twin
        self.table.share(task.pages[:full])
        twin.pages = task.pages[:full] + self.table.allocate(missing)
        if rest:
            self._copies.append((task.pages[full], twin.pages[full]))
        twin.computed, twin._keys = start, task._keys[: full + 1]
        self._run(twin)
        return twin

    def plan(self) -> Plan:
        """Plan the next step, and get the pages for it. The plan is empty only if there is no task.

        Afterwards, call `advance` for every span, unless its task is finished first.

        Raises:
            EngineError: all tokens of a running task are computed, and it has no new token.
        """
        if any(not task.remaining for task in self._running):
            raise EngineError("a running task has no next token; advance it with one, or finish it")
        decodes = []
        for task in list(self._running):  # the oldest first; tasks preempted for it come later
            if task.state == "running" and task.remaining == 1 and self._grow(task):
                decodes.append(task)
        prompts = sorted((task for task in self._running if task.remaining > 1), key=_turn)
        if self._queues:
            self._admit_next(prompts, decodes)
            # Some tasks were preempted for others, and some of these were admitted again.
            both = [task for task in dict.fromkeys((*decodes, *prompts)) if task.state == "running"]
            decodes = [task for task in both if task.remaining == 1]
            prompts = sorted((task for task in both if task.remaining > 1), key=_turn)
        left = self.budget - len(decodes)
        shares = self._divide(prompts, left)
        left -= sum(shares.values())
        spans = []
        for task in decodes:
            proposal = self._bet(task, left)
            left -= len(proposal)
            spans.append(Span(task, task.computed, 1 + len(proposal), proposal, 1 + len(proposal)))
        for task, share in shares.items():
            spans.append(Span(task, task.computed, share, (), int(share == task.remaining)))
        copies, self._copies = self._copies, []
        return Plan(copies, spans)

    def _admit_next(self, prompts: list[Task], decodes: list[Task]) -> None:
        """Admit as many tasks as there is room for, and add each to `prompts` or `decodes`."""
        aside: list[Task] = []  # tasks that wait for pages of a prompt that is being read
        stuck: dict[str, Task] = {}  # clients whose next task finds no room
        while len(aside) < _ASIDE and (task := self._next(aside, stuck)) is not None:
            own = self._places.get(task.client, 0)
            left = self.budget - len(decodes)
            if own and len(prompts) >= _SIDE_BY_SIDE and sum(each.remaining for each in prompts) >= left:
                return
            if any(self._reads_for(other, task) for other in prompts if other.state == "running"):
                aside.append(task)
                continue
            full = len(self._running) >= self.max_running
            if full and max(self._places.values()) <= own + 1:
                return  # the clients of all further tasks have as many running, or more
            if not (not full and self._admit(task)) and not (self._make_room(task) and self._admit(task)):
                stuck[task.client] = task
                if task._passed >= _PASSES:
                    return
                continue
            for other in stuck.values():
                other._passed += 1
            if task.remaining > 1:
                prompts.append(task)
            else:
                decodes.append(task)

    def _next(self, aside: Sequence[Task], stuck: Mapping[str, Task]) -> Task | None:
        """The next task to admit: the oldest one of the client with the fewest running tasks."""
        best: tuple[int, tuple[int, int]] | None = None
        found = None
        for client, queue in self._queues.items():
            if client in stuck:
                continue
            task = next((task for task in queue if task not in aside), None) if aside else queue[0]
            if task is None:
                continue
            order = self._places.get(client, 0), task.rank
            if best is None or order < best:
                best, found = order, task
        return found

    def _owes(self, client: str) -> bool:
        """Whether a client with fewer running tasks has waiting ones."""
        own = self._places.get(client, 0)
        return any(self._places.get(other, 0) < own for other in self._queues if other != client)

    def _make_room(self, task: Task) -> bool:
        """Preempt the newest tasks of clients that have more than this task's client. Returns False, and preempts none,
        if that is not fair or not enough.
        """
        own = self._places.get(task.client, 0)
        chosen: list[Task] = []

        def newest_of(client: str) -> Task:
            return next(each for each in reversed(self._running) if each.client == client and each not in chosen)

        if len(self._running) >= self.max_running:
            most = max(self._places, key=self._places.__getitem__)
            if self._places[most] <= own + 1:
                return False
            chosen.append(newest_of(most))
        elif own or len(self._places) < 1:
            return False
        _, shared, missing = self._match(task)
        while True:
            # Pages that the task itself will share do not become free.
            freed = self.table.freed_by([[page for page in each.pages if page not in shared] for each in chosen])
            if missing <= self.table.available + freed - (len(self._running) - len(chosen)):
                break
            if own:
                return False
            held: dict[str, list[Task]] = {}
            for each in self._running:
                if each not in chosen:
                    held.setdefault(each.client, []).append(each)
            # A client keeps at least one task, and is chosen only if it has more pages than the task needs.
            sizes = {client: sum(len(each.pages) for each in tasks) for client, tasks in held.items() if len(tasks) > 1}
            largest = max(sizes, key=sizes.__getitem__, default=None)
            if largest is None or sizes[largest] <= missing:
                return False
            chosen.append(held[largest][-1])
        for each in chosen:
            self._preempt(each)
        return True

    def advance(self, span: Span, tokens: Sequence[int] = ()) -> None:
        """Record that a span was computed.

        Args:
            tokens: the tokens chosen from its scores: the accepted part of its proposal and one more; fewer if the text
                ends before. Empty inside a prompt, and if the task is finished before the next plan.

        Raises:
            EngineError: the span is not the next one of the task, or the tokens do not fit the span.
        """
        task = span.task
        if task.state != "running" or span.start != task.computed:
            raise EngineError(f"a span from {span.start} on, of a task that is {task.state} at {task.computed}")
        if len(tokens) > span.wanted or tuple(tokens[:-1]) != span.proposal[: max(len(tokens) - 1, 0)]:
            raise EngineError(f"{list(tokens)} of {span.wanted} scores, with {span.proposal} proposed")
        if len(task.ids) + len(tokens) > task.limit:
            raise EngineError(f"{len(tokens)} more tokens for a task of {len(task.ids)}, with a limit of {task.limit}")
        # The keys and values of rejected tokens stay, and are overwritten later.
        task.ids += tokens
        task.computed = len(task.ids) - 1 if tokens else span.start + span.count - len(span.proposal)
        if task.score:
            task.scored = min(max(task.scored, task.computed), task.score)
        task.proposal = []
        self._index(task)

    def finish(self, task: Task) -> None:
        """End a task, complete or not; its pages stay in the prefix cache. A second call does nothing.

        Call `advance` first, also with a stop token. Otherwise the tokens of the last step are missing in the cache.
        """
        if task.state == "running":
            self._leave(task)
        elif task.state == "waiting":
            self._take_out(task)
        task.state = "finished"

    def check(self) -> None:
        """Check the internal state.

        Raises:
            EngineError: the state is inconsistent.
        """
        size = self.table.page_tokens
        writable = []
        for task in self._running:
            virtual = self._prefix(task)[0]
            if not 0 <= task.computed <= len(task.ids) <= task.limit:
                raise EngineError(f"{task.computed} tokens computed of {len(task.ids)}, with a limit of {task.limit}")
            full = (virtual + task.computed) // size
            if len(task._keys) != full + 1:
                raise EngineError(f"{len(task._keys)} keys of {full} full pages")
            if len(task.pages) < self._pages_for(task, task.computed) or len(set(task.pages)) < len(task.pages):
                raise EngineError(f"pages {task.pages} for {virtual} + {task.computed} tokens")
            writable += task.pages[full:]
        for client, queue in self._queues.items():
            for task in queue:
                if task.pages or task.computed:
                    raise EngineError(f"a waiting task holds {task.pages} and {task.computed} tokens")
                if task.client != client:
                    raise EngineError(f"a task of {task.client!r} waits as one of {client!r}")
            if not queue:
                raise EngineError(f"an empty queue of {client!r} is kept")
        if self._places != Counter(task.client for task in self._running):
            raise EngineError(f"places of clients: {self._places}")
        for tasks, state in (*((queue, "waiting") for queue in self._queues.values()), (self._running, "running")):
            if any(task.state != state for task in tasks) or tasks != sorted(tasks, key=_rank):
                raise EngineError(f"tasks that are {state}: {[(task.state, task.rank) for task in tasks]}")
        if len(self._running) > self.max_running:
            raise EngineError(f"{len(self._running)} tasks run, of {self.max_running} that may")
        pinned = [pages for _, pages in self._prefixes.values()]
        self.table.check([*pinned, *(task.pages for task in self._running)], writable)

    def _prefix(self, task: Task) -> tuple[int, list[int]]:
        return self._prefixes.get(task.salt, (0, []))

    def _pages_for(self, task: Task, tokens: int) -> int:
        return -(-(self._prefix(task)[0] + tokens) // self.table.page_tokens)

    def _wait(self, task: Task) -> None:
        task.state = "waiting"
        insort(self._queues.setdefault(task.client, []), task, key=_rank)

    def _take_out(self, task: Task) -> None:
        queue = self._queues[task.client]
        queue.remove(task)
        if not queue:
            del self._queues[task.client]

    def _run(self, task: Task) -> None:
        task.state, task._turn = "running", next(self._turns)
        task._passed, task._refused = 0, -1
        insort(self._running, task, key=_rank)
        self._places[task.client] = self._places.get(task.client, 0) + 1

    def _leave(self, task: Task) -> None:
        self._running.remove(task)
        self._release(task)
        self._places[task.client] -= 1
        if not self._places[task.client]:
            del self._places[task.client]

    def _preempt(self, task: Task) -> None:
        self._leave(task)
        self._wait(task)
        self.preemptions += 1

    def _match(self, task: Task) -> tuple[Match, list[int], int]:
        """Look up a waiting task's text in the index.

        Returns:
            the match, the pages that the task can share, and the number of available pages that it needs.
        """
        virtual, pinned = self._prefix(task)
        full, rest = divmod(virtual, self.table.page_tokens)
        # The scores of the last token are needed, so this token is computed even if the index has it.
        known = task.ids[: task.scored] if task.scoring else task.ids[:-1]
        found = self.table.match(root_key(task.salt, task.ids[: task.block]), known, self.table.page_tokens - rest)
        shared = pinned[:full] + found.pages
        missing = self._pages_for(task, len(task.ids)) - len(shared)
        # Shared pages that nobody uses now count as available; they will not be once they are shared.
        return found, shared, missing + self.table.kept_of(shared)

    def _admit(self, task: Task) -> bool:
        """Give a waiting task pages for all its tokens, shared ones if possible, and let it run. Returns False, and
        changes nothing, if there are too few pages.
        """
        table = self.table
        # One page is left for each running task. Otherwise the new task would soon be preempted again.
        room = table.available - len(self._running)
        # A refused task is refused again, without a new look-up, until more pages are available.
        if self._running and room <= task._refused:
            return False
        virtual, pinned = self._prefix(task)
        full, rest = divmod(virtual, table.page_tokens)
        found, shared, needed = self._match(task)
        if needed > room:
            task._refused = room
            return False
        table.share(shared)
        missing = self._pages_for(task, len(task.ids)) - len(shared)
        own = table.allocate(missing)
        source = pinned[full] if found.source is None and rest and not found.pages else found.source
        # The source was not in use, so `allocate` may have returned it as the target.
        if source is not None and source != own[0]:
            self._copies.append((source, own[0]))
        task.pages, task._keys = shared + own, [b""] * full + found.keys
        task.computed = max(len(shared) * table.page_tokens - virtual, 0) + found.common
        self.reused += task.computed
        if not task._admitted:
            task.reused, task._admitted = task.computed, True
        self._take_out(task)
        self._run(task)
        return True

    def _reads_for(self, other: Task, task: Task) -> bool:
        """Whether a waiting task can share the next page that a running task completes."""
        virtual, size = self._prefix(other)[0], self.table.page_tokens
        end = ((virtual + other.computed) // size + 1) * size - virtual
        return (
            not task.scoring
            and end <= len(other.ids)
            and end < len(task.ids)
            and (other.salt, other.block) == (task.salt, task.block)
            and other.ids[: max(end, task.block)] == task.ids[: max(end, task.block)]
        )

    def _grow(self, task: Task) -> bool:
        """Get pages for all tokens of a running task. Returns False if the task itself was preempted."""
        missing = self._pages_for(task, len(task.ids)) - len(task.pages)
        while missing > self.table.available:
            last = self._running[-1]
            if len(self._places) > 1:  # the newest task of the client with the most pages, but not the oldest of all
                held: dict[str, int] = {}
                for each in self._running:
                    held[each.client] = held.get(each.client, 0) + len(each.pages)
                last = max(self._running[1:] or self._running, key=lambda each: (held[each.client], each.rank))
            self._preempt(last)
            if last is task:
                return False
        task.pages += self.table.allocate(max(missing, 0))
        return True

    def _divide(self, prompts: Sequence[Task], left: int) -> dict[Task, int]:
        """How many tokens of each prompt to compute in this step; `prompts` are in order of admission."""
        shares: dict[Task, int] = {}
        if not prompts:
            return shares
        oldest, *others = prompts
        half = -(-left // 2) if others else left
        # A block is computed in one step. If it is longer than the budget, it waits until it is the oldest prompt.
        shares[oldest] = max(min(oldest.remaining, half), oldest.block - oldest.computed)
        left -= shares[oldest]
        for task in sorted(others, key=lambda task: task.remaining):
            share = min(task.remaining, left)
            if share > 0 and share >= task.block - task.computed:
                shares[task] = share
                left -= share
        shares[oldest] += max(min(oldest.remaining - shares[oldest], left), 0)
        return shares

    def _bet(self, task: Task, left: int) -> tuple[int, ...]:
        """The part of a task's proposal that fits into the step and into memory."""
        most = max(min(len(task.proposal), left, task.limit - len(task.ids) - 1), 0)
        missing = self._pages_for(task, len(task.ids) + most) - len(task.pages)
        if missing > 0 and missing + len(self._running) > self.table.available:
            most = len(task.pages) * self.table.page_tokens - self._prefix(task)[0] - len(task.ids)
        elif missing > 0:
            task.pages += self.table.allocate(missing)
        return tuple(task.proposal[:most])

    def _text(self, task: Task, page: int) -> list[int]:
        """The computed tokens on one of a task's pages."""
        size, virtual = self.table.page_tokens, self._prefix(task)[0]
        return task.ids[max(page * size - virtual, 0) : min((page + 1) * size - virtual, task.computed)]

    def _index(self, task: Task) -> None:
        """Put pages that are full now into the index, so that others can share them."""
        full = (self._prefix(task)[0] + task.computed) // self.table.page_tokens
        for page in range(len(task._keys) - 1, full):
            task._keys.append(self.table.put(task._keys[-1], self._text(task, page), task.pages[page]))

    def _release(self, task: Task) -> None:
        """Release a task's pages; what was computed stays in the index."""
        last = len(task._keys) - 1
        if rest := self._text(task, last):
            self.table.put(task._keys[-1], rest, task.pages[last])
        self.table.release(task.pages)
        task.pages, task.computed, task._keys, task.proposal = [], 0, [], []


def _rank(task: Task) -> tuple[int, int]:
    return task.rank


def _turn(task: Task) -> int:
    return task._turn
