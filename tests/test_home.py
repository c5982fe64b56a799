from __future__ import annotations

import stat
from pathlib import Path

import pytest

from chatglm.errors import OutputError
from chatglm.home import home_folder, home_path


def test_it_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATGLM_HOME", str(tmp_path / "a" / "b"))
    assert home_path() == tmp_path / "a" / "b"
    assert not home_path().exists()  # asking makes nothing
    assert home_folder() == tmp_path / "a" / "b"
    assert stat.S_IMODE(home_folder().stat().st_mode) == 0o700


def test_it_is_in_the_users_folder_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHATGLM_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home_folder() == tmp_path / ".chatglm"
    monkeypatch.setenv("CHATGLM_HOME", "~/elsewhere")
    assert home_folder() == tmp_path / "elsewhere"
    assert home_folder(tmp_path / "given") == tmp_path / "given"


def test_a_place_that_cannot_be_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CHATGLM_HOME", str(tmp_path / "file" / "below"))
    with pytest.raises(OutputError, match=r"file/below: cannot be made .*CHATGLM_HOME"):
        home_folder()
