"""A server made with the `mcp` library; as a program it speaks over its standard streams."""

from __future__ import annotations

import asyncio
import base64
import os
from typing import Annotated

from mcp.server.mcpserver import Context, Image, MCPServer
from mcp_types import ToolAnnotations
from pydantic import BaseModel, Field

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
READS = ToolAnnotations(read_only_hint=True)


class Weather(BaseModel):
    city: str
    degrees: float


def made() -> MCPServer:
    server = MCPServer("real")

    @server.tool(annotations=READS)
    def weather(city: Annotated[str, Field(description="of China")], days: int = 1) -> Weather:
        """The weather of a city."""
        return Weather(city=city, degrees=20.5 + days)

    @server.tool()
    def add(a: int, b: int) -> str:
        """Add two numbers."""
        return str(a + b)

    @server.tool()
    def picture() -> Image:
        return Image(data=PNG, format="png")

    @server.tool()
    def photo() -> Image:
        return Image(data=b"\xff\xd8\xff", format="jpeg")

    @server.tool()
    def fail() -> str:
        raise ValueError("not today")

    @server.tool()
    async def hang() -> str:
        await asyncio.sleep(60)
        return "late"

    @server.tool()
    def huge() -> str:
        return "x" * (6 << 20)

    @server.tool()
    def environment() -> str:
        return " ".join(sorted(os.environ))

    @server.tool()
    async def change(context: Context) -> str:
        server.remove_tool("photo")
        server.add_tool(lambda: "new", name="new")
        await context.notify_tools_changed()
        return "changed"

    @server.tool()
    async def ask(context: Context) -> str:
        """Ask the client for what a server may ask for."""
        return str((await context.elicit("your password?", Weather)).action)

    return server


if __name__ == "__main__":
    made().run("stdio")
