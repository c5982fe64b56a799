"""What LangChain's objects have opened: models, bases, connections."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

__all__ = ["Opened"]

T = TypeVar("T")


class Opened(Generic[T]):
    """What was opened, by what it was opened from. Copies of an object share it, deep copies too. A pickle leaves it
    out: whoever reads the pickle opens it again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[Hashable, T] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """What is open; `make` opens it the first time, and others wait for it."""
        with self._lock:
            if key not in self._found:
                self._found[key] = make()
            return self._found[key]

    def __contains__(self, key: Hashable) -> bool:
        return key in self._found

    def clear(self) -> list[T]:
        """Forget all; returns what was open."""
        with self._lock:
            found = list(self._found.values())
            self._found.clear()
        return found

    def __deepcopy__(self, memo: Any) -> Opened[T]:
        return self

    def __reduce__(self) -> tuple[type[Opened[T]], tuple[()]]:
        return Opened, ()
