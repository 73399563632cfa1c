"""Translates a typed statement from the embedded engine's dialect to Spark SQL, or rejects it.

Rejects operands of unknown type, because Spark divides, compares, and concatenates by other rules.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from sqlglot import exp

from micromegas_jupyter.gateway.syntax import refused

_REFUSED: Final[Mapping[type[exp.Expr], str]] = {
    exp.Qualify: "QUALIFY",
    exp.Unnest: "UNNEST",
    exp.Lateral: "LATERAL",
    exp.Array: "a list",
    exp.Bracket: "an index",
    exp.NullSafeEQ: "",
    exp.NullSafeNEQ: "",
}
_REFUSED_IF: Final[Mapping[type[exp.Expr], tuple[str, Callable[[exp.Expr], object]]]] = {
    exp.WindowSpec: ("a frame of GROUPS", lambda node: node.text("kind").upper() == "GROUPS"),
    exp.Ordered: ("a query in ORDER BY", lambda node: node.find(exp.Subquery, exp.Exists)),
    exp.With: ("WITH RECURSIVE", lambda node: node.args.get("recursive")),
    exp.Distinct: ("DISTINCT ON", lambda node: node.args.get("on")),
}
_ARITHMETIC: Final = (exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod)
_COMPARISONS: Final = (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.NullSafeEQ, exp.NullSafeNEQ)
_PARTS: Final = frozenset({"YEAR", "QUARTER", "MONTH", "WEEK", "DAY", "HOUR", "MINUTE", "DOY"})
_FAMILIES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("TINYINT", "SMALLINT", "INT", "BIGINT"), "integer"),
    **dict.fromkeys(("FLOAT", "DOUBLE"), "float"),
    **dict.fromkeys(("VARCHAR", "TEXT"), "text"),
    "DECIMAL": "decimal",
    "BOOLEAN": "boolean",
    "DATE": "date",
    "TIMESTAMP": "timestamp",
    "TIMESTAMPTZ": "timestamptz",
    "INTERVAL": "interval",
    "NULL": "null",
}
_NUMBERS: Final = frozenset({"integer", "float", "decimal"})
_TIMES: Final = frozenset({"date", "timestamp", "timestamptz"})
# For each target type, the types that Spark casts like the embedded engine; string literals can be cast to all types.
_CASTS: Final[Mapping[str, frozenset[str]]] = {
    "integer": _NUMBERS | {"text", "boolean"},
    "float": _NUMBERS | {"text"},
    "decimal": _NUMBERS | {"text"},
    "text": frozenset({"text", "integer", "float", "decimal", "boolean", "date"}),
    "boolean": frozenset({"boolean", "integer"}),
    "date": frozenset({"date", "text", "timestamp", "timestamptz"}),
    "timestamp": frozenset({"timestamp", "date"}),
    "timestamptz": frozenset({"timestamptz"}),
}
_LONG: Final = 2**63

# Functions with the same name and meaning in Spark; `_check_arguments` checks the arguments of some of them.
_SAME_NAMES: Final = (
    "count sum avg min max stddev stddev_samp stddev_pop var_samp var_pop bool_and bool_or row_number rank dense_rank "
    "ntile percent_rank cume_dist lag lead first_value last_value nth_value coalesce nullif nvl ifnull abs greatest "
    "least round sqrt exp power sin cos tan asin acos atan atan2 radians degrees pi isnan lower upper replace reverse "
    "initcap ascii char_length character_length length octet_length bit_length concat_ws translate repeat contains "
    "split_part left right substr lpad rpad ltrim rtrim trim btrim date_trunc date_part now"
)
_SAME: Final = frozenset(_SAME_NAMES.split())
_RENAMED: Final = {"starts_with": "startswith", "ends_with": "endswith", "var": "var_samp", "btrim": "trim"}
_SAME_KIND: Final = frozenset({"coalesce", "nullif", "nvl", "ifnull", "greatest", "least", "lag", "lead"})
_NAMES_OF_TEXT: Final = (
    "lower upper replace reverse initcap ascii char_length character_length length octet_length bit_length concat "
    "concat_ws translate contains starts_with ends_with ltrim rtrim trim btrim strpos"
)
_TEXTS: Final = frozenset(_NAMES_OF_TEXT.split())
_POSITIONS: Final = {"left": (1,), "right": (1,), "substr": (1, 2), "split_part": (2,), "lpad": (1,), "rpad": (1,),
                    "repeat": (1,), "round": (1,)}  # fmt: skip
_OF_NUMBERS: Final = frozenset({"sum", "avg", "stddev", "stddev_samp", "stddev_pop", "var", "var_samp",
                                           "var_pop", "abs", "round", "sqrt", "exp", "power"})  # fmt: skip


def family(node: exp.Expr) -> str:
    """Return the type family of an expression's values, or an empty string if it is unknown."""
    if isinstance(node, exp.Null):
        return "null"
    return _FAMILIES.get(node.type.this.value, "") if node.type else ""


