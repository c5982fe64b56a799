"""Assistants answer messages with streams of typed deltas, for any number of callers at once.

from chatglm import load

with load() as assistant:
    for delta in assistant.stream("你好"):
        ...
"""

from chatglm.assistant.base import (
    Answer,
    Ask,
    BaseAssistant,
    CallDelta,
    Called,
    Delta,
    Finish,
    Messages,
    Options,
    PromptDelta,
    PromptToken,
    ReplicaStats,
    Start,
    TextDelta,
    TokenLogprob,
    Transcript,
    Usage,
)
from chatglm.assistant.fleet import RemoteFleet
from chatglm.assistant.local import Assistant
from chatglm.assistant.remote import RemoteAssistant

__all__ = [
    "Answer",
    "Ask",
    "Assistant",
    "BaseAssistant",
    "CallDelta",
    "Called",
    "Delta",
    "Finish",
    "Messages",
    "Options",
    "PromptDelta",
    "PromptToken",
    "RemoteAssistant",
    "RemoteFleet",
    "ReplicaStats",
    "Start",
    "TextDelta",
    "TokenLogprob",
    "Transcript",
    "Usage",
    "load",
]

load = Assistant.load
