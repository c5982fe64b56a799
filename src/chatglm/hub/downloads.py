"""Downloads of a repository's files from the hub: chosen, fetched, continued after an interruption, and checked."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from chatglm.chat.generations import read_json
from chatglm.errors import ChatGLMError, CheckpointError, InputError
from chatglm.hub.caches import (
    ADAPTER_WEIGHTS,
    BESIDE_MODULES,
    BESIDE_TOKENIZER,
    BESIDE_WEIGHTS,
    COMMIT,
    CONFIG,
    MODULES,
    TOKENIZER,
    WEIGHTS,
    Part,
    Repository,
    is_family,
    module_folders,
    root,
    storage_name,
)

__all__ = ["Download", "Say"]

T = TypeVar("T")
Say = Callable[[str], None]

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 20.0  # for the whole first request, including the time for DNS and all addresses of the host
_STALLED_SECONDS = 20.0
_TRIES = 5  # attempts one after the other in which no byte arrives
_WORKERS = 4
_NOTE = ".chatglm-download.json"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_LARGEST_JSON = 256 << 20


def _refer(ref: Path, commit: str) -> None:
    """Let a branch or tag in `huggingface_hub`'s cache refer to a commit; who reads it meanwhile sees the old one."""
    ref.parent.mkdir(parents=True, exist_ok=True)
    draft = ref.with_name(f".{ref.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        draft.write_text(commit, "ascii")
        draft.replace(ref)
    finally:
        draft.unlink(missing_ok=True)


@dataclass(frozen=True)
class _File:
    """A file of a repository. Its digest is a SHA-256, or the SHA-1 by which git names its content."""

    name: str
    size: int | None
    digest: str | None

    def fits(self, path: Path) -> bool:
        """Whether a local file has the same size and digest."""
        if self.size is None or self.digest is None or not path.is_file() or path.stat().st_size != self.size:
            return False
        if len(self.digest) == 64:
            made = hashlib.sha256()
        else:
            made = hashlib.sha1(f"blob {self.size}\0".encode(), usedforsecurity=False)
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                made.update(block)
        return made.hexdigest() == self.digest


class _StoppedError(Exception):
    """Another file's download failed, or the user pressed Ctrl-C."""


class Download:
    """Downloads one repository from the hub.

    Args:
        here: beginning of error messages: what was not found on this machine.
        say: gets a line before something is downloaded.
    """

    def __init__(self, repo: Repository, here: str, say: Say | None) -> None:
        from huggingface_hub import constants

        self._repo, self._here, self._say = repo, here, say or (lambda line: None)
        self._endpoint = str(constants.ENDPOINT)
        # The hub does not know ModelScope's name for the publisher.
        owner, name = repo.id.split("/")
        self._id = f"zai-org/{name}" if owner == "ZhipuAI" else repo.id
        self._stop = threading.Event()

    def to_cache(self, part: Part, any_family: bool) -> Path:
        """Download into the cache of `huggingface_hub`, in its layout; returns the snapshot's folder.

        Raises:
            CheckpointError: the repository cannot be downloaded; one line says why.
        """
        with _quiet_client(), self._told():
            commit, files = self._listing()
            storage = root() / storage_name(self._id)
            place = storage / "snapshots" / commit

            def bring(wanted: list[_File]) -> None:
                new = [file for file in wanted if not (place / file.name).exists()]
                blobs = [(file, storage / "blobs" / file.digest) for file in new if file.size and file.digest]
                self._fetch_all(commit, [(file, blob) for file, blob in blobs if not blob.exists()], storage)
                for file in new:
                    self._link(file.name, commit)

            self._bring(files, part, any_family, place, bring)
            if not COMMIT.fullmatch(self._repo.revision):
                # All files are there now, so let the revision's name refer to this commit. At the hub it may refer to
                # another one by now.
                _refer(storage / "refs" / self._repo.revision, commit)
        return place

    def to_folder(self, target: Path) -> Path:
        """Download as plain files into `target`; returns it.

        Raises:
            InputError: `target` is a file, or holds something else than an unfinished download of this repository.
            CheckpointError: the repository cannot be downloaded; one line says why.
        """
        note = target / _NOTE
        there = sorted(entry.name for entry in target.iterdir()) if target.is_dir() else []
        if target.exists() and not target.is_dir():
            raise InputError(f"{target}: is a file; give a folder")
        if there and (not note.is_file() or read_json(note).get("repository") != self._repo.id):
            raise InputError(f"{target}: has {there[0]} in it already; give a new or an empty folder")
        with _quiet_client(), self._told():
            commit, files = self._listing()
            target.mkdir(parents=True, exist_ok=True)
            note.write_text(json.dumps({"repository": self._repo.id, "commit": commit}) + "\n", "utf-8")

            def bring(wanted: list[_File]) -> None:
                known = [file for file in wanted if file.size and file.digest]
                new = [file for file in known if not file.fits(target / file.name)]
                self._fetch_all(commit, [(file, target / file.name) for file in new], target)
                for file in wanted:
                    if file not in known:  # the mirror reports neither sizes nor digests
                        (target / file.name).parent.mkdir(exist_ok=True)
                        shutil.copyfile(self._link(file.name, commit), target / file.name)

            self._bring(files, "weights", True, target, bring)
        return target

    def _bring(
        self,
        files: Mapping[str, _File],
        part: Part,
        any_family: bool,
        place: Path,
        bring: Callable[[list[_File]], None],
    ) -> None:
        """Download the files that are needed. Files that determine which others are needed come first."""

        def of(names: tuple[str, ...]) -> list[_File]:
            return [files[name] for name in names if name in files]

        if part == "state":
            weights = of(WEIGHTS)[:1]
            if not weights:
                raise CheckpointError(f"{self._repo}: the repository has no weights")
            bring(weights)
            return
        if part == "encoder" or (any_family and MODULES in files):
            self._bring_encoder(files, place, bring)
            return
        if not of(CONFIG):
            raise CheckpointError(f"{self._repo}: the repository has no config.json, so it is not a model")
        bring(of(CONFIG))
        if part == "config":
            return
        if "config.json" not in files:
            bring(of(ADAPTER_WEIGHTS)[:1])
            return
        if not any_family and not is_family(place):
            return
        bring(of((*TOKENIZER, *BESIDE_TOKENIZER)))
        if part in ("weights", "model"):
            weights = of(WEIGHTS)[:1]
            bring(of(BESIDE_WEIGHTS) + [file for file in weights if file.name.endswith(".json")])
            bring([file for chosen in weights for file in self._shards(chosen, files, place)])

    def _bring_encoder(self, files: Mapping[str, _File], place: Path, bring: Callable[[list[_File]], None]) -> None:
        """Download a whole encoder: configuration, tokenizer and weights of each part that `modules.json` lists."""
        bring([files[name] for name in (MODULES, *BESIDE_MODULES) if name in files])
        folders = module_folders(place) if MODULES in files else {"": ""}
        for folder, kind in folders.items():
            inside = f"{folder}/" if folder else ""

            def of(names: tuple[str, ...], inside: str = inside) -> list[_File]:
                return [files[inside + name] for name in names if inside + name in files]

            if kind == "" and not of(("config.json",)):
                raise CheckpointError(
                    f"{self._repo}: the repository has no {inside}config.json, so it is not an encoder"
                )
            bring(of(("config.json",)))
            if kind == "":
                bring(of((*BESIDE_MODULES, *TOKENIZER, *BESIDE_TOKENIZER)))
            weights = of(WEIGHTS)[:1] if kind in ("", "Dense", "LayerNorm") else []
            bring([file for file in weights if file.name.endswith(".json")])
            bring([file for chosen in weights for file in self._shards(chosen, files, place)])

    def _shards(self, chosen: _File, files: Mapping[str, _File], place: Path) -> list[_File]:
        """The files of weights: the file itself, or all files that the index names."""
        if not chosen.name.endswith(".json"):
            return [chosen]
        named = read_json(place / chosen.name).get("weight_map")
        names = sorted({str(name) for name in named.values()}) if isinstance(named, dict) else []
        suffix = Path(chosen.name.removesuffix(".index.json")).suffix
        folder, _, _ = chosen.name.rpartition("/")
        names = [f"{folder}/{name}" if folder else name for name in names]
        lost = [name for name in names if name not in files or not name.endswith(suffix)]
        if not names or lost:
            raise CheckpointError(
                f"{self._repo}: {chosen.name} names {lost[0] if lost else 'no files'}, which the repository does not "
                "have"
            )
        return [files[name] for name in names]

    def _listing(self) -> tuple[str, dict[str, _File]]:
        """The commit of the revision, and its files at the top and in folders of the repository."""
        from huggingface_hub import HfApi

        limits: Any = (_CONNECT_SECONDS, _ANSWER_SECONDS, _ANSWER_SECONDS, _CONNECT_SECONDS)
        ask = functools.partial(
            HfApi(endpoint=self._endpoint).model_info,
            self._id,
            revision=self._repo.revision,
            files_metadata=True,
            timeout=limits,
        )
        info = _within(_ANSWER_SECONDS, ask)
        if not COMMIT.fullmatch(str(info.sha)):
            raise CheckpointError(
                f"{self._repo}: {self._endpoint} is not a model hub: it sent no commit id; check HF_ENDPOINT"
            )
        files = {}
        for entry in info.siblings or ():
            if _PLAIN_NAME.fullmatch(entry.rfilename):
                digest = entry.lfs.sha256 if entry.lfs is not None else entry.blob_id
                hexadecimal = digest is not None and re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", digest)
                files[entry.rfilename] = _File(entry.rfilename, entry.size, digest if hexadecimal else None)
        return str(info.sha), files

    def _link(self, name: str, revision: str) -> Path:
        """Put a file into the cache: `huggingface_hub` links the blob, or fetches it if it is not there; returns its
        path.
        """
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(self._id, name, revision=revision, cache_dir=root(), endpoint=self._endpoint))

    def _fetch_all(self, commit: str, files: list[tuple[_File, Path]], where: Path) -> None:
        if not files:
            return
        for file, _ in files:
            if file.name.endswith(".json") and (file.size or 0) > _LARGEST_JSON:
                raise CheckpointError(
                    f"{self._repo}: {file.name} has {_gigabytes(file.size or 0)}, which is too large for this file"
                )
        from tqdm import tqdm

        parts = {target: _partial(target).stat().st_size if _partial(target).exists() else 0 for _, target in files}
        total = sum(file.size or 0 for file, _ in files)
        _check_space(self._repo, total - sum(parts.values()), where)
        if total >= 1 << 20:
            self._say(f"downloading {self._repo} from {self._endpoint}: {_gigabytes(total)}, to {where}")
        bar = tqdm(total=total, unit="B", unit_scale=True, desc=self._repo.id, disable=None, leave=False, delay=1)
        with bar, ThreadPoolExecutor(min(_WORKERS, len(files))) as pool:
            jobs = [pool.submit(self._fetch, file, commit, target, bar.update) for file, target in files]
            try:
                done, _ = wait(jobs, return_when=FIRST_EXCEPTION)
                for job in done:
                    if (error := job.exception()) is not None and not isinstance(error, _StoppedError):
                        raise error
            finally:
                self._stop.set()  # needed if one failed, or Ctrl-C was pressed
                for job in jobs:
                    job.cancel()
        self._stop.clear()

    def _fetch(self, file: _File, commit: str, target: Path, advance: Callable[[int], Any]) -> None:
        """Download one file, continue an interrupted download, and check the result."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import WeakFileLock

        url = hf_hub_url(self._id, file.name, revision=commit, endpoint=self._endpoint)
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = root() / ".locks" / "chatglm" / f"{hashlib.sha256(str(target.absolute()).encode()).hexdigest()}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):  # if two processes download it, the second finds the file complete
            if file.fits(target):
                advance(file.size or 0)
                return
            advance(_partial(target).stat().st_size if _partial(target).exists() else 0)
            for again in (True, False):
                self._receive(url, file, _partial(target), advance)
                if file.fits(_partial(target)):
                    break
                _partial(target).unlink()
                if not again:
                    raise CheckpointError(
                        f"{self._repo}: {file.name} arrived damaged twice (its hash is not {file.digest}); "
                        "check the network or the mirror"
                    )
                advance(-(file.size or 0))
            os.replace(_partial(target), target)

    def _receive(self, url: str, file: _File, part: Path, advance: Callable[[int], Any]) -> None:
        """Complete the partial file; reconnect after lost connections."""
        from huggingface_hub.errors import HfHubHTTPError
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        size, failures = file.size or 0, 0
        limits: Any = (_CONNECT_SECONDS, _STALLED_SECONDS, _STALLED_SECONDS, _CONNECT_SECONDS)
        while (have := part.stat().st_size if part.exists() else 0) != size:
            if have > size:
                part.unlink()
                advance(-have)
                continue
            headers = {**build_hf_headers(), "Accept-Encoding": "identity", "Range": f"bytes={have}-"}
            before = have
            try:
                with (
                    get_session().stream("GET", url, headers=headers, timeout=limits, follow_redirects=True) as answer,
                    part.open("ab") as stream,
                ):
                    if answer.status_code >= 400:
                        answer.read()
                        hf_raise_for_status(answer)
                    if answer.status_code != 206 and have:  # the server ignored the range and sends the whole file
                        stream.truncate(0)
                        advance(-have)
                        have = before = 0
                    for block in answer.iter_bytes():
                        if self._stop.is_set():
                            raise _StoppedError
                        wanted = block[: size - have]  # with more bytes than announced, the digest is wrong
                        stream.write(wanted)
                        have += len(wanted)
                        advance(len(wanted))
                        if have == size:
                            break
            except HfHubHTTPError as error:
                status = error.response.status_code
                if status == 416:
                    part.unlink(missing_ok=True)
                    advance(-before)
                elif status < 500 and status != 429:
                    raise
                reason: Exception = error
            except (OSError, _StoppedError):  # of the disk; the client's network errors are no OSError
                raise
            except Exception as error:
                reason = error
            else:
                reason = CheckpointError(f"{self._repo}: {file.name}: the server closed the connection early")
            if have == size:
                return
            failures = 1 if have > before else failures + 1
            if failures >= _TRIES:
                raise reason
            if failures > 1 and self._stop.wait(failures):
                raise _StoppedError

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Report every error as a `CheckpointError` of one line."""
        from huggingface_hub import errors

        repo, at = self._repo, self._endpoint
        log_in = "log in with `hf auth login`, or set HF_TOKEN"
        try:
            yield
        except ChatGLMError:
            raise
        except errors.GatedRepoError:
            raise CheckpointError(
                f"{repo}: access is restricted; accept its terms at {at}/{self._id}, then {log_in}"
            ) from None
        except errors.RepositoryNotFoundError:
            raise CheckpointError(
                f"{self._here}; {at} has no such repository either. If it is private, {log_in}"
            ) from None
        except errors.RevisionNotFoundError:
            raise CheckpointError(f"{repo.id}: has no revision {repo.revision!r} at {at}") from None
        except errors.HfHubHTTPError as error:
            status = error.response.status_code
            hint = log_in if status in (401, 403) else "try again later, or set HF_ENDPOINT to a mirror"
            raise CheckpointError(f"{self._here}; {at} answered {status}; {hint}") from None
        except OSError as error:
            if isinstance(error, ConnectionError | errors.EntryNotFoundError) or error.errno is None:
                raise self._unreachable(error) from None
            raise CheckpointError(
                f"{repo}: cannot be written ({error.strerror}: {error.filename}); what arrived is kept: run it again"
            ) from None
        except Exception as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: Exception) -> CheckpointError:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return CheckpointError(
            f"{self._here}; {self._endpoint} cannot be reached ({reason:.120}); check the network, set HF_ENDPOINT to "
            "a mirror, or give a folder"
        )


def _partial(target: Path) -> Path:
    return target.with_name(f"{target.name}.incomplete")


def _check_space(repo: Repository, needed: int, where: Path) -> None:
    there = next(folder for folder in (where, *where.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise CheckpointError(
            f"{repo}: needs {_gigabytes(needed)} more, and {there} has {_gigabytes(free)} free; free disk space, set "
            "HF_HOME to another disk, or use `chatglm download --to FOLDER`"
        )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _within(seconds: float, call: Callable[[], T]) -> T:
    """The result of a call. A name server that does not answer could block the call for a long time.

    Raises:
        ConnectionError: there is no result after so many seconds.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise ConnectionError(f"no answer within {seconds:g} seconds")
    return results[0]


@contextlib.contextmanager
def _quiet_client() -> Iterator[None]:
    """Silence the progress bar and the messages of `huggingface_hub`; this package has its own."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, logging

    level, silent = logging.get_verbosity(), are_progress_bars_disabled()
    logging.set_verbosity_error()
    if not silent:
        disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if not silent:
            enable_progress_bars()
