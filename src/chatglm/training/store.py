"""Encoded examples on disk. They are made once and memory-mapped, so data may be much larger than memory.

A store is a folder:

    store.json      version of the format, source of the data, counts of the dialogues
    ids.bin         int32, the inputs of all examples, one after the other
    targets.bin     int32, the targets, likewise
    positions.bin   int32, only if positions do not simply count from 0: the rows of each example, one after the other
    offsets.bin     int64, where each example begins in ids.bin, and the end of the last one
    sources.bin     int64, two for each example: number of its file, and line
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from chatglm.chat import calls, formats, messages, rows, tokenizers
from chatglm.chat.formats import ChatFormat
from chatglm.chat.messages import Message
from chatglm.errors import InputError
from chatglm.training import dialogues, examples, tables
from chatglm.training.dialogues import BadRow, Columns, Paths, data_files
from chatglm.training.examples import Example, Tally, encode_files

__all__ = ["Rows", "Store", "build_store"]

_LAYOUT = 1
_FILES = ("ids", "targets", "positions", "offsets", "sources")


class Store:
    """Examples by index, read from disk on access. It is pickled as the name of its folder.

    Attributes:
        tally: counts of the dialogues that it was made from.
        lengths: (number of examples,) positions of each.

    Raises:
        InputError: the folder is not a store, or not complete.
    """

    tally: Tally
    lengths: np.ndarray[Any, np.dtype[np.int64]]

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        try:
            about = json.loads((self.folder / "store.json").read_text("utf-8"))
            sizes = {name: (self.folder / f"{name}.bin").stat().st_size for name in _FILES}
        except (OSError, ValueError) as error:
            raise InputError(f"{folder}: not a store of examples ({error}); make it again") from None
        if about.get("layout") != _LAYOUT or about.get("bytes") != sizes:
            raise InputError(f"{folder}: this store is incomplete, or of another version; delete it and make it again")
        self.tally = Tally(**{**about["tally"], "skipped": [BadRow(*row) for row in about["tally"]["skipped"]]})
        self._files: list[str] = about["files"]
        self._rows: int = about["rows"]
        self._offsets = self._map("offsets", np.int64)
        self._ids, self._targets = self._map("ids", np.int32), self._map("targets", np.int32)
        self._positions = self._map("positions", np.int32) if self._rows else None
        self._sources = self._map("sources", np.int64).reshape(-1, 2)
        self.lengths = np.diff(self._offsets)

    def _map(self, name: str, kind: Any) -> Any:
        return np.asarray(np.memmap(self.folder / f"{name}.bin", dtype=kind, mode="r"))

    def __reduce__(self) -> tuple[Any, ...]:
        return Store, (self.folder,)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Example:
        """Example `index`; its ids, targets and positions are arrays.

        Raises:
            IndexError: there are fewer examples.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        start, end = int(self._offsets[index]), int(self._offsets[index + 1])
        if self._positions is None:
            positions: Any = (np.arange(end - start, dtype=np.int32),)
        else:
            rows = self._positions[start * self._rows : end * self._rows]
            positions = tuple(rows.reshape(self._rows, -1))
        file, line = self._sources[index]
        where = f"{self._files[file]}:{line}" if line else self._files[file]
        return Example(self._ids[start:end], self._targets[start:end], positions, where)  # type: ignore[arg-type]


