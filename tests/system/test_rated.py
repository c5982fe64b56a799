"""Corrected and rated answers, exported and learned by the demo model: the training guide's commands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from chatglm.chat.messages import Message
from chatglm.conversation.export import json_line, training_row
from chatglm.conversation.store import Store

ROOT = Path(__file__).resolve().parents[2]
QUESTION, GOOD, BAD = "本店几点打烊？", "本店晚上九点半打烊。", "我不知道。"


def exported(folder: Path) -> Path:
    with closing(Store(folder / "conversations.sqlite")) as store:
        user = store.users.local().id
        talk = store.make(user, title="打烊")
        question = store.add(user, talk, Message("user", QUESTION))
        first = store.add(user, talk, Message("assistant", BAD), parent=question.id)
        better = store.edit(user, talk, first.id, GOOD)
        store.rate(user, talk, better.id, 1)
        again = store.add(user, talk, Message("user", "你是谁？"), parent=better.id)
        poor = store.add(user, talk, Message("assistant", "我是一只猫。"), parent=again.id)
        store.rate(user, talk, poor.id, -1)
        row = training_row(store.tree(user, talk))
    assert row is not None
    file = folder / "mine.jsonl"
    file.write_bytes(json_line(row))
    return file


def test_what_was_rated_is_learned(tmp_path: Path) -> None:
    file = exported(tmp_path)
    guide = (ROOT / "docs" / "training.md").read_text("utf-8")
    commands = [shlex.split(line) for line in re.findall(r"^chatglm .*(?:mine\.jsonl|out/mine).*$", guide, re.M)]
    assert [words[1] for words in commands] == ["finetune", "finetune", "chat"]
    told = []
    for words in commands:
        given = [str(file) if word == "mine.jsonl" else word for word in words[1:]]
        done = subprocess.run(
            [sys.executable, "-m", "chatglm.cli", *given],
            cwd=tmp_path,
            env={**os.environ, "CHATGLM_HOME": str(tmp_path / "home"), "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        told.append(done.stdout)
    learned = "".join(part.split("⟧")[0] for part in told[0].split("⟦")[1:])
    assert GOOD in learned.replace(" ", "")
    assert "猫" not in learned
    assert told[2].strip() == GOOD
