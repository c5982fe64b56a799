"""Folders that long runs write: locks that end with their holder, and full disks."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from chatglm.errors import InputError, OutputError
from chatglm.output import locked, replace_file, reporting_disk_errors, working_in
from disks import small_files

HOLD = """
import sys
from pathlib import Path
from chatglm.output import working_in
with working_in(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stdout.readline() == "held\n"
    said = rf"run: another process is writing there \(process {holder.pid} on "
    with pytest.raises(InputError, match=said), working_in(folder):
        raise AssertionError
    assert folder.is_dir()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    holder.stdin.close()
    with working_in(folder):  # what the dead one left does not matter
        (folder / "x").write_text("x")
    assert [entry.name for entry in folder.iterdir()] == ["x"]


def test_what_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file" / "x", Path("/proc/x")):
        with pytest.raises(InputError, match="cannot be made"), working_in(folder):
            raise AssertionError
    with pytest.raises(InputError, match="cannot be written"), locked(Path("/proc/.x.lock"), Path("/proc/x")):
        raise AssertionError
    with pytest.raises(ZeroDivisionError), working_in(tmp_path / "new"):
        _ = 1 / 0
    assert not (tmp_path / "new").exists()


def test_errors_of_the_disk(tmp_path: Path) -> None:
    """Of Python, of safetensors and of torch."""
    with small_files(1 << 16):
        said = r"MB are free\); free disk space.*; go on"
        with pytest.raises(OutputError, match=said), reporting_disk_errors(tmp_path, "; go on"):
            (tmp_path / "a").write_bytes(bytes(1 << 20))
        with pytest.raises(OutputError, match="File too large"), reporting_disk_errors(tmp_path):
            save_file({"x": torch.zeros(1 << 18)}, tmp_path / "x.safetensors")
        with pytest.raises(OutputError, match="cannot be written"), reporting_disk_errors(tmp_path):
            torch.save({"x": torch.zeros(1 << 18)}, tmp_path / "x.bin")
    for other in (OSError(errno.ENOENT, "No such file", "x"), RuntimeError("something else"), KeyError("x")):
        with pytest.raises(type(other)), reporting_disk_errors(tmp_path):
            raise other
    said = r"^/disk/x: cannot be written: No space left on device"
    with pytest.raises(OutputError, match=said), reporting_disk_errors(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device", "/disk/x")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    file, link = tmp_path / "a.md", tmp_path / "link.md"
    file.write_bytes(b"old")
    file.chmod(0o640)
    link.symlink_to(file)
    replace_file(link, b"new")
    assert link.is_symlink()
    assert file.read_bytes() == b"new"
    assert file.stat().st_mode & 0o777 == 0o640
    with small_files(1000), pytest.raises(OutputError, match="cannot be written"):
        replace_file(link, bytes(5000))
    assert file.read_bytes() == b"new"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.md", "link.md"]


def test_a_device_is_written_and_not_replaced() -> None:
    replace_file(Path("/dev/null"), b"x")
    assert Path("/dev/null").is_char_device()
