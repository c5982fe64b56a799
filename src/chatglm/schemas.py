"""Prepares JSON schemas of callers for a grammar: bounded in size, in current spelling, without unsupported keywords.

`held` returns a schema whose instances are all valid for the caller's schema, as far as a grammar can enforce its
keywords. Keywords that it cannot enforce are dropped and listed, or, with `strict`, refused by name. Every limit is
checked before anything is built, so the cost is bounded by the size of the schema. If a schema lists the properties of
an object, no others are allowed, unless it asks for them (`additionalProperties`): a model that may invent further
names often does not stop. Keywords: JSON Schema drafts 4 to 2020-12, and the spelling of Gemini and OpenAPI (`STRING`,
`nullable`).
"""

from __future__ import annotations

import json
import math
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any
from urllib.parse import unquote

from chatglm.errors import InputError, UnsupportedError

__all__ = ["EXACT", "Held", "check_pattern", "depth_of", "held", "pointed"]

MAX_BYTES = 256 << 10
"""Most bytes of a schema as JSON."""
MAX_NESTING = 60
"""Most levels of nested objects and lists."""
MAX_PROPERTIES = 300
"""Most properties of one object. Each optional property costs time for every token."""
MAX_ENUM = 4000
"""Most values of one `enum`."""
MAX_BRANCHES = 100
"""Most schemas of one `anyOf`, `oneOf` or `allOf`."""
MAX_DEFINITIONS = 500
MAX_CHAIN = 100
"""Greatest length of a chain of `$ref`s."""
MAX_LENGTH = 4096
"""Most characters of a string. It replaces a larger `maxLength`; a larger `minLength` cannot be enforced."""
MAX_ITEMS = 1000
"""Most items of a list; used in the same way for `maxItems` and `minItems`."""
MAX_PATTERN = 2000
"""Most characters of a regular expression."""
MAX_REPEATS = 2000
"""Largest sum of the repetition counts in one regular expression; nested counts are multiplied."""
MAX_GROUPS = 30
"""Most levels of nested groups in a regular expression."""
EXACT = 2**53 - 1
"""The largest integer that every JSON reader distinguishes from its neighbours. Larger ones are not supported."""
DIGITS = 10**15 - 1
"""The largest integer that a model can write if a schema gives no bound. Without it, digits might never end."""

_TYPES = ("string", "integer", "number", "boolean", "null", "array", "object")
_ALONE = {
    *("allOf", "title", "description", "default", "example", "examples", "deprecated", "readOnly", "writeOnly"),
    *("$comment", "$schema", "$id", "$defs", "definitions", "nullable"),
}
"""Keywords beside an `allOf` of one schema that add nothing to it. With any other, both must be kept."""
# Keywords that restrict a value, but cannot be enforced by a grammar.
_UNHELD = (
    "not", "if", "contains", "minContains", "maxContains", "uniqueItems", "propertyNames", "dependentRequired",
    "dependentSchemas", "dependencies", "unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "$recursiveRef",
)  # fmt: skip
_OF = {
    "object": {"properties", "required", "additionalProperties", "patternProperties", "minProperties", "maxProperties"},
    "array": {"items", "prefixItems", "additionalItems", "minItems", "maxItems"},
    "string": {"minLength", "maxLength", "pattern", "format"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
}
_DAY = (
    r"[12][0-9]{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    r"|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?(?:Z|[+-](?:0[0-9]|1[0-3]):[0-5][0-9])"
_LABEL = "[a-zA-Z0-9]+(?:-[a-zA-Z0-9]+)*"
# Stricter than the standards, so that every reader accepts the values: no leap days or seconds, no year 0, no quoted
# local parts of addresses.
_FORMATS = {
    "date": _DAY,
    "time": _TIME,
    "date-time": f"{_DAY}T{_TIME}",
    "email": rf"[a-zA-Z0-9]+(?:[._+-][a-zA-Z0-9]+)*@(?:{_LABEL}\.)+[a-zA-Z]{{2,12}}",
    "uuid": "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "hostname": rf"{_LABEL}(?:\.{_LABEL})*",
    "ipv4": r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])",
    "ipv6": "(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4}",
    "uri": rf"https?://{_LABEL}(?:\.{_LABEL})*(?::[1-9][0-9]{{1,3}})?(?:/[a-zA-Z0-9._~%-]*)*",
    "duration": r"P(?:[0-9]{1,4}D)?T(?:[0-9]{1,2}H)?(?:[0-9]{1,2}M)?[0-9]{1,2}S",
}
_FORMATS["uri"] = _FORMATS["uri"].replace("~%", "~")


