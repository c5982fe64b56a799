"""Models by repository id: `THUDM/chatglm3-6b` is found in the caches of this machine, or downloaded.

A local folder of the same name comes first. Then the cache of `huggingface_hub` is searched (HF_HOME, HF_HUB_CACHE),
then that of ModelScope (MODELSCOPE_CACHE), and then the hub is asked (HF_ENDPOINT, unless HF_HUB_OFFLINE is set). If a
cache holds the complete model, no request is made. Only configuration, tokenizer and weights are downloaded, never a
Python file.

`huggingface_hub` manages its cache, and handles endpoints, tokens and redirects. Files are downloaded by our own code,
because its client starts a file again after an interruption, and a shard of weights can take an hour.
"""

from __future__ import annotations

import os
from pathlib import Path

from chatglm.errors import CheckpointError, InputError
from chatglm.hub import caches
from chatglm.hub.caches import Part, cached, folder_name, parse, repository
from chatglm.hub.downloads import Download, Say

__all__ = ["Part", "Say", "cached", "download", "folder", "folder_name", "repository"]


def folder(
    name: str | os.PathLike[str],
    part: Part = "weights",
    *,
    any_family: bool = False,
    offline: bool = False,
    say: Say | None = None,
) -> Path:
    """The local folder of a model: `name` itself, or the folder of the repository of that id, downloaded if needed.

    Args:
        name: a folder, or `owner/name`, or `owner/name@revision`.
        part: the part of the repository that is needed.
        any_family: also download the weights of a model that does not belong to this family.
        offline: use the caches only, as with HF_HUB_OFFLINE=1.
        say: gets a line before something is downloaded.

    Returns:
        A path. If `name` is not an id, the path need not exist; the caller reports what it expected there.

    Raises:
        CheckpointError: no cache holds the complete repository, and it cannot be downloaded; one line says why.
    """
    repo = repository(name)
    if repo is None:
        return Path(os.path.expanduser(name))
    unfinished = ""
    for place in caches.places(repo):
        missing = caches.missing(place, part, any_family)
        if not missing:
            return place
        unfinished = unfinished or f"{place} is not complete ({missing})"
    here = f"{repo}: there is no such folder, and " + (unfinished or f"no such model in the cache ({caches.root()})")
    if offline or caches.offline():
        why = "HF_HUB_OFFLINE is set" if caches.offline() else "local_files_only is set"
        raise CheckpointError(
            f"{here}; {why}, so nothing is downloaded: run `chatglm download {repo}` with a network, or give a folder"
        )
    return Download(repo, here, say).to_cache(part, any_family)


def download(
    name: str, target: str | os.PathLike[str] | None = None, *, revision: str | None = None, say: Say | None = None
) -> Path:
    """Download the newest state of a repository: into the cache, or as plain files into a folder.

    Args:
        name: `owner/name`, or `owner/name@revision`.
        target: a new or empty folder, or one in which an earlier download of the same repository was interrupted.
        revision: a branch, a tag or a commit; default: `main`.
        say: gets a line before something is downloaded.

    Returns:
        The folder.

    Raises:
        InputError: `name` is not a repository id, or `target` holds something else.
        CheckpointError: the repository cannot be downloaded; one line says why.
    """
    repo = parse(f"{name}@{revision}" if revision is not None else name)
    if repo is None:
        raise InputError(f"{name}: expected a repository id such as THUDM/chatglm3-6b, or THUDM/chatglm3-6b@REVISION")
    if caches.offline():
        raise CheckpointError(f"{repo}: HF_HUB_OFFLINE is set, so nothing is downloaded; unset it")
    work = Download(repo, str(repo), say)
    return work.to_cache("weights", True) if target is None else work.to_folder(Path(os.path.expanduser(target)))
