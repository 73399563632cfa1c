"""Finds every reason code that the package can give, by reading its source.

A code is what `TokenProblem(...)`, `Refused(reason=...)` and their like are called with. Where a call takes the code
from a parameter of its function, the calls of that function say which codes there are. An expression that cannot be
followed this way is an error, so that no code stays unseen.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

CARRIERS = frozenset({"TokenProblem", "Refused", "Rejected", "Undecided", "Refusal", "AccessEvent", "PermissionDenied"})
# These take the code as their first argument; all take it by the name `reason`.
_BY_POSITION = frozenset({"TokenProblem"})
_MAX_STEPS = 8

Function = ast.FunctionDef | ast.AsyncFunctionDef


class UnreadableCode(AssertionError):
    """A code that this module cannot follow to its texts; write it more plainly."""


@dataclass(frozen=True, slots=True)
class _Place:
    """An expression with the functions around it, innermost first."""

    expression: ast.expr
    functions: tuple[Function, ...]


@dataclass(slots=True)
class _Module:
    name: str
    calls: list[tuple[ast.Call, tuple[Function, ...]]] = field(default_factory=list)
    constants: dict[str, ast.expr] = field(default_factory=dict)
    bases: dict[str, set[str]] = field(default_factory=dict)


def collect_codes(paths: Iterable[Path]) -> dict[str, set[str]]:
    """Return every code, each with the modules that give it.

    Raises:
        UnreadableCode: A call's code cannot be followed to its texts.
    """
    modules = [_read(path) for path in paths]
    carriers, by_position = _with_subclasses(CARRIERS, modules), _with_subclasses(_BY_POSITION, modules)
    found: dict[str, set[str]] = {}
    for module in modules:
        for call, functions in module.calls:
            name = _name_of(call.func)
            if name not in carriers:
                continue
            given = [keyword.value for keyword in call.keywords if keyword.arg == "reason"]
            given += call.args[:1] if name in by_position else []
            for expression in given:
                for code in _texts(_Place(expression, functions), module, _MAX_STEPS):
                    found.setdefault(code, set()).add(module.name)
    return found


def _read(path: Path) -> _Module:
    module = _Module(path.stem)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            module.constants[statement.targets[0].id] = statement.value
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
            module.constants[statement.target.id] = statement.value
    for node, functions in _walk(tree, ()):
        if isinstance(node, ast.Call):
            module.calls.append((node, functions))
        elif isinstance(node, ast.ClassDef):
            module.bases[node.name] = {_name_of(base) for base in node.bases}
    return module


def _walk(node: ast.AST, functions: tuple[Function, ...]) -> Iterator[tuple[ast.AST, tuple[Function, ...]]]:
    for child in ast.iter_child_nodes(node):
        yield child, functions
        inner = (child, *functions) if isinstance(child, Function) else functions
        yield from _walk(child, inner)


def _with_subclasses(names: frozenset[str], modules: Iterable[_Module]) -> set[str]:
    known = set(names)
    bases = [pair for module in modules for pair in module.bases.items()]
    while grown := {name for name, parents in bases if parents & known} - known:
        known |= grown
    return known


def _texts(place: _Place, module: _Module, steps: int) -> set[str]:
    """Return every text that the expression can be; nothing for a code that is only passed along."""
    if steps == 0:
        raise UnreadableCode(f"{module.name}: a code goes through too many functions")

    def texts_of(expression: ast.expr) -> set[str]:
        return _texts(_Place(expression, place.functions), module, steps)

    match place.expression:
        case ast.Constant(value=str(text)):
            return {text}
        case ast.IfExp(body=body, orelse=orelse):
            return texts_of(body) | texts_of(orelse)
        case ast.Attribute(attr="reason"):
            return set()
        case ast.JoinedStr(values=parts):
            joined = {""}
            for part in parts:
                piece = part.value if isinstance(part, ast.FormattedValue) else part
                joined = {head + tail for head in joined for tail in texts_of(piece)}
            return joined
        case ast.Name(id=name):
            return _texts_of_name(name, place, module, steps)
    raise UnreadableCode(f"{module.name}, line {place.expression.lineno}: {ast.unparse(place.expression)}")


def _texts_of_name(name: str, place: _Place, module: _Module, steps: int) -> set[str]:
    for function in place.functions:
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        if name in {argument.arg for argument in arguments}:
            return _texts_of_parameter(name, function, module, steps)
        assigned = [
            node.value
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in node.targets)
        ]
        if assigned:
            around = place.functions[place.functions.index(function) :]
            return {text for value in assigned for text in _texts(_Place(value, around), module, steps - 1)}
    if name in module.constants:
        return _texts(_Place(module.constants[name], ()), module, steps - 1)
    raise UnreadableCode(f"{module.name}: the name {name}, whose texts are not seen")


def _texts_of_parameter(name: str, function: Function, module: _Module, steps: int) -> set[str]:
    positional = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    if positional[:1] in (["self"], ["cls"]):
        positional = positional[1:]
    found: set[str] = set()
    for call, functions in module.calls:
        if _name_of(call.func) != function.name:
            continue
        given = [keyword.value for keyword in call.keywords if keyword.arg == name]
        if name in positional and len(call.args) > positional.index(name):
            given.append(call.args[positional.index(name)])
        if not given:
            raise UnreadableCode(f"{module.name}, line {call.lineno}: {function.name} is called without {name}")
        for expression in given:
            found |= _texts(_Place(expression, functions), module, steps - 1)
    return found


def _name_of(expression: ast.expr) -> str:
    match expression:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Subscript(value=value):
            return _name_of(value)
    return ""
