"""Plain texts for pre-training: read as a stream, tokenised once, memory-mapped, and cut and packed into rows.

A `.txt` file is one document, or holds documents between empty lines, or one document in each line. A `.jsonl` file has
one document in each row's `"text"`. The ids of all documents are stored one after the other in one file, and each
document ends with the id that ends a text. So training can use data that are much larger than memory.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import shutil
import tempfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import torch
from torch.utils.data import Dataset

from chatglm.chat.tokenizers import ChatGLMTokenizer
from chatglm.errors import InputError
from chatglm.training.dialogues import Paths, named_files
from chatglm.training.examples import Example, counted, pack
from chatglm.training.infill import Ids, Infiller, Places, Symbols

__all__ = ["Documents", "InfillRows", "Split", "Text", "read_texts", "text_files"]

Split: TypeAlias = Literal["file", "blank", "line"]
"""Where the documents of a .txt file end: at the end of the file, at an empty line, or at the end of every line."""

_VERSION = 1
_INDEX, _IDS, _META = "index.bin", "ids.bin", "meta.json"


class Text(NamedTuple):
    """One document: its text, the number of its file, and the line where it begins."""

    text: str
    file: int
    line: int


# Reading


def text_files(paths: Paths) -> list[Path]:
    """The .txt and .jsonl files that paths name; see `named_files`."""
    return named_files(paths, (".txt", ".jsonl"), "texts", ' (rows with "text"); convert it, or rename it')


def read_texts(paths: Paths, *, split: Split = "file", field: str = "text") -> Iterator[Text]:
    """Read documents one by one; only one is in memory. Documents without text are left out.

    Args:
        split: where documents of .txt files end, see `Split`. In .jsonl files every line is a document.
        field: name of the field that holds the text in a row of a .jsonl file.

    Raises:
        InputError: a file is not UTF-8, or a row is not JSON or has no text; the message names file and line.
    """
    if split not in get_args(Split):
        raise InputError(f"split {split!r}: must be one of {', '.join(get_args(Split))}")
    for number, file in enumerate(text_files(paths)):
        lines = _json_texts(file, field) if file.suffix == ".jsonl" else _lines(file)
        whole = split if file.suffix == ".txt" else "line"
        begin, parts = 1, list[str]()
        for line, text in lines:
            if whole == "line" or (whole == "blank" and not text.strip()):
                yield from _whole(parts, number, begin)
                parts = []
            if not parts:
                begin = line
            if parts or text.strip():
                parts.append(text)
        yield from _whole(parts, number, begin)


def _whole(lines: list[str], file: int, begin: int) -> Iterator[Text]:
    if lines:
        yield Text("".join(lines).rstrip("\r\n"), file, begin)


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Lines with their numbers."""
    try:
        with file.open("rb") as opened:
            for number, raw in enumerate(opened, 1):
                if number == 1:
                    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                        raise InputError(f"{file}: is UTF-16; save it as UTF-8")
                    raw = raw.removeprefix(codecs.BOM_UTF8)
                try:
                    yield number, raw.decode("utf-8").replace("\r\n", "\n")
                except UnicodeDecodeError as error:
                    raise InputError(
                        f"{file}:{number}: not UTF-8 ({error.reason} at byte {error.start}); save the file as UTF-8"
                    ) from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None


def _json_texts(file: Path, field: str) -> Iterator[tuple[int, str]]:
    for number, line in _lines(file):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{file}:{number}: not JSON ({error}); each line must be one row") from None
        text = row.get(field) if isinstance(row, dict) else None
        if not isinstance(text, str):
            known = f"; the row has {', '.join(map(repr, row))}" if isinstance(row, dict) else ""
            raise InputError(f"{file}:{number}: {field}: expected a string of that name{known:.200}")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise InputError(
                f"{file}:{number}: {field}: has half of a surrogate pair; write the complete character"
            ) from None
        yield number, text


# The store


