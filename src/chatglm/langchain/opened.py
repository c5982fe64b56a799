"""Keeps what LangChain's objects have opened: models, bases, connections."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

__all__ = ["Opened"]

T = TypeVar("T")


class Opened(Generic[T]):
    """Opened things by key. Copies of an object share them, including deep copies. A pickle does not contain them;
    after unpickling, they are opened again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[Hashable, T] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The opened thing of a key. The first call opens it with `make`, and other threads wait meanwhile."""
        with self._lock:
            if key not in self._found:
                self._found[key] = make()
            return self._found[key]

    def __contains__(self, key: Hashable) -> bool:
        return key in self._found

    def clear(self) -> list[T]:
        """Remove everything, and return it."""
        with self._lock:
            found = list(self._found.values())
            self._found.clear()
        return found

    def __deepcopy__(self, memo: Any) -> Opened[T]:
        return self

    def __reduce__(self) -> tuple[type[Opened[T]], tuple[()]]:
        return Opened, ()
