"""The code interpreter as a tool of one conversation."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from chatglm.chat.messages import ToolSpec
from chatglm.errors import InputError
from chatglm.tools.interpreter.limits import Cell
from chatglm.tools.interpreter.pool import Kernels
from chatglm.tools.interpreter.protocol import observation as official
from chatglm.tools.interpreter.sandbox import protection
from chatglm.tools.tool import Consent, Outcome

__all__ = ["Interpreter"]


class Interpreter:
    """Runs the code of a model's call in its conversation's kernel.

    Args:
        conversation: the conversation of `user` whose kernel is used.
        observation: makes the text for the model from a cell.
        on_output: called with each piece of a cell's text.

    Attributes:
        spec: GLM-4's `{"type": "python"}`; in ChatGLM3's prompt, a sentence replaces it.
        seconds: time limit of a call, including waiting for a kernel, starting it and ending it.
    """

    spec = ToolSpec({"type": "python"})

    def __init__(
        self,
        kernels: Kernels,
        conversation: str = "",
        *,
        user: str = "",
        observation: Callable[[Cell], str] = official,
        on_output: Callable[[str], None] | None = None,
    ) -> None:
        self.seconds = kernels.limits.seconds + 60.0
        self._kernels = kernels
        self._conversation = conversation
        self._user = user
        self._observation = observation
        self._on_output = on_output

    @property
    def consent(self) -> Consent:
        """A person is asked before each call if code runs with the user's own rights (tier `none`), otherwise never."""
        tier = self._kernels.tier or protection().tier
        return Consent.ALWAYS if tier == "none" else Consent.NEVER

    async def run(self, arguments: Mapping[str, Any]) -> Outcome:
        """Run the code.

        Raises:
            InputError: there is no code.
            QueueFullError, BusyError, SandboxError: see `Kernels.run`.
        """
        code = arguments.get("code")
        if not isinstance(code, str):
            raise InputError("code: expected the Python code to run")
        begun = time.perf_counter()
        cell = await self._kernels.run(self._conversation, code, user=self._user, on_output=self._on_output)
        ended = f"The kernel was ended: {cell.ended}." if cell.ended else ""
        whole = "\n".join(part.strip("\n") for part in (cell.text, cell.error, ended) if part)
        return Outcome(
            self._observation(cell),
            whole,
            cell.pictures,
            cell.files,
            bool(cell.error or cell.ended),
            time.perf_counter() - begun,
        )
