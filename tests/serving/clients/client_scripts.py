"""Run a script with a client package: in an environment of its own, or in this repository's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from environments import SetupError, folder_of, set_up

__all__ = ["OWN", "program_of", "run_script"]

OWN = "own"
"""The environment that runs the tests."""


def run_script(environment: str, file: Path, *arguments: str) -> str:
    """Run it and return what it printed. The test is skipped where the environment is not set up, and fails if the
    script does.
    """
    done = subprocess.run(
        [str(program_of(environment)), str(file), *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
        check=False,
        # Nothing is sent anywhere but to the server: no traces, no look for newer versions or price lists.
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder_of(environment).parent),
            "PYTHONUTF8": "1",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "HF_HUB_OFFLINE": "1",
            "OPENAI_AGENTS_DISABLE_TRACING": "1",
            "no_proxy": "127.0.0.1",
        },
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def program_of(environment: str) -> str | Path:
    if environment == OWN:
        return sys.executable
    if os.environ.get("CI") != "true" and not folder_of(environment).is_dir():
        pytest.skip(f"not set up: python tests/serving/clients/environments.py {environment}")
    try:
        return set_up(environment)
    except SetupError as error:
        pytest.fail(str(error))
