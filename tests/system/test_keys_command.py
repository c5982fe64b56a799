"""`chatglm keys`, and what `chatglm serve` does with keys."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import httpx
import openai
import pytest
from test_serve_command import COMMAND, serve

from chatglm.cli import main

RAW = "alice.0123456789abcdef"


def chatglm(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    surroundings = {**os.environ, "CHATGLM_HOME": str(home), **environment}
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=120, env=surroundings)


def test_keys_are_made_shown_and_removed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    empty = chatglm(home, "keys", "list")
    assert (empty.returncode, empty.stdout.count("\n")) == (0, 1)
    assert "chatglm keys add --name" in empty.stderr
    limits = ("--requests-per-minute", "60", "--tokens-per-minute", "1000", "--concurrency", "2")
    made = chatglm(home, "keys", "add", "--name", "alice", "--models", "a, b", "--expires", "90d", *limits)
    text = made.stdout.strip()
    assert made.returncode == 0
    assert len(text.split(".")) == 2
    assert text not in made.stderr
    assert chatglm(home, "keys", "add", "--name", "bob", "--may", "metrics").returncode == 0
    table = chatglm(home, "keys", "list").stdout
    head, alice, bob = table.splitlines()
    assert head.split()[4:] == ["MODELS", "REQUESTS/MIN", "TOKENS/MIN", "CONCURRENCY", "MAY"]
    assert alice.split()[4:] == ["a,b", "60", "1000", "2", "-"]
    assert bob.split()[3:] == ["never", "all", "-", "-", "-", "metrics"]
    assert text.partition(".")[2] not in table
    listed = [json.loads(line) for line in chatglm(home, "keys", "list", "--json").stdout.splitlines()]
    assert listed[0]["id"] == text.partition(".")[0]
    assert 89 * 86400 < listed[0]["expires"] - time.time() <= 90 * 86400
    for named in (listed[0]["id"], "bob"):
        assert chatglm(home, "keys", "remove", named).returncode == 0
    assert chatglm(home, "keys", "list").stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["add", "--name", "a b"], "--name: expected a name"),
        (["add", "--name", "x", "--models", ""], "--models: expected"),
        (["add", "--name", "x", "--expires", "soon"], "--expires soon: expected 90d"),
        (["add", "--name", "x", "--expires", "2020-01-01"], "--expires 2020-01-01: is in the past"),
        (["add", "--name", "x", "--concurrency", "0"], "--concurrency: expected a whole number"),
        (["remove", "x"], "x: no key has this name or id; there are no keys"),
        (["add", "--name", "x", "--home", "/proc/nothing"], "/proc/nothing"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = chatglm(tmp_path, "keys", *arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert words in done.stderr


def test_a_server_with_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATGLM_HOME", str(tmp_path))
    monkeypatch.setenv("CHATGLM_API_KEYS", f" sk-of-the-environment, {RAW},")
    made = chatglm(tmp_path, "keys", "add", "--name", "made").stdout.strip()
    with serve("--name", "demo", "--host", "0.0.0.0") as (_, url):
        port = url.rpartition(":")[2]
        base = f"http://127.0.0.1:{port}"
        assert httpx.get(f"{base}/health").status_code == 200
        assert httpx.get(f"{base}/v1/models").status_code == 401
        for key in (made, "sk-of-the-environment", RAW):
            with openai.OpenAI(base_url=f"{base}/v1", api_key=key) as client:
                assert [model.id for model in client.models.list()] == ["demo"]
        assert chatglm(tmp_path, "keys", "remove", "made").returncode == 0
        with openai.OpenAI(base_url=f"{base}/v1", api_key=made, max_retries=0) as client:
            end = time.monotonic() + 120
            while True:
                try:
                    client.models.list()
                except openai.AuthenticationError as error:
                    assert error.code == "invalid_api_key"  # noqa: PT017 — the loop waits for it
                    break
                assert time.monotonic() < end
                time.sleep(0.2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "chatglm keys add --name NAME`, or add --no-keys"),
        (
            ["--api-key", "token-abc123"],
            "--api-key: every user of this machine can read arguments; set CHATGLM",
        ),
        (["--keys", "/nowhere"], "/nowhere: cannot be read"),
        (["--keys", os.devnull], f"--keys {os.devnull}: has no keys"),
        (["--keys", "/nowhere", "--no-keys"], "--no-keys: contradicts --keys"),
    ],
)
def test_serve_says_before_the_model_is_loaded(
    tmp_path: Path,
    arguments: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CHATGLM_HOME", str(tmp_path / "home"))
    assert main(["serve", "--port", "0", "--model", "/no-such-model", *arguments]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert words in said
    assert not (tmp_path / "home").exists()


def test_no_keys_says_that_it_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATGLM_HOME", str(tmp_path))
    assert chatglm(tmp_path, "keys", "add", "--name", "x").returncode == 0
    with serve("--name", "demo", "--host", "0.0.0.0", "--no-keys") as (_, url):
        assert httpx.get(f"http://127.0.0.1:{url.rpartition(':')[2]}/v1/models").status_code == 200


def test_a_log_that_nobody_reads_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`serve` reads stderr up to the line that has the address, and then no more: the pipe is full soon."""
    monkeypatch.setenv("CHATGLM_HOME", str(tmp_path))
    with serve("--name", "demo", "--log-format", "json") as (process, url):
        with httpx.Client(base_url=url, timeout=60) as client:
            for number in range(500):
                sent = {"x-request-id": f"{number:0128d}"}
                assert client.get(f"/v1/models/{'x' * 150}", headers=sent).status_code == 404
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
