"""Token counts of a request, summed over its answers."""

from __future__ import annotations

from chatglm.assistant import Finish

__all__ = ["UsageTotal"]


class UsageTotal:
    """Token counts of all answers to one request. A prompt with several answers counts once."""

    def __init__(self) -> None:
        self._prompts: dict[int, tuple[int, int]] = {}
        self.completion_tokens = 0

    def add(self, finish: Finish, prompt: int = 0) -> None:
        """
        Args:
            prompt: number of the prompt that the answer belongs to.
        """
        self._prompts[prompt] = finish.usage.prompt_tokens, finish.usage.cached_tokens
        self.completion_tokens += finish.usage.completion_tokens

    @property
    def prompt_tokens(self) -> int:
        return sum(tokens for tokens, _ in self._prompts.values())

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that came from the prefix cache."""
        return sum(cached for _, cached in self._prompts.values())
