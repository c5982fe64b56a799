"""Read documents of all supported formats as text with marks (headings, pages …): `read`."""

from chatglm.knowledge.reading.apart import Readers, ReadingError, read_apart
from chatglm.knowledge.reading.documents import Limits, Mark, Reading
from chatglm.knowledge.reading.kinds import ENDINGS, read

__all__ = ["ENDINGS", "Limits", "Mark", "Readers", "Reading", "ReadingError", "read", "read_apart"]
