"""Describes the expressions of sqlglot's syntax trees as `engine.leakproof` terms."""

from collections.abc import Collection
from decimal import Decimal
from typing import Final

from sqlglot import exp

from micromegas_jupyter.engine import leakproof
from micromegas_jupyter.engine.leakproof import Term

# The parts of a query other than expressions.
_STRUCTURE: Final = (
    exp.Select, exp.Union, exp.From, exp.Join, exp.Where, exp.Group, exp.Having, exp.Order, exp.Ordered, exp.Limit,
    exp.Offset, exp.With, exp.CTE, exp.Table, exp.TableAlias, exp.Distinct, exp.Identifier,
)  # fmt: skip
_SOURCES: Final = (exp.From, exp.Join, exp.Subquery, exp.SetOperation, exp.CTE)
_OPERATORS: Final[dict[type[exp.Expr], str]] = {
    exp.EQ: "=",
    exp.NEQ: "!=",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
    exp.NullSafeNEQ: "IS DISTINCT FROM",
    exp.NullSafeEQ: "IS NOT DISTINCT FROM",
    exp.And: "AND",
    exp.Or: "OR",
    exp.Not: "NOT",
    exp.Like: "LIKE",
    exp.ILike: "ILIKE",
    exp.Between: "BETWEEN",
    exp.Add: "+",
    exp.Sub: "-",
}
_CASTS: Final = {
    exp.DType.VARCHAR: leakproof.TEXT,
    exp.DType.TEXT: leakproof.TEXT,
    exp.DType.DATE: leakproof.DATE,
    exp.DType.TIMESTAMP: leakproof.TIMESTAMP,
    exp.DType.TIMESTAMPTZ: leakproof.TIMESTAMPTZ,
    exp.DType.DOUBLE: leakproof.FLOAT,
    exp.DType.BIGINT: leakproof.INTEGER,
}
_KINDS: Final = {
    **_CASTS,
    **dict.fromkeys((exp.DType.TINYINT, exp.DType.SMALLINT, exp.DType.INT), leakproof.INTEGER),
    exp.DType.FLOAT: leakproof.FLOAT,
    exp.DType.BOOLEAN: leakproof.BOOLEAN,
    exp.DType.NULL: leakproof.NULL,
}
_TIMES: Final = (exp.DType.TIMESTAMP, exp.DType.TIMESTAMPTZ)
_DAYS: Final = {"YEAR": Decimal(372), "MONTH": Decimal(31), "WEEK": Decimal(7), "DAY": Decimal(1)}
_SECONDS: Final = {"HOUR": 3600, "MINUTE": 60, "SECOND": 1}


def is_leakproof(tree: exp.Expr, *, nested: Collection[str]) -> bool:
    """Return whether no row's values can make a typed query fail; it must not read columns in `nested`."""
    adapter = _Adapter(nested)
    return adapter.is_leakproof(tree)


