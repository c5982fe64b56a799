"""Makes tools from Python functions: the schema comes from signature and docstring, and arguments are checked before a
call.

pydantic reads the types and checks the arguments; it is imported when the first function becomes a tool.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
import sys
import types
import typing
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from chatglm.chat.messages import ToolSpec
from chatglm.errors import DependencyError, InputError, ToolError
from chatglm.tools.docstrings import read_docstring
from chatglm.tools.results import failed, failure, outcome_of, shown
from chatglm.tools.tool import Consent, Outcome

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

__all__ = ["Function", "too_large"]

_LONGEST_NAME = 64
_MOST_NODES = 5_000
"""Most parts of a schema after its references are resolved."""
_MOST_VALUES, _DEEPEST, _MOST_TEXT = 10_000, 64, 1 << 20
"""Limits of the arguments of one call: values, levels, and characters."""
_MOST_PROBLEMS = 5

Aside = Callable[[Callable[[], Outcome]], Awaitable[Outcome]]
"""Runs a slow function in another thread."""


@dataclass(frozen=True)
class _Parameter:
    name: str
    type: Any
    described: str
    required: bool
    default: Callable[[], Any] | None  # makes the default value, if the function itself has none


@dataclass(frozen=True, eq=False)
class Function:
    """A function that a model may call.

    Attributes:
        spec: name, description and JSON schema for the model.
        is_coroutine: whether the function is awaited in the event loop; other functions run in a thread.
    """

    spec: ToolSpec
    function: Callable[..., Any]
    consent: Consent = Consent.NEVER
    is_coroutine: bool = False
    _parameters: tuple[_Parameter, ...] = ()
    _adapter: TypeAdapter[Any] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, function: Callable[..., Any], *, name: str = "", consent: Consent = Consent.NEVER) -> Function:
        """Make a tool from a function. Name and description are the function's; the parameters' types are their
        annotations. Their descriptions are in `Annotated[type, "…"]` (a third item says whether the parameter is
        required) or in the docstring.

        Args:
            function: a function, a method, a callable object, a coroutine function; or a `functools.partial`, whose
                arguments the model neither sees nor gives.
            name: the tool's name; default: the function's name.
            consent: how often a person is asked before a call.

        Raises:
            ToolError: the object is not a function or has no valid name; or a parameter has no annotation, has a type
                without a JSON form, or cannot be passed by keyword.
            DependencyError: pydantic is not installed.
        """
        _check_installed()
        core, hidden = _unwrapped(function)
        name = name or _name_of(core)
        if not name.isidentifier() or len(name) > _LONGEST_NAME:
            raise ToolError(f"functions: {function!r:.80} has no name for a tool; pass a function made with def")
        described, told = read_docstring(inspect.getdoc(core) or "")
        parameters = _parameters_of(name, function, core, hidden, told)
        adapter = _adapter(name, parameters)
        spec = ToolSpec({"name": name, "description": described, "parameters": _schema(name, parameters, adapter)})
        return cls(spec, function, consent, _is_coroutine(core), parameters, adapter)

    def official(self) -> dict[str, Any]:
        """The description in the form of ChatGLM3's `tool_registry.py`: a list of parameters, with the names of Python
        types.
        """
        flat = self.spec.flat()
        return {
            "name": flat["name"],
            "description": flat["description"],
            "params": [
                {
                    "name": one.name,
                    "description": one.described,
                    "type": _python_name(one.type),
                    "required": one.required,
                }
                for one in self._parameters
            ],
        }

    def bind(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Check and convert a call's arguments for the function.

        Raises:
            InputError: the arguments are wrong; the message is one line for the model.
        """
        from pydantic import ValidationError

        if problem := too_large(arguments):
            raise InputError(problem)
        for name, kind in self.spec.flat()["parameters"]["properties"].items():
            if isinstance(arguments.get(name), bool) and kind.get("type") in ("integer", "number"):
                raise InputError(f"{name} must be {kind['type']}, got {arguments[name]}")
        assert self._adapter is not None
        try:
            values = self._adapter.validate_python(dict(arguments))
        except ValidationError as error:
            raise InputError(_problems(error, arguments)) from None
        except RecursionError:
            raise InputError("nested too deeply") from None
        absent = {one.name: one.default() for one in self._parameters if one.default and one.name not in values}
        return {**absent, **values}

    async def run(self, arguments: Mapping[str, Any]) -> Outcome:
        """Check the arguments and call the function.

        Raises:
            InputError: the arguments are wrong.
        """
        return await self.carry_out(self.bind(arguments), asyncio.to_thread)

    async def carry_out(self, values: Mapping[str, Any], aside: Aside) -> Outcome:
        """Call the function. Any exception, including `SystemExit`, becomes an outcome; only a cancellation is raised.

        Args:
            values: the result of `bind`.
            aside: runs functions that are not coroutine functions.
        """
        returned: list[Any] = []

        def call_it() -> Outcome:
            try:
                value = self.function(**values)
                if inspect.isawaitable(value):
                    returned.append(value)
                    return Outcome("")
                return outcome_of(value)
            except BaseException as error:
                return failed(failure(error))

        outcome = call_it() if self.is_coroutine else await aside(call_it)
        if not returned:
            return outcome
        try:
            value = await returned[0]
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            return failed(failure(error))
        return Outcome(value) if isinstance(value, str) else await aside(functools.partial(outcome_of, value))


