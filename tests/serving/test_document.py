"""What the OpenAPI document promises, held against the server by schemathesis."""

from __future__ import annotations

from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from chatglm.assistant import Assistant
from chatglm.encoders import Embedder, Reranker
from chatglm.knowledge import Shelf
from chatglm.serving.app import create_app
from scripted import ScriptedEngine, Writer
from tiny_encoders import make_reranker, make_sentence

MODELS = {"embeddings": "texts", "rerank": "ranks"}
"""Of routes that need another model than `demo`."""


@pytest.mark.parametrize("mode", GenerationMode)
def test_it_is_kept(write: Writer, mode: GenerationMode, tmp_path: Path) -> None:
    """Requests that fit the document are answered, others refused, and every answer fits it."""
    engine = ScriptedEngine(write.say("a short answer"), pace=100, context=1 << 20)
    with (
        Assistant(write.form, engine) as assistant,  # type: ignore[arg-type]
        Embedder.load(make_sentence(tmp_path / "texts", prompts={"query": ""}), dimensions=None) as texts,
        Reranker.load(make_reranker(tmp_path / "ranks")) as ranks,
        Shelf(tmp_path / "home") as shelf,
    ):
        app = create_app({"demo": assistant}, encoders={"texts": texts, "ranks": ranks}, knowledge=shelf)
        document = schemathesis.openapi.from_asgi("/openapi.json", app, timeout=60)
        seen = set()
        for found in document.get_all_operations():
            operation = found.ok()

            @given(case=operation.as_strategy(generation_mode=mode))
            @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
            def check(case: schemathesis.Case) -> None:
                if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
                    # Else every request would end at an unknown model.
                    case.body["model"] = next((name for end, name in MODELS.items() if case.path.endswith(end)), "demo")
                if "model" in case.path_parameters:
                    case.path_parameters["model"] = "demo"
                seen.add((case.method, case.path))
                # A form has no way to write an empty list: the field is left out, and nothing is wrong.
                lost = (
                    case.media_type == "multipart/form-data"
                    and isinstance(case.body, dict)
                    and any(value is None or value in ([], {}) for value in case.body.values())
                )
                # Fields that fit, each by itself, may still contradict each other. ZhipuAI's v3 refuses with 200.
                excluded = [positive_data_acceptance]
                if lost or "/v3/" in case.path:
                    excluded.append(negative_data_rejection)
                answer = case.call_and_validate(excluded_checks=excluded)
                if mode is GenerationMode.POSITIVE:
                    assert "input should" not in answer.text

            try:
                check()
            except Unsatisfiable:  # nothing can be wrong with a request that has no parts
                assert mode is GenerationMode.NEGATIVE
        assert {path for _, path in seen} >= {"/", "/v1/chat/completions", "/v1/completions"}


def test_it_says_what_is_refused(write: Writer) -> None:
    with Assistant(write.form, ScriptedEngine([write.end])) as assistant:  # type: ignore[arg-type]
        document = create_app({"demo": assistant}).openapi()
    chat = document["paths"]["/v1/chat/completions"]["post"]
    assert chat["responses"].keys() == {"200", "400", "404", "429", "500", "502", "503"}
    for path in ("/v1/responses", "/v1/messages", "/api/paas/v4/chat/completions", "/v1/embeddings", "/v1/rerank", "/"):
        assert "503" in document["paths"][path]["post"]["responses"], f"{path}: a model may not load"
    model = document["paths"]["/api/paas/v4/models/{name}"]["get"]
    assert model["responses"].keys() == {"200", "400", "404"}
    assert "no such model" in model["responses"]["400"]["description"]
    request = document["components"]["schemas"]["ChatRequest"]
    assert request["additionalProperties"] == {"type": "null"}
    assert request["properties"]["audio"]["type"] == "null"
    assert "HTTPValidationError" not in document["components"]["schemas"]
