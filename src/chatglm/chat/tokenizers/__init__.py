"""The family's tokenizers as `transformers` tokenizer classes, without code from the checkpoint's folder.

| class                    | generations                      | vocabulary file                                        |
|--------------------------|----------------------------------|--------------------------------------------------------|
| `IceTextTokenizer`       | ChatGLM-6B                       | `ice_text.model`, SentencePiece with whitespace pieces |
| `SentencePieceTokenizer` | ChatGLM2, ChatGLM3, CharacterGLM | `tokenizer.model`, SentencePiece with byte fallback    |
| `ChatGLM4Tokenizer`      | GLM-4                            | `tokenizer.model`, lines of base64 token and its rank  |

`ChatGLMTokenizer.from_pretrained(folder)` finds out which one a folder needs. Ids and texts are those of the official
`tokenization_chatglm.py` files, with one rule of our own: text never becomes a control token unless the caller says
`allow_special_tokens=True` (docs/differences.md, user-text-never-control).
"""

from chatglm.chat.tokenizers.base import ChatGLMTokenizer
from chatglm.chat.tokenizers.byte_pairs import ChatGLM4Tokenizer
from chatglm.chat.tokenizers.ice_text import IceTextTokenizer
from chatglm.chat.tokenizers.sentence_piece import SentencePieceTokenizer

__all__ = ["ChatGLM4Tokenizer", "ChatGLMTokenizer", "IceTextTokenizer", "SentencePieceTokenizer"]