def _check_installed() -> None:
    try:
        import pydantic  # noqa: F401
    except ImportError:
        raise DependencyError(
            "a Python function as a tool needs the package pydantic: pip install 'chatglm[tools]'"
        ) from None


# From a function to its parameters


def _unwrapped(function: Any) -> tuple[Any, set[str]]:
    """The object that has the name, the docstring and the annotations; and the parameters that a `partial` sets."""
    hidden: set[str] = set()
    while isinstance(function, functools.partial):
        hidden |= set(function.keywords)
        function = function.func
    if isinstance(function, staticmethod | classmethod | property):
        raise ToolError(f"functions: a {type(function).__name__} of a class; get it from the class or an object of it")
    if isinstance(function, type) or not callable(function):
        raise ToolError(f"functions: {function!r:.80} is not a function")
    return function, hidden


def _name_of(core: Any) -> str:
    return getattr(core, "__name__", None) or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(core).__name__).lower()


def _plain(core: Any) -> Any:
    """The function behind a method or a callable object."""
    return inspect.unwrap(core if inspect.isroutine(core) else type(core).__call__)


def _is_coroutine(core: Any) -> bool:
    plain = core if inspect.isroutine(core) else type(core).__call__
    return inspect.iscoroutinefunction(plain) or inspect.iscoroutinefunction(inspect.unwrap(plain))


def _parameters_of(
    name: str, function: Any, core: Any, hidden: set[str], told: Mapping[str, str]
) -> tuple[_Parameter, ...]:
    plain = _plain(core)
    if inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
        raise ToolError(f"functions: {name} is a generator; a tool returns its result once")
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        raise ToolError(f"functions: {name}: Python cannot say what its parameters are; wrap it in a def") from None
    hints = _hints(name, plain)
    found = []
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            raise ToolError(
                f"functions: {name}({parameter}) takes any names, which a schema cannot list; write the parameters out"
            )
        if parameter.kind not in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            raise ToolError(
                f"functions: {name}({parameter}) cannot be given by name; a model gives all arguments by name"
            )
        if parameter.name in hidden:
            continue
        if parameter.name not in hints:
            raise ToolError(f"functions: parameter {parameter.name} of {name} needs a type annotation")
        found.append(_parameter(parameter, hints[parameter.name], told.get(parameter.name, "")))
    return tuple(found)


def _hints(name: str, plain: Any) -> dict[str, Any]:
    """Annotations of the parameters; the annotation of the result is not resolved."""
    try:
        given = {one: hint for one, hint in getattr(plain, "__annotations__", {}).items() if one != "return"}
        holder = types.SimpleNamespace(__annotations__=given)
        return typing.get_type_hints(holder, getattr(plain, "__globals__", {}), include_extras=True)
    except Exception as error:
        raise ToolError(
            f"functions: an annotation of {name} cannot be read ({type(error).__name__}: {error}); "
            "the types that it names must stand at the top of its module"
        ) from None


