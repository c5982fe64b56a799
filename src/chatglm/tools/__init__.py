"""Tools that a model may call, and how its calls are run. Nothing that a model writes is executed as code outside of
the interpreter's sandbox.
"""

from chatglm.tools.functions import Function
from chatglm.tools.registry import dispatch_tool, get_tools, register_tool
from chatglm.tools.tool import Consent, Outcome, Tool
from chatglm.tools.toolbox import Permit, Toolbox

__all__ = [
    "Consent",
    "Function",
    "Outcome",
    "Permit",
    "Tool",
    "Toolbox",
    "dispatch_tool",
    "get_tools",
    "register_tool",
]
