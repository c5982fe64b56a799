"""Who asks is told to the engine, which shares out its places between clients."""

from __future__ import annotations

from typing import Any

import httpx

from scripted import Writer

BODIES = {
    "/v1/chat/completions": {"model": "demo", "messages": [{"role": "user", "content": "q"}]},
    "/v1/completions": {"model": "demo", "prompt": ["a", "b"]},
    "/v1/responses": {"model": "demo", "input": "q"},
    "/v1/messages": {"model": "demo", "max_tokens": 5, "messages": [{"role": "user", "content": "q"}]},
    "/": {"prompt": "q"},
}


def test_every_dialect_says_who_asks(over: Any, write: Writer) -> None:
    url, engine = over(write.say("fine"))
    keys: list[dict[str, str]] = [
        {},
        {"Authorization": "Bearer one"},
        {"Authorization": "Bearer two"},
        {"x-api-key": "k"},
    ]
    for _ in range(2):
        for headers in keys:
            for path, body in BODIES.items():
                assert httpx.post(url + path, json=body, headers=headers, timeout=60).status_code == 200
    asked = [each.client for each in engine.asked]
    half = len(asked) // 2
    assert asked[:half] == asked[half:]  # the same caller is the same client
    size = half // len(keys)
    assert size > len(BODIES)  # one of them has two prompts
    assert [len(set(asked[start : start + size])) for start in range(0, half, size)] == [1] * 4  # in every dialect
    assert len(set(asked)) == 4
    assert not any("one" in client or "Bearer" in client for client in asked)
