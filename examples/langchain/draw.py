"""An agent that draws: the model describes a picture, an image model of this machine draws it, nothing leaves it.

python draw.py PAINTER QUESTION [MODEL]     PAINTER: a Stable Diffusion XL folder of diffusers. MODEL: a checkpoint
folder; without it, the demo model. Needs `pip install 'chatglm[image]'`. Pictures are written into the current folder.
"""

from __future__ import annotations

import sys
from pathlib import Path

from langchain.agents import create_agent
from langchain.agents.middleware import ToolCallLimitMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import ToolMessage

from chatglm.langchain import ChatChatGLM, langchain_tools
from chatglm.tools import Toolbox
from chatglm.tools.drawing import Draw


def draw(model: BaseChatModel, painter: Draw, question: str, folder: Path) -> list[Path]:
    """Ask, show what is said, and keep what is drawn."""
    kept: list[Path] = []
    with Toolbox([painter]) as box:
        few = ToolCallLimitMiddleware(run_limit=3, exit_behavior="end")
        agent = create_agent(model, langchain_tools(box), middleware=[few])
        for message in agent.invoke({"messages": [("user", question)]})["messages"]:
            print(f"{message.type}: {message.text}")
            if isinstance(message, ToolMessage) and message.artifact is not None:
                for picture in message.artifact.pictures:
                    kept.append(folder / f"picture-{len(kept) + 1}.png")
                    kept[-1].write_bytes(picture)
    return kept


def main(painter: str, question: str, folder: str | None = None) -> None:
    model = ChatChatGLM(model=folder, temperature=0)
    drawing = Draw(painter)
    for file in draw(model, drawing, question, Path.cwd()):
        print(file)
    drawing.close()
    model.close()


if __name__ == "__main__":
    main(*sys.argv[1:4])
