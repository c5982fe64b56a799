"""Access to bases for the callers of the server.

The caller who creates a base owns it. Until it is shared, the server answers other callers as if it did not exist.
"""

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
    """The shelf with the bases of the server.

    Raises:
        NotFoundError: the server was started without bases.
    """
    if service.shelf is None:
        raise NotFoundError("this server has no knowledge bases; start it with `chatglm serve --knowledge`")
    return service.shelf


def who_of(caller: Caller) -> str | None:
    """The name of a caller in the access rights of bases. None: the server needs no keys, so everybody may do
    everything."""
    return caller.owner or None


def base_for(shelf: Shelf, who: str | None, name: str, role: Role) -> Base:
    """A base, if the caller has a role in it.

    Args:
        who: the caller: see `who_of`.
        name: the name of the base.
        role: the role that the caller needs.

    Raises:
        NotFoundError: there is no such base, or the caller may not read it.
        ForbiddenError: the caller may read the base, but does not have this role.
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
    """Several bases that are searched as one, with the access rights of the caller.

    Raises:
        InputError: there is no name, a name twice, or too many names.
        NotFoundError: there is no such base, or the caller may not read it; or the server was started without bases.
    """
    return shelf_of(service).bases(names, who_of(caller))


def bases_of(model: str | None, knowledge: Sequence[str] | None) -> tuple[list[str], str | None]:
    """The bases that a request names: in its field `knowledge`, or in the model's name (`knowledge:NAME+NAME`).

    Args:
        model: the name of the model in the request.
        knowledge: the names of bases in the request.

    Returns:
        the names of the bases (empty: none), and the model. The model is None if its name named the bases.

    Raises:
        InputError: both name bases, or the model's name does not name a base.
    """
    if model is None or not model.startswith(DOCUMENTS):
        return list(knowledge or ()), model
    if knowledge:
        raise InputError("knowledge: the model's name names bases already; leave one of them out")
    names = model.removeprefix(DOCUMENTS).split("+")
    if not all(names):
        raise InputError(f"model: {model!r:.80} does not name a base; expected {DOCUMENTS}NAME or {DOCUMENTS}NAME+NAME")
    return names, None
