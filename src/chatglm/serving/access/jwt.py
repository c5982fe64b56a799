"""Tokens (JWT) that clients sign with the secret of their key, as ZhipuAI's clients do.

The format: header `{"alg": "HS256", "sign_type": "SIGN"}`, payload `{"api_key": ID, "exp": E, "timestamp": T}` with
times in milliseconds, signed with the secret of the key `ID.SECRET`. What other standards allow is refused: other
algorithms, extensions (`crit`), times in seconds.
"""

from __future__ import annotations

import json
import math
import time
from typing import Any

import jwt
from jwt.algorithms import HMACAlgorithm

from chatglm.serving.failures import AuthenticationError

__all__ = ["LONGEST", "SKEW", "check_times", "key_id", "looks_like_token", "verified"]

SKEW = 300.0
"""Seconds by which a client's clock may differ from the server's."""

LONGEST = 24 * 3600.0
"""Seconds that a token may live. ZhipuAI's own packages ask for 3 minutes, others for up to a day."""

_SECONDS = 100e9  # smaller times are in seconds: in milliseconds, this is in 1973


class _HS256(HMACAlgorithm):
    def __init__(self) -> None:
        super().__init__(HMACAlgorithm.SHA256)

    def check_key_length(self, key: bytes) -> None:
        """Secrets that ZhipuAI gives have 16 characters; PyJWT would warn of them at every request."""


_jws = jwt.PyJWS(algorithms=[])
_jws.register_algorithm("HS256", _HS256())


def looks_like_token(text: str) -> bool:
    return text.count(".") == 2


def key_id(token: str) -> str:
    """Id of the key that a token says it is signed with. Nothing is verified yet.

    Raises:
        AuthenticationError: this is not a token, or a token of another kind; the message says why.
    """
    try:
        options: Any = {"verify_signature": False}
        parts = _jws.decode_complete(token, options=options)
        header = parts["header"]
        algorithm = header.get("alg")
        if algorithm != "HS256":
            raise _wrong(f"is signed with alg {str(algorithm)[:20]!r}; only HS256 is accepted")
        if "crit" in header or "b64" in header:
            raise _wrong("has an extension in its header (crit or b64), which is not supported")
        payload = _payload(parts["payload"])
    except jwt.PyJWTError as error:
        raise _wrong(f"cannot be read: {str(error)[:80]}") from None
    found = payload.get("api_key")
    if not isinstance(found, str) or not 0 < len(found) <= 64:
        raise _wrong("has no api_key in its payload, which is the part of the key before the dot")
    return found


def verified(token: str, secret: bytes) -> dict[str, Any] | None:
    """The payload of a token that was signed with this secret; None for others."""
    try:
        return _payload(_jws.decode(token, secret, algorithms=["HS256"]))
    except jwt.PyJWTError:
        return None


def _payload(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _wrong("has a payload that is not a JSON object")
    return value


def _wrong(what: str, code: str = "invalid_api_key") -> AuthenticationError:
    return AuthenticationError(f"the token {what}", code)


def check_times(payload: dict[str, Any], now: float) -> None:
    """
    Args:
        now: Unix seconds.

    Raises:
        AuthenticationError: the token has ended, is from the future, or lives too long.
    """
    begin, end = _time_of(payload, "timestamp", now), _time_of(payload, "exp", now)
    if end <= begin:
        raise _wrong("ends before it begins: exp is not after timestamp")
    if end + SKEW < now:
        raise _wrong(f"expired at {_shown(end)}; {_clock(now)}. Sign a new one for each request", "expired_api_key")
    if begin - SKEW > now:
        raise _wrong(f"was signed in the future, at {_shown(begin)}; {_clock(now)}. Set the client's clock")
    if end - begin > LONGEST:
        raise _wrong(
            f"lives {(end - begin) / 3600:,.1f} hours; at most {LONGEST / 3600:g} are accepted. Set exp closer to "
            "timestamp"
        )


def _time_of(payload: dict[str, Any], name: str, now: float) -> float:
    """A time of the payload, in Unix seconds."""
    value = payload.get(name)
    if value is None:
        raise _wrong(f"has no {name} in its payload; it is a time in milliseconds since 1970")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(_float(value)):
        raise _wrong(f"has a {name} that is not a number of milliseconds since 1970")
    if value < _SECONDS:
        raise _wrong(f"has a {name} of {value:g}, which looks like seconds; it must be in milliseconds. {_clock(now)}")
    return _float(value) / 1000


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _shown(seconds: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"{seconds:.0f} seconds after 1970"


def _clock(now: float) -> str:
    return f"The server's time is {_shown(now)} ({now * 1000:.0f} ms)"