class _Adapter:
    """Describes expressions as terms; unknown expressions become None."""

    def __init__(self, nested: Collection[str]) -> None:
        self._nested = nested

    def is_leakproof(self, tree: exp.Expr) -> bool:
        return all(self._is_leakproof_node(node) for node in tree.walk(prune=lambda one: not _is_structure(one)))

    def _is_leakproof_node(self, node: exp.Expr) -> bool:
        if _is_structure(node):
            return not (_is_converting(node) or (isinstance(node, exp.With) and node.recursive))
        term = self.term(node)
        is_condition = isinstance(node.parent, (exp.Where, exp.Having)) or node.arg_key == "on"
        return leakproof.is_leakproof_condition(term) if is_condition else leakproof.is_leakproof(term)

    def term(self, node: exp.Expr) -> Term | None:  # noqa: PLR0911, PLR0912, C901 - one per kind
        """Convert an expression to a term."""
        match node:
            case exp.Paren() | exp.Alias():
                return self.term(node.this)
            case exp.Column():
                return self._column(node)
            case exp.Literal():
                return _literal(node)
            case exp.Boolean():
                return Term(leakproof.LITERAL, kind=leakproof.BOOLEAN)
            case exp.Null():
                return Term(leakproof.LITERAL, kind=leakproof.NULL)
            case exp.Neg():
                return _literal(node.this, sign=-1) if isinstance(node.this, exp.Literal) else None
            case exp.Interval():
                return _interval(node)
            case exp.CurrentTimestamp():
                return Term(leakproof.NOW)
            case exp.Cast() if not isinstance(node, exp.TryCast):
                return _cast(node)
            case exp.Is() if isinstance(node.expression, exp.Null):
                return Term("IS NULL", (self.term(node.this),))
            case exp.Is() if isinstance(node.expression, exp.Boolean):
                return Term("IS TRUE" if node.expression.this else "IS FALSE", (self.term(node.this),))
            case exp.In():
                return self._in(node)
            case exp.Exists():
                return Term("IN") if self.is_leakproof(node.this) else None
            case exp.Anonymous():
                return self._call(node)
        operator = _OPERATORS.get(type(node))
        if operator is None:
            return None
        parts = (node.args.get(part) for part in ("this", "expression", "low", "high"))
        return Term(operator, tuple(self.term(one) for one in parts if one is not None))

    def _column(self, node: exp.Column) -> Term | None:
        if node.name in self._nested:
            return None
        found = node.type.this if node.type else exp.DType.UNKNOWN
        kind = _KINDS.get(found, leakproof.OTHER)
        unit = ", ".join(one.name for one in node.type.expressions) if node.type and found in _TIMES else None
        return Term(leakproof.COLUMN, kind=kind if unit is None else f"{kind}({unit})")

    def _in(self, node: exp.In) -> Term | None:
        query = node.args.get("query")
        if query is None:
            if len(node.expressions) > leakproof.MAX_LISTED:
                return None
            return Term("IN", tuple(map(self.term, (node.this, *node.expressions))))
        query = query.unnest()
        if not isinstance(query, exp.Query) or len(query.selects) != 1 or not self.is_leakproof(query):
            return None
        return Term("IN", (self.term(node.this), self.term(query.selects[0])))

    def _call(self, node: exp.Anonymous) -> Term | None:
        name, arguments = node.name, node.expressions
        if name == "now" and not arguments:
            return Term(leakproof.NOW)
        if len(arguments) == 1 and isinstance(arguments[0], exp.Distinct):
            arguments = arguments[0].expressions
        terms = (leakproof.number(1) if isinstance(one, exp.Star) else self.term(one) for one in arguments)
        return Term(name, tuple(terms)) if name in leakproof.AGGREGATES else None


def _is_structure(node: exp.Expr) -> bool:
    if isinstance(node, exp.Subquery):
        return node.parent is None or isinstance(node.parent, _SOURCES)
    return isinstance(node, _STRUCTURE) and not isinstance(node.parent, exp.Anonymous)


def _literal(node: exp.Literal, sign: int = 1) -> Term | None:
    if node.is_string:
        return Term(leakproof.LITERAL, kind=leakproof.TEXT, text=node.name) if sign > 0 else None
    is_whole = node.name.isascii() and node.name.isdigit()
    return leakproof.number(sign * (int(node.name) if is_whole else float(node.name)))


def _cast(node: exp.Cast) -> Term | None:
    kind = None if node.to.expressions else _CASTS.get(node.to.this)
    is_known = kind is not None and isinstance(node.this, exp.Literal)
    return Term(leakproof.CAST, (_literal(node.this),), kind=kind or "") if is_known else None


def _interval(node: exp.Interval) -> Term:
    number, unit = Decimal(node.this.name), node.text("unit").upper().removesuffix("S")
    days = number * _DAYS[unit] if unit in _DAYS else number * _SECONDS[unit] / 86400
    return Term(leakproof.INTERVAL, text=f"{days:f}")


def _is_converting(node: exp.Expr) -> bool:
    """Return whether UNION converts values to other types, or a duplicated name makes a column ambiguous."""
    if isinstance(node, exp.Union):
        pairs = zip(node.this.selects, node.expression.selects, strict=False)
        return any(_type_name(one) not in {_type_name(other), "NULL"} - {"UNKNOWN"} for one, other in pairs)
    # Engines resolve duplicated names to different columns.
    return isinstance(node, exp.Select) and len({name.lower() for name in node.named_selects}) < len(node.expressions)


def _type_name(node: exp.Expr) -> str:
    kind = node.type.this if node.type else exp.DType.UNKNOWN
    if kind in exp.DataType.INTEGER_TYPES:
        return "BIGINT"
    if kind in {exp.DType.VARCHAR, exp.DType.TEXT}:
        return "VARCHAR"
    return node.type.sql() if node.type else "UNKNOWN"  # including scale or unit
