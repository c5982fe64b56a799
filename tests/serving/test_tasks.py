"""Tasks: stored before their id is known, answered once, whatever happens to the server."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from chatglm.assistant import Assistant
from chatglm.database import Database
from chatglm.errors import InputError, NotFoundError, OutputError, QueueFullError
from chatglm.serving.access.callers import Caller
from chatglm.serving.app import create_app
from chatglm.serving.failures import RateLimitError, failure_of
from chatglm.serving.service import Service
from chatglm.serving.stored import background
from chatglm.serving.stored.calls import Reply
from chatglm.serving.stored.tasks import Task, TaskLimits
from scripted import ScriptedEngine, Writer
from waiting import auntil

ANN, BOB = Caller("ann", "a"), Caller("bob", "b")
CHAT = "/v1/chat/completions"


def asking(text: str = "q") -> dict[str, Any]:
    return {"model": "demo", "messages": [{"role": "user", "content": text}]}


class Rig:
    """A service with the routes of the app over a scripted engine, in the loop of a test."""

    def __init__(self, write: Writer, home: Path, *replies: Any, name: str = "demo", **options: Any) -> None:
        self.engine = ScriptedEngine(*(replies or (write.say("fine"),)), **options)
        self.assistant = Assistant(write.form, self.engine)  # type: ignore[arg-type]
        app = create_app({name: self.assistant}, home=home)
        self.service: Service = app.state.service

    async def __aenter__(self) -> Service:
        self.service.background.resume()
        return self.service

    async def __aexit__(self, *_: object) -> None:
        await self.service.background.close()
        self.service.storage.close()
        self.assistant.close()


async def ended(service: Service, caller: Caller, task_id: str) -> Task:
    end = time.monotonic() + 120
    while (task := await service.tasks.get(caller, "openai", task_id)).state in ("waiting", "running"):
        assert time.monotonic() < end
        await asyncio.sleep(0.01)
    return task


def text_of(task: Task) -> str:
    return str(task.answer["choices"][0]["message"]["content"])


def test_a_task_is_answered_by_the_route(write: Writer, tmp_path: Path) -> None:
    async def test() -> None:
        async with Rig(write, tmp_path) as service:
            task = await service.tasks.submit(ANN, "openai", CHAT, asking())
            assert task.state == "waiting"
            done = await ended(service, ANN, task.id)
            assert (done.state, done.status, text_of(done), done.problem) == ("done", 200, "fine", "")
            assert done.body == asking()
            assert done.finished is not None
            assert done.finished >= done.created

    asyncio.run(test())


def test_what_was_accepted_is_not_too_large_later(write: Writer, tmp_path: Path) -> None:
    """A body may be as large as the limit; it is not sent on in a form that has more bytes."""

    async def test() -> None:
        async with Rig(write, tmp_path, context=64) as service:
            body = asking("长" * (service.limits.body // 4)) | {"stop_token_ids": [1] * 9}
            task = await service.tasks.submit(ANN, "openai", CHAT, body)
            done = await ended(service, ANN, task.id)
            assert done.answer["error"]["code"] == "context_length_exceeded"

    asyncio.run(test())


def test_an_answer_counts_with_its_bytes(write: Writer, tmp_path: Path) -> None:
    async def test() -> None:
        async with Rig(write, tmp_path, write.say("好" * 50)) as service:
            task = await service.tasks.submit(ANN, "openai", CHAT, asking())
            await ended(service, ANN, task.id)

            def stored(database: Database, _: Any) -> tuple[str, str, int]:
                ((body, answer, size),) = database.read("SELECT body, answer, bytes FROM tasks")
                return body, answer, size

            body, answer, size = await service.storage.run(stored)
            assert "好" * 50 in answer
            assert size == len(body.encode()) + len(answer.encode())

    asyncio.run(test())


def test_tasks_of_somebody_without_tokens_hold_up_nobody_else(
    write: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many of them wait. They run when there are tokens again."""
    monkeypatch.setattr(background, "_LOOK_SECONDS", 0.01)

    async def test() -> None:
        async with Rig(write, tmp_path) as service:
            send, used_up, refused = service.send, True, 0

            async def limited(caller: Caller, path: str, body: Any, **options: Any) -> Reply:
                nonlocal refused
                if caller.owner == "ann" and used_up:
                    refused += 1
                    failure = failure_of(RateLimitError("no tokens are left", 0.05))
                    assert failure.status == 429
                    return Reply(429, "{}", True, failure)
                return await send(caller, path, body, **options)

            monkeypatch.setattr(service, "send", limited)
            many = [await service.tasks.submit(ANN, "openai", CHAT, asking(f"{n}")) for n in range(20)]
            await auntil(lambda: refused > 1)
            one = await service.tasks.submit(BOB, "openai", CHAT, asking())
            assert (await ended(service, BOB, one.id)).state == "done"
            assert (await service.tasks.get(ANN, "openai", many[-1].id)).state == "waiting"
            used_up = False
            assert {(await ended(service, ANN, task.id)).state for task in many} == {"done"}

    asyncio.run(test())