class _Writer:
    """Writes the files of a store, one example at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opened = {name: (folder / f"{name}.bin").open("wb") for name in _FILES}
        self._numbers: dict[str, int] = {}
        self._rows: int | None = None  # number of rows of positions; 0 if positions simply count
        self._end = 0
        self._write("offsets", [0], np.int64)

    def add(self, example: Example) -> None:
        counts = len(example.positions) == 1 and isinstance(example.positions[0], range)
        rows = 0 if counts else len(example.positions)
        if self._rows not in (None, rows):
            raise InputError(f"{example.where}: its positions have another shape than those of earlier examples")
        self._rows = rows
        self._write("ids", example.ids, np.int32)
        self._write("targets", example.targets, np.int32)
        for row in example.positions[:rows]:
            self._write("positions", row, np.int32)
        self._end += len(example)
        self._write("offsets", [self._end], np.int64)
        file, _, line = example.where.rpartition(":")
        if not (file and line.isdecimal()):
            file, line = example.where, "0"
        self._write("sources", [self._numbers.setdefault(file, len(self._numbers)), int(line)], np.int64)

    def close(self) -> None:
        for file in self._opened.values():
            file.close()

    def sign(self, tally: Tally) -> None:
        """Write the description of the store, after all other files."""
        about = {
            "layout": _LAYOUT,
            "bytes": {name: (self._folder / f"{name}.bin").stat().st_size for name in _FILES},
            "rows": self._rows or 0,
            "files": list(self._numbers),
            "tally": dataclasses.asdict(tally),
        }
        (self._folder / "store.json").write_text(json.dumps(about, indent=1) + "\n", "utf-8")

    def _write(self, name: str, values: Sequence[int], kind: Any) -> None:
        self._opened[name].write(np.asarray(values, dtype=kind).tobytes())


def build_store(
    root: str | os.PathLike[str],
    paths: Paths,
    form: ChatFormat,
    *,
    loss: str = "all",
    max_length: int | None = None,
    one_pass: bool = False,
    columns: Columns | None = None,
    skip_bad_rows: bool = False,
    progress: Callable[[Tally], None] | None = None,
) -> Store:
    """The store for the dialogues of some files. It is made in a folder of `root`, unless an earlier call has made the
    same.

    A store is the same if these are the same: the files (by name, size, modification time and samples of their
    content), the vocabulary with its added tokens, the options, and the source code that encodes.

    Args:
        root: folder for stores; it is made.
        paths, columns, skip_bad_rows: see `read_dialogues` and `encode_files`.
        loss, max_length, one_pass: see `encode`.
        progress: called with the counts so far, from time to time and at the end.

    Raises:
        InputError, UnsupportedError: a bad row, with its file and line; or there is nothing to learn in all the data.
            No new store is left then, and an existing one is unchanged.
    """
    how: dict[str, Any] = {"loss": loss, "max_length": max_length, "one_pass": one_pass}
    how |= {"columns": dict(columns) if columns else None, "skip_bad_rows": skip_bad_rows}
    root = Path(os.path.expanduser(root))
    target = root / _fingerprint(data_files(paths), form, how)
    if target.exists():
        with contextlib.suppress(InputError):
            store = Store(target)
            if progress is not None:
                progress(store.tally)
            return store
    tally = Tally()
    work = root / f".{target.name}-{platform.node()}-{os.getpid()}"
    work.mkdir(parents=True, exist_ok=True)
    try:
        writer = _Writer(work)
        try:
            for _, made in encode_files(paths, form, tally=tally, **how):
                for example in made:
                    writer.add(example)
                if progress is not None and tally.dialogues % 256 == 0:
                    progress(tally)
            _refuse_silence(tally, max_length)
            if progress is not None:
                progress(tally)
        finally:
            writer.close()
        writer.sign(tally)
        _put(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Store(target)


def _put(work: Path, target: Path) -> None:
    """Move a finished store to its final place, unless another process was faster."""
    try:
        work.rename(target)
    except OSError:
        try:
            Store(target)
        except InputError:  # the existing store is broken
            shutil.rmtree(target)
            work.rename(target)


def _refuse_silence(tally: Tally, max_length: int | None) -> None:
    """Refuse data from which nothing is learned.

    Raises:
        InputError: with the most likely cause.
    """
    if tally.learned:
        return
    if tally.lost:
        cause = f"no assistant turn fits into max_length={max_length}; raise it"
    elif tally.dialogues:
        cause = f"no assistant message is learned in any of {tally.dialogues} dialogues; look for loss: false in them"
    elif tally.skipped:
        cause = f"no row can be used, of {len(tally.skipped)}; the first, {': '.join(tally.skipped[0])}"
    else:
        cause = "the files hold no dialogues"
    raise InputError(f"there is nothing to learn: {cause}")


def _fingerprint(files: Sequence[Path], form: ChatFormat, options: dict[str, Any]) -> str:
    """A name that identifies what a store is made from."""
    tokenizer: Any = form.tokenizer
    made = hashlib.sha256(json.dumps([_LAYOUT, options, type(tokenizer).__name__], sort_keys=True).encode())
    made.update(repr(form.prompt([Message("user", "?")])).encode())  # generation and persona
    for code in (calls, formats, messages, rows, tokenizers, dialogues, examples, tables):
        file = Path(str(code.__file__))
        for source in sorted(file.parent.glob("*.py")) if file.name == "__init__.py" else [file]:
            made.update(source.read_bytes())
    made.update(Path(tokenizer.vocab_file).read_bytes())
    made.update(repr(sorted(tokenizer.get_added_vocab().items())).encode())
    for file in files:
        about = file.stat()
        made.update(f"{file.resolve()}\0{about.st_size}\0{about.st_mtime_ns}\0".encode())
        for sample in _samples(file, about.st_size):
            made.update(sample)
    return made.hexdigest()[:20]


def _samples(file: Path, size: int, count: int = 16, length: int = 1 << 16) -> Iterator[bytes]:
    """Some pieces of a large file, or all of a small one."""
    step = max((size - length) // max(count - 1, 1), length)
    with file.open("rb") as opened:
        for place in range(0, size, step):
            opened.seek(place)
            yield opened.read(length)


class Rows(Dataset[list[Example]]):
    """Rows of a batch as a map-style dataset: item i is the list of examples that share row i.

    Args:
        examples: a store, or a list.
        plan: for each row the indices of its examples, as `pack` returns them; default: one example in each row.
    """

    def __init__(self, examples: Store | Sequence[Example], plan: Sequence[Sequence[int]] | None = None) -> None:
        self._examples, self._plan = examples, plan

    def __len__(self) -> int:
        return len(self._examples if self._plan is None else self._plan)

    def __getitem__(self, index: int) -> list[Example]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return [self._examples[n] for n in ([index] if self._plan is None else self._plan[index])]
