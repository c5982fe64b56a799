"""Tokens that clients sign with the secret of their key: which are taken, and what is said of the others."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import warnings
from collections.abc import Mapping
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatglm.serving.access.key_sources import KeyStore, Texts
from chatglm.serving.access.keys import Keyring
from chatglm.serving.failures import AuthenticationError

NOW = 1_800_000_000.0
ALICE, BOB, PLAIN = "alice.0123456789abcdef", "bob.fedcba9876543210", "no-dot-in-this-key"
KEYS = Keyring([Texts([ALICE, BOB, PLAIN], "test")], clock=lambda: NOW)
HEADER = {"alg": "HS256", "sign_type": "SIGN", "typ": "JWT"}


def part(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(payload: Any, secret: str = "0123456789abcdef", header: Mapping[str, Any] = HEADER) -> str:
    body = f"{part(header)}.{part(payload)}"
    return f"{body}.{part(hmac.new(secret.encode(), body.encode(), hashlib.sha256).digest())}"


def claims(key: str = "alice", begin: float = 0.0, life: float = 210.0, **more: Any) -> dict[str, Any]:
    """
    Args:
        begin: seconds from now.
    """
    at = int((NOW + begin) * 1000)
    return {"api_key": key, "exp": at + int(life * 1000), "timestamp": at, **more}


def check(token: str, keys: Keyring = KEYS) -> str:
    return keys.authenticate([(b"authorization", token.encode())]).id


@pytest.mark.parametrize("form", ["{}", "Bearer {}", "bearer {}"])
@pytest.mark.parametrize(
    "token",
    [
        signed(claims()),
        signed(claims(), header={"alg": "HS256"}),
        signed(claims(life=24 * 3600)),  # as long as any
        signed(claims(begin=299)),  # clocks that differ
        signed(claims(begin=-509)),
        signed(claims(begin=0.5, user="somebody")),
        signed({"api_key": "alice", "exp": NOW * 1000 + 5000.5, "timestamp": NOW * 1000 + 0.25}),
        signed(claims("bob"), "fedcba9876543210"),
    ],
)
def test_tokens_of_the_right_form_are_taken(form: str, token: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of short secrets, for example
        assert check(form.format(token)) in ("alice", "bob")


def test_what_pyjwt_makes_is_taken() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        token = jwt.encode(claims("bob"), "fedcba9876543210", "HS256", headers={"alg": "HS256", "sign_type": "SIGN"})
    assert check(token) == "bob"


def none(payload: Any, name: str = "none") -> str:
    return f"{part({**HEADER, 'alg': name})}.{part(payload)}."


TIME = r"The server's time is 2027-01-15 08:00:00 UTC \(1800000000000 ms\)"


@pytest.mark.parametrize(
    ("token", "code", "words"),
    [
        # Time
        (signed(claims(begin=-511)), "expired_api_key", rf"expired at 2027-01-15 07:54:59 UTC; {TIME}"),
        (signed(claims(begin=-10_000)), "expired_api_key", "expired"),
        (
            signed(claims(begin=301)),
            "invalid_api_key",
            rf"in the future, at 2027-01-15 08:05:01 UTC; {TIME}",
        ),
        (signed(claims(life=24 * 3600 + 1)), "invalid_api_key", "lives 24.0 hours; at most 24"),
        (signed(claims(begin=-1e6, life=2e6)), "invalid_api_key", "lives 555.6 hours"),
        (signed(claims(life=0)), "invalid_api_key", "ends before it begins"),
        (signed(claims(life=-5)), "invalid_api_key", "ends before it begins"),
        (signed(claims(exp=int(NOW) + 180, timestamp=int(NOW))), "invalid_api_key", "timestamp .* looks like seconds"),
        (
            signed(claims(exp=int(NOW) + 180)),
            "invalid_api_key",
            "exp .* looks like seconds; it must be in",
        ),
        (signed(claims(exp=10**400)), "invalid_api_key", "exp that is not a number"),
        (signed(claims(exp=10**300)), "invalid_api_key", "hours"),
        (signed(claims(exp=-1)), "invalid_api_key", "looks like seconds"),
        *(
            (signed(claims(**{name: value})), "invalid_api_key", f"{name} that is not a number of milliseconds")
            for name in ("exp", "timestamp")
            for value in ("1800000000000", True, [], {}, float("nan"), float("inf"))
        ),
        (signed(claims(exp=None)), "invalid_api_key", "no exp"),
        (signed({"api_key": "alice", "exp": int(NOW * 1000) + 1}), "invalid_api_key", "no timestamp"),
        # Signature
        (signed(claims(), "0123456789abcdeg"), "invalid_api_key", "not signed with a key that is known here"),
        (signed(claims("bob")), "invalid_api_key", "not signed with a key"),  # Alice's secret, Bob's id
        (signed(claims("nobody")), "invalid_api_key", "not signed with a key"),
        (signed(claims(), ""), "invalid_api_key", "not signed with a key"),
        (signed(claims("nobody"), ""), "invalid_api_key", "not signed with a key"),
        (signed(claims(PLAIN), PLAIN), "invalid_api_key", "not signed with a key"),
        (none(claims()), "invalid_api_key", "alg 'none'; only HS256"),
        (none(claims(), "None"), "invalid_api_key", "only HS256"),
        (none(claims(), "nOnE"), "invalid_api_key", "only HS256"),
        (f"{part(HEADER)}.{part(claims())}.", "invalid_api_key", "not signed with a key"),
        *(
            (signed(claims(), header={**HEADER, "alg": name}), "invalid_api_key", "only HS256")
            for name in ("HS512", "RS256", "ES256", "hs256", "", "dir")
        ),
        (signed(claims(), header={"typ": "JWT"}), "invalid_api_key", "alg 'None'; only HS256"),
        (signed(claims(), header={**HEADER, "alg": ["HS256"]}), "invalid_api_key", "only HS256"),
        (signed(claims(), header={**HEADER, "crit": ["exp"]}), "invalid_api_key", "crit"),
        (signed(claims(), header={**HEADER, "b64": False, "crit": ["b64"]}), "invalid_api_key", "the token"),
        # Form
        ("a.b.c", "invalid_api_key", "cannot be read"),
        ("..", "invalid_api_key", "cannot be read"),
        (f"{part(HEADER)}.{part([1])}.x", "invalid_api_key", "the token"),
        (signed([1]), "invalid_api_key", "payload that is not a JSON object"),
        (signed(b"\xff"), "invalid_api_key", "payload that is not a JSON object"),
        (signed(b"[" * 2000), "invalid_api_key", "payload that is not a JSON object"),
        (signed(b'{"exp":' + b"9" * 2000 + b"}"), "invalid_api_key", "no api_key"),
        (signed(b"{}"), "invalid_api_key", "no api_key"),
        (signed(claims(api_key=7)), "invalid_api_key", "no api_key"),
        (signed(claims(api_key="")), "invalid_api_key", "no api_key"),
        (signed(claims(more="x" * 5000)), "invalid_api_key", "keys and tokens have at most 4,096"),
        (f"{part(b'[' * 2000)}.{part(claims())}.x", "invalid_api_key", "cannot be read"),
    ],
)
def test_other_tokens_are_refused_with_the_reason(token: str, code: str, words: str) -> None:
    with pytest.raises(AuthenticationError, match=words) as refused:
        check(token)
    assert refused.value.code == code
    assert "0123456789abcde" not in str(refused.value)
    with pytest.raises(AuthenticationError):
        check(f"Bearer {token}")


def test_a_token_of_a_removed_key_is_refused(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatglm.serving.access.keys._LOOK", 0.0)
    store = KeyStore(tmp_path)
    key, text = store.add("alice")
    keys = Keyring([KeyStore(tmp_path)], clock=lambda: NOW)
    token = signed(claims(key.id), text.partition(".")[2])
    assert check(token, keys) == key.id
    store.remove("alice")
    with pytest.raises(AuthenticationError, match="the key was removed"):
        check(token, keys)
    again, _ = store.add("alice")  # a new key of the same name is another one
    assert again.id != key.id
    with pytest.raises(AuthenticationError):
        check(token, keys)
    store.close()


def test_a_key_with_two_dots_is_not_taken_for_a_token() -> None:
    keys = Keyring([Texts(["one.two.three-is-a-key"], "test")])
    assert keys.authenticate([(b"x-api-key", b"one.two.three-is-a-key")])


@given(st.data())
def test_a_token_with_any_other_character_is_refused(data: st.DataObject) -> None:
    token = signed(claims())
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters(min_codepoint=33, max_codepoint=126).filter(lambda c: c != token[place]))
    with pytest.raises(AuthenticationError):
        check(token[:place] + other + token[place + 1 :])


@given(st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=300))
def test_no_header_breaks_anything(text: str) -> None:
    with pytest.raises(AuthenticationError):
        KEYS.authenticate([(b"authorization", text.encode("latin-1")), (b"x-api-key", b"")])