def to_spark(tree: exp.Query) -> exp.Query:
    """Convert a tree's operators and functions to those of Spark."""
    names = {node.name for node in tree.find_all(exp.Identifier)}
    if len({name.lower() for name in names}) != len(names):
        raise refused("names that differ only in case", "Use different aliases.")
    for node in reversed(list(tree.bfs())):
        changed = _change(node)
        if changed is not node:  # the query itself is never replaced
            if not changed.type:
                changed.type = node.type
            node.replace(changed)
    return tree


def _change(node: exp.Expr) -> exp.Expr:
    kind = type(node)
    if what := _REFUSED.get(kind):
        raise refused(what)
    if (refusal := _REFUSED_IF.get(kind)) and refusal[1](node):
        raise refused(refusal[0])
    for kinds, change in _CHANGES.items():
        if issubclass(kind, kinds):
            return change(node)
    return node


def _literal(node: exp.Expr) -> exp.Expr:
    """Cast a number to the embedded engine's type, because 2147483647 + 1 is negative in Spark."""
    if node.is_string or isinstance(node.parent, _KEEP_NUMBERS):
        return node
    if not node.is_int:
        return _cast(node, "DOUBLE")
    if isinstance(node.parent, (*_COMPARISONS, exp.In, exp.Between)):
        return node
    if int(node.name) >= _LONG:
        raise refused("a number of more than 64 bits")
    return _cast(node, "BIGINT")


_KEEP_NUMBERS: Final = (exp.Limit, exp.Offset, exp.Ordered, exp.Group, exp.DataTypeParam, exp.WindowSpec,
                              exp.Interval, exp.Cast, exp.TryCast)  # fmt: skip


def _cast(node: exp.Expr, kind: str) -> exp.Expr:
    cast = exp.Cast(this=node.copy(), to=exp.DataType.build(kind))
    cast.type = exp.DataType.build(kind)
    return cast


def _arithmetic(node: exp.Expr) -> exp.Expr:
    left, right = node.this, node.expression
    kinds = {family(left), family(right)}
    if kinds <= {"integer", "null"} and isinstance(node, exp.Div):
        return exp.IntDiv(this=left, expression=right)
    if kinds <= _NUMBERS | {"null"}:
        return node
    is_moved = isinstance(node, (exp.Add, exp.Sub)) and family(left) in _TIMES and isinstance(right, exp.Interval)
    if not is_moved or (
        family(left) == "date" and right.text("unit").upper().rstrip("S") in {"HOUR", "MINUTE", "SECOND"}
    ):
        raise refused(f"{node.key.upper()} with operands of these types", "Cast both sides to the same type.")
    return node


def _comparison(node: exp.Expr) -> exp.Expr:
    left, right = node.this, node.expression
    node.set("this", _comparable(left, right))
    node.set("expression", _comparable(right, left))
    return node


def _comparable(one: exp.Expr, other: exp.Expr) -> exp.Expr:
    """Return one side of a comparison, converted to the other side's type if necessary."""
    kind, wanted = family(one), family(other)
    is_alike = "null" in {kind, wanted} or (kind and kind == wanted) or {kind, wanted} <= _NUMBERS
    if is_alike or (isinstance(one, exp.Tuple) and isinstance(other, exp.Tuple)):
        return one
    if _is_converted(other, kind):
        return one
    if not _is_converted(one, wanted):
        raise refused("a comparison of values with different or unknown types", "Cast both sides to the same type.")
    literal = one if isinstance(one, exp.Literal) else one.this
    return _time(literal, wanted) if wanted in _TIMES else _cast(exp.Literal.number(literal.name), "BIGINT")


def _is_converted(one: exp.Expr, wanted: str) -> bool:
    """Return whether an expression is a string literal that is converted to this type, such as a time."""
    if isinstance(one, exp.Literal) and one.is_string:
        return wanted in _TIMES or (wanted == "integer" and re.fullmatch(r"[0-9]{1,18}", one.name) is not None)
    is_time = isinstance(one, exp.Cast) and isinstance(one.this, exp.Literal) and one.this.is_string
    return is_time and family(one) == "timestamp" and wanted == "timestamptz"


