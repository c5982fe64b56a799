"""Links of the guides that leave `docs/` point into the repository: the pages are read without a clone."""

from __future__ import annotations

import posixpath
import re
from typing import Any

LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[^)]*)?\))")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """`](../benchmarks/x.md)` becomes the address of that file in the repository."""
    here = posixpath.dirname(page.file.src_uri)

    def moved(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join("docs", here, match[2]))
        if target.startswith("docs/"):
            return match[0]
        return f"{match[1]}{config.repo_url}/blob/main/{target}{match[3]}"

    return LINK.sub(moved, markdown)
