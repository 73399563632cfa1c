"""SQL/JSON paths for binary JSON, as in Micromegas's own server: `$.items[*] ? (@.type == "active").id`.

Supports names, `.*`, `[*]`, indices (including `last`), and filters with comparisons, `starts with`, `&&`, and `||`.
A step that does not fit a value (a name on a number, an index on an object) finds nothing; `[*]` on a value that is
not an array finds the value. A comparison of different kinds is unknown, and so are expressions that contain it.
"""

import functools
import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final, NoReturn

from micromegas_jupyter.core import jsonb

_MAX_LENGTH: Final = 4096
_MAX_NESTING: Final = 32
_Step = Callable[[bytes, bytes], Iterator[bytes]]  # takes the whole value and a part of it
_Predicate = Callable[[bytes, bytes], bool | None]
_Operand = Callable[[bytes, bytes], list[object]]

_TOKEN: Final = re.compile(
    r"""\s*(?:
    (?P<text> "(?:[^"\\]|\\.)*+" )
  | (?P<comparison> == | != | <> | <= | >= | < | > | starts\ with\b )
  | (?P<number> -?\d+ (?:\.\d+)? (?:[eE][+-]?\d+)? )
  | (?P<symbol> && | \|\| | \.\* | [.$@?()\[\]*-] )
  | (?P<name> [^\s,.:{}\[\]()?@$|&<>!=+\-*/%"'\\]+ ) )""",
    re.VERBOSE,
)
_CONSTANTS: Final[Mapping[str, object]] = {"null": None, "true": True, "false": False}
_OPERATORS: Final[Mapping[str, Callable[..., bool]]] = {
    "==": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_CONTAINER: Final = object()


class PathError(ValueError):
    """The string is not a valid path; `args[0]` explains why, without repeating the string."""


def select(path: str, data: bytes) -> list[bytes]:
    """Return the results of a path in order, each as a separate binary JSON value."""
    return _follow(_parse(path), data, data)


def _follow(steps: Sequence[_Step], root: bytes, start: bytes) -> list[bytes]:
    found = [start]
    for step in steps:
        found = [part for one in found for part in step(root, one)]
    return found


@functools.lru_cache(maxsize=256)
def _parse(path: str) -> tuple[_Step, ...]:
    if len(path) > _MAX_LENGTH:
        raise PathError(f"it is longer than {_MAX_LENGTH} characters")
    parser = _Parser(path)
    parser.expect("$")
    steps = parser.steps()
    if parser.kind != "end":
        parser.fail("a step such as .name, [0], [*] or ? (@.name == 1)")
    return steps


class _Parser:
    """Parses a path; `kind` and `token` describe the next token."""

    def __init__(self, path: str) -> None:
        self._path = path.rstrip()
        self._start = self._end = self._depth = 0
        self._advance()

    def _advance(self) -> str:
        token = self._path[self._start : self._end]
        found = _TOKEN.match(self._path, self._end)
        self.kind = "end" if self._end == len(self._path) else (found and found.lastgroup) or ""
        self._start, self._end = found.span(found.lastgroup or 0) if found else (self._end, self._end)
        self.token = self._path[self._start : self._end]
        return token

    def fail(self, expected: str) -> NoReturn:
        raise PathError(f"expected {expected} at character {self._start + 1}")

    def expect(self, symbol: str) -> None:
        if not self._take(symbol):
            self.fail(symbol)

    def _take(self, symbol: str) -> bool:
        return self.kind == "symbol" and self.token == symbol and self._advance() == symbol

    def _is_name(self, *names: str) -> bool:
        return self.kind == "name" and self.token in names

    def _take_kind(self, *kinds: str) -> str | None:
        return self._advance() if self.kind in kinds else None

    def steps(self) -> tuple[_Step, ...]:
        found: list[_Step] = []
        while True:
            if self._take(".*"):
                found.append(_members)
            elif self._take("."):
                name = self._take_kind("text", "name", "number") or self.fail("a name")
                found.append(functools.partial(_member, self._plain(name)))
            elif self._take("["):
                found.append(self._bracket())
                self.expect("]")
            elif self._take("?"):
                self.expect("(")
                found.append(functools.partial(_filter, self._any_of()))
                self.expect(")")
            else:
                return tuple(found)

    def _plain(self, token: str) -> str:
        try:
            return str(json.loads(token)) if token.startswith('"') else token
        except ValueError:
            self.fail("a text in double quotes, as JSON has it, before that")

    def _bracket(self) -> _Step:
        if self._take("*"):
            return _elements
        if (name := self._take_kind("text")) is not None:
            return functools.partial(_member, self._plain(name))
        if self._is_name("last"):
            self._advance()
            back = self._take_kind("number") or ("0" if not self._take("-") else self._take_kind("number") or "")
            return functools.partial(_indexed, -abs(int(back or self.fail("a number"))) - 1)
        index = self._take_kind("number") or ""
        return functools.partial(_indexed, int(index)) if index.isdigit() else self.fail("an index, last, * or a text")

    def _any_of(self) -> _Predicate:
        self._depth += 1
        if self._depth > _MAX_NESTING:
            raise PathError(f"its filters are nested deeper than {_MAX_NESTING}")
        alternatives = [self._all_of()]
        while self._take("||"):
            alternatives.append(self._all_of())
        self._depth -= 1
        return _connected(any, alternatives)

    def _all_of(self) -> _Predicate:
        conditions = [self._condition()]
        while self._take("&&"):
            conditions.append(self._condition())
        return _connected(all, conditions)

    def _condition(self) -> _Predicate:
        if self._take("("):
            inside = self._any_of()
            self.expect(")")
            return inside
        left = self._operand()
        comparison = self._take_kind("comparison") or self.fail("a comparison: == != < <= > >= or starts with")
        return functools.partial(_compare, comparison, left, self._operand())

    def _operand(self) -> _Operand:
        for start in "@$":
            if self._take(start):
                steps, is_root = self.steps(), start == "$"
                return lambda root, part: _values(_follow(steps, root, root if is_root else part))
        value: object
        if (token := self._take_kind("text")) is not None:
            value = self._plain(token)
        elif (token := self._take_kind("number")) is not None:
            value = float(token) if {*token} & {*".eE"} else int(token)
        elif self._is_name(*_CONSTANTS):
            value = _CONSTANTS[self._advance()]
        else:
            self.fail("@, $, a number, a text in double quotes, true, false or null")
        return lambda _root, _part: [value]


def _member(name: str, _root: bytes, part: bytes) -> Iterator[bytes]:
    found = jsonb.items(part)
    if isinstance(found, dict) and name in found:
        yield found[name]


def _members(_root: bytes, part: bytes) -> Iterator[bytes]:
    found = jsonb.items(part)
    if isinstance(found, dict):
        yield from found.values()


def _elements(_root: bytes, part: bytes) -> Iterator[bytes]:
    found = jsonb.items(part)
    yield from found if isinstance(found, list) else [part]


def _indexed(index: int, _root: bytes, part: bytes) -> Iterator[bytes]:
    found = jsonb.items(part)
    if isinstance(found, list) and -len(found) <= index < len(found):
        yield found[index]


def _filter(predicate: _Predicate, root: bytes, part: bytes) -> Iterator[bytes]:
    if predicate(root, part):
        yield part


def _connected(how: Callable[[list[bool]], bool], predicates: list[_Predicate]) -> _Predicate:
    def decide(root: bytes, part: bytes) -> bool | None:
        found = [predicate(root, part) for predicate in predicates]
        known = [one for one in found if one is not None]
        return how(known) if len(known) == len(found) else None

    return predicates[0] if len(predicates) == 1 else decide


def _values(found: Sequence[bytes]) -> list[object]:
    """Return the operands of a comparison: scalars are unchanged, and arrays are replaced by their elements."""
    values: list[object] = []
    for part in found:
        inside = jsonb.items(part)
        parts = inside if isinstance(inside, list) else [part]
        values += [jsonb.decode(one) if jsonb.items(one) is None else _CONTAINER for one in parts]
    return values


def _compare(comparison: str, left: _Operand, right: _Operand, root: bytes, part: bytes) -> bool | None:
    others = right(root, part)
    for value in left(root, part):
        for other in others:
            found = _compare_two(comparison, value, other)
            if found is None or found:
                return found
    return False


def _compare_two(comparison: str, value: object, other: object) -> bool | None:
    kinds = {_kind(value), _kind(other)}
    if _CONTAINER in kinds:
        return None
    if comparison == "starts with":
        return value.startswith(other) if isinstance(value, str) and isinstance(other, str) else None
    if comparison in {"!=", "<>"}:
        return len(kinds) > 1 or value != other
    if len(kinds) > 1:
        return None
    return comparison in {"==", "<=", ">="} if value is None else _OPERATORS[comparison](value, other)


def _kind(value: object) -> object:
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return float
    return _CONTAINER if value is _CONTAINER else type(value)
