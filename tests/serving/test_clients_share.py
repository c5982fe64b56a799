"""Who asks is told to the engine, which shares out its places between clients."""

from __future__ import annotations

from typing import Any

import httpx

from scripted import Writer

BODIES = {
    "/v1/chat/completions": {"model": "demo", "messages": [{"role": "user", "content": "q"}]},
    "/v1/completions": {"model": "demo", "prompt": ["a", "b"]},
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
                assert httpx.post(url + path, json=body, headers=headers).status_code == 200
    asked = [each.client for each in engine.asked]
    assert asked[:20] == asked[20:]  # the same caller is the same client
    assert [len(set(asked[start : start + 5])) for start in range(0, 20, 5)] == [1] * 4  # in every dialect
    assert len(set(asked)) == 4
    assert not any("one" in client or "Bearer" in client for client in asked)
