"""What tutorials rewrote three classes for: `LLMChain.predict` and `load_summarize_chain` that stream.

python predict.py [MODEL]     MODEL: a checkpoint folder; without it, the demo model, which cannot really summarise.
Needs langchain-classic.
"""

from __future__ import annotations

import sys

from langchain_classic.chains import LLMChain
from langchain_core.documents import Document
from langchain_core.prompts import PromptTemplate

from chatglm.langchain import ChatGLM, stream_predict, stream_summary


def main(folder: str | None = None) -> None:
    model = ChatGLM(model=folder, temperature=0, max_tokens=60)
    chain = LLMChain(llm=model, prompt=PromptTemplate.from_template("计算{a}+{b}"))
    for piece in stream_predict(chain, a=12, b=30):
        print(piece, end="", flush=True)
    print()
    documents = [Document(page_content=text) for text in ("小明有3个苹果。", "小红有5个苹果。")]
    for piece in stream_summary(model, documents, chain_type="map_reduce"):
        print(piece, end="", flush=True)
    print()
    model.close()


if __name__ == "__main__":
    main(*sys.argv[1:2])