@dataclass(frozen=True)
class Held:
    """The part of a schema that a grammar enforces.

    Attributes:
        schema: a JSON schema whose `$ref`s all refer to its own `$defs`.
        dropped: keywords of the caller's schema that are not enforced, each once.
    """

    schema: dict[str, Any]
    dropped: tuple[str, ...] = ()


def held(schema: Any, *, strict: bool = False, where: str = "JSON schema") -> Held:
    """Prepare a caller's schema for a grammar.

    Args:
        strict: refuse keywords that cannot be enforced, instead of dropping them.
        where: name of the field, for errors.

    Raises:
        InputError: it is not a JSON schema, or no value can satisfy it.
        UnsupportedError: it is too large (the message names the limit); or, with `strict`, it has keywords that cannot
            be enforced.
    """
    if schema is True:
        schema = {}
    if not isinstance(schema, Mapping):
        raise InputError(f"{where}: expected an object, got {schema!r:.80}")
    _check_size(schema, where)
    return _Reader(schema, strict, where).whole()


def pointed(root: Any, pointer: str) -> Any:
    """The value that a JSON pointer (RFC 6901) refers to.

    Args:
        pointer: the part of a `$ref` after the `#`; "" refers to `root` itself.

    Raises:
        LookupError: there is no such value.
    """
    first, *parts = unquote(pointer).split("/")
    if first:
        raise LookupError(pointer)
    found = root
    for part in parts:
        part = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping):
            found = found[part]
        elif isinstance(found, list) and part.isascii() and part.isdigit() and len(part) < 7:
            found = found[int(part)]
        else:
            raise LookupError(pointer)
    return found


def _check_size(schema: Any, where: str) -> None:
    level = [schema]
    for _ in range(MAX_NESTING):
        level = [part for one in level for part in _parts(one)]
        if not level:
            break
    else:
        raise UnsupportedError(f"{where}: nested too deeply; at most {MAX_NESTING} levels are supported")
    try:
        size = len(json.dumps(schema, ensure_ascii=False, allow_nan=False).encode())
    except UnicodeEncodeError:
        raise InputError(f"{where}: has text that is not Unicode (half of a surrogate pair)") from None
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {error}") from None
    if size > MAX_BYTES:
        raise UnsupportedError(f"{where}: {size:,} bytes; at most {MAX_BYTES:,} are supported")


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from (part for part in value.values() if isinstance(part, Mapping | list | tuple))
    elif isinstance(value, list | tuple):
        yield from (part for part in value if isinstance(part, Mapping | list | tuple))