def test_only_its_owner_finds_it_and_only_in_its_dialect(write: Writer, tmp_path: Path) -> None:
    async def test() -> None:
        async with Rig(write, tmp_path) as service:
            with pytest.raises(NotFoundError):  # nothing has been stored yet, and nothing is made
                await service.tasks.get(ANN, "openai", "x")
            assert not list(tmp_path.iterdir())
            task = await service.tasks.submit(ANN, "openai", CHAT, asking())
            for caller, dialect, name in ((BOB, "openai", task.id), (ANN, "other", task.id), (ANN, "openai", "' OR 1")):
                with pytest.raises(NotFoundError, match="does not exist"):
                    await service.tasks.get(caller, dialect, name)

    asyncio.run(test())


def test_what_the_route_refuses_is_the_answer(write: Writer, tmp_path: Path) -> None:
    async def test() -> None:
        async with Rig(write, tmp_path) as service:
            bad = await service.tasks.submit(ANN, "openai", CHAT, {"model": "demo", "messages": []})
            unknown = await service.tasks.submit(ANN, "openai", CHAT, asking() | {"model": "gpt-9"})
            failed = await ended(service, ANN, bad.id)
            assert (failed.state, failed.status) == ("failed", 400)
            assert failed.problem == failed.answer["error"]["message"]
            failed = await ended(service, ANN, unknown.id)
            assert (failed.state, failed.status) == ("failed", 404)
            with pytest.raises(InputError, match="stream"):
                await service.tasks.submit(ANN, "openai", CHAT, asking() | {"stream": True})

    asyncio.run(test())


def test_a_task_waits_while_there_is_no_room(write: Writer, tmp_path: Path) -> None:
    async def test() -> None:
        rig = Rig(write, tmp_path, room=1, delay=0.02, retry_after=0.05)
        async with rig as service:
            tasks = [await service.tasks.submit(ANN, "openai", CHAT, asking()) for _ in range(4)]
            assert [(await ended(service, ANN, task.id)).status for task in tasks] == [200] * 4

    asyncio.run(test())


def test_an_owner_may_store_so_much(write: Writer, tmp_path: Path) -> None:
    async def test() -> None:
        rig = Rig(write, tmp_path, delay=0.05)
        rig.service.tasks.limits = TaskLimits(open=3, bytes=2000)
        async with rig as service:
            tasks = [await service.tasks.submit(ANN, "openai", CHAT, asking()) for _ in range(3)]
            with pytest.raises(QueueFullError, match="3 tasks wait; at most 3 are allowed"):
                await service.tasks.submit(ANN, "openai", CHAT, asking())
            other = await service.tasks.submit(BOB, "openai", CHAT, asking())
            for task in tasks:
                await ended(service, ANN, task.id)
            await ended(service, BOB, other.id)
            with pytest.raises(QueueFullError, match="bytes"):
                await service.tasks.submit(ANN, "openai", CHAT, asking("x" * 2000))

    asyncio.run(test())


