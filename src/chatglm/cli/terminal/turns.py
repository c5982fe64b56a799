"""Commands about the turns of a conversation."""

from __future__ import annotations

from rich.text import Text

from chatglm.cli.characters import greeting
from chatglm.cli.shown import plain
from chatglm.cli.terminal.part import Part
from chatglm.conversation.tree import Tree, Turn
from chatglm.errors import InputError

__all__ = ["Turns"]

_SHOWN = 2
"""Last questions that are shown when a conversation continues."""
_SPEAKS = {"user": ">", "assistant": "<", "observation": "=", "system": "#"}


class Turns(Part):
    async def _turn(self, number: str, role: str = "") -> Turn:
        """The turn with a number of the list."""
        path = (await self.tree()).path()
        if not number.isdecimal() or not 1 <= int(number) <= len(path):
            raise InputError(self.words("no_turn", number=number[:20], most=len(path)))
        return path[int(number) - 1]

    async def retry(self, argument: str) -> None:
        leaf = (await self.tree()).leaf
        assert leaf is not None
        await self.app.answer(lambda session: session.again(leaf))

    async def undo(self, argument: str) -> None:
        self.app.default = await self.begun().undo()
        self.screen.note(self.words("undone"))

    async def edit(self, argument: str) -> None:
        tree = await self.tree()
        if argument:
            turn = tree.question((await self._turn(argument)).id)
        else:
            assert tree.leaf is not None
            turn = tree.question(tree.leaf)
        self.app.default, self.app.editing = turn.message.content, turn.id
        self.screen.note(self.words("edit"))

    async def branch(self, argument: str) -> None:
        tree = await self.tree()
        forks = [(n, turn) for n, turn in enumerate(tree.path(), 1) if tree.place(turn.id)[1] > 1]
        if not forks:
            raise InputError(self.words("no_branches"))
        parts = argument.split()
        if not parts:
            for number, turn in forks:
                n, of = tree.place(turn.id)
                self.screen.say(self.words("branch", turn=number, n=n, of=of))
            return
        if len(parts) > 2 or not all(part.isdecimal() for part in parts):
            raise self.usage("branch")
        turn = await self._turn(parts[0]) if len(parts) == 2 else forks[-1][1]
        siblings = tree.siblings(turn.id)
        n = int(parts[-1])
        if not 1 <= n <= len(siblings):
            raise InputError(self.words("no_version", n=n, most=len(siblings)))
        await self.begun().choose(siblings[n - 1].id)
        await self.recall(1)

    async def turns(self, argument: str) -> None:
        tree = await self.tree()
        if argument:
            turn = await self._turn(argument)
            for call in turn.message.tool_calls:
                self.screen.say(call.name, "bold")
                code = call.arguments.get("code")
                self.screen.say(code if isinstance(code, str) else call.to_dict()["function"]["arguments"])
            text = plain(turn.message.content)
            (self.screen.prose if turn.message.role == "assistant" else self.screen.say)(text)
            return None
        rows = []
        for number, turn in enumerate(tree.path(), 1):
            n, of = tree.place(turn.id)
            text = turn.message.content or ", ".join(f"{call.name}(…)" for call in turn.message.tool_calls)
            line = Text(plain(" ".join(text[:400].split())), no_wrap=True, overflow="ellipsis")
            rows.append((str(number), Text(_SPEAKS[turn.message.role], "cyan"), f"{n}/{of}" if of > 1 else "", line))
        return self.grid(rows)

    async def begin(self) -> None:
        """Show the end of a conversation that continues, or the greeting of a character."""
        if self.app.dialogue.now is not None:
            self.screen.note(self.words("continued", title=plain(self.app.dialogue.now.conversation.title)))
            if wanted := self.app.dialogue.missed(self.app.models.name):
                self.screen.note(self.words("other_model", wanted=plain(wanted), name=self.app.models.name))
        await self.recall(_SHOWN)

    async def recall(self, questions: int) -> None:
        """Show the end of the conversation."""
        session = self.app.dialogue.now
        tree = await session.tree() if session is not None else Tree()
        path = tree.path()
        asked = [place for place, turn in enumerate(path) if turn.message.role == "user"]
        if not asked:
            return await self.greet()
        begin = asked[max(0, len(asked) - questions)]
        begin = 0 if begin == 1 else begin  # a greeting
        if begin:
            self.screen.note("…")
        for turn in path[begin:]:
            self.screen.console.print()
            text = plain(turn.message.content)
            if turn.message.role == "user":
                self.screen.say(f"> {text}", "bold")
            elif turn.message.role == "assistant":
                for call in turn.message.tool_calls:
                    self.screen.note(f"{plain(call.name)}(…)")
                self.screen.prose(text)
        return None

    async def greet(self) -> None:
        """Show the greeting of the character, if there are no messages yet."""
        settings = self.app.dialogue.settings
        if settings.mode == "character" and settings.character and (text := greeting(settings.character)):
            self.screen.prose(plain(text))