class _Reader:
    """Reads one schema."""

    def __init__(self, schema: Mapping[str, Any], strict: bool, where: str) -> None:
        self._root, self._strict, self._where = schema, strict, where
        self._names: dict[str, str] = {}  # names of definitions, by the pointers that refer to them
        self._waiting: deque[tuple[str, Any]] = deque()
        self._refers: dict[str, set[str]] = {}
        self._inside = ""  # the definition that is being read
        self._dropped: dict[str, None] = {}
        self._combines = _combines(schema)

    def whole(self) -> Held:
        made = self._schema(self._root)
        definitions = {}
        while self._waiting:
            self._inside, found = self._waiting.popleft()
            definitions[self._inside] = self._schema(found)
        if (depth := depth_of(self._refers)) > MAX_CHAIN:
            raise UnsupportedError(
                f"{self._where}: $ref leads through {depth} definitions; at most {MAX_CHAIN} are supported"
            )
        if made is False:
            raise InputError(f"{self._where}: no value satisfies it")
        whole = {} if made is True else made
        return Held({**whole, "$defs": definitions} if definitions else whole, tuple(self._dropped))

    # Errors

    def _wrong(self, what: str) -> InputError:
        return InputError(f"{self._where}: {what}")

    def _too_large(self, what: str, count: int, most: int) -> UnsupportedError:
        return UnsupportedError(f"{self._where}: {what}: {count:,}; at most {most:,} are supported")

    def _drop(self, keyword: str, why: str = "") -> None:
        if self._strict:
            told = f" ({why})" if why else ""
            raise UnsupportedError(f"{self._where}: `strict` does not support `{keyword}`{told}; remove one of the two")
        self._dropped[keyword] = None

    # Schemas

    def _schema(self, given: Any) -> Any:
        """Prepare a schema; True and False stay as they are."""
        if isinstance(given, bool):
            return given
        if not isinstance(given, Mapping):
            raise self._wrong(f"{given!r:.80} is not a JSON schema")
        made: dict[str, Any] = {}
        types = self._types(given)
        self._unheld(given)
        if "$ref" in given:
            made["$ref"] = f"#/$defs/{self._definition(given['$ref'])}"
        for name in ("allOf", "anyOf", "oneOf"):
            if name in given:
                self._branches(name, given, made)
        if "const" in given:
            self._check_value(given["const"], "const")
            made["const"] = given["const"]
        if "enum" in given:
            made["enum"] = self._enum(given)
        if types is not None:
            made["type"] = types[0] if len(types) == 1 else list(types)
        for kind, read in (
            ("object", self._object),
            ("array", self._array),
            ("string", self._string),
            ("number", self._number),
        ):
            named = types is None or kind in types or (kind == "number" and "integer" in types)
            if named and (given.keys() & _OF[kind] or (types is not None and kind != "string")):
                read(given, made)
        if given.get("nullable") is True and made:
            return self._nullable(made)
        return made

    def _types(self, given: Mapping[str, Any]) -> tuple[str, ...] | None:
        """The types that a value may have; None: any. Without `type`, the other keywords determine them."""
        named = given.get("type")
        if named is None:
            if given.keys() & {"$ref", "const", "enum", "allOf", "anyOf", "oneOf"}:
                return None
            told = [kind for kind, keywords in _OF.items() if given.keys() & keywords]
            return (told[0],) if len(told) == 1 else None
        names = named if isinstance(named, list | tuple) else [named]
        found = []
        for name in names:
            lower = name.lower() if isinstance(name, str) else name
            if lower == "any":
                return None
            if lower not in _TYPES:
                raise self._wrong(f"type {name!r:.80} is not a type of JSON schema; known: {', '.join(_TYPES)}")
            if lower not in found:
                found.append(lower)
        if not found:
            raise self._wrong("type: an empty list")
        if "number" in found and "integer" in found:
            found.remove("integer")
        return tuple(found)

    def _nullable(self, made: dict[str, Any]) -> dict[str, Any]:
        return {"anyOf": [made, {"type": "null"}]}

    def _unheld(self, given: Mapping[str, Any]) -> None:
        for name in _UNHELD:
            if name not in given:
                continue
            value = given[name]
            if name == "unevaluatedProperties" and value is False and not given.keys() & _APPLICATORS:
                continue  # then additionalProperties takes its place
            neutral: dict[str, Any] = {
                "uniqueItems": value is False or _at_most_one(given),
                "propertyNames": value is True or (isinstance(value, Mapping) and not value.keys() - {"type"}),
                "minContains": "contains" not in given,
                "maxContains": "contains" not in given,
                "if": not given.keys() & {"then", "else"},
            }
            if neutral.get(name, value in (True, {}) and name.startswith("unevaluated")):
                continue
            if name.startswith("depend") and value == {}:
                continue
            self._drop(name)

    def _branches(self, name: str, given: Mapping[str, Any], made: dict[str, Any]) -> None:
        branches = given[name]
        if not isinstance(branches, list | tuple) or not branches:
            raise self._wrong(f"{name}: expected a list of schemas, got {branches!r:.80}")
        if len(branches) > MAX_BRANCHES:
            raise self._too_large(f"schemas of one {name}", len(branches), MAX_BRANCHES)
        read = [self._schema(_with_type(branch, given)) for branch in branches]
        if name == "oneOf":
            if not _disjoint(branches, self._target):
                self._drop("oneOf", "the schemas in it may overlap")
            name = "anyOf"
        if name in made:
            made.setdefault("allOf", []).append({name: read})
        elif name == "allOf" and len(read) == 1 and isinstance(read[0], dict) and given.keys() <= _ALONE:
            made.update(read[0])
        else:
            made[name] = made.get(name, []) + read

    def _definition(self, target: Any) -> str:
        """The name in `$defs` of the schema that a `$ref` refers to."""
        if not isinstance(target, str):
            raise self._wrong(f"$ref: expected a string, got {target!r:.80}")
        if target not in self._names:
            found = self._target(target)
            if found is None:
                raise self._wrong(f"$ref {target!r:.80} names nothing in the schema")
            if len(self._names) >= MAX_DEFINITIONS:
                raise self._too_large("definitions", len(self._names) + 1, MAX_DEFINITIONS)
            self._names[target] = f"d{len(self._names)}"
            self._waiting.append((self._names[target], found))
        name = self._names[target]
        self._refers.setdefault(self._inside, set()).add(name)
        return name

    def _target(self, pointer: Any) -> Any:
        """The schema that a `$ref` refers to; None: there is none."""
        if not isinstance(pointer, str):
            return None
        base = self._root.get("$id")
        if isinstance(base, str) and base and pointer.startswith(base):
            pointer = pointer[len(base) :] or "#"
        try:
            return pointed(self._root, pointer[1:]) if pointer.startswith("#") else None
        except LookupError:
            return None

    # Values

    def _enum(self, given: Mapping[str, Any]) -> list[Any]:
        values = given["enum"]
        if not isinstance(values, list | tuple) or not values:
            raise self._wrong(f"enum: expected a list of values, got {values!r:.80}")
        if len(values) > MAX_ENUM:
            raise self._too_large("values of one enum", len(values), MAX_ENUM)
        for value in values:
            self._check_value(value, "enum")
        nulls = [None] if given.get("nullable") is True and None not in values else []
        return [*values, *nulls]

    def _check_value(self, value: Any, name: str) -> None:
        waiting = [value]
        while waiting:
            one = waiting.pop()
            if isinstance(one, Mapping):
                waiting += one.values()
            elif isinstance(one, list | tuple):
                waiting += one
            elif isinstance(one, int | float) and not isinstance(one, bool) and not abs(one) <= EXACT:
                raise UnsupportedError(f"{self._where}: {name}: {one!r:.40}: numbers beyond ±2^53 are not supported")

    def _number_of(self, given: Mapping[str, Any], name: str) -> int | float | None:
        value = given.get(name)
        if value is None:
            return None
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or (isinstance(value, float) and not math.isfinite(value))
        ):
            raise self._wrong(f"{name}: expected a number, got {value!r:.40}")
        return value

    def _count(self, given: Mapping[str, Any], name: str) -> int | None:
        value = self._number_of(given, name)
        if value is None:
            return None
        if value < 0 or value != int(value):
            raise self._wrong(f"{name}: expected a whole number of at least 0, got {value!r:.40}")
        return int(value)

    def _range(self, given: Mapping[str, Any], less: str, more: str, most: int) -> tuple[int, int | None]:
        """Read a least and a greatest count. A greatest count above the limit `most` is replaced by `most`."""
        low, high = self._count(given, less) or 0, self._count(given, more)
        if high is not None and low > high:
            raise self._wrong(f"{less} {low} is greater than {more} {high}: no value satisfies it")
        if low > most:
            self._drop(less, f"{low:,} is more than {most:,}")
            return 0, None if high is None else most
        return low, None if high is None else min(high, most)

    # Types

    def _string(self, given: Mapping[str, Any], made: dict[str, Any]) -> None:
        low, high = self._range(given, "minLength", "maxLength", MAX_LENGTH)
        if low:
            made["minLength"] = low
        if high is not None:
            made["maxLength"] = high
        patterns = []
        if (pattern := given.get("pattern")) is not None:
            if not isinstance(pattern, str):
                raise self._wrong(f"pattern: expected a string, got {pattern!r:.80}")
            if why := check_pattern(pattern):
                self._drop("pattern", why)
            else:
                patterns.append(pattern)
        if (known := _FORMATS.get(str(given.get("format")))) is not None:
            patterns.append(f"^(?:{known})$")
        if patterns:
            made["pattern"] = patterns[0]
        if len(patterns) > 1:
            made.setdefault("allOf", []).append({"type": "string", "pattern": patterns[1]})

    def _number(self, given: Mapping[str, Any], made: dict[str, Any]) -> None:
        low, high = self._number_of(given, "minimum"), self._number_of(given, "maximum")
        above, below = given.get("exclusiveMinimum"), given.get("exclusiveMaximum")
        # Draft 4: this is a flag that changes the meaning of minimum and maximum.
        if isinstance(above, bool):
            low, above = (None, low) if above else (low, None)
        else:
            above = self._number_of(given, "exclusiveMinimum")
        if isinstance(below, bool):
            high, below = (None, high) if below else (high, None)
        else:
            below = self._number_of(given, "exclusiveMaximum")
        factor = self._factor(given)
        if "integer" in (made.get("type"), *(made["type"] if isinstance(made.get("type"), list) else ())):
            least, most = self._integers(low, above, high, below)
            if factor is not None and -(-least // factor) * factor > most:
                raise self._wrong(f"multipleOf {factor} has no value from {least} to {most}")
            made["minimum"], made["maximum"] = least, most
            if factor is not None:
                made["multipleOf"] = int(factor)
            return
        self._reals(low, above, high, below, made)
        if factor is not None:
            made["multipleOf"] = float(factor) if factor.denominator > 1 else int(factor)

    def _reals(
        self, low: float | None, above: float | None, high: float | None, below: float | None, made: dict[str, Any]
    ) -> None:
        """Use the narrower of the two bounds at each end. A bound beyond ±2^53 is replaced by ±2^53."""
        if low is not None and above is not None:
            low, above = (low, None) if low > above else (None, above)
        if high is not None and below is not None:
            high, below = (high, None) if high < below else (None, below)
        least, most = above if low is None else low, below if high is None else high
        if (least is not None and least > EXACT) or (most is not None and most < -EXACT):
            raise UnsupportedError(f"{self._where}: numbers beyond ±2^53 are not supported")
        if least is not None and most is not None and not (least < most or (least == most == low == high)):
            raise self._wrong(f"minimum {least} and maximum {most}: no number satisfies both")
        if least is not None and least < -EXACT:
            low, above = -EXACT, None
        if most is not None and most > EXACT:
            high, below = EXACT, None
        bounds = {"minimum": low, "exclusiveMinimum": above, "maximum": high, "exclusiveMaximum": below}
        made.update((name, value) for name, value in bounds.items() if value is not None)

    def _integers(
        self, low: float | None, above: float | None, high: float | None, below: float | None
    ) -> tuple[int, int]:
        """The smallest and the largest integer, both exact."""
        least = max([*([] if low is None else [math.ceil(low)]), *([] if above is None else [math.floor(above) + 1])],
                    default=None)  # fmt: skip
        most = min([*([] if high is None else [math.floor(high)]), *([] if below is None else [math.ceil(below) - 1])],
                   default=None)  # fmt: skip
        if least is not None and most is not None and least > most:
            raise self._wrong(f"minimum {least} is greater than maximum {most}: no integer satisfies it")
        if (least is not None and least > EXACT) or (most is not None and most < -EXACT):
            raise UnsupportedError(f"{self._where}: integers beyond ±2^53 are not supported")
        if least is None:
            least = -DIGITS if most is None or most >= -DIGITS else -EXACT
        if most is None:
            most = DIGITS if least <= DIGITS else EXACT
        return max(least, -EXACT), min(most, EXACT)

    def _factor(self, given: Mapping[str, Any]) -> Fraction | None:
        value = self._number_of(given, "multipleOf")
        if value is None:
            return None
        if value <= 0:
            raise self._wrong(f"multipleOf: expected a number above 0, got {value!r:.40}")
        factor = Fraction(repr(value)) if isinstance(value, float) else Fraction(value)
        integer = "integer" in _listed(given.get("type"))
        if integer:
            factor = Fraction(factor.numerator)  # the integers among its multiples
        # Of other factors, only those that a binary fraction represents exactly: all readers agree on their multiples.
        exact = factor.denominator & (factor.denominator - 1) == 0 and factor.denominator <= 1 << 10
        if factor.numerator > 10**6 or not exact:
            self._drop("multipleOf", "only integers up to 10^6 and binary fractions can be enforced")
            return None
        return None if integer and factor == 1 else factor

    def _array(self, given: Mapping[str, Any], made: dict[str, Any]) -> None:
        low, high = self._range(given, "minItems", "maxItems", MAX_ITEMS)
        first, rest = given.get("prefixItems"), given.get("items", True)
        if isinstance(rest, list | tuple):  # the form before draft 2020-12
            first, rest = rest, given.get("additionalItems", True)
        if first is not None and not isinstance(first, list | tuple):
            raise self._wrong(f"prefixItems: expected a list of schemas, got {first!r:.80}")
        if given.get("unevaluatedItems") is False and "items" not in given and not given.keys() & _APPLICATORS:
            rest = False
        if first:
            if len(first) > MAX_BRANCHES:
                raise self._too_large("prefixItems", len(first), MAX_BRANCHES)
            made["prefixItems"] = [self._schema(one) for one in first]
        items = self._schema(rest)
        if items is False:
            count = len(first or ())
            if low > count:
                raise self._wrong(f"minItems is {low}, but only {count} items are allowed")
            high = count if high is None else min(high, count)
        elif items not in (True, {}):
            made["items"] = items
        if given.get("uniqueItems") is True and high is None and _at_most_one(given):
            high = 1
        if low:
            made["minItems"] = low
        if high is not None:
            made["maxItems"] = high

    def _object(self, given: Mapping[str, Any], made: dict[str, Any]) -> None:
        properties = given.get("properties") or {}
        if not isinstance(properties, Mapping):
            raise self._wrong(f"properties: expected an object of schemas, got {properties!r:.80}")
        required = given.get("required") or []
        if isinstance(required, bool):  # draft 3
            required = []
        if not isinstance(required, list | tuple) or not all(isinstance(name, str) for name in required):
            raise self._wrong(f"required: expected a list of names, got {required!r:.80}")
        count = len({*properties, *required})
        if count > MAX_PROPERTIES:
            raise self._too_large("properties of one object", count, MAX_PROPERTIES)
        read = {str(name): self._schema(one) for name, one in properties.items()}
        more = given.get("additionalProperties", True)
        if given.get("unevaluatedProperties") is False and not given.keys() & _APPLICATORS:
            more = False
        if self._closes(given, read, required):
            more = False
        if read or "properties" in given:
            made["properties"] = read
        if required:
            made["required"] = list(dict.fromkeys(required))
        extra = self._schema(more)
        patterns = self._pattern_properties(given)
        if patterns:
            made["patternProperties"] = patterns
        if extra not in (True, {}):
            made["additionalProperties"] = extra
        if extra is False and not patterns and (missing := [name for name in required if name not in read]):
            raise self._wrong(f"required: {missing[0]!r:.40} is not among the properties, and no others are allowed")
        for name in required:
            if read.get(name) is False:
                raise self._wrong(f"required: no value satisfies {name!r:.40}")
        self._property_counts(given, made, count == len(set(required)))

    def _closes(self, given: Mapping[str, Any], read: Mapping[str, Any], required: Sequence[str]) -> bool:
        """Whether an object may have only the listed properties, though the schema itself would allow others."""
        says_more = given.keys() & {"additionalProperties", "patternProperties", "minProperties"}
        return bool(read) and not says_more and not self._combines and all(name in read for name in required)

    def _pattern_properties(self, given: Mapping[str, Any]) -> dict[str, Any]:
        patterns = given.get("patternProperties") or {}
        if not isinstance(patterns, Mapping):
            raise self._wrong(f"patternProperties: expected an object of schemas, got {patterns!r:.80}")
        if len(patterns) > MAX_BRANCHES:
            raise self._too_large("patternProperties", len(patterns), MAX_BRANCHES)
        if len(patterns) > 1:  # a name that matches two of them would have to satisfy both
            self._drop("patternProperties", "more than one pattern")
            return {}
        for pattern in patterns:
            if why := check_pattern(pattern):
                self._drop("patternProperties", why)
                return {}
        return {pattern: self._schema(one) for pattern, one in patterns.items()}

    def _property_counts(self, given: Mapping[str, Any], made: dict[str, Any], all_required: bool) -> None:
        low, high = self._range(given, "minProperties", "maxProperties", MAX_PROPERTIES)
        needed, listed = len(made.get("required", ())), len(made.get("properties", ()))
        closed = made.get("additionalProperties") is False and "patternProperties" not in made
        if high is not None and high < needed:
            raise self._wrong(f"maxProperties {high} is less than the {needed} required ones")
        if low > needed:
            if all_required and not closed:
                made["minProperties"] = low
            elif closed and low > listed:
                raise self._wrong(f"minProperties is {low}, but only {listed} are allowed")
            elif low == 1 and closed and needed == 0 and high is None:
                made["minProperties"] = low
            else:
                self._drop("minProperties", "beside properties that may be left out")
        if high is not None and not (closed and high >= listed):
            if all_required:
                made["maxProperties"] = high
            else:
                self._drop("maxProperties", "beside properties that may be left out")


_APPLICATORS = {"$ref", "allOf", "anyOf", "oneOf", "if", "then", "else"}


def _combines(schema: Any) -> bool:
    """Whether several schemas may describe one object together, so that each lists only some of its properties."""
    level = [schema]
    while level:
        one = level.pop()
        if isinstance(one, Mapping):
            beside = one.keys() & {"properties", "required", "additionalProperties"}
            if "allOf" in one or (beside and one.keys() & _APPLICATORS):
                return True
        level += _parts(one)
    return False


def _listed(kinds: Any) -> list[str]:
    return [str(kind).lower() for kind in (kinds if isinstance(kinds, list | tuple) else [kinds])]


def _at_most_one(given: Mapping[str, Any]) -> bool:
    most = given.get("maxItems")
    return isinstance(most, int) and most <= 1


def _with_type(branch: Any, given: Mapping[str, Any]) -> Any:
    """A branch without a type gets the type of the surrounding schema."""
    if isinstance(branch, Mapping) and "type" in given and branch and not branch.keys() & {"type", "$ref"}:
        return {**branch, "type": given["type"]}
    return branch


def _disjoint(branches: Sequence[Any], target: Any) -> bool:
    """Whether it is clear that no value satisfies two of the schemas: they have different types or constants, or are
    objects that require a property with different constants.
    """
    seen = [_marks(branch, target) for branch in branches]
    return all(_apart(one, other) for number, one in enumerate(seen) for other in seen[number + 1 :])


def _marks(branch: Any, target: Any) -> dict[str, Any]:
    for _ in range(MAX_CHAIN):
        if not isinstance(branch, Mapping) or "$ref" not in branch:
            break
        branch = target(branch["$ref"])
    if not isinstance(branch, Mapping):
        return {}
    kinds = set(_listed(branch["type"])) if "type" in branch else None
    if branch.get("nullable") is True and kinds is not None:
        kinds.add("null")
    if kinds and "integer" in kinds:
        kinds = {*(kinds - {"integer"}), "number"}
    marks: dict[str, Any] = {"": _constants(branch), "type": kinds}
    properties, required = branch.get("properties"), branch.get("required")
    if isinstance(properties, Mapping) and isinstance(required, list) and kinds == {"object"}:
        marks["of"] = {
            name: values
            for name in required
            if isinstance(properties.get(name), Mapping) and (values := _constants(properties[name])) is not None
        }
    return marks


def _constants(schema: Mapping[str, Any]) -> set[str] | None:
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if not isinstance(values, list) or len(values) > MAX_ENUM:
        return None
    return {json.dumps(float(v) if isinstance(v, int) and not isinstance(v, bool) and abs(v) <= EXACT else v,
                       sort_keys=True) for v in values}  # fmt: skip


def _apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if not one or not other:
        return False
    for name in ("", "type"):
        if one[name] is not None and other[name] is not None and not one[name] & other[name]:
            return True
    mine, yours = one.get("of") or {}, other.get("of") or {}
    return any(not mine[name] & yours[name] for name in mine.keys() & yours.keys())


def depth_of(refers: Mapping[str, set[str]], start: str = "") -> int:
    """The largest number of definitions that a reader is inside at once, if it follows references from `start`, each
    name once.
    """
    depth, seen = 0, {start}
    stack = [iter(sorted(refers.get(start, ())))]
    while stack:
        name = next(stack[-1], None)
        if name is None:
            stack.pop()
        elif name not in seen:
            seen.add(name)
            depth = max(depth, len(stack))
            stack.append(iter(sorted(refers.get(name, ()))))
    return depth


_TOKENS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?[a-zA-Z<=!:#|>P]*|[(){}*+?|]|[^\\\[(){}*+?|]+", re.DOTALL)
_COUNTS = re.compile(r"\{(\d+)(?:,(\d*))?\}")


def check_pattern(pattern: Any) -> str:
    """The reason why a grammar cannot enforce a regular expression; "" if it probably can. It is not compiled here."""
    if not isinstance(pattern, str):
        return "it is not a string"
    if len(pattern) > MAX_PATTERN:
        return f"{len(pattern):,} characters; at most {MAX_PATTERN:,} are supported"
    if re.search(r"\(\?(?:[=!]|<[=!])", pattern):
        return "look-ahead and look-behind"
    if re.search(r"(?<!\\)(?:\\\\)*\\(?:[1-9]|k<|[bBAZzGK])", pattern):
        return "references, word boundaries"
    depth, place, counts = 0, 0, [1.0]
    inner = [1.0]  # for each open group, the most repetitions inside
    last = 1.0  # repetitions inside the part that a following count would repeat
    while place < len(pattern):
        if counted := _COUNTS.match(pattern, place):
            times = float(min(int(counted[2] or counted[1]), 10**9) if len(counted[0]) < 24 else 10**9)
            last *= max(times, 1.0)
            inner[-1] = max(inner[-1], last)
            counts.append(last)
            place = counted.end()
            continue
        found = _TOKENS.match(pattern, place)
        token = found[0] if found else pattern[place]
        place += len(token)
        if token.startswith("("):
            depth += 1
            inner.append(1.0)
            last = 1.0
        elif token == ")":
            depth -= 1
            if len(inner) > 1:
                last = inner.pop()
                inner[-1] = max(inner[-1], last)
        elif token not in "*+?":
            last = 1.0
        if depth > MAX_GROUPS:
            return f"groups nested more than {MAX_GROUPS} deep"
    if sum(counts) > MAX_REPEATS:
        return f"repeats more than {MAX_REPEATS:,} times"
    return ""
