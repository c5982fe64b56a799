"""API keys: which key the headers of a request have, and what this key may do.

A key is a text. One of the form `id.secret` may also sign tokens (`jwt`). A running server notices within `_LOOK`
seconds when keys are added or removed.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from chatglm.errors import ChatGLMError
from chatglm.serving.access import jwt
from chatglm.serving.failures import AuthenticationError

__all__ = ["ACTIONS", "Credential", "Key", "Keyring", "Source", "digest_of", "id_of"]

log = logging.getLogger("chatglm.serving")

ACTIONS = {
    "forward": "say for which of its own clients it asks",
    "interpreter": "let the server run the model's code",
    "manage-adapters": "load and unload adapters of a running server",
    "metrics": "read /metrics",
    "tools": "let the server run its tools",
}
"""Actions that a key may do only if it was given the right."""

_LOOK = 1.0  # seconds between two looks at whether keys have changed
_CREDENTIAL = 4096  # characters of a key or token in a header
_NOBODY = hashlib.sha256(b"").digest()
_HEADERS = (b"authorization", b"x-api-key", b"api-key")


@dataclass(frozen=True)
class Key:
    """What is known of an API key, without its secret.

    Attributes:
        id: what the callers of the key store belongs to it.
        name: for logs and figures.
        models: names of the models that it may use; None: all.
        expires: Unix seconds; None: never.
        requests_per_minute, tokens_per_minute, concurrency: limits; None: none. Tokens are of prompts and answers.
        may: the actions of `ACTIONS` that it may do.
        created: Unix seconds; 0: not known.
    """

    id: str
    name: str
    models: frozenset[str] | None = None
    expires: float | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    may: frozenset[str] = frozenset()
    created: float = 0.0

    def allows(self, model: str) -> bool:
        return self.models is None or model in self.models

    @property
    def limited(self) -> bool:
        return any(one is not None for one in (self.requests_per_minute, self.tokens_per_minute, self.concurrency))

    def expired(self, now: float) -> bool:
        """
        Args:
            now: Unix seconds.
        """
        return self.expires is not None and now >= self.expires


@dataclass(frozen=True)
class Credential:
    """A key, and what is needed to check a request with it.

    Attributes:
        digest: of the key's whole text.
        secret: signs tokens; None: this key cannot.
    """

    key: Key
    digest: bytes = field(repr=False)
    secret: bytes | None = field(default=None, repr=False)


def digest_of(text: str) -> bytes:
    """SHA-256 of a key. Made keys hold 192 random bits, so that no slower hash is needed."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


class Source(Protocol):
    """Where keys come from (`key_sources`)."""

    def changed(self) -> bool:
        """Whether the keys have changed since the last `credentials`. It takes microseconds."""
        ...

    def credentials(self) -> Sequence[Credential]:
        """The keys.

        Raises:
            ChatGLMError: they cannot be read.
        """
        ...


def id_of(text: str) -> str:
    """The id of a key that is one secret text: always the same, and too short to guess the text from it."""
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8, person=b"chatglm-key-id").hexdigest()


class Keyring:
    """All keys that a server accepts.

    Args:
        sources: where two have a key of the same id, the first one's counts.
        clock: Unix seconds.

    Raises:
        ChatGLMError: a source cannot be read. If that happens later, the former keys of this source stay in use; those
            of the others come and go as before.
    """

    def __init__(self, sources: Sequence[Source], clock: Any = time.time) -> None:
        self._sources, self._clock = sources, clock
        self._parts = [source.credentials() for source in sources]
        self._problems = [""] * len(sources)
        self._found = self._joined()
        self._looked = time.monotonic()

    @property
    def keys(self) -> Sequence[Key]:
        return [found.key for found in self._found.values()]

    def _joined(self) -> dict[str, Credential]:
        return {one.key.id: one for part in reversed(self._parts) for one in part}

    def _look(self) -> None:
        if time.monotonic() - self._looked < _LOOK:
            return
        self._looked = time.monotonic()
        for number, source in enumerate(self._sources):
            try:
                if source.changed():
                    self._parts[number] = source.credentials()
                    self._found = self._joined()
                self._problems[number] = ""
            except ChatGLMError as error:
                if str(error) != self._problems[number]:  # logged once, not every second
                    self._problems[number] = str(error)
                    log.error("API keys cannot be reloaded, so the former ones stay in use: %s", error)

    def get(self, owner: str) -> Key:
        """The key of this id.

        Raises:
            AuthenticationError: it was removed or has expired.
        """
        self._look()
        if owner not in self._found:
            raise AuthenticationError("the API key that this belongs to was removed", "invalid_api_key")
        return self._in_time(self._found[owner].key)

    def authenticate(self, headers: Iterable[tuple[bytes, bytes]]) -> Key:
        """Return the key of a request.

        Args:
            headers: names in lower case. `Authorization` comes first, with or without `Bearer`, then `x-api-key` and
                `api-key`: clients that send several have a dummy in all but one.

        Raises:
            AuthenticationError: there is no key, or none is right. The time that this takes does not show whether an id
                exists.
        """
        self._look()
        problem: AuthenticationError | None = None
        for text in _sent(headers):
            try:
                return self._in_time(self._check(text))
            except AuthenticationError as error:
                problem = problem or error
        raise problem or AuthenticationError(
            "no API key was sent; send it in the header `Authorization: Bearer KEY`", "missing_api_key"
        )

    def _check(self, text: str) -> Key:
        if len(text) > _CREDENTIAL:
            raise AuthenticationError(
                f"the API key has {len(text):,} characters; keys and tokens have at most {_CREDENTIAL:,}",
                "invalid_api_key",
            )
        named, whole = self._found.get(text.partition(".")[0]), self._found.get(id_of(text))
        found = whole or named
        if hmac.compare_digest(digest_of(text), found.digest if found else _NOBODY) and found:
            return found.key
        if jwt.looks_like_token(text):
            return self._of_token(text)
        raise AuthenticationError(
            "the API key is wrong, or was removed; ask for a new one where you got it", "invalid_api_key"
        )

    def _of_token(self, text: str) -> Key:
        found = self._found.get(jwt.key_id(text))
        secret = found.secret if found else None
        payload = jwt.verified(text, secret or _NOBODY)
        if payload is None or found is None or secret is None:
            raise AuthenticationError(
                "the token is not signed with a key that is known here: the id or the secret is wrong, or the key was "
                "removed",
                "invalid_api_key",
            )
        jwt.check_times(payload, self._clock())
        return found.key

    def _in_time(self, key: Key) -> Key:
        if key.expired(self._clock()):
            ended = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(key.expires))
            raise AuthenticationError(
                f"the API key {key.name!r} expired at {ended}; ask for a new one where you got it", "expired_api_key"
            )
        return key


def _sent(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """The keys and tokens of a request."""
    given: dict[bytes, str] = {}
    for name, value in headers:
        if name in _HEADERS and (text := value.decode("latin-1").strip()):
            given.setdefault(name, text)
    texts = []
    for name in _HEADERS:
        text = given.get(name, "")
        scheme, _, rest = text.partition(" ")
        if scheme.lower() == "bearer":
            text = rest.strip()
        if text:
            texts.append(text)
    return texts