class Documents(Sequence[Ids]):
    """Ids of documents on disk. Item i is int32 (n,); its last id is the one that ends a text.

    `prepare` makes it. It is pickled as the name of its folder, so that workers map the same file.

    Attributes:
        folder: the folder of the ids.
        lengths: (documents,) number of tokens of each.
    """

    def __init__(self, folder: str | os.PathLike[str], chosen: Places | None = None) -> None:
        self.folder, self._chosen = Path(folder), chosen
        try:
            meta = json.loads((self.folder / _META).read_text("utf-8"))
            self._files: list[str] = meta["files"]
            index = np.asarray(np.memmap(self.folder / _INDEX, dtype=np.int64, mode="r")).reshape(-1, 3)
            self._ids: Ids = np.asarray(np.memmap(self.folder / _IDS, dtype=np.int32, mode="r"))
            whole = len(index) == meta["documents"] and len(self._ids) == meta["tokens"] == index[-1, 0]
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise InputError(
                f"{self.folder}: not a complete store of texts ({error}); delete it and run again"
            ) from None
        if not whole:
            raise InputError(f"{self.folder}: not a complete store of texts; delete it and run again")
        self._stops: Places = index[:, 0]
        self._sources = index[:, 1:]
        begins = np.concatenate([[0], self._stops[:-1]])
        self._begins: Places = begins
        lengths: Places = self._stops - begins
        self.lengths: Places = lengths if chosen is None else lengths[chosen]

    @classmethod
    def prepare(
        cls,
        paths: Paths,
        tokenizer: ChatGLMTokenizer,
        folder: str | os.PathLike[str],
        *,
        split: Split = "file",
        field: str = "text",
        progress: Callable[[int, int], None] | None = None,
    ) -> Documents:
        """Tokenise the documents of files, unless `folder` has their ids by this tokenizer already.

        If the process is killed, a later run does not read incomplete results. Several processes may prepare the same
        files at once.

        Args:
            folder: folder for all prepared texts. Each set of files gets a subfolder.
            progress: called from time to time with the numbers of documents and of tokens so far.

        Raises:
            InputError: there is no document. Also the errors of `read_texts`.
        """
        files = text_files(paths)
        key = _fingerprint(files, tokenizer, split, field)
        target = Path(os.path.expanduser(folder)) / f"texts-{key[:16]}"
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
            try:
                _write(partial, read_texts(files, split=split, field=field), files, tokenizer, key, progress)
                partial.chmod(0o755)
                try:
                    partial.rename(target)
                except OSError:
                    if not target.exists():  # else another process has made the same ones
                        raise
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        return cls(target)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = self._place(index)
        return self._ids[self._begins[place] : self._stops[place]]

    def _place(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return index % len(self) if self._chosen is None else int(self._chosen[index])

    def where(self, index: int) -> str:
        """Where a document begins, as "file:line"."""
        file, line = self._sources[self._place(index)]
        return f"{self._files[file]}:{line}"

    @property
    def tokens(self) -> int:
        """Number of tokens in all documents."""
        return int(self.lengths.sum())

    def hold_out(self, share: float, seed: int = 0) -> tuple[Documents, Documents]:
        """Draw whole documents for evaluation; returns (the others, the drawn ones).

        Args:
            share: share of the documents that are drawn; at least one is drawn.

        Raises:
            InputError: `share` is not between 0 and 1, or there are fewer than two documents.
        """
        if not 0 < share < 1 or len(self) < 2:
            raise InputError(
                f"cannot hold out {share} of {counted(len(self), 'document')}: the share must be above 0 and below 1, "
                "and at least two documents are needed (split='blank' or 'line' makes several of one file)"
            )
        count = min(max(1, round(share * len(self))), len(self) - 1)
        order = np.random.default_rng((seed, len(self))).permutation(len(self))
        chosen = np.arange(len(self)) if self._chosen is None else self._chosen
        left, held = (Documents(self.folder, chosen[np.sort(part)]) for part in (order[count:], order[:count]))
        return left, held

    def __reduce__(self) -> Any:
        return Documents, (self.folder, self._chosen)


def _fingerprint(files: Sequence[Path], tokenizer: ChatGLMTokenizer, split: str, field: str) -> str:
    """A fingerprint of everything that the ids depend on. A file counts by name, size, time, beginning and end."""
    print_ = hashlib.sha256(repr((_VERSION, split, field, type(tokenizer).__name__, len(tokenizer))).encode())
    print_.update(hashlib.sha256(Path(tokenizer.vocab_file).read_bytes()).digest())
    print_.update(repr(sorted(tokenizer.get_added_vocab().items())).encode())
    for file in files:
        status = file.stat()
        print_.update(repr((str(file.resolve()), status.st_size, status.st_mtime_ns)).encode())
        with file.open("rb") as opened:
            print_.update(opened.read(1 << 16))
            opened.seek(max(0, status.st_size - (1 << 16)))
            print_.update(opened.read(1 << 16))
    return print_.hexdigest()


def _write(
    folder: Path,
    texts: Iterator[Text],
    files: Sequence[Path],
    tokenizer: ChatGLMTokenizer,
    key: str,
    progress: Callable[[int, int], None] | None,
) -> None:
    end = Symbols.of(tokenizer).end
    documents = tokens = 0
    with (folder / _IDS).open("wb") as ids_file, (folder / _INDEX).open("wb") as index_file:
        for text in texts:
            ids = tokenizer.encode_text(text.text)
            if not ids:
                continue
            array("i", [*ids, end]).tofile(ids_file)
            documents, tokens = documents + 1, tokens + len(ids) + 1
            array("q", [tokens, text.file, text.line]).tofile(index_file)
            if progress is not None and documents % 1000 == 0:
                progress(documents, tokens)
    if not documents:
        raise InputError(f"{', '.join(map(str, files[:3]))}: no text in it; there is nothing to learn from")
    if progress is not None:
        progress(documents, tokens)
    meta = {"documents": documents, "tokens": tokens, "files": list(map(str, files)), "key": key}
    (folder / _META).write_text(json.dumps(meta, indent=1), "utf-8")


# Rows


class InfillRows(Dataset[list[Example]]):
    """Documents as rows of a batch: item i is the list of examples that share row i.

    Documents longer than a row are cut into windows, and shorter ones are packed. Each row always holds the same texts.
    Their blanks are drawn again in every epoch. They depend on (seed, epoch, text) only, so neither the number of
    workers nor a resumed run changes them.

    Args:
        length: the most positions of a row.
        seed: seed for the assignment of texts to rows, and for all blanks.

    Raises:
        InputError: `length` has no room for a text, or the seed is negative.
    """

    def __init__(self, documents: Documents, infiller: Infiller, length: int, seed: int = 0) -> None:
        if seed < 0:
            raise InputError(f"seed {seed}: must be 0 or more")
        self._documents, self._infiller, self._seed = documents, infiller, seed
        # In shared memory, so that workers that outlive an epoch see the change.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        generator = np.random.default_rng((seed, 0))
        self._pieces = self._cut(infiller.window(length), generator)
        order = generator.permutation(len(self._pieces))
        sizes = self._pieces[order, 2] - self._pieces[order, 1]
        rows = pack([infiller.room(size) for size in sizes.tolist()], length)
        self._rows: Places = order[np.concatenate([np.asarray(row) for row in rows])]
        self._stops: Places = np.cumsum([len(row) for row in rows])

    def _cut(self, window: int, generator: np.random.Generator) -> Places:
        """Cut documents into windows; (pieces, 3): document, first token, and the token after the last one."""
        lengths = self._documents.lengths
        # One token is kept free, so that the id that ends a document is never alone in a window.
        size = window - 1
        counts = np.maximum(1, -(-(lengths - 1) // size))
        document = np.repeat(np.arange(len(lengths)), counts)
        begin = (np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)) * size
        stop = begin + size
        last = np.cumsum(counts) - 1
        stop[last] = lengths
        pieces = np.stack([document, begin, stop], axis=1)
        if share := self._infiller.settings.short_share:
            words = stop - begin
            words[last] -= 1
            at = begin + generator.integers(1, np.maximum(words, 2))
            halved = (generator.random(len(pieces)) < share) & (words >= 2)
            second = pieces[halved]
            pieces[halved, 2] = second[:, 1] = at[halved]
            pieces = np.concatenate([pieces, second])
        return pieces

    def set_epoch(self, epoch: int) -> None:
        """Draw the blanks of another epoch."""
        self._epoch.fill_(epoch)

    @property
    def tokens(self) -> int:
        """Number of tokens that one epoch reads, which is all of them."""
        return self._documents.tokens

    def __len__(self) -> int:
        return len(self._stops)

    def __getitem__(self, index: int) -> list[Example]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        pieces = self._rows[self._stops[index - 1] if index else 0 : self._stops[index]].tolist()
        groups = [[piece] for piece in pieces]
        if self._infiller.settings.multi_document:
            # Several documents share one sample: complete ones, and at the end one that continues in another row. Other
            # pieces that continue get samples of their own.
            goes_on = [piece for piece in pieces if self._goes_on(piece)]
            joined = [piece for piece in pieces if piece not in goes_on] + goes_on[:1]
            groups = [joined, *([piece] for piece in goes_on[1:])]
        return [self._example(group) for group in groups]

    def _goes_on(self, piece: int) -> bool:
        document, _, stop = self._pieces[piece]
        return bool(stop < self._documents.lengths[document])

    def _example(self, pieces: Sequence[int]) -> Example:
        places = [self._pieces[piece].tolist() for piece in pieces]
        text = np.concatenate([self._documents[document][begin:stop] for document, begin, stop in places])
        seeds = np.random.SeedSequence((self._seed, 1, int(self._epoch), pieces[0]))
        return self._infiller(text, np.random.Generator(np.random.PCG64(seeds)), self._documents.where(places[0][0]))