def test_owners_take_turns_and_each_is_one_client(write: Writer, tmp_path: Path) -> None:
    async def test() -> None:
        rig = Rig(write, tmp_path)
        rig.service.background._parallel = 1
        async with rig as service:
            service.background.end()  # nothing begins before all are there
            tasks = [(ANN, await service.tasks.submit(ANN, "openai", CHAT, asking())) for _ in range(3)]
            tasks.append((BOB, await service.tasks.submit(BOB, "openai", CHAT, asking())))
            service.background._ending = False
            service.background.wake()
            for caller, task in tasks:
                await ended(service, caller, task.id)
        clients = [asked.client for asked in rig.engine.asked]
        assert sorted(map(str, clients)) == ["background:ann"] * 3 + ["background:bob"]

    asyncio.run(test())


def test_clients_who_wait_come_first(write: Writer, tmp_path: Path) -> None:
    async def test() -> None:
        rig = Rig(write, tmp_path, write.say("a long answer " * 20), delay=0.02)
        async with rig as service:
            live = asyncio.ensure_future(service.call(ANN, CHAT, asking()))
            await auntil(lambda: service.live() == 1)
            tasks = [await service.tasks.submit(ANN, "openai", CHAT, asking()) for _ in range(3)]
            most = 0
            while not live.done():
                most = max(most, len(service.background._running))
                await asyncio.sleep(0.01)
            assert most == 1
            await auntil(lambda: len(service.background._running) == 3 or rig.engine.idle)
            for task in tasks:
                await ended(service, ANN, task.id)

    asyncio.run(test())


def test_a_server_that_ends_puts_its_tasks_back(write: Writer, tmp_path: Path) -> None:
    async def test() -> None:
        slow = Rig(write, tmp_path, write.say("never whole " * 30), delay=0.1)
        async with slow as service:
            task = await service.tasks.submit(ANN, "openai", CHAT, asking())
            await auntil(lambda: bool(slow.engine.asked))
            service.drain.begin()
            await auntil(lambda: bool(slow.engine.aborted))
            await service.background.close()
            assert (await service.tasks.get(ANN, "openai", task.id)).state == "waiting"
        async with Rig(write, tmp_path) as service:
            done = await ended(service, ANN, task.id)
            assert text_of(done) == "fine"
            row = service.storage.open()[0].read("SELECT attempts FROM tasks")[0]
            assert row["attempts"] == 1  # it was not cut

    asyncio.run(test())


def dies(service: Service) -> None:
    """What kill -9 leaves: a lock that nobody holds, and rows as they were."""
    database, instance = service.storage.open()
    service.background._ending = True
    for task in [service.background._worker, *service.background._running]:
        task.cancel()  # type: ignore[union-attr]
    instance.close()
    database.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_ADOPT_SECONDS", 0.05)
    monkeypatch.setattr(background, "_CLEAN_SECONDS", 0.05)
    monkeypatch.setattr(background, "_LOOK_SECONDS", 0.05)


@pytest.mark.usefixtures("quick")
def test_tasks_of_a_dead_server_run_again_where_their_model_is(write: Writer, tmp_path: Path) -> None:
    async def test() -> None:
        slow = Rig(write, tmp_path, write.say("never whole " * 30), delay=0.1)
        async with Rig(write, tmp_path, name="other") as other, Rig(write, tmp_path) as twin:
            async with slow as service:
                tasks = [await service.tasks.submit(ANN, "openai", CHAT, asking()) for _ in range(12)]
                await auntil(lambda: len(slow.engine.asked) == 8)
                await asyncio.sleep(0.3)
                for task in tasks:  # nobody takes them from a server that lives
                    assert (await twin.tasks.get(ANN, "openai", task.id)).state in ("waiting", "running")
                dies(service)
            other.background.resume()
            twin.background.resume()
            for task in tasks:
                assert text_of(await ended(twin, ANN, task.id)) == "fine"
            attempts = twin.storage.open()[0].read("SELECT attempts FROM tasks ORDER BY number")
            assert [row["attempts"] for row in attempts] == [2] * 8 + [1] * 4

    asyncio.run(test())