def _time(literal: exp.Expr, kind: str) -> exp.Expr:
    """Return a date or time literal as a typed value that doesn't depend on the session's time zone."""
    try:
        value = datetime.fromisoformat(literal.name.strip())
    except ValueError:
        raise refused("a time string in an unsupported format", "Use 2024-01-31 or 2024-01-31 12:00:00.") from None
    if kind == "date":
        return _cast(exp.Literal.string(value.date().isoformat()), "DATE")
    value = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    if kind == "timestamptz":
        return _cast(exp.Literal.string(value.isoformat(sep=" ")), "TIMESTAMPTZ")
    return _cast(exp.Literal.string(value.replace(tzinfo=None).isoformat(sep=" ")), "TIMESTAMP")


def _in(node: exp.Expr) -> exp.Expr:
    query = node.args.get("query")
    if query is not None:
        if isinstance(node.find_ancestor(exp.Join, exp.Select), exp.Join):
            raise refused("IN with a subquery in a join condition", "Move it to WHERE.")
        first = query.this.selects if isinstance(query, exp.Subquery) else query.selects
        left = node.this.expressions if isinstance(node.this, exp.Tuple) else [node.this]
        for one, other in zip(left, first, strict=False):
            _comparable(one, other.unalias())
    else:
        node.set("expressions", [_comparable(one, node.this) for one in node.expressions])
    return node


def _between(node: exp.Expr) -> exp.Expr:
    _comparable(node.this, node.args["low"])
    for part in ("low", "high"):
        node.set(part, _comparable(node.args[part], node.this))
    return node


def _cast_node(node: exp.Expr) -> exp.Expr:
    wanted, kind = family(node), family(node.this)
    if isinstance(node.this, exp.Literal) and node.this.is_string and wanted in _TIMES:
        if isinstance(node, exp.TryCast):
            raise refused("TRY_CAST to a time")
        return _time(node.this, wanted)
    if kind != "null" and kind not in _CASTS.get(wanted, ()):
        raise refused(f"a cast from {kind or 'an unknown type'} to {node.args['to'].sql()}")
    return node


def _call(node: exp.Expr) -> exp.Expr:
    name, arguments = node.name, node.expressions
    _check_arguments(name, arguments)
    if name in {"date_trunc", "date_part"}:
        return _of_time(node, name, [family(one) for one in arguments])
    if build := _BUILT.get(name):
        return build(arguments)
    if name in _SAME or name in _RENAMED:
        node.set("this", _RENAMED.get(name, name))
        return node
    raise refused(f"the function {name}")


def _check_arguments(name: str, arguments: list[exp.Expr]) -> None:
    kinds = {family(one) for one in arguments}
    if any(isinstance(one, exp.Order) for one in arguments):
        raise refused(f"ORDER BY in {name}")
    if name in _SAME_KIND:
        typed = [one for one in arguments[: 1 if name in {"lag", "lead"} else None] if family(one) != "null"]
        for one in typed[1:]:
            _comparable(one, typed[0])
    if name in _TEXTS and not kinds <= {"text", "null"}:
        raise refused(f"{name} of non-string values", "Cast them to VARCHAR.")
    if name in _OF_NUMBERS and not kinds - {""} <= _NUMBERS | {"null"}:
        raise refused(f"{name} of non-numeric values", "Cast them.")
    if name in {"trim", "btrim", "ltrim", "rtrim"} and len(arguments) > 1:
        raise refused(f"{name} of characters other than spaces")
    for place in _POSITIONS.get(name, ()):
        if place < len(arguments) and not _digits(arguments[place]):
            raise refused(f"{name} with a position that is not an integer literal")
    if name == "substr" and _digits(arguments[1]) == "0":
        raise refused("substr from position 0")


def _rounded(name: str, arguments: list[exp.Expr]) -> exp.Expr:
    if family(arguments[0]) != "float":
        raise refused(f"{name} of a non-DOUBLE value", "Cast it.")
    return _cast(exp.Anonymous(this=name, expressions=arguments), "DOUBLE")


def _matched(arguments: list[exp.Expr]) -> exp.Expr:
    if len(arguments) > 2:  # noqa: PLR2004
        raise refused("regexp_like with flags")
    return _text_only(exp.RegexpLike(this=arguments[0], expression=arguments[1]))


