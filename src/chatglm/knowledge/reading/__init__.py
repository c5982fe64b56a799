"""Documents of every kind as text, with marks: `read`."""

from chatglm.knowledge.reading.documents import Limits, Mark, Reading
from chatglm.knowledge.reading.kinds import read

__all__ = ["Limits", "Mark", "Reading", "read"]
