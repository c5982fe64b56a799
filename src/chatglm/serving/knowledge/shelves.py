"""Who may do what with which base: its maker owns it, and for all others it does not exist until it is shared."""

from __future__ import annotations

from collections.abc import Sequence

from chatglm.errors import InputError, NotFoundError
from chatglm.knowledge import Base, Bases, Shelf
from chatglm.knowledge.base import permit
from chatglm.knowledge.store import Role
from chatglm.serving.access.callers import Caller
from chatglm.serving.failures import ForbiddenError
from chatglm.serving.service import DOCUMENTS, Service

__all__ = ["base_for", "bases_of", "open_bases", "shelf_of", "who_of"]


def shelf_of(service: Service) -> Shelf:
    """
    Raises:
        NotFoundError: the server was started without bases.
    """
    if service.shelf is None:
        raise NotFoundError("this server has no knowledge bases; start it with `chatglm serve --knowledge`")
    return service.shelf


def who_of(caller: Caller) -> str | None:
    """By which name bases know a caller; None: the server needs no keys, and everybody may do everything."""
    return caller.owner or None


def base_for(shelf: Shelf, who: str | None, name: str, role: Role) -> Base:
    """
    Raises:
        NotFoundError: there is no such base, or the caller may not read it.
        ForbiddenError: the caller may read it, but not do what needs this role.
    """
    base = shelf.base(name, who)
    try:
        permit(base, who, role)
    except NotFoundError:
        raise
    except InputError as error:
        raise ForbiddenError(str(error)) from None
    return base


def open_bases(service: Service, caller: Caller, names: Sequence[str]) -> Bases:
    """
    Raises:
        NotFoundError: there is no such base, or the caller may not read it.
    """
    return shelf_of(service).bases(names, who_of(caller))


def bases_of(model: str | None, knowledge: Sequence[str] | None) -> tuple[list[str], str | None]:
    """The bases that a request names, and the model that is left.

    Raises:
        InputError: it names them twice, or none.
    """
    if model is None or not model.startswith(DOCUMENTS):
        return list(knowledge or ()), model
    if knowledge:
        raise InputError("knowledge: the model's name names bases already; leave one of them out")
    names = model.removeprefix(DOCUMENTS).split("+")
    if not all(names):
        raise InputError(f"model: {model!r:.80} does not name a base; expected {DOCUMENTS}NAME or {DOCUMENTS}NAME+NAME")
    return names, None
