"""Answers from documents, with the sentence of the document that they stand on.

python citations.py [MODEL]     MODEL: a checkpoint folder; without it, the demo model.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough

from chatglm.knowledge import Upload, open_base
from chatglm.knowledge.answering import CLASSIC
from chatglm.langchain import ChatChatGLM, KnowledgeRetriever

TEXTS = {
    "town.txt": "小镇的图书馆建于1962年。图书馆的馆长叫王芳。",
    "harbour.txt": "港口的灯塔高32米。灯塔的看守人叫李强。",
}


def main(folder: str | None = None) -> None:
    model = ChatChatGLM(model=folder, temperature=0)
    with tempfile.TemporaryDirectory() as home, open_base("town", create=True, home=Path(home)) as base:
        base.add(*(Upload(name, text.encode()) for name, text in TEXTS.items()))
        retriever = KnowledgeRetriever(opened=base, k=1)
        answer = (
            {
                "context": lambda given: "\n".join(document.page_content for document in given["documents"]),
                "question": lambda given: given["question"],
            }
            | ChatPromptTemplate.from_template(CLASSIC)
            | model
            | StrOutputParser()
        )
        chain = {"documents": retriever, "question": RunnablePassthrough()} | RunnablePassthrough.assign(answer=answer)
        for question in ("图书馆的馆长是谁？", "灯塔有多高？"):
            found = chain.invoke(question)
            print("?", question)
            print(found["answer"])
            for document in found["documents"]:
                told = document.metadata
                print(f"  {told['source']}, characters {told['start']} to {told['end']}, score {told['score']:.2f}")
    model.close()


if __name__ == "__main__":
    main(*sys.argv[1:2])