def _parameter(parameter: inspect.Parameter, hint: Any, told: str) -> _Parameter:
    from pydantic.fields import FieldInfo

    given = parameter.default
    required = given is inspect.Parameter.empty
    default: Callable[[], Any] | None = None
    extras: list[Any] = []
    if isinstance(given, FieldInfo):  # def f(x: int = Field(3, le=5))
        extras.append(given)
        required = given.is_required()
        default = None if required else functools.partial(given.get_default, call_default_factory=True)
    if typing.get_origin(hint) is Annotated:
        hint, *others = typing.get_args(hint)
        for extra in others:
            if isinstance(extra, str):
                told = extra
            elif isinstance(extra, bool):  # the official decorator's third item
                required = extra
                if not required and given is inspect.Parameter.empty:
                    default = _nothing
            else:
                extras.append(extra)
    for extra in extras:
        if isinstance(extra, FieldInfo):
            told = told or extra.description or ""
        hint = Annotated[hint, extra]
    return _Parameter(parameter.name, hint, told, required, default)


def _nothing() -> None:
    """The value of an optional parameter without a default."""


def _python_name(hint: Any) -> str:
    while typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")


# From parameters to a schema


def _adapter(name: str, parameters: Sequence[_Parameter]) -> TypeAdapter[Any]:
    """The checker of arguments: a typed dict, in which a parameter may have any name."""
    from pydantic import ConfigDict, Field, TypeAdapter
    from typing_extensions import NotRequired, TypedDict

    fields: dict[str, Any] = {}
    for one in parameters:
        hint = _known(one.type)
        hint = Annotated[hint, Field(description=one.described)] if one.described else hint
        fields[one.name] = hint if one.required else NotRequired[hint]
    make: Any = TypedDict
    made = make(name, fields)
    made.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)
    try:
        return TypeAdapter(made)
    except Exception as error:
        raise _unfit(name, parameters, error) from None


def _known(hint: Any, above: tuple[Any, ...] = ()) -> Any:
    """Replace `typing.TypedDict` in a type: before Python 3.12, pydantic accepts only that of `typing_extensions`."""
    from typing_extensions import NotRequired, Required, TypedDict

    if sys.version_info >= (3, 12) or hint in above:
        return hint
    if typing.is_typeddict(hint) and type(hint).__module__ == "typing":
        fields = {}
        for name, inner in typing.get_type_hints(hint, include_extras=True).items():
            required = name in hint.__required_keys__
            if (mark := typing.get_origin(inner)) in (Required, NotRequired):  # missing above if a string
                required, (inner,) = mark is Required, typing.get_args(inner)
            inner = _known(inner, (*above, hint))
            fields[name] = inner if required else NotRequired[inner]
        make: Any = TypedDict
        return make(hint.__name__, fields)
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (list, dict, tuple, Sequence, Mapping):
        return origin[tuple(_known(one, above) for one in inside)]
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(_known(one, above) for one in inside)]  # noqa: UP007
    return hint


def _unfit(name: str, parameters: Sequence[_Parameter], error: Exception) -> ToolError:
    """The error about the parameter for which pydantic cannot make a schema."""
    from pydantic import TypeAdapter

    for one in parameters:
        try:
            TypeAdapter(one.type).json_schema()
        except Exception as reason:
            said = str(reason).partition("\n")[0].rstrip(".")
            return ToolError(
                f"functions: {name}({one.name}): {_python_name(one.type)} cannot be written as JSON, so a model cannot "
                f"give it ({said}); take str, int, float, bool, list, dict, an enum, a dataclass or a pydantic model"
            )
    return ToolError(f"functions: {name}: {str(error).partition(chr(10))[0]}")


def _schema(name: str, parameters: Sequence[_Parameter], adapter: TypeAdapter[Any]) -> dict[str, Any]:
    try:
        made = adapter.json_schema()
    except Exception as error:
        raise _unfit(name, parameters, error) from None
    plain = _Inliner(name, made.pop("$defs", {})).plain(made)
    return {"type": "object", "properties": plain.get("properties", {}), "required": plain.get("required", [])}


