"""Registers our quantiser with `transformers` by name, without importing `transformers` before the user does."""

from __future__ import annotations

from chatglm.models.registration import after_import

__all__ = ["install"]


def install() -> None:
    """Register with `transformers` now if its quantisers are loaded; otherwise register as soon as they are."""
    after_import("transformers.quantizers.auto", _register)


def _register() -> None:
    import chatglm.quantization.hooks  # noqa: F401 — registers what it defines
