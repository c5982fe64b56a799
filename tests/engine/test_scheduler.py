"""Whatever happens, every task reads keys and values of its own text only, and every task finishes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from chatglm.engine.pages import PageTable
from chatglm.engine.scheduler import Plan, Scheduler, Span, Task
from chatglm.errors import EngineError, InputError, QueueFullError

STOP = 0
Seen = tuple[Any, ...]


def next_token(seed: int, ids: Sequence[int]) -> int:
    """What the "model" says: depends on the whole text."""
    return hash((seed, *ids)) % 5


def alone(seed: int, ids: Sequence[int], limit: int) -> list[int]:
    """The whole text of a task that has the machine to itself."""
    text = list(ids)
    while len(text) < limit and (len(text) == len(ids) or text[-1] != STOP):
        text.append(next_token(seed, text))
    return text


class Machine:
    """A scheduler, and memory that says of every token whose keys and values it has: those of a text up to there."""

    def __init__(self, scheduler: Scheduler, prefixes: dict[str, int] | None = None) -> None:
        self.scheduler, self.prefixes = scheduler, prefixes or {}
        size = scheduler.table.page_tokens
        self.memory: list[list[Seen]] = [[()] * size for _ in range(scheduler.table.total)]
        self.size, self.pinned = size, 0
        for salt, tokens in self.prefixes.items():
            pages = scheduler.add_prefix(salt, tokens)
            self.pinned += len(pages)
            for place in range(tokens):
                self.memory[pages[place // size]][place % size] = ("virtual", salt, place)

    def content(self, task: Task, ids: Sequence[int]) -> list[Seen]:
        virtual: list[Seen] = [("virtual", task.salt, place) for place in range(self.prefixes.get(task.salt, 0))]
        block = tuple(ids[: task.block])
        return virtual + [(task.salt, block, *ids[: end + 1]) for end in range(len(ids))]

    def run(self, plan: Plan) -> None:
        """The laws of a plan, and what a runner does with it."""
        for source, target in plan.copies:
            self.memory[target] = list(self.memory[source])
        written: dict[int, Task] = {}
        for span in plan.spans:
            task, virtual = span.task, self.prefixes.get(span.task.salt, 0)
            end = span.start + span.count
            assert (task.state, span.start, len(span.ids)) == ("running", task.computed, end)
            assert span.count - len(span.proposal) > 0
            assert span.wanted == (1 + len(span.proposal) if end - len(span.proposal) == len(task.ids) else 0)
            assert span.start >= task.block or end >= task.block  # a block at once
            content = self.content(task, span.ids)
            assert len(task.pages) * self.size >= len(content)
            for place in range(virtual + span.start, len(content)):
                page = task.pages[place // self.size]
                assert written.setdefault(page, task) is task
                self.memory[page][place % self.size] = content[place]
        for span in plan.spans:
            content = self.content(span.task, span.ids)
            held = [slot for page in span.task.pages for slot in self.memory[page]]
            assert held[: len(content)] == content

    def check_plan(self, plan: Plan) -> None:
        scheduler = self.scheduler
        tasks = [span.task for span in plan.spans]
        assert len(set(map(id, tasks))) == len(tasks) <= scheduler.max_running
        assert plan.spans or not (scheduler.running or scheduler.waiting)
        assert all(task in tasks for task in scheduler.running if task.remaining == 1)
        prompts = [span for span in plan.spans if span.count - len(span.proposal) > 1]
        if sum(span.count for span in plan.spans) > scheduler.budget:
            assert [span.start + span.count for span in prompts] == [prompts[0].task.block]
            assert not any(span.proposal for span in plan.spans)

    def step(self, after: Callable[[Span], None]) -> Plan:
        texts = {task: list(task.ids) for task in (*self.scheduler.running, *self.scheduler.waiting)}
        plan = self.scheduler.plan()
        assert texts == {task: task.ids for task in (*self.scheduler.running, *self.scheduler.waiting)}
        self.scheduler.check()
        self.check_plan(plan)
        self.run(plan)
        for span in plan.spans:
            after(span)
            self.scheduler.check()
        return plan

    def plain(self, span: Span) -> None:
        """One more token, 7, until the limit."""
        self.scheduler.advance(span, [7] if span.wanted else [])
        if len(span.task.ids) == span.task.limit:
            self.scheduler.finish(span.task)


def machine(pages: int = 32, size: int = 4, prefixes: dict[str, int] | None = None, **options: int) -> Machine:
    return Machine(Scheduler(PageTable(pages, size), **{"budget": 16, "max_running": 8, **options}), prefixes)


def submit(given: Machine, ids: Sequence[int], new: int = 4, **options: Any) -> Task:
    task = Task(list(ids), len(ids) + new, **options)
    given.scheduler.submit(task)
    return task


def shares(plan: Plan) -> list[tuple[Task, int, int]]:
    return [(span.task, span.start, span.count) for span in plan.spans]


def finish_all(given: Machine) -> list[Plan]:
    plans = []
    while given.scheduler.running or given.scheduler.waiting:
        plans.append(given.step(given.plain))
        assert len(plans) < 1000
    return plans


def test_prompt_in_pieces_then_token_by_token() -> None:
    m = machine()
    task = submit(m, range(20), new=3)
    plans = finish_all(m)
    assert [shares(plan) for plan in plans] == [[(task, *part)] for part in ((0, 16), (16, 4), (20, 1), (21, 1))]
    assert task.ids == [*range(20), 7, 7, 7]
    assert m.scheduler.table.used == 0


def test_a_second_turn_computes_what_is_new_and_nothing_else() -> None:
    m = machine(size=64, budget=512)
    first = submit(m, range(100), new=10)
    finish_all(m)
    assert first.reused == 0
    second = submit(m, [*first.ids, 50, 51, 52])
    [plan] = [m.step(m.plain)]
    assert shares(plan) == [(second, 109, 4)]  # the last token of the answer never went through the model
    assert (second.reused, m.scheduler.reused) == (109, 109)


@pytest.mark.parametrize("length", [7, 8, 9, 63, 64, 65, 128])
def test_the_last_token_is_always_computed(length: int) -> None:
    m = machine(size=64, budget=512)
    submit(m, range(length))
    finish_all(m)
    again = submit(m, range(length))
    start = length - 1 if length > 8 else 0  # so few are not worth a copy
    assert shares(m.step(m.plain)) == [(again, start, length - start)]


def test_a_long_prompt_holds_up_neither_answers_nor_short_prompts() -> None:
    m = machine(pages=100)
    answering = submit(m, [1], new=40)
    m.step(m.plain)
    long = submit(m, range(200), new=1)
    m.step(m.plain)
    short = submit(m, range(300, 310), new=1)
    assert shares(m.step(m.plain)) == [(answering, 2, 1), (long, 15, 8), (short, 0, 7)]
    assert shares(m.step(m.plain)) == [(answering, 3, 1), (long, 23, 12), (short, 7, 3)]
    assert short.state == "finished"


def test_the_oldest_prompt_gets_half_and_the_shortest_the_rest() -> None:
    m = machine(pages=64)
    first, long, short = submit(m, range(40)), submit(m, range(100, 130)), submit(m, range(200, 212))
    assert shares(m.step(m.plain)) == [(first, 0, 8), (short, 0, 8)]
    assert shares(m.step(m.plain)) == [(first, 8, 8), (short, 8, 4), (long, 0, 4)]
    assert shares(m.step(m.plain)) == [(short, 12, 1), (first, 16, 8), (long, 4, 7)]


def test_who_begins_as_another_does_that_is_being_read_waits_and_shares() -> None:
    m = machine(pages=64, size=4, budget=20)
    first, same, longer, other = (submit(m, ids) for ids in (range(30), range(30), range(50), range(100, 110)))
    assert shares(m.step(m.plain)) == [(first, 0, 10), (other, 0, 10)]  # which was behind them
    assert [task.state for task in (same, longer)] == ["waiting"] * 2
    m.step(m.plain)
    finish_all(m)
    assert (first.reused, same.reused) == (0, 28)  # its full pages
    assert longer.reused == 28
    assert m.scheduler.reused == 56


def test_nobody_waits_for_what_is_of_no_use() -> None:
    """Another salt, another block, less than a page in common."""
    m = machine(pages=64, size=4, budget=100)
    tasks = [submit(m, range(20)), submit(m, range(20), salt="s"), submit(m, range(20), block=8)]
    tasks.append(submit(m, [0, 1, 2, 99, *range(20)]))
    m.step(m.plain)
    assert [task.state for task in tasks] == ["running"] * 4
    finish_all(m)


def test_equal_blocks_are_read_once() -> None:
    m = machine(pages=64, size=4, budget=40)
    tasks = [submit(m, range(20), block=18) for _ in range(3)]
    assert shares(m.step(m.plain)) == [(tasks[0], 0, 20)]
    assert [count for _, _, count in shares(m.step(m.plain))] == [1, 1, 1]
    finish_all(m)


def test_few_long_prompts_hold_pages_at_a_time() -> None:
    m = machine(pages=64)
    tasks = [submit(m, range(start, start + 20)) for start in range(0, 600, 100)]
    m.step(m.plain)
    assert [task.state for task in tasks] == ["running"] * 4 + ["waiting"] * 2
    finish_all(m)


def test_who_is_admitted_leaves_a_page_to_each_that_runs() -> None:
    m = machine(pages=8)
    running = [submit(m, range(start, start + 3), new=5) for start in (0, 100)]
    m.step(m.plain)
    large = submit(m, range(200, 220))  # takes five, and six are there
    m.step(m.plain)
    assert large.state == "waiting"
    m.scheduler.finish(running[0])
    m.step(m.plain)
    assert large.state == "running"  # beside the other
    finish_all(m)
    assert m.scheduler.preemptions == 0


def test_preemption_takes_the_newest_and_loses_no_token() -> None:
    m = machine(pages=6)
    old, new = submit(m, range(8), new=12), submit(m, range(50, 58), new=12)
    finish_all(m)
    assert m.scheduler.preemptions > 0
    assert (old.reused, new.reused) == (0, 0)
    assert old.ids == [*range(8), *[7] * 12]
    assert new.ids == [*range(50, 58), *[7] * 12]


def test_the_oldest_is_never_preempted() -> None:
    m = machine(pages=6)
    old = submit(m, range(8), new=16)
    for start in range(100, 500, 100):
        submit(m, range(start, start + 8), new=12)
    for step in range(16):
        m.step(m.plain)
        assert len(old.ids) == 8 + step + 1 or old.remaining > 1
    assert old.state == "finished"
    finish_all(m)


def fork_after_prompt(m: Machine, task: Task) -> Task:
    """Another sample of the same prompt, which one step reads."""
    twins, prompt = [], len(task.ids)

    def sample(span: Span) -> None:
        m.scheduler.advance(span, [1])
        if span.task is task:
            twins.append(m.scheduler.fork(task, prompt, [2], "twin"))

    m.step(sample)
    return twins[0]


def test_fork_shares_full_pages_and_copies_the_last() -> None:
    m = machine()
    task = submit(m, range(10))
    twin = fork_after_prompt(m, task)
    assert (twin.ids, twin.owner, twin.state) == ([*range(10), 2], "twin", "running")
    assert twin.pages[:2] == task.pages[:2]
    source, target = task.pages[2], twin.pages[2]
    assert source != target
    plan = m.step(m.plain)
    assert plan.copies == [(source, target)]
    assert shares(plan) == [(task, 10, 1), (twin, 10, 1)]
    finish_all(m)
    assert (task.ids, twin.ids) == ([*range(10), 1, 7, 7, 7], [*range(10), 2, 7, 7, 7])


def test_fork_at_the_end_of_a_page_copies_nothing() -> None:
    m = machine()
    task = submit(m, range(8))
    twin = fork_after_prompt(m, task)
    plan = m.step(m.plain)
    assert plan.copies == []
    assert twin.pages[:2] == task.pages[:2]
    assert twin.pages[2] != task.pages[2]


def test_fork_without_room_waits_before_what_came_later() -> None:
    m = machine(pages=3)
    task = submit(m, range(10), new=2)
    later = submit(m, [50], new=1)
    twin = fork_after_prompt(m, task)
    assert list(m.scheduler.waiting) == [twin, later]
    finish_all(m)
    assert twin.ids == [*range(10), 2, 7]
    assert m.scheduler.reused == 10  # all that the first had computed when it finished


def test_fork_needs_a_running_task() -> None:
    m = machine()
    task = submit(m, [1])
    with pytest.raises(EngineError, match="waiting"):
        m.scheduler.fork(task, 0, [2])


def test_rejected_proposals_leave_no_trace() -> None:
    m = machine()
    task = submit(m, [1, 2, 3], new=20)
    m.step(m.plain)
    task.proposal = [7, 7, 9, 9]
    [span] = m.step(lambda span: m.scheduler.advance(span, [7, 7, 4])).spans
    assert (span.start, span.count, span.proposal, span.wanted) == (3, 5, (7, 7, 9, 9), 5)
    assert (task.ids, task.computed, task.proposal) == ([1, 2, 3, 7, 7, 7, 4], 6, [])
    pages = list(task.pages)
    m.step(m.plain)
    assert task.pages == pages  # kept, and written over


def test_proposals_take_what_is_left_of_the_budget_and_the_limit() -> None:
    m = machine()
    task, other = submit(m, [1], new=6), submit(m, [2], new=40)
    m.step(m.plain)
    task.proposal, other.proposal = [7] * 30, [7] * 30
    submit(m, range(50, 58))
    plan = m.step(m.plain)
    assert [len(span.proposal) for span in plan.spans] == [4, 2, 0]
    assert sum(span.count for span in plan.spans) == 16


def test_proposals_preempt_nobody() -> None:
    m = machine(pages=4)
    old, new = submit(m, [1, 2], new=13), submit(m, [3, 4], new=2)
    m.step(m.plain)
    old.proposal = [7] * 12
    plan = m.step(m.plain)
    assert [len(span.proposal) for span in plan.spans] == [1, 0]
    assert (m.scheduler.preemptions, new.state) == (0, "finished")


def test_learned_prefix_is_pinned_and_shared() -> None:
    m = machine(pages=10, size=64, budget=512, prefixes={"tuned": 100})
    one, two = submit(m, range(50), salt="tuned"), submit(m, range(60, 110), salt="tuned")
    plain = submit(m, range(50))
    plan = m.step(m.plain)
    assert len(plan.copies) == 2  # of its second page, which is not full
    assert one.pages[0] == two.pages[0] != plain.pages[0]
    assert len(one.pages) == 3
    finish_all(m)
    assert m.scheduler.table.used == 2
    again = submit(m, range(50), salt="tuned")
    assert shares(m.step(m.plain)) == [(again, 49, 1)]


def test_prefix_has_to_fit_and_comes_first() -> None:
    m = machine(pages=3)
    for tokens in (0, 9):
        with pytest.raises(InputError, match="3 are available"):
            m.scheduler.add_prefix("a", tokens)
    m.scheduler.add_prefix("a", 8)
    with pytest.raises(InputError, match="there is one already"):
        m.scheduler.add_prefix("a", 1)
    with pytest.raises(InputError, match="take 2 pages"):
        submit(m, [1, 2], new=3)
    submit(m, [1, 2], new=2, salt="a")
    with pytest.raises(InputError, match="tasks are running"):
        m.scheduler.add_prefix("b", 1)


def test_a_block_goes_at_once_and_is_shared_whole_or_not_at_all() -> None:
    m = machine(pages=64)
    causal = submit(m, range(100, 140), new=1)
    long = submit(m, range(30), new=1, block=30)
    assert shares(m.step(m.plain)) == [(causal, 0, 16)]
    m.step(m.plain)
    m.step(m.plain)
    assert shares(m.step(m.plain)) == [(long, 0, 30)]  # more than the budget, and so by itself
    equal, other = submit(m, range(30), block=30), submit(m, range(31), block=31)
    shorter, causal = submit(m, range(8), block=8), submit(m, range(8))
    plan = m.step(m.plain)
    assert (equal, 29, 1) in shares(plan)
    assert [task.reused for task in (equal, other, shorter, causal)] == [29, 0, 0, 0]
    finish_all(m)


def test_salts_share_nothing() -> None:
    m = machine()
    submit(m, range(12))
    finish_all(m)
    other = submit(m, range(12), salt="adapter")
    m.step(m.plain)
    assert other.reused == 0


def test_the_queue_is_finite() -> None:
    m = machine(max_waiting=2)
    tasks = [submit(m, [1]) for _ in range(2)]
    with pytest.raises(QueueFullError, match="2 requests are waiting"):
        submit(m, [1])
    m.scheduler.finish(tasks[0])
    submit(m, [1])


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(InputError, match="budget 8"):
        Scheduler(PageTable(4), budget=8, max_running=8)
    with pytest.raises(InputError, match="max_waiting 0"):
        Scheduler(PageTable(4), max_waiting=0)
    m = machine(pages=4)
    with pytest.raises(InputError, match="0 tokens"):
        submit(m, [])
    with pytest.raises(InputError, match="17 tokens take 5 pages of key/value memory, and there are 4"):
        submit(m, range(13))
    task = submit(m, range(12))
    with pytest.raises(EngineError, match="submitted task is waiting"):
        m.scheduler.submit(task)
    finish_all(m)
    assert len(task.ids) == 16


def test_advance_takes_only_what_can_be() -> None:
    m = machine()
    task = submit(m, range(20))
    [prompt] = m.scheduler.plan().spans
    with pytest.raises(EngineError, match="of 0 scores"):
        m.scheduler.advance(prompt, [7])
    m.scheduler.advance(prompt)
    with pytest.raises(EngineError, match="running at 16"):
        m.scheduler.advance(prompt)
    [rest] = m.scheduler.plan().spans
    m.scheduler.advance(rest, [7])
    task.proposal = [1, 2]
    [bet] = m.scheduler.plan().spans
    for tokens in ([1, 3, 3], [2, 2], [1, 2, 3, 4]):
        with pytest.raises(EngineError, match="proposed"):
            m.scheduler.advance(bet, tokens)
    m.scheduler.finish(task)
    m.scheduler.finish(task)
    with pytest.raises(EngineError, match="finished"):
        m.scheduler.advance(bet, [1])


def test_all_that_was_computed_is_found_even_without_a_token() -> None:
    m = machine()
    task = submit(m, range(10))
    m.step(lambda span: m.scheduler.advance(span))
    with pytest.raises(EngineError, match="has no next token"):
        m.scheduler.plan()
    twin = m.scheduler.fork(task, 10, [5])
    m.scheduler.finish(task)
    again = submit(m, [*range(10), 6, 7])
    assert shares(m.step(m.plain)) == [(twin, 10, 1), (again, 10, 2)]


def test_fork_from_before_what_was_accepted() -> None:
    m = machine()
    task = submit(m, range(10), new=20)
    m.step(m.plain)
    task.proposal = [7] * 7
    m.step(lambda span: m.scheduler.advance(span, [7] * 8))
    twin = m.scheduler.fork(task, 10, [1, 2, 3])
    assert (twin.ids, twin.computed) == ([*range(10), 1, 2, 3], 10)
    m.step(m.plain)
    for start in (10 + 10, 31):
        with pytest.raises(EngineError, match="fork of a task"):
            m.scheduler.fork(task, start, [1])
    for tokens in ([], [1] * 21):
        with pytest.raises(EngineError, match="fork of a task"):
            m.scheduler.fork(task, 10, tokens)


# Clients


def steps_until(m: Machine, task: Task, most: int) -> int:
    for step in range(1, most + 1):
        m.step(m.plain)
        if task.state == "finished":
            return step
    raise AssertionError(f"{task.state} after {most} steps")


def places(m: Machine) -> dict[str, int]:
    return dict(Counter(task.client for task in m.scheduler.running))


def test_a_client_with_nothing_running_gets_a_place_at_once() -> None:
    m = machine(pages=200, size=4, max_running=8, budget=40)
    many = [submit(m, [n, n + 1], new=60, client="a") for n in range(0, 60, 2)]
    for _ in range(10):
        m.step(m.plain)
    assert places(m) == {"a": 8}
    short = submit(m, [100, 101], new=4, client="b")
    assert steps_until(m, short, 5) == 4
    assert m.scheduler.preemptions == 1
    assert [task.state for task in many[:7]] == ["running"] * 7  # the newest gave way
    finish_all(m)
    assert all(task.ids[2:] == [7] * 60 for task in many)


def test_places_are_shared_out_equally() -> None:
    m = machine(pages=400, size=4, max_running=9, budget=60)
    first = [submit(m, [n], new=30, client="a") for n in range(30)]
    m.step(m.plain)
    assert places(m) == {"a": 9}
    second = [submit(m, [n], new=30, client="b") for n in range(50, 53)]
    m.step(m.plain)
    assert places(m) == {"a": 6, "b": 3}
    third = [submit(m, [n], new=30, client="c") for n in range(60, 90)]
    m.step(m.plain)
    assert places(m) == {"a": 3, "b": 3, "c": 3}
    finish_all(m)
    assert all(task.state == "finished" for task in (*first, *second, *third))
    assert m.scheduler.preemptions == 6  # and none of those who came back were sent away again


def test_forks_count_as_what_their_client_has() -> None:
    m = machine(pages=200, size=4, max_running=8, budget=40)
    streams = [submit(m, [n, n + 1], new=50, client="a") for n in (10, 20)]
    forked: list[Task] = []

    def sample(span: Span) -> None:
        m.plain(span)
        if span.task in streams and span.task.computed == 2:
            forked.extend(m.scheduler.fork(span.task, 2, [n]) for n in range(20))

    m.step(sample)
    assert places(m) == {"a": 8}
    assert len(forked) == 40
    short = submit(m, [100], new=4, client="b")
    assert steps_until(m, short, 5) == 4
    finish_all(m)
    assert {len(task.ids) for task in forked} == {52}


def test_forks_do_not_take_the_place_of_others_who_wait() -> None:
    m = machine(pages=200, size=4, max_running=3, budget=40)
    task = submit(m, [1, 2], new=20, client="a")
    m.step(m.plain)
    other = submit(m, [5], new=3, client="b")
    twins = [m.scheduler.fork(task, 2, [n]) for n in range(5)]
    assert [twin.state for twin in twins] == ["waiting"] * 5
    m.step(m.plain)
    assert other.state == "running"
    assert places(m) == {"a": 2, "b": 1}
    finish_all(m)


def test_a_client_that_finds_no_pages_gets_some_of_who_has_most() -> None:
    m = machine(pages=12, size=4, max_running=8, budget=40)
    large = [submit(m, range(start, start + 14), new=8, client="a") for start in (0, 100, 200)]
    m.step(m.plain)
    m.step(m.plain)
    assert places(m)["a"] >= 2
    small = submit(m, [300, 301], new=5, client="b")
    assert steps_until(m, small, 8) == 5
    finish_all(m)
    assert all(task.ids[14:] == [7] * 8 for task in large)


def test_the_only_task_of_a_client_is_not_preempted_for_another_client() -> None:
    m = machine(pages=12, size=4, max_running=8, budget=40)
    large = submit(m, range(30), new=14, client="a")
    m.step(m.plain)
    other = submit(m, range(100, 130), new=2, client="b")
    for _ in range(13):
        assert large.state == "running"
        m.step(m.plain)
    finish_all(m)
    assert (large.state, other.state) == ("finished", "finished")
    assert m.scheduler.preemptions == 0


def test_who_needs_many_pages_is_passed_by_other_clients_but_not_for_ever() -> None:
    m = machine(pages=12, size=4, max_running=8, budget=40, max_waiting=300)
    held = [submit(m, [n], new=40, client="a") for n in (0,)]
    m.step(m.plain)
    large = submit(m, range(100, 144), new=2, client="b")
    count = 0
    while large.state != "finished":
        if len(m.scheduler.waiting) < 3:
            submit(m, [count % 5 + 50], new=1, client=f"c{count}")
        m.step(m.plain)
        count += 1
        assert count < 400
    assert held[0].state == "finished"
    finish_all(m)


@pytest.mark.parametrize("pages", [8, 14])
@pytest.mark.parametrize("clients", [1, 2, 20])
def test_nobody_starves_while_others_go_on_asking(pages: int, clients: int) -> None:
    """A flood by several clients that never ends; whoever came before a certain step is done some time after it."""
    m = machine(pages=pages, size=4, max_running=6, budget=16, max_waiting=400)
    draw = random.Random(pages * clients)
    early: list[Task] = []
    for step in range(6000):
        if len(m.scheduler.waiting) < 2 * clients + 4:
            ids = [draw.randrange(50) for _ in range(draw.choice([1, 2, 3, 9, 4 * pages - 8]))]
            new = draw.choice([1, 2, 5, 4 * pages - len(ids)])
            task = submit(m, ids, max(1, min(new, 4 * pages - len(ids))), client=f"client {draw.randrange(clients)}")
            if step < 60:
                early.append(task)
        m.step(m.plain)
        if step > 60 and all(task.state == "finished" for task in early):
            break
    assert [task.state for task in early] == ["finished"] * len(early)
    assert len(early) > 5


def test_a_client_cannot_have_the_whole_queue_when_others_come() -> None:
    m = machine(max_waiting=8)
    for _ in range(8):
        submit(m, [1], client="a")
    with pytest.raises(QueueFullError):
        submit(m, [1], client="a")
    for _ in range(4):
        submit(m, [1], client="b")
    with pytest.raises(QueueFullError):
        submit(m, [1], client="b")
    for client in "cdefghi":
        try:
            submit(m, [1], client=client)
        except QueueFullError:
            break
    assert len(m.scheduler.waiting) <= 2 * 8  # whatever names a caller invents
    finish_all(m)


def test_answers_are_counted_and_what_never_fits_is_an_error_of_its_own() -> None:
    m = machine(max_waiting=8)
    submit(m, [1], answers=5)
    with pytest.raises(QueueFullError, match="5 requests are waiting"):
        submit(m, [1], answers=4)
    with pytest.raises(InputError, match=r"9 answers are asked for at once .*, and at most 8 may wait"):
        submit(m, [1], answers=9)
    submit(m, [1], answers=3)
    finish_all(m)


PROMPTS = st.lists(st.sampled_from([[1, 2, 3, 4, 1, 2, 3, 4], [1, 2], [3], [4, 4, 4, 4], [2, 1, 2]]), max_size=4).map(
    lambda parts: [token for part in parts for token in part] or [1]
)


class Serving(RuleBasedStateMachine):
    """Requests of all kinds in little memory. Each text has to be that which its task writes alone."""

    @initialize(
        pages=st.integers(4, 24),
        size=st.integers(1, 5),
        rows=st.integers(1, 6),
        more=st.integers(1, 12),
        prefix=st.integers(0, 7),
    )
    def begin(self, pages: int, size: int, rows: int, more: int, prefix: int) -> None:
        self.machine = machine(
            pages,
            size,
            {"tuned": prefix} if 0 < prefix <= (pages - 2) * size else None,
            budget=rows + more,
            max_running=rows,
            max_waiting=6,
        )
        self.scheduler = self.machine.scheduler
        self.tasks: dict[Task, list[int]] = {}  # under way, and what each has to become
        self.samples: dict[Task, int] = {}  # how many there shall be, of one whose prompt is not read yet
        self.done: list[list[int]] = []

    @rule(
        ids=PROMPTS,
        new=st.integers(1, 12),
        seed=st.integers(0, 3),
        samples=st.integers(1, 3),
        salt=st.sampled_from(["", "tuned", "other"]),
        two_way=st.booleans(),
        again=st.booleans(),
        client=st.sampled_from(["", "a", "b", "c"]),
    )
    def submit(
        self, ids: list[int], new: int, seed: int, samples: int, salt: str, two_way: bool, again: bool, client: str
    ) -> None:
        if again and self.done:  # a second turn
            ids = self.done[-1] + ids
        task = Task(ids[:], len(ids) + new, salt, len(ids) - 1 if two_way else 0, seed, client=client)
        try:
            self.scheduler.submit(task)
        except InputError:
            own = -(-(self.machine.prefixes.get(salt, 0) % self.machine.size + task.limit) // self.machine.size)
            assert own > self.scheduler.table.total - self.machine.pinned
        except QueueFullError:
            assert len(self.scheduler.waiting) >= 6  # forks and preempted tasks are not turned away
        else:
            self.tasks[task], self.samples[task] = alone(seed, ids, task.limit), samples
        self.scheduler.check()

    def after(self, span: Span) -> None:
        task = span.task
        if not span.wanted:
            self.scheduler.advance(span)
            return
        tokens: list[int] = []
        while len(tokens) < span.wanted and (not tokens or tokens == list(span.proposal[: len(tokens)])):
            tokens.append(next_token(task.owner, [*task.ids, *tokens]))
            if tokens[-1] == STOP:
                break
        prompt = list(task.ids)
        self.scheduler.advance(span, tokens)
        for number in range(1, self.samples.pop(task, 1)):
            seed = task.owner + 10 * number
            twin = self.scheduler.fork(task, len(prompt), [next_token(seed, prompt)], seed)
            self.tasks[twin] = alone(seed, prompt, twin.limit)
            self.stop(twin)
        self.stop(task)

    def stop(self, task: Task) -> None:
        if task.ids[-1] == STOP or len(task.ids) == task.limit:
            assert task.ids == self.tasks.pop(task)
            self.done.append(list(task.ids))
            self.scheduler.finish(task)

    @precondition(lambda self: self.tasks)
    @rule(steps=st.integers(1, 4), bets=st.lists(st.integers(0, 5), max_size=3))
    def step(self, steps: int, bets: list[int]) -> None:
        for _ in range(steps):
            for task, bet in zip(self.scheduler.running, bets, strict=False):
                rest = self.tasks[task][len(task.ids) :]
                task.proposal = [token if place < bet else 3 for place, token in enumerate(rest[:5])]
            self.machine.step(self.after)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(list(self.tasks)))
        del self.tasks[task]
        self.samples.pop(task, None)
        self.scheduler.finish(task)
        self.scheduler.check()

    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        most = 2 * sum(task.limit * self.samples.get(task, 1) for task in self.tasks) + 1
        while self.tasks:
            self.machine.step(self.after)
            most -= 1
            assert most, "somebody starves"
        assert not self.scheduler.running
        assert not self.scheduler.waiting
        assert self.scheduler.table.used == self.machine.pinned


TestServing = Serving.TestCase
TestServing.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
