"""docs/grafana.json asks for figures that the server has, by labels that they have."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from chatglm.assistant import Assistant
from chatglm.serving.access.key_sources import Texts
from chatglm.serving.access.keys import Keyring
from chatglm.serving.metrics import Metrics
from chatglm.serving.records import Record
from scripted import ScriptedEngine, Writer
from server import serving

DASHBOARD: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[2] / "docs" / "grafana.json").read_text("utf-8")
)
KEY = "grafana.0123456789abcdef"
VARIABLES = {"model": ".*", "key": ".*"}


def queries() -> list[str]:
    found = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    variables = DASHBOARD["templating"]["list"]
    return found + [one["definition"] for one in variables if one["type"] == "query"]


@pytest.fixture(scope="module")
def figures(write: Writer) -> dict[str, set[str]]:
    """The names of all figures, each with its labels."""
    with (
        Assistant(write.form, ScriptedEngine(write.say("a b c"), pace=1)) as assistant,  # type: ignore[arg-type]
        serving({"demo": assistant}, keys=Keyring([Texts([KEY], "test")]), open_metrics=True) as url,
    ):
        chat = {"messages": [{"role": "user", "content": "x"}]}
        headers = {"Authorization": f"Bearer {KEY}"}
        assert httpx.post(f"{url}/v1/chat/completions", json=chat, headers=headers).status_code == 200
        text = httpx.get(f"{url}/metrics").text
    # Those of encoders have no values without an encoder.
    found = {f"{name}_total" if kind == "counter" and not name.endswith("_total") else name: {"model"}
             for name, kind in re.findall(r"# TYPE (chatglm_enc\w+) (\w+)", text)}  # fmt: skip
    for name, labels in re.findall(r"^(chatglm_\w+)\{(.*)\} ", text, re.MULTILINE):
        found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    return found


@pytest.mark.parametrize("query", queries())
def test_a_query_names_what_there_is(query: str, figures: dict[str, set[str]]) -> None:
    names = re.findall(r"\bchatglm_\w+", query)
    assert names
    grouped = {label.strip() for found in re.findall(r"\bby \(([^)]*)\)", query) for label in found.split(",")}
    for name in names:
        assert name in figures
        assert grouped <= figures[name]
    for name, inner in re.findall(r"\b(chatglm_\w+)\{([^}]*)\}", query):
        assert set(re.findall(r"(\w+)=~?\"", inner)) <= figures[name]
    for name, label in re.findall(r"label_values\((\w+), (\w+)\)", query):
        assert label in figures[name]
    for name in re.findall(r"rate\((chatglm_\w+)|increase\((chatglm_\w+)", query):
        assert "".join(name).endswith(("_total", "_bucket"))
    assert query.count("(") == query.count(")")
    assert query.count("{") == query.count("}")
    assert set(re.findall(r"\$(\w+)", query)) <= {"__rate_interval", *VARIABLES}


def test_panels_show_labels_that_their_queries_keep() -> None:
    identifiers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identifiers)) == len(identifiers)
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            grouped = re.findall(r"\bby \(([^)]*)\)", target["expr"])
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert shown <= ({label.strip() for label in grouped[0].split(",")} if grouped else {"model"})


def test_names_of_keys_are_bounded() -> None:
    metrics = Metrics(dict)
    for number in range(1000):
        record = Record("id")
        record.key = f"key-{number}"
        metrics.note(record, "openai", 200)
    text = metrics.text().decode()
    assert 100 < text.count("chatglm_key_requests_total{") < 300
    assert re.search(r'chatglm_key_requests_total\{dialect="openai",key="others",.*\} 800\.0', text)
