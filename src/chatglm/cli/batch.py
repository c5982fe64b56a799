"""`chatglm batch`: the requests of a file, answered by a model of this machine or by servers, into another file.

Every answer is written at once. So the same command resumes a run that was stopped or killed: answers that are in the
output are not asked for again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from chatglm.cli.models import (
    REMOTE_KEY,
    add_assistant_arguments,
    model_name,
    note,
    open_assistant,
    remote_urls,
)
from chatglm.errors import DependencyError, InputError, ServiceError
from chatglm.output import locked, reporting_disk_errors

if TYPE_CHECKING:
    from chatglm.serving.bodies import Limits
    from chatglm.serving.stored.batch_files import Book, Send

_REMOTE_BYTES = 16 << 20  # of a line for a server


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "input",
        metavar="IN.jsonl",
        help='requests, one on each line: {"custom_id": …, "url": "/v1/chat/completions", "body": {…}}; -: read stdin',
    )
    parser.add_argument(
        "output",
        metavar="OUT.jsonl",
        help="answers, one on each line, in the order in which they are finished. If the file exists, the run is "
        "resumed: requests whose custom_id is in it are skipped",
    )
    add_assistant_arguments(parser)
    parser.add_argument(
        "--concurrency", type=int, default=8, metavar="N", help="requests at a time (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    try:
        from chatglm.serving.stored.batch_files import Book
    except ImportError as error:
        raise DependencyError(f"{error.name} is needed for batches: pip install 'chatglm[serve]'") from None
    if not 1 <= arguments.concurrency <= 1000:
        raise InputError(f"--concurrency {arguments.concurrency}: must be from 1 to 1000")
    output = Path(arguments.output)
    if not output.parent.is_dir():
        raise InputError(f"{output}: there is no folder {output.parent}")
    if output.is_dir():
        raise InputError(f"{output}: is a folder; give the name of a file")
    remote_urls(arguments)
    with contextlib.ExitStack() as stack:
        source = _opened(arguments.input, output, stack)
        stack.enter_context(reporting_disk_errors(output.parent, "; run the command again to resume"))
        stack.enter_context(locked(output.with_name(f"{output.name}.lock"), output))
        book = stack.enter_context(contextlib.closing(Book(output)))
        asyncio.run(_answer(arguments, source, book))
    if book.failed:
        note(f"failed lines: {book.failed:,} of {book.written:,}; {output} says why")
    return 0


def _opened(name: str, output: Path, stack: contextlib.ExitStack) -> BinaryIO:
    if name == "-":
        return sys.stdin.buffer
    source = stack.enter_context(Path(name).open("rb"))  # noqa: SIM115
    if output.exists() and os.path.samefile(name, output):
        raise InputError(f"{output}: is also the input; give another name for the output")
    return source


async def _answer(arguments: argparse.Namespace, source: BinaryIO, book: Book) -> None:
    from tqdm import tqdm

    from chatglm.serving.stored.batch_files import answer_lines

    async with _sender(arguments) as (send, limits):
        quiet = not sys.stderr.isatty()
        with tqdm(unit="line", disable=quiet, total=None if quiet else _count(source)) as bar:
            await answer_lines(source, book, send, limits, arguments.concurrency, bar.update)


def _count(source: BinaryIO) -> int | None:
    """Number of lines of a file; None: unknown."""
    if not source.seekable():
        return None
    count = sum(bool(line.strip()) for line in source)
    source.seek(0)
    return count


@contextlib.asynccontextmanager
async def _sender(arguments: argparse.Namespace) -> AsyncIterator[tuple[Send, Limits]]:
    """The function that answers requests, and how large they may be."""
    from chatglm.serving.access.callers import Caller
    from chatglm.serving.app import create_app
    from chatglm.serving.bodies import Limits
    from chatglm.serving.stored.batch_files import Servers

    if urls := remote_urls(arguments):
        async with Servers(urls, arguments.remote_model, os.environ.get(REMOTE_KEY)) as servers:
            yield servers.send, Limits(body=_REMOTE_BYTES)
        return
    with open_assistant(arguments) as assistant:
        service = create_app({model_name(arguments): assistant}, any_model=True).state.service
        caller = Caller("", "batch")

        async def send(path: str, body: dict[str, Any]) -> tuple[int, str]:
            reply = await service.send(caller, path, body)
            if reply.status == 500 and (problem := service.problem()):
                raise ServiceError(f"{problem}; run the command again to resume")
            return reply.status, json.dumps(reply.value, ensure_ascii=False)

        yield send, service.limits
