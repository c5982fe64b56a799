"""ZhipuAI's dialects: v4, which its newer SDKs speak, and v3, which CharacterGLM's API speaks.

Both take `meta`, a role play, with every generation of model.
"""

from chatglm.serving.zhipu.v3 import DIALECT as V3
from chatglm.serving.zhipu.v3 import STREAM_DIALECT as V3_STREAM
from chatglm.serving.zhipu.v4 import DIALECT as V4

__all__ = ["V3", "V3_STREAM", "V4"]
