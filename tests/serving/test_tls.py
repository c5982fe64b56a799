"""HTTPS: with real certificates, over real sockets."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from chatglm.assistant import Assistant
from chatglm.errors import InputError
from chatglm.serving.tls import tls_context
from scripted import ScriptedEngine, Writer
from server import serving

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the command openssl")
CHAT = {"messages": [{"role": "user", "content": "x"}]}


def made(folder: Path, name: str, *more: str) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    options = more or ("-nodes",)
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2"]
    command += ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key)]
    subprocess.run([*command, "-out", str(certificate), *options], check=True, capture_output=True, timeout=60)
    return certificate, key


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return made(tmp_path_factory.mktemp("tls"), "first")


@contextlib.contextmanager
def https(write: Writer, context: ssl.SSLContext, words: int = 3, delay: float = 0.0) -> Iterator[str]:
    engine = ScriptedEngine(write.say("word " * words), pace=1, delay=delay)
    with (
        Assistant(write.form, engine) as assistant,  # type: ignore[arg-type]
        serving({"demo": assistant}, tls=context) as url,
    ):
        yield url


def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate)


def test_the_openai_client_over_https(write: Writer, files: tuple[Path, Path]) -> None:
    with https(write, tls_context(*files)) as url:
        assert url.startswith("https://")
        trusted = httpx.Client(verify=trusting(files[0]))
        with openai.OpenAI(base_url=f"{url}/v1", api_key="x", http_client=trusted) as client:
            for stream in (False, True):
                answer = client.chat.completions.create(model="demo", messages=CHAT["messages"], stream=stream)  # type: ignore[call-overload]
                text = (
                    "".join(chunk.choices[0].delta.content or "" for chunk in answer)
                    if stream
                    else answer.choices[0].message.content
                )
                assert text.strip() == "word word word"
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{url}/health")
        with pytest.raises(httpx.RemoteProtocolError):  # HTTP where HTTPS is spoken
            httpx.get(url.replace("https", "http"))
        for name, version in (("TLSv1.3", ssl.TLSVersion.TLSv1_3), ("TLSv1.2", ssl.TLSVersion.TLSv1_2)):
            mine = trusting(files[0])
            mine.minimum_version = mine.maximum_version = version
            host, port = url.removeprefix("https://").split(":")
            with (
                socket.create_connection((host, int(port))) as plain,
                mine.wrap_socket(plain, server_hostname=host) as secure,
            ):
                assert secure.version() == name


def test_a_client_that_leaves_ends_its_request(write: Writer, files: tuple[Path, Path]) -> None:
    with (
        https(write, tls_context(*files), 400, 0.005) as url,
        httpx.Client(base_url=url, verify=trusting(files[0]), timeout=60) as client,
    ):
        with client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as answer:
            next(answer.iter_lines())
        ended = 'chatglm_answers_total{model="demo",reason="broken off"} 1.0'
        for _ in range(300):
            if ended in client.get("/metrics").text:
                break
        assert ended in client.get("/metrics").text


def test_a_renewed_certificate_is_noticed(
    write: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("chatglm.serving.tls._LOOK", 0.0)
    first, second = made(tmp_path, "one"), made(tmp_path, "two")
    used = tmp_path / "used.pem", tmp_path / "used.key"

    def use(files: tuple[Path, Path]) -> None:
        for file, at in zip(files, used, strict=True):
            shutil.copy(file, at)

    use(first)
    with https(write, tls_context(*used)) as url:
        assert httpx.get(f"{url}/health", verify=trusting(first[0])).status_code == 200
        used[1].write_text("half written", "utf-8")
        for _ in range(2):
            assert httpx.get(f"{url}/health", verify=trusting(first[0])).status_code == 200
        assert caplog.text.count("the former certificate stays in use") == 1
        use((second[0], first[1]))  # the new certificate is there, and its key is not yet
        for _ in range(2):
            assert httpx.get(f"{url}/health", verify=trusting(first[0])).status_code == 200
        use(second)
        with contextlib.suppress(httpx.ConnectError):  # the handshake that notices it may still show the old one
            httpx.get(f"{url}/health", verify=trusting(second[0]))
        assert httpx.get(f"{url}/health", verify=trusting(second[0])).status_code == 200


def test_wrong_files_are_said_in_a_line(tmp_path: Path, files: tuple[Path, Path]) -> None:
    certificate, key = files
    other = made(tmp_path, "other")[1]
    locked = made(tmp_path, "locked", "-passout", "pass:secret")
    (tmp_path / "text").write_text("no PEM", "utf-8")
    for given, words in (
        ((tmp_path / "none", key), f"--tls-cert {tmp_path}/none: cannot be read (No such file"),
        ((certificate, tmp_path), f"--tls-key {tmp_path}: cannot be read (Is a directory"),
        ((certificate, other), "the key does not belong to the certificate"),
        ((certificate, None), "if the key is in another file, add --tls-key FILE"),
        ((tmp_path / "text", key), "expected a certificate and its private key in PEM form"),
        ((key, certificate), "expected a certificate and its private key in PEM form"),
        (locked, "the key has a password; write it without one"),
    ):
        with pytest.raises(InputError) as refused:
            tls_context(*given)
        assert words in str(refused.value)
        assert "\n" not in str(refused.value)
    both = tmp_path / "both.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    tls_context(both)