class _Inliner:
    """Removes references and titles from a schema of pydantic, because the whole schema is in the prompt."""

    def __init__(self, name: str, definitions: Mapping[str, Any]) -> None:
        self._name, self._definitions = name, definitions
        self._open: list[str] = []
        self._left = _MOST_NODES

    def plain(self, schema: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            raise ToolError(f"functions: {self._name}: its schema has over {_MOST_NODES} parts; take simpler types")
        if isinstance(schema, list):
            return [self.plain(item) for item in schema]
        if not isinstance(schema, dict):
            return schema
        made = {"type": schema["type"]} if "type" in schema else {}  # first, because people write it first
        for key, value in schema.items():
            if key in ("properties", "patternProperties"):  # names, not keywords
                made[key] = {name: self.plain(part) for name, part in value.items()}
            elif key in ("enum", "const", "default", "examples", "required"):  # values, not schemas
                made[key] = value
            elif key not in ("title", "$ref", "discriminator") and (key, value) != ("items", {}):
                made[key] = self.plain(value)
        if "$ref" not in schema:
            return made
        target = schema["$ref"].removeprefix("#/$defs/")
        if target in self._open:
            raise ToolError(f"functions: {self._name}: {target} contains itself; recursive types are not supported")
        self._open.append(target)
        inner = self.plain(self._definitions[target])
        self._open.pop()
        return {**inner, **made}


# Arguments


def too_large(arguments: Mapping[str, Any]) -> str:
    """The reason why arguments are too large, as text for the model; "" if they are not."""
    values = text = deepest = 0
    waiting: list[tuple[Any, int]] = [(arguments, 0)]
    while waiting and values <= _MOST_VALUES:
        value, depth = waiting.pop()
        values, deepest = values + 1, max(deepest, depth)
        if isinstance(value, str):
            text += len(value)
        elif isinstance(value, Mapping):
            text += sum(len(key) for key in value if isinstance(key, str))
            waiting += [(item, depth + 1) for item in value.values()]
        elif isinstance(value, list | tuple):
            waiting += [(item, depth + 1) for item in value]
    if values > _MOST_VALUES or text > _MOST_TEXT or deepest > _DEEPEST:
        return f"too large: more than {_MOST_VALUES:,} values, {_DEEPEST} of them in each other, or 1 MiB of text"
    return ""


def _problems(error: ValidationError, arguments: Mapping[str, Any]) -> str:
    """All problems in one line: unknown and missing names, then wrong values."""
    unknown, missing = [], []
    wrong: dict[tuple[str, str], list[str]] = {}
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        path, value = _place(one["loc"], arguments)
        if one["type"] == "extra_forbidden":
            unknown.append(path[:_LONGEST_NAME])
        elif one["type"] == "missing":
            missing.append(f"{path}.{one['loc'][-1]}" if len(one["loc"]) > 1 else str(one["loc"][-1]))
        else:
            said = one["msg"].replace("Input should be", "must be").replace("Value error, ", "").strip()
            wrong.setdefault((path, shown(value)), []).append(said[:200])
    parts = [f"unknown: {', '.join(unknown[:_MOST_PROBLEMS])}"] if unknown else []
    parts += [f"missing: {', '.join(missing[:_MOST_PROBLEMS])}"] if missing else []
    for (path, value), reasons in list(wrong.items())[:_MOST_PROBLEMS]:
        parts.append(f"{path} {' or '.join(dict.fromkeys(reasons))}, got {value}")
    return " ".join("; ".join(parts).split())


def _place(location: Sequence[int | str], arguments: Any) -> tuple[str, Any]:
    """The path of an error in the arguments, and the value there. Steps for branches of unions are left out."""
    path, value = "", arguments
    for step in location:
        if isinstance(step, str) and isinstance(value, Mapping) and step in value:
            path, value = f"{path}.{step}" if path else step, value[step]
        elif isinstance(step, int) and isinstance(value, list | tuple) and step < len(value):
            path, value = f"{path}[{step}]", value[step]
    return path, value
