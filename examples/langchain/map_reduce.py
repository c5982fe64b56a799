"""A summary of many texts, in today's LangChain: all texts at once, then one answer that is shown as it comes.

python map_reduce.py [MODEL]     MODEL: a checkpoint folder; without it, the demo model, which cannot really summarise.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from chatglm.langchain import ChatChatGLM

TEXTS = ["小明有3个苹果。", "小红有5个苹果。", "小刚有2个苹果。"]


def summary(model: ChatChatGLM, texts: list[str]) -> Iterator[str]:
    each = ChatPromptTemplate.from_template("用一句话总结：{text}") | model | StrOutputParser()
    last = ChatPromptTemplate.from_template("把这些总结合成一段话：\n{texts}") | model | StrOutputParser()
    parts = each.batch([{"text": text} for text in texts])
    yield from last.stream({"texts": "\n".join(parts)})


def main(folder: str | None = None) -> None:
    model = ChatChatGLM(model=folder, temperature=0, max_tokens=200)
    for piece in summary(model, TEXTS):
        print(piece, end="", flush=True)
    print()
    model.close()


if __name__ == "__main__":
    main(*sys.argv[1:2])
