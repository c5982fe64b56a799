"""API keys: who gets in, what they may do, and where keys come from."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatglm.assistant import Assistant
from chatglm.errors import InputError, OutputError
from chatglm.serving.access.key_sources import KeyFile, KeyStore, Texts, written
from chatglm.serving.access.keys import Key, Keyring
from chatglm.serving.failures import AuthenticationError
from scripted import ScriptedEngine, Writer
from server import serving

ALICE, BOB, PLAIN = "alice.0123456789abcdef", "bob.fedcba9876543210", "sk-plain-text-without-a-dot"
CHAT = {"messages": [{"role": "user", "content": "x"}]}


class Fixed:
    """A source whose keys a test sets."""

    def __init__(self, *entries: dict[str, Any]) -> None:
        self.set(*entries)

    def set(self, *entries: dict[str, Any]) -> None:
        self.found, self.new = written([(entry, "entry") for entry in entries], "test"), True

    def changed(self) -> bool:
        return self.new

    def credentials(self) -> Any:
        self.new = False
        return self.found


@contextlib.contextmanager
def server(write: Writer, keys: Keyring | None, **options: Any) -> Iterator[httpx.Client]:
    engine = ScriptedEngine(write.say("好"))
    with (
        Assistant(write.form, engine) as assistant,  # type: ignore[arg-type]
        serving({"demo": assistant, "other": assistant}, keys=keys, **options) as url,
        httpx.Client(base_url=url) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def guarded(write: Writer) -> Iterator[httpx.Client]:
    keys = Keyring(
        [
            Fixed(
                {"key": ALICE, "name": "alice", "models": ["other"]},
                {"key": BOB, "name": "bob", "may": ["metrics"]},
                {"key": PLAIN, "name": "plain"},
                {"key": "late.0123456789abcdef", "name": "late", "expires": "2001-09-09"},
            )
        ]
    )
    with server(write, keys) as client:
        yield client


@pytest.mark.parametrize("key", [BOB, PLAIN])
@pytest.mark.parametrize(
    "header",
    ["Authorization: Bearer {}", "authorization: bearer  {}", "Authorization: {}", "X-API-Key: {}", "api-key: {}"],
)
def test_a_key_is_taken_from_every_usual_header(guarded: httpx.Client, key: str, header: str) -> None:
    name, _, value = header.format(key).partition(": ")
    answer = guarded.post("/v1/chat/completions", json=CHAT, headers={name: value})
    assert answer.status_code == 200, answer.text


def test_a_dummy_in_another_header_does_not_matter(guarded: httpx.Client) -> None:
    headers = {"Authorization": "Bearer EMPTY", "x-api-key": BOB}
    assert guarded.get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (None, "missing_api_key"),
        ("", "missing_api_key"),
        ("Bearer", "missing_api_key"),
        ("Bearer alice.0123456789abcdeg", "invalid_api_key"),
        ("Bearer alice.", "invalid_api_key"),
        ("Bearer alice", "invalid_api_key"),
        ("Bearer nobody.0123456789abcdef", "invalid_api_key"),
        ("Bearer .0123456789abcdef", "invalid_api_key"),
        (f"Bearer {ALICE} {ALICE}", "invalid_api_key"),
        (f"Bearer {ALICE.upper()}", "invalid_api_key"),
        (f"Basic {ALICE}", "invalid_api_key"),
        ("Bearer " + "x" * 9000, "invalid_api_key"),
        (b"Bearer \xff\xfe\x80", "invalid_api_key"),
        ("Bearer late.0123456789abcdef", "expired_api_key"),
    ],
)
def test_others_are_refused_in_the_shape_of_the_dialect(
    guarded: httpx.Client, sent: str | bytes | None, code: str
) -> None:
    headers = {} if sent is None else {b"Authorization": sent if isinstance(sent, bytes) else sent.encode()}
    answer = guarded.post("/v1/chat/completions", json=CHAT, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("authentication_error", code, None)
    assert "0123456789abcde" not in answer.text
    old = guarded.post("/", json={"prompt": "x"}, headers=headers)
    assert old.status_code == 401
    assert old.json()["error"] == error["message"]


def test_pages_and_health_need_no_key(guarded: httpx.Client) -> None:
    assert "demo" not in guarded.get("/").text
    for path in ("/", "/docs", "/openapi.json", "/health"):
        assert guarded.get(path).status_code == 200
        assert guarded.head(path).status_code == 200
    assert guarded.options("/v1/chat/completions").status_code == 204
    for method, path in (
        ("GET", "/metrics"),
        ("GET", "/v1/models"),
        ("GET", "/nothing"),
        ("POST", "/"),
        ("PUT", "/docs"),
    ):
        assert guarded.request(method, path).status_code == 401, path


def test_models_that_a_key_may_not_use(guarded: httpx.Client) -> None:
    headers = {"Authorization": f"Bearer {ALICE}"}
    assert [model["id"] for model in guarded.get("/v1/models", headers=headers).json()["data"]] == ["other"]
    answer = guarded.post("/v1/chat/completions", json={**CHAT, "model": "demo"}, headers=headers)
    assert answer.status_code == 403
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("permission_denied", "model")
    assert "it may use: other" in error["message"]
    unknown = guarded.post("/v1/chat/completions", json={**CHAT, "model": "third"}, headers=headers)
    assert unknown.status_code == 404
    assert "demo" not in unknown.text
    answer = guarded.post("/v1/chat/completions", json=CHAT, headers=headers)  # the first that it may use
    assert answer.json()["model"] == "other"


@pytest.mark.parametrize("path", ["/metrics", "//metrics"])
def test_figures_are_for_keys_that_may(guarded: httpx.Client, path: str) -> None:
    url = f"{str(guarded.base_url).rstrip('/')}{path}"
    assert guarded.get(url, headers={"api-key": BOB}).status_code == 200
    answer = guarded.get(url, headers={"api-key": PLAIN})
    assert answer.status_code == 403
    assert "--may metrics" in answer.json()["error"]["message"]


def test_figures_may_be_open(write: Writer) -> None:
    with server(write, Keyring([Texts([BOB], "test")]), open_metrics=True) as client:
        assert client.get("/metrics").status_code == 200
        assert client.post("/metrics").status_code == 401


def test_a_removed_key_is_refused_soon(write: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatglm.serving.access.keys._LOOK", 0.0)
    source = Fixed({"key": ALICE}, {"key": BOB})
    keys = Keyring([source])
    with server(write, keys) as client:
        assert client.get("/v1/models", headers={"api-key": ALICE}).status_code == 200
        source.set({"key": BOB})
        assert client.get("/v1/models", headers={"api-key": ALICE}).status_code == 401
        assert client.get("/v1/models", headers={"api-key": BOB}).status_code == 200
        source.set()
        assert client.get("/v1/models", headers={"api-key": BOB}).status_code == 401  # and not: open to all


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["short"], "test: key 1: has 5 characters"),
        (["x" * 513], "has 513 characters"),
        (["with blanks in it"], "without blanks"),
        (["ключ-0123456789"], "ASCII"),
        (["same.0123456789", "same.abcdefghij"], "test: key 2: another key has the same id"),
        ([PLAIN, PLAIN], "test: key 2"),
    ],
)
def test_texts_that_cannot_be_keys(texts: list[str], words: str) -> None:
    with pytest.raises(InputError) as caught:
        Texts(texts, "test")
    assert words in str(caught.value)
    assert texts[-1] not in str(caught.value)


def test_a_file_of_lines(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_text(f"# who may ask\n\n{ALICE}  alice\n\t{PLAIN}\n", "utf-8")
    assert [found.key.name for found in KeyFile(file).credentials()] == ["alice", "file-2"]


def test_a_file_of_yaml(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(
        f"""
        keys:
          - key: {ALICE}
            name: alice
            models: [demo]
            expires: 2030-12-31
            requests_per_minute: 60
            tokens_per_minute: 100000
            concurrency: 4
            may: [metrics, manage-adapters]
          - key: {PLAIN}
            expires: 2030-12-31T12:00:00+08:00
        """,
        "utf-8",
    )
    alice, plain = (found.key for found in KeyFile(file).credentials())
    may = frozenset({"metrics", "manage-adapters"})
    assert alice == Key("alice", "alice", frozenset({"demo"}), 1924905600, 60, 100000, 4, may)
    assert plain.expires == 1924905600 + 4 * 3600


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("keys.txt", f"{ALICE} a b", "line 1: expected a key, which a name may follow"),
        ("keys.txt", f"{ALICE} x\n{BOB} x", "line 2: another key has the name 'x'"),
        ("keys.txt", f"\n{ALICE} a\tb", "line 2: expected a key"),
        ("keys.txt", "\nshort", "line 2: has 5 characters"),
        ("keys.txt", f"{ALICE} n<script>", "line 1: name: expected a name"),
        ("keys.yaml", "keys: [", "line 1: is not YAML"),
        ("keys.yaml", f"- {ALICE}", "expected one list, `keys:`"),
        ("keys.yaml", f"keys: [{ALICE}]", "key 1: expected fields: key, name"),
        (
            "keys.yaml",
            f"keys: [{{key: {ALICE}, model: demo}}]",
            "key 1: model: unknown field; fields are key, name, models",
        ),
        ("keys.yaml", f"keys: [{{key: {ALICE}, models: demo}}]", "key 1: models: expected a list of model names"),
        ("keys.yaml", f"keys: [{{key: {ALICE}, concurrency: 0}}]", "key 1: concurrency: expected a whole number"),
        ("keys.yaml", f"keys: [{{key: {ALICE}, expires: soon}}]", "key 1: expires: expected a date"),
        (
            "keys.yaml",
            f"keys: [{{key: {ALICE}, may: [all]}}]",
            "key 1: may: expected a list of forward, interpreter, manage-adapters, metrics, tools",
        ),
        ("keys.yaml", "keys: [{key: 12345678}]", "key 1: a key is a text"),
        ("keys.yaml", "keys: [!!python/name:os.system x]", "is not YAML"),
        ("keys.yml", "[" * 5000, "is not YAML"),
        ("keys.txt", "\udcff\udcfe", "is not UTF-8"),
        ("keys.txt", "#" * ((1 << 20) + 1), "has more than 1,048,576 bytes"),
    ],
)
def test_files_with_something_wrong(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text, "utf-8", "surrogateescape")
    with pytest.raises(InputError) as caught:
        KeyFile(tmp_path / name).credentials()
    assert words in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)
    assert ALICE not in str(caught.value)


def test_a_file_is_read_again_and_a_broken_one_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("chatglm.serving.access.keys._LOOK", 0.0)
    file = tmp_path / "keys.txt"
    file.write_text(ALICE, "utf-8")
    keys = Keyring([KeyFile(file)])
    sent = [(b"x-api-key", ALICE.encode())]
    assert keys.authenticate(sent).id == "alice"
    for damage in (lambda: file.write_text("?", "utf-8"), file.unlink):
        damage()
        caplog.clear()
        assert [keys.authenticate(sent).id for _ in range(3)] == ["alice"] * 3
        assert len(caplog.records) == 1
        assert "cannot be reloaded" in caplog.text
    file.write_text(f"{BOB}\n{PLAIN}", "utf-8")
    with pytest.raises(AuthenticationError):
        keys.authenticate(sent)
    assert len(keys.keys) == 2


def test_a_key_that_is_removed_beside_a_broken_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatglm.serving.access.keys._LOOK", 0.0)
    file, other = tmp_path / "keys.txt", KeyStore(tmp_path)
    file.write_text(ALICE, "utf-8")
    for sources in ([KeyFile(file), KeyStore(tmp_path)], [KeyStore(tmp_path), KeyFile(file)]):
        key, text = other.add("carol")
        keys = Keyring(sources)
        sent = [(b"x-api-key", text.encode())]
        assert keys.authenticate(sent) == key
        for damage in (lambda: file.write_text("?", "utf-8"), file.unlink):
            damage()
            assert keys.authenticate(sent) == key
        other.remove("carol")
        with pytest.raises(AuthenticationError):
            keys.authenticate(sent)
        added, text = other.add("dave")
        assert keys.authenticate([(b"x-api-key", text.encode())]) == added
        assert keys.authenticate([(b"x-api-key", ALICE.encode())]).id == "alice"
        other.remove("dave")
        file.write_text(ALICE, "utf-8")
    other.close()


def test_a_key_is_refused_although_the_first_look_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """For a passing reason, such as too many open files."""
    monkeypatch.setattr("chatglm.serving.access.keys._LOOK", 0.0)
    store, file = KeyStore(tmp_path), tmp_path / "keys.txt"
    file.write_text(f"{ALICE}\n{BOB}", "utf-8")
    _, carol = store.add("carol")
    listed, kept = KeyFile(file), KeyStore(tmp_path)
    keys = Keyring([listed, kept])
    sent = [[(b"x-api-key", text.encode())] for text in (ALICE, carol)]
    file.write_text(BOB, "utf-8")
    store.remove("carol")
    with monkeypatch.context() as patched:

        def fails(*_: object) -> Any:
            raise OSError(24, "Too many open files")

        def fails_too(*_: object) -> Any:
            raise OutputError("keys.secret: cannot be read")

        patched.setattr(Path, "open", fails)
        patched.setattr(KeyStore, "_master", fails_too)
        for one in sent:
            keys.authenticate(one)
    for one in sent:
        with pytest.raises(AuthenticationError):
            keys.authenticate(one)
    store.close()


def test_made_keys_are_stored_without_their_secrets(tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "home")
    assert store.keys() == []
    assert not (tmp_path / "home").exists()  # looking makes nothing
    fields: dict[str, Any] = {"models": frozenset({"a", "b"}), "expires": 2e9, "tokens_per_minute": 5}
    key, text = store.add("alice", **fields)
    assert re.fullmatch(r"[0-9a-f]{16}\.[0-9a-f]{48}", text)
    assert store.keys() == [key]
    secret = text.partition(".")[2]
    stored = b"".join(file.read_bytes() for file in (tmp_path / "home").iterdir())
    for form in (secret.encode(), bytes.fromhex(secret)):
        assert form not in stored
    for file in (tmp_path / "home").iterdir():
        assert file.stat().st_mode & 0o077 == 0, file
    with pytest.raises(InputError, match="--name alice: a key has this name"):
        store.add("alice")
    with pytest.raises(InputError, match="bob: no key has this name or id; known: alice"):
        store.remove("bob")
    assert store.remove(key.id) == key
    assert store.keys() == []
    store.close()


def test_servers_notice_keys_that_are_made_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatglm.serving.access.keys._LOOK", 0.0)
    keys, other = Keyring([KeyStore(tmp_path)]), KeyStore(tmp_path)
    sent: list[tuple[bytes, bytes]] = []
    for name in ("first", "second"):
        key, text = other.add(name)
        sent = [(b"authorization", f"Bearer {text}".encode())]
        assert keys.authenticate(sent) == keys.get(key.id) == key
        other.remove(name)
        with pytest.raises(AuthenticationError) as refused:
            keys.authenticate(sent)
        assert refused.value.code == "invalid_api_key"
        with pytest.raises(AuthenticationError, match="was removed"):
            keys.get(key.id)
    key, text = other.add("third")
    assert keys.authenticate([(b"x-api-key", text.encode())]) == key
    other.close()
    for file in tmp_path.iterdir():
        file.unlink()
    with pytest.raises(AuthenticationError):  # the keys are gone, and nobody is let in
        keys.authenticate([(b"x-api-key", text.encode())])


def test_a_lost_master_secret_costs_tokens_and_not_keys(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = KeyStore(tmp_path)
    key, text = store.add("alice")
    (tmp_path / "keys.secret").unlink()
    assert Keyring([store]).authenticate([(b"x-api-key", text.encode())]) == key
    assert "alice" in caplog.text
    _, text = store.add("bob")
    found = {one.key.name: one for one in store.credentials()}
    assert found["alice"].secret is None
    assert found["bob"].secret == text.partition(".")[2].encode()
    (tmp_path / "keys.secret").write_text("something else", "utf-8")
    with pytest.raises(OutputError, match=r"keys\.secret: is not the secret"):
        store.credentials()
    store.close()


@given(st.lists(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=40), unique=True))
def test_every_accepted_text_opens_its_own_door_only(texts: list[str]) -> None:
    try:
        found = Texts(texts, "test").credentials()
    except InputError:
        return
    keys = Keyring([Texts(texts, "test")])
    assert len(found) == len(texts)
    for number, text in enumerate(texts):
        for form in (text, f"Bearer {text}", f"bearer {text}"):
            if form.lower().strip() != "bearer":
                assert keys.authenticate([(b"authorization", form.encode())]) == found[number].key
        for wrong in (text[:-1], text + "x", text.swapcase() + "!", text[1:]):
            if wrong not in texts:
                with pytest.raises(AuthenticationError):
                    keys.authenticate([(b"x-api-key", wrong.encode())])


def test_web_pages_ask_first_without_a_key_and_may_read_refusals(write: Writer) -> None:
    origin = "https://chat.example"
    with server(write, Keyring([Texts([BOB], "test")]), origins=[origin]) as client:
        asking = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        asking["Access-Control-Request-Headers"] = "authorization,x-api-key"
        before = client.options("/v1/chat/completions", headers=asking)
        assert before.status_code == 200
        assert "x-api-key" in before.headers["access-control-allow-headers"].lower()
        refused = client.post("/v1/chat/completions", json=CHAT, headers={"Origin": origin})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, origin)
        exposed = refused.headers["access-control-expose-headers"]
        for name in ("Retry-After", "x-request-id", "x-ratelimit-remaining-tokens"):
            assert name in exposed


def test_the_document_says_what_needs_a_key(guarded: httpx.Client) -> None:
    document = guarded.get("/openapi.json").json()
    assert document["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
    chat = document["paths"]["/v1/chat/completions"]["post"]
    assert chat["security"] == [{"key": []}]
    assert {"401", "403", "429"} <= chat["responses"].keys()
    assert "security" not in document["paths"]["/health"]["get"]


@pytest.mark.parametrize(
    ("path", "headers", "status", "shown"),
    [
        ("/v1/messages", {}, 401, {"type": "error", "error": {"type": "authentication_error"}}),
        ("/v1/messages", {"x-api-key": ALICE}, 403, {"type": "error", "error": {"type": "permission_error"}}),
        ("/v1/embeddings", {}, 401, {"error": {"code": "missing_api_key"}}),
        ("/v1/rerank", {}, 401, {}),
        ("/api/paas/v4/chat/completions", {}, 401, {"error": {"code": "1001"}}),
        ("/api/paas/v4/chat/completions", {"Authorization": "a.b.c"}, 401, {"error": {"code": "1004"}}),
        ("/api/paas/v4/files", {"Authorization": "late.0123456789abcdef"}, 401, {"error": {"code": "1003"}}),
        ("/api/paas/v3/model-api/demo/invoke", {}, 200, {"success": False, "code": 1001}),
        ("/", {}, 401, {"status": 401}),
        ("/v1/files", {}, 401, {"error": {"code": "missing_api_key"}}),
    ],
)
def test_every_dialect_refuses_in_its_own_form(
    guarded: httpx.Client, path: str, headers: dict[str, str], status: int, shown: dict[str, Any]
) -> None:
    body = {"model": "demo", "max_tokens": 5, **CHAT}
    answer = guarded.post(path, json=body, headers=headers)
    assert answer.status_code == status, answer.text

    def within(part: Any, whole: Any) -> bool:
        if isinstance(part, dict):
            return all(name in whole and within(value, whole[name]) for name, value in part.items())
        return bool(part == whole)

    assert within(shown, answer.json()), answer.text
