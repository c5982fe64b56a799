"""Fixtures of sessions: a store, its users, and assistants that say what they are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from talks import Scripted

from chatglm.chat.formats import chat_format
from chatglm.conversation.store import Store
from chatglm.loading import AutoTokenizer, demo_folder
from scripted import Writer


@pytest.fixture(scope="session")
def write() -> Writer:
    return Writer(chat_format(AutoTokenizer.from_pretrained(demo_folder())))


@pytest.fixture
def over(write: Writer) -> Iterator[Callable[..., Scripted]]:
    """Makes an assistant of replies."""
    made: list[Scripted] = []

    def get(*replies: Any, **options: Any) -> Scripted:
        made.append(Scripted(write, *replies, **options))
        return made[-1]

    yield get
    for assistant in made:
        assistant.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "conversations.sqlite")
    yield store
    store.close()


@pytest.fixture
def user(store: Store) -> int:
    return store.users.local().id


@pytest.fixture
def other(store: Store) -> int:
    """Another user, as rows: a password takes a while."""
    store._database.write("INSERT INTO users (name, made, admin) VALUES ('other', 0, 0)")
    return next(each.id for each in store.users.all() if each.name == "other")
