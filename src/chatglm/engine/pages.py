"""Pages of key/value memory: which sequences read them, which are free, and which are kept for the prefix cache.

A page has room for `page_tokens` tokens, for all layers together. This module uses no tensors: it handles numbers of
pages, and the runner has the memory. Every page is in one of three states:

    used    one or more sequences use it (if several share it, none may write to it)
    kept    no sequence uses it, but its text is in the index; the least recently used one is allocated again if no
            page is free
    free    no sequence uses it, and it is not in the index

A key or value depends on every token before it, so a page is found by all tokens up to its end. The index is a tree. A
node stands for a text; its key is a chained hash of all tokens of this text, and it has the pages that continue the
text, sorted by their tokens. Full pages are shared. If only the beginning of a page agrees, or the page is not full, a
copy of it is used and extended.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain, pairwise

from chatglm.errors import EngineError, InputError

__all__ = ["PAGE_TOKENS", "Match", "PageTable", "root_key"]

PAGE_TOKENS = 64
"""Tokens of a page; the native decoder has the same number (`kernels.decoder.PAGE_TOKENS`, whose import needs torch).
"""


@dataclass(frozen=True)
class Match:
    """The pages that the index has for the beginning of a text.

    Attributes:
        pages: full pages, from the first token.
        keys: the keys of the texts before each of these pages; the last one is the key of the text up to their end.
        source: a page that has the next `common` tokens, and then differs or ends; None: there is none.
        common: number of tokens that agree with `source`.
    """

    pages: list[int]
    keys: list[bytes]
    source: int | None = None
    common: int = 0


class PageTable:
    """The state of `total` pages.

    Args:
        total: number of pages in the memory.
        page_tokens: number of tokens of a page.

    Raises:
        InputError: one of the numbers is not positive.
    """

    def __init__(self, total: int, page_tokens: int = PAGE_TOKENS) -> None:
        if total < 1 or page_tokens < 1:
            raise InputError(f"key/value memory: {total} pages of {page_tokens} tokens; both have to be at least 1")
        self.total, self.page_tokens = total, page_tokens
        self._references = [0] * total
        self._free = list(range(total - 1, -1, -1))
        self._kept: OrderedDict[int, None] = OrderedDict()  # the least recently used one first
        self._entries: dict[int, tuple[bytes, tuple[int, ...]]] = {}  # page: key of the text before, tokens
        self._index: dict[bytes, list[tuple[tuple[int, ...], int]]] = {}  # key: following pages, sorted

    @property
    def available(self) -> int:
        """Number of pages that `allocate` can return."""
        return len(self._free) + len(self._kept)

    @property
    def used(self) -> int:
        """Number of pages that a sequence uses."""
        return self.total - self.available

    @property
    def kept(self) -> int:
        """Number of pages that no sequence uses, but that are kept for their text."""
        return len(self._kept)

    def allocate(self, count: int) -> list[int]:
        """Allocate pages for one sequence, which may write to them. Kept pages are used if no free ones are left.

        Raises:
            EngineError: fewer pages are available; nothing was changed.
        """
        if count > self.available:
            raise EngineError(f"{count} pages asked for, {self.available} of {self.total} available")
        taken = []
        for _ in range(count):
            if self._free:
                page = self._free.pop()
            else:
                page, _ = self._kept.popitem(last=False)
                self._forget(page)
            self._references[page] = 1
            taken.append(page)
        return taken

    def share(self, pages: Iterable[int]) -> None:
        """Add a user to each of these pages. It must not write to them."""
        for page in pages:
            self._references[page] += 1
            self._kept.pop(page, None)

    def release(self, pages: Sequence[int]) -> None:
        """Remove a user from each of these pages.

        Raises:
            EngineError: a page has no user.
        """
        # In reverse order: a page is useless without the pages before it, so these must be kept longer.
        for page in reversed(pages):
            if self._references[page] < 1:
                raise EngineError(f"page {page} was released more often than it was taken")
            self._references[page] -= 1
            if not self._references[page]:
                if page in self._entries:
                    self._kept[page] = None
                else:
                    self._free.append(page)

    def freed_by(self, readers: Sequence[Sequence[int]]) -> int:
        """How many pages would become available if the users of these lists of pages released them."""
        counts = Counter(chain.from_iterable(readers))
        return sum(self._references[page] == count for page, count in counts.items())

    def kept_of(self, pages: Iterable[int]) -> int:
        """How many of these pages no sequence uses."""
        return sum(page in self._kept for page in pages)

    def match(self, key: bytes, ids: Sequence[int], room: int) -> Match:
        """Find the longest beginning of a text that is in the index. The users of pages do not change.

        Args:
            key: key of what is before the text.
            ids: the text.
            room: number of its tokens that belong on the first page.
        """
        pages: list[int] = []
        keys = [key]
        start = 0
        while True:
            wanted = tuple(ids[start : start + room])
            siblings = self._index.get(keys[-1], [])
            place = bisect_left(siblings, (wanted,))
            if len(wanted) == room and place < len(siblings) and siblings[place][0] == wanted:
                pages.append(siblings[place][1])
                keys.append(_next_key(keys[-1], wanted))
                start, room = start + room, self.page_tokens
                continue
            # The pages are sorted by tokens, so one of the two neighbours has the longest common beginning.
            near = [(_common(tokens, wanted), page) for tokens, page in siblings[max(place - 1, 0) : place + 1]]
            common, source = max(near, default=(0, -1))
            # A copy moves a whole page, which is not worth it for the few control tokens at the beginning of prompts.
            if common < max(1, self.page_tokens // 8):
                return Match(pages, keys)
            if source in self._kept:
                self._kept.move_to_end(source)
            return Match(pages, keys, source, common)

    def put(self, key: bytes, tokens: Sequence[int], page: int) -> bytes:
        """Add a page that is in use to the index, unless another page has the same text already.

        Args:
            key: key of the text before it.
            tokens: its text, which must not be overwritten any more.

        Returns:
            the key of the text up to its end.
        """
        text = tuple(tokens)
        siblings = self._index.setdefault(key, [])
        place = bisect_left(siblings, (text,))
        if place == len(siblings) or siblings[place][0][: len(text)] != text:
            if place and text[: len(siblings[place - 1][0])] == siblings[place - 1][0]:
                # That page is not full, so no sequence uses it, and its text is now a part of the new page.
                place -= 1
                old = siblings[place][1]
                self._forget(old)
                del self._kept[old]
                self._free.append(old)
                siblings = self._index.setdefault(key, [])
            siblings.insert(place, (text, page))
            self._entries[page] = (key, text)
        return _next_key(key, text)

    def _forget(self, page: int) -> None:
        key, tokens = self._entries.pop(page)
        siblings = self._index[key]
        del siblings[bisect_left(siblings, (tokens,))]
        if not siblings:
            del self._index[key]

    def check(self, readers: Iterable[Sequence[int]], writable: Iterable[int] = ()) -> None:
        """Check the internal state.

        Args:
            readers: the pages of each user.
            writable: pages that will be written to.

        Raises:
            EngineError: the state does not agree with the users, or is inconsistent.
        """
        counts = Counter(chain.from_iterable(readers))
        for page, references in enumerate(self._references):
            if references != counts[page]:
                raise EngineError(f"page {page} has {counts[page]} readers, and {references} are on record")
        for page in writable:
            if counts[page] != 1 or page in self._entries:
                raise EngineError(f"page {page} is written to, with {counts[page]} readers, {self._entries.get(page)}")
        unread = {page for page, references in enumerate(self._references) if not references}
        if set(self._kept) != unread & set(self._entries) or set(self._free) != unread - set(self._entries):
            raise EngineError(f"pages {unread} have no reader: kept {list(self._kept)}, free {self._free}")
        if len(self._free) != len(set(self._free)):
            raise EngineError(f"a page is free twice: {self._free}")
        listed = {page: (key, tokens) for key, siblings in self._index.items() for tokens, page in siblings}
        if (
            listed != self._entries
            or len(listed) != sum(map(len, self._index.values()))
            or not all(self._index.values())
        ):
            raise EngineError("the index and the pages in it do not agree")
        for siblings in self._index.values():
            for (first, _), (second, _) in pairwise(siblings):
                if first >= second or first == second[: len(first)]:
                    raise EngineError(f"the index holds {first} beside {second}")


def root_key(salt: str, block: Sequence[int] = ()) -> bytes:
    """The key of an empty text: the root of a tree in the index. 32 bytes.

    Args:
        salt: everything else that keys and values depend on: the adapter, the learned prefix, a tenant.
        block: first tokens that attend to one another in both directions, so they can only be shared as a whole.
    """
    name = salt.encode("utf-8", "surrogatepass")
    return blake2b(len(name).to_bytes(8, "little") + name + array("q", block).tobytes(), digest_size=32).digest()


def _next_key(key: bytes, tokens: Sequence[int]) -> bytes:
    return blake2b(key + array("q", tokens).tobytes(), digest_size=32).digest()


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Number of equal tokens at the beginning of both."""
    return next(
        (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
