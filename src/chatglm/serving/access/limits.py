"""Limits of API keys: requests and tokens a minute, requests at a time.

They are counted in the memory of this process: a restart resets them, and each of several servers counts its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from chatglm.serving.access.keys import Key
from chatglm.serving.failures import RateLimitError

__all__ = ["Bucket", "RateLimits"]


class Bucket:
    """A token bucket: full at first, filled at an even rate. It may be overdrawn, which delays what comes next.

    Args:
        per_minute: its size, and how much it gets in a minute.
        now: seconds of a clock that never runs backwards.
    """

    __slots__ = ("_at", "_level", "per_minute")

    def __init__(self, per_minute: int, now: float) -> None:
        self.per_minute, self._level, self._at = per_minute, float(per_minute), now

    def level(self, now: float) -> float:
        """How much is in it; below 0 if it is overdrawn."""
        if now > self._at:
            self._level = min(self.per_minute, self._level + (now - self._at) * self.per_minute / 60)
            self._at = now
        return self._level

    def take(self, amount: float, now: float) -> None:
        self._level = self.level(now) - amount

    def wait(self, wanted: float, now: float) -> float:
        """Seconds until it holds as much, if nobody takes anything."""
        return max(0.0, wanted - self.level(now)) * 60 / self.per_minute


class _Use:
    """What one key has used."""

    def __init__(self, key: Key, now: float) -> None:
        self.limits = (key.requests_per_minute, key.tokens_per_minute)
        requests, tokens = self.limits
        self.requests = None if requests is None else Bucket(requests, now)
        self.tokens = None if tokens is None else Bucket(tokens, now)
        self.running = 0


class RateLimits:
    """What all keys have used of their limits.

    Args:
        clock: seconds; it never runs backwards.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._uses: dict[str, _Use] = {}

    def _use(self, key: Key, now: float) -> _Use:
        use = self._uses.get(key.id)
        if use is None or use.limits != (key.requests_per_minute, key.tokens_per_minute):
            made = _Use(key, now)
            made.running = 0 if use is None else use.running
            use = self._uses[key.id] = made
        return use

    def check_tokens(self, key: Key) -> None:
        """
        Raises:
            RateLimitError: the key has used its tokens up for now.
        """
        now = self._clock()
        use = self._use(key, now)
        if use.tokens is not None and use.tokens.level(now) < 1:
            raise RateLimitError(
                f"the API key {key.name!r} has reached its limit of tokens in a minute ({key.tokens_per_minute:,}); "
                f"send the request again in {_duration(use.tokens.wait(1, now))}",
                use.tokens.wait(1, now),
            )

    def begin(self, key: Key) -> Callable[[], None]:
        """Count a request, and return what must be called when its response has ended.

        Raises:
            RateLimitError: a limit is reached. Then nothing was counted.
        """
        now = self._clock()
        use = self._use(key, now)
        if key.concurrency is not None and use.running >= key.concurrency:
            raise RateLimitError(
                f"the API key {key.name!r} has reached its limit of requests at a time ({key.concurrency}); send this "
                "one again when another has ended",
                1.0,
                "concurrency_limit",
            )
        if use.requests is not None and use.requests.level(now) < 1:
            wait = use.requests.wait(1, now)
            raise RateLimitError(
                f"the API key {key.name!r} has reached its limit of requests in a minute "
                f"({key.requests_per_minute:,}); send this one again in {_duration(wait)}",
                wait,
            )
        self.check_tokens(key)
        if use.requests is not None:
            use.requests.take(1, now)
        use.running += 1

        def end() -> None:
            # The key's limits, and so its `_Use`, may have changed since.
            self._uses[key.id].running -= 1

        return end

    def count(self, owner: str, tokens: int) -> None:
        """Count tokens of a request with this key, whenever it began.

        Args:
            owner: id of the key.
        """
        use = self._uses.get(owner)
        if use is not None and use.tokens is not None:
            use.tokens.take(tokens, self._clock())

    def headers(self, key: Key) -> dict[str, str]:
        """What is left, in headers as OpenAI's server sends them; {} for a key without limits a minute."""
        now = self._clock()
        use = self._use(key, now)
        made = {}
        for name, bucket in (("requests", use.requests), ("tokens", use.tokens)):
            if bucket is not None:
                made[f"x-ratelimit-limit-{name}"] = str(bucket.per_minute)
                made[f"x-ratelimit-remaining-{name}"] = str(max(0, int(bucket.level(now))))
                made[f"x-ratelimit-reset-{name}"] = _duration(bucket.wait(bucket.per_minute, now))
        return made


def _duration(seconds: float) -> str:
    """As OpenAI writes durations: 120ms, 7s, 6m0s, 1h0m5s."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms" if seconds * 1000 < 999.5 else "1s"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{f'{hours}h' if hours else ''}{f'{minutes}m' if whole >= 60 else ''}{whole % 60}s"
