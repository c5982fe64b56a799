"""Bases of a few small files, for tests."""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from chatglm.knowledge import Base, Upload, open_base

HANDBOOK = {
    "员工手册.md": "# 休假\n\n员工每年有十天年假。年假须提前三天申请，由部门经理批准。\n\n"
    "# 报销\n\n出差的车票凭发票报销，每天的伙食补助是八十元。\n",
    "安全.txt": "实验室内禁止饮食。离开实验室前须关闭气阀和电源。灭火器在门口右侧。\n",
    "食堂.txt": "食堂早餐七点开始，午餐十一点半开始。周五供应饺子。\n",
}


def made(home: Path, name: str = "手册", files: Mapping[str, str] = HANDBOOK) -> Base:
    base = open_base(name, create=True, home=home)
    base.add(*(Upload(file, text.encode()) for file, text in files.items()))
    return base


def cut_off(file: Path) -> None:
    """Damage a base that has a file: only the first half is left. Access rights and settings are in this half."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE source SET body = zeroblob(400000)")
        connection.commit()
    os.truncate(file, file.stat().st_size // 2)


@contextmanager
def unreachable(seconds: float = 20) -> Iterator[int]:
    """A port at which nothing answers the first packet of a connection, as at a host that is down.

    Args:
        seconds: after which it refuses connections, so that no client waits for ever.
    """
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        port = listening.getsockname()[1]
        for _ in range(3):  # nobody accepts them; the system drops what does not fit into the queue
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        timer = threading.Timer(seconds, listening.close)
        timer.start()
        stack.callback(timer.cancel)
        yield port