_BUILT: Final[Mapping[str, Callable[[list[exp.Expr]], exp.Expr]]] = {
    # The embedded engine's concat skips NULL, as does concat_ws.
    "concat": lambda arguments: exp.Anonymous(this="concat_ws", expressions=[exp.Literal.string(""), *arguments]),
    "strpos": lambda arguments: exp.Anonymous(this="locate", expressions=arguments[::-1]),
    "floor": lambda arguments: _rounded("floor", arguments),
    "ceil": lambda arguments: _rounded("ceil", arguments),
    "regexp_like": _matched,
}


def _digits(node: exp.Expr) -> str:
    """Return an integer literal's digits as written, ignoring an added cast, or an empty string."""
    inner = node.this if isinstance(node, exp.Cast) else node
    return inner.name if isinstance(inner, exp.Literal) and re.fullmatch(r"[0-9]{1,9}", inner.name) else ""


def _of_time(node: exp.Expr, name: str, kinds: list[str]) -> exp.Expr:
    unit = node.expressions[0]
    if not isinstance(unit, exp.Literal) or not set(kinds[1:]) <= (
        _TIMES if name == "date_part" else _TIMES - {"date"}
    ):
        raise refused(f"{name} of a value that is not a time", "Cast it to TIMESTAMP.")
    if unit.name.upper() not in _PARTS | ({"SECOND"} if name == "date_trunc" else set()) - {"DOY"}:
        raise refused(f"{name} with {unit.name[:20]}")
    return node


def _extract(node: exp.Expr) -> exp.Expr:
    if node.name.upper() not in _PARTS or family(node.expression) not in _TIMES:
        raise refused(f"EXTRACT of {node.name[:20]}")
    return node


def _concatenation(node: exp.Expr) -> exp.Expr:
    for part in ("this", "expression"):
        if family(node.args[part]) == "integer":
            node.set(part, _cast(node.args[part], "VARCHAR"))
    return _text_only(node)


def _text_only(node: exp.Expr) -> exp.Expr:
    if not {family(node.this), family(node.expression)} <= {"text", "null"}:
        raise refused(f"{node.key.upper()} of non-string values", "Cast them to VARCHAR.")
    if isinstance(node, exp.RegexpLike) and not isinstance(node.expression, exp.Literal):
        raise refused("a regular expression that isn't a string literal")
    return node


def _branches(node: exp.Expr) -> exp.Expr:
    values = [one.args["true"] for one in node.args["ifs"]] + [node.args.get("default")]
    typed = [one for one in values if one is not None and family(one) != "null"]
    for one in typed[1:]:
        _comparable(one, typed[0])
    if node.this is not None:
        for one in node.args["ifs"]:
            _comparable(one.this, node.this)
    return node


def _set_operation(node: exp.Expr) -> exp.Expr:
    if not (node.args.get("distinct") or isinstance(node, exp.Union)):
        raise refused(f"{node.key.upper()} ALL", "Number the rows, or omit ALL.")
    for one, other in zip(node.this.selects, node.expression.selects, strict=False):
        _comparable(one.unalias(), other.unalias())
    return node


def _trim(node: exp.Expr) -> exp.Expr:
    if not {family(one) for one in (node.this, node.expression) if one is not None} <= {"text", "null"}:
        raise refused("TRIM of non-string values")
    return node


def _substring(node: exp.Expr) -> exp.Expr:
    for part in ("start", "length"):
        value = node.args.get(part)
        if value is not None and (not _digits(value) or (part == "start" and _digits(value) == "0")):
            raise refused("SUBSTRING with a position or length that is not a positive integer literal")
    return node


_CHANGES: Final[Mapping[type[exp.Expr] | tuple[type[exp.Expr], ...], Callable[[exp.Expr], exp.Expr]]] = {
    exp.Literal: _literal,
    _ARITHMETIC: _arithmetic,
    _COMPARISONS: _comparison,
    exp.In: _in,
    exp.Between: _between,
    (exp.Cast, exp.TryCast): _cast_node,
    exp.Anonymous: _call,
    exp.Extract: _extract,
    (exp.Like, exp.ILike, exp.RegexpLike): _text_only,
    exp.DPipe: _concatenation,
    exp.Case: _branches,
    exp.SetOperation: _set_operation,
    exp.Trim: _trim,
    exp.Substring: _substring,
}
