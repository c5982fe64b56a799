"""The Ray Data recipe: the lines of a batch, answered by several processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from client_scripts import run_script
from environments import SCRIPTS

RECIPE = Path(__file__).resolve().parents[3] / "recipes" / "batch" / "ray_data.py"


def test_every_line_is_answered(tmp_path: Path) -> None:
    names = [f"第 {number}" for number in range(6)]
    lines = [
        {
            "custom_id": name,
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"messages": [{"role": "user", "content": "你好"}], "max_tokens": 4},
        }
        for name in names
    ]
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), "utf-8")
    run_script("ray", SCRIPTS / "ray_client.py", str(RECIPE), str(source), str(target), *sys.path)
    found = [json.loads(line) for line in target.read_text("utf-8").splitlines()]
    assert sorted(line["custom_id"] for line in found) == names
    assert {line["response"]["status_code"] for line in found} == {200}