@pytest.mark.usefixtures("quick")
def test_a_task_that_always_ends_the_server_is_given_up(write: Writer, tmp_path: Path) -> None:
    async def test() -> None:
        ids: list[str] = []
        for life in range(background.ATTEMPTS):
            rig = Rig(write, tmp_path, write.say("never whole " * 30), delay=0.1)
            async with rig as service:
                if not ids:
                    ids = [(await service.tasks.submit(ANN, "openai", CHAT, asking())).id for _ in range(2)]
                await auntil(lambda: len(rig.engine.asked) >= (2 if life < 2 else 1))  # noqa: B023
                await asyncio.sleep(0.1)
                assert len(rig.engine.asked) == (2 if life < 2 else 1)  # what was cut twice runs alone
                dies(service)
        async with Rig(write, tmp_path) as service:
            first, second = [await ended(service, ANN, name) for name in ids]
            assert (first.state, first.status, first.answer) == ("failed", None, None)
            assert "ended 5 times while it was running" in first.problem
            assert text_of(second) == "fine"

    asyncio.run(test())


@pytest.mark.usefixtures("quick")
def test_tasks_expire(write: Writer, tmp_path: Path) -> None:
    async def test() -> None:
        rig = Rig(write, tmp_path)
        rig.service.tasks.limits = TaskLimits(lifetime=0.3)
        rig.service.background._lifetime = 0.3
        async with rig as service:
            task = await service.tasks.submit(ANN, "openai", CHAT, asking())
            await ended(service, ANN, task.id)
            await asyncio.sleep(0.3)
            with pytest.raises(NotFoundError):
                await service.tasks.get(ANN, "openai", task.id)
            await auntil(lambda: not service.storage.open()[0].read("SELECT 1 FROM tasks"))

    asyncio.run(test())


@pytest.mark.usefixtures("quick")
def test_a_task_that_no_server_runs_in_time_has_failed(write: Writer, tmp_path: Path) -> None:
    async def test() -> None:
        gone = Rig(write, tmp_path, name="gone")
        gone.service.tasks.limits = TaskLimits(lifetime=0.5)
        async with gone as service:
            service.background.end()
            task = await service.tasks.submit(ANN, "openai", CHAT, asking() | {"model": "gone"})
        async with Rig(write, tmp_path) as service:
            failed = await ended(service, ANN, task.id)
            assert (failed.state, failed.problem) == ("failed", "it was not run in time")

    asyncio.run(test())


@pytest.mark.usefixtures("quick")
def test_a_full_disk_delays_the_end_and_loses_nothing(
    write: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Database.write
    full = True

    def write_row(self: Database, statement: str, values: Any = ()) -> int:
        if full and "finished" in statement:
            raise OutputError("disk is full")
        return real(self, statement, values)

    monkeypatch.setattr(Database, "write", write_row)
    monkeypatch.setattr(background, "_STORE_SECONDS", 0.05)

    async def test() -> None:
        nonlocal full
        rig = Rig(write, tmp_path)
        async with rig as service:
            task = await service.tasks.submit(ANN, "openai", CHAT, asking())
            await auntil(lambda: rig.engine.idle and bool(rig.engine.asked))
            await asyncio.sleep(0.3)
            assert (await service.tasks.get(ANN, "openai", task.id)).state == "running"
            full = False
            assert text_of(await ended(service, ANN, task.id)) == "fine"
            assert len(rig.engine.asked) == 1  # the answer was kept, and not asked for again

    asyncio.run(test())
