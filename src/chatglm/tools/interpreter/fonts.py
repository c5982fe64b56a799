"""Fonts with Chinese characters, for plots."""

from __future__ import annotations

import functools
import subprocess

__all__ = ["chinese_fonts"]

_MOST = 64


@functools.cache
def chinese_fonts() -> tuple[str, ...]:
    """Files of this machine's fonts with Chinese characters, by fontconfig. Looked up only once.

    Without fontconfig it is empty; then the shell uses the names of the fonts that matplotlib finds.
    """
    try:
        done = subprocess.run(
            ["fc-list", ":lang=zh", "file"], capture_output=True, timeout=10, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    files = {line.strip().rstrip(":") for line in done.stdout.decode("utf-8", "replace").splitlines()}
    return tuple(sorted(files - {""})[:_MOST])
