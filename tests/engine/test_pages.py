"""Pages are lent, shared and found again, and never given to two writers."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chatglm.engine.pages import PAGE_TOKENS, PageTable, root_key
from chatglm.errors import EngineError, InputError

ROOT = root_key("")


def store(table: PageTable, ids: list[int], key: bytes = ROOT) -> list[int]:
    """Have a text in the index, and no reader of it; returns its pages."""
    size = table.page_tokens
    pages = table.allocate(-(-len(ids) // size))
    for number, page in enumerate(pages):
        key = table.put(key, ids[number * size : (number + 1) * size], page)
    table.release(pages)
    return pages


def test_size_is_that_of_the_native_decoder() -> None:
    from chatglm.kernels import decoder

    assert PAGE_TOKENS == decoder.PAGE_TOKENS


def test_imports_no_torch() -> None:
    code = "import chatglm.engine.scheduler, sys; assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("arguments", [(0, 4), (4, 0)])
def test_sizes_are_checked(arguments: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="at least 1"):
        PageTable(*arguments)


def test_no_more_than_there_is() -> None:
    table = PageTable(3, 4)
    held = table.allocate(2)
    with pytest.raises(EngineError, match="2 pages asked for, 1 of 3"):
        table.allocate(2)
    assert (table.available, table.used, table.kept) == (1, 2, 0)
    table.release(held)
    with pytest.raises(EngineError, match="more often"):
        table.release(held[:1])


def test_full_pages_are_shared_and_the_next_is_copied() -> None:
    table = PageTable(8, 4)
    pages = store(table, [*range(10)])
    assert table.kept == 3
    found = table.match(ROOT, [*range(10), 90, 91], 4)
    assert (found.pages, found.source, found.common) == (pages[:2], pages[2], 2)
    found = table.match(ROOT, [0, 1, 2, 3, 4, 5, 90, 91], 4)  # differs inside the second
    assert (found.pages, found.source, found.common) == (pages[:1], pages[1], 2)
    found = table.match(ROOT, [*range(7)], 4)  # ends inside the second
    assert (found.pages, found.source, found.common) == (pages[:1], pages[1], 3)
    found = table.match(ROOT, [90, 91, 92, 93, 4, 5, 6, 7], 4)  # the same page after another text
    assert (found.pages, found.source) == ([], None)
    assert table.match(root_key("other"), [*range(10)], 4).source is None
    assert table.match(root_key("", [0]), [*range(10)], 4).source is None


def test_few_tokens_are_not_worth_a_copy() -> None:
    table = PageTable(2, 64)
    store(table, [*range(64)])
    assert table.match(ROOT, [*range(7), 90], 64).source is None
    assert table.match(ROOT, [*range(8), 90], 64).common == 8


def test_the_best_of_many_is_found() -> None:
    table = PageTable(8, 8)
    for text in ([1, 2, 3, 9], [1, 2, 4, 4, 4], [1, 2, 4, 4, 9], [1, 3], [0, 2, 4, 4]):
        store(table, text)
    for wanted, common in (([1, 2, 4, 4, 5, 6], 4), ([1, 2, 4, 4, 4, 4], 5), ([1, 2, 3], 3), ([1, 3, 3], 2), ([2], 0)):
        assert table.match(ROOT, wanted, 8).common == common


def test_the_longest_unused_goes_first_and_the_end_of_a_text_before_its_beginning() -> None:
    table = PageTable(4, 4)
    old = store(table, [*range(8)])
    new = store(table, [*range(50, 58)])
    assert table.match(ROOT, [*range(8)], 4).pages == old
    assert table.allocate(1) == old[1:]
    assert table.match(ROOT, [*range(8)], 4).pages == old[:1]
    table.share(old[:1])  # read by somebody: not to be had
    assert table.allocate(2) == new[::-1]
    with pytest.raises(EngineError, match="available"):
        table.allocate(1)


def test_what_was_copied_counts_as_used() -> None:
    table = PageTable(2, 4)
    [old], [new] = store(table, [1, 2, 3, 4]), store(table, [5, 6, 7, 8])
    assert table.match(ROOT, [1, 2, 9], 4).source == old
    assert table.allocate(1) == [new]


def test_what_says_no_more_than_another_is_not_kept() -> None:
    table = PageTable(4, 4)
    [short] = store(table, [0, 1])
    [longer] = store(table, [0, 1, 2])
    assert table.kept == 1
    assert table.match(ROOT, [0, 1, 2, 3], 4).source == longer
    store(table, [0, 1])
    store(table, [0, 1, 2])
    assert (table.kept, table.available) == (1, 4)
    assert short != longer
    table.check([])


def test_check_sees_what_is_wrong() -> None:
    table = PageTable(4, 4)
    pages = table.allocate(2)
    table.check([pages], pages)
    with pytest.raises(EngineError, match="0 readers, and 1"):
        table.check([pages[:1]])
    with pytest.raises(EngineError, match="2 readers, and 1"):
        table.check([pages, pages[1:]])
    table.put(ROOT, [1, 2, 3, 4], pages[0])
    with pytest.raises(EngineError, match="is written to"):
        table.check([pages], pages)
    table.share(pages[1:])
    with pytest.raises(EngineError, match="is written to"):
        table.check([pages, pages[1:]], pages[1:])
    table.check([pages, pages[1:]])


@dataclass
class Reader:
    ids: list[int]
    pages: list[int]
    key: bytes  # of what stands on the full ones


class Lending(RuleBasedStateMachine):
    """Texts come and go; memory is a list of what would be in each page."""

    @initialize(total=st.integers(1, 30), size=st.integers(1, 4))
    def begin(self, total: int, size: int) -> None:
        self.table = PageTable(total, size)
        self.memory: list[list[tuple[int, ...]]] = [[] for _ in range(total)]
        self.readers: list[Reader] = []
        self.forgot = False  # whether a text had to make room

    @rule(ids=st.lists(st.integers(0, 2), min_size=1, max_size=14))
    def read(self, ids: list[int]) -> None:
        size = self.table.page_tokens
        found = self.table.match(ROOT, ids, size)
        self.table.share(found.pages)
        missing = -(-len(ids) // size) - len(found.pages)
        if missing > self.table.available:
            self.table.release(found.pages)
            return
        copied = [] if found.source is None else self.memory[found.source][: found.common]
        kept = self.table.kept
        own = self.table.allocate(missing)
        self.forgot |= self.table.kept < kept
        assert not set(own) & {page for reader in self.readers for page in reader.pages}
        prefixes = [tuple(ids[: end + 1]) for end in range(len(ids))]
        held = [slot for page in found.pages for slot in self.memory[page]] + copied
        assert held == prefixes[: len(held)]
        key = found.keys[-1]
        for number, page in enumerate(own, start=len(found.pages)):
            text = ids[number * size : (number + 1) * size]
            self.memory[page] = prefixes[number * size : (number + 1) * size]
            if len(text) == size:
                key = self.table.put(key, text, page)
        self.readers.append(Reader(ids, found.pages + own, key))

    @precondition(lambda self: self.readers)
    @rule(data=st.data(), keep=st.booleans())
    def leave(self, data: st.DataObject, keep: bool) -> None:
        reader = self.readers.pop(data.draw(st.integers(0, len(self.readers) - 1)))
        size = self.table.page_tokens
        full, rest = divmod(len(reader.ids), size)
        if keep and rest:
            self.table.put(reader.key, reader.ids[-rest:], reader.pages[-1])
        self.table.release(reader.pages)
        found = self.table.match(ROOT, reader.ids, size)
        held = [slot for page in found.pages for slot in self.memory[page]]
        assert held == [tuple(reader.ids[: end + 1]) for end in range(len(held))]
        if not self.forgot:
            assert len(found.pages) == full
            assert not keep or found.common == rest

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def look_on(self, data: st.DataObject) -> None:
        reader = data.draw(st.sampled_from(self.readers))
        full = reader.pages[: len(reader.ids) // self.table.page_tokens]
        self.table.share(full)
        self.readers.append(Reader(reader.ids[: len(full) * self.table.page_tokens], full, reader.key))

    @invariant()
    def books(self) -> None:
        if hasattr(self, "table"):
            size = self.table.page_tokens
            own = [page for reader in self.readers for page in reader.pages[len(reader.ids) // size :]]
            self.table.check([reader.pages for reader in self.readers], own)


TestLending = Lending.TestCase
TestLending.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
