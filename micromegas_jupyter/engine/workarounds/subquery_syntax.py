"""Changes a statement's syntax tree so that DataFusion evaluates its subqueries correctly."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, ClassVar, Final

from sqlglot import exp
from sqlglot.dialects.postgres import Postgres
from sqlglot.errors import ErrorLevel, SqlglotError
from sqlglot.generators.postgres import PostgresGenerator
from sqlglot.parsers.postgres import PostgresParser

_MARK: Final = "mark_of_subquery_"
_LIST: Final = "list_of_subquery_"
_VALUE: Final = "value"
_NEGATED_WITHIN: Final = (exp.In, exp.Like, exp.ILike, exp.Between)
_OUTER_SIDES: Final = frozenset({"LEFT", "RIGHT", "FULL"})
_CONDITIONS: Final = (exp.Where, exp.Having, exp.Join)

#: Returns whether a statement can be planned.
CanPlan = Callable[[str], bool]


class DataFusionSQL(Postgres):
    """DataFusion's SQL dialect: PostgreSQL's, with all functions left unchanged."""

    class Parser(PostgresParser):
        """Omits functions that would be generated differently."""

        FUNCTIONS: ClassVar[Any] = {}
        FUNCTION_PARSERS: ClassVar[Any] = {
            name: PostgresParser.FUNCTION_PARSERS[name]
            for name in ("CAST", "TRY_CAST", "EXTRACT", "POSITION", "SUBSTRING", "TRIM")
        }
        NO_PAREN_FUNCTION_PARSERS: ClassVar[Any] = {"CASE": PostgresParser.NO_PAREN_FUNCTION_PARSERS["CASE"]}

    class Generator(PostgresGenerator):
        """Omits conversions to features that PostgreSQL lacks."""

        TRY_SUPPORTED = True
        TRANSFORMS: ClassVar[Any] = {
            kind: how for kind, how in PostgresGenerator.TRANSFORMS.items() if kind not in (exp.Select, exp.TryCast)
        }
        TYPE_MAPPING: ClassVar[Any] = {
            **PostgresGenerator.TYPE_MAPPING,
            exp.DType.TINYINT: "TINYINT",
            exp.DType.DOUBLE: "DOUBLE",
            exp.DType.FLOAT: "REAL",
        }


class _Statements(DataFusionSQL):
    """Generates the same SQL in the form that DataFusion's plans use."""

    class Generator(DataFusionSQL.Generator):
        """Places NOT in the middle of expressions."""

        def not_sql(self, expression: exp.Not) -> str:
            """Generate `x NOT IN (…)` for `NOT x IN (…)`, and similar forms."""
            inner = expression.this
            if isinstance(inner, exp.Is):
                return f"{self.sql(inner, 'this')} IS NOT {self.sql(inner, 'expression')}"
            if isinstance(inner, _NEGATED_WITHIN):
                operand = self.sql(inner, "this")
                written = self.sql(inner)
                if written.startswith(f"{operand} "):
                    return f"{operand} NOT{written[len(operand) :]}"
            return str(super().not_sql(expression))


def parsed(sql: str) -> exp.Query | None:
    """Return the syntax tree of a query, or None if it cannot be parsed."""
    try:
        (tree,) = _Statements().parse(sql, error_level=ErrorLevel.RAISE)
    except (SqlglotError, RecursionError, ValueError):
        return None
    return tree if isinstance(tree, exp.Query) else None


def written(tree: exp.Expr) -> str:
    """Return a tree as SQL."""
    return str(tree.sql(_Statements, unsupported_level=ErrorLevel.IGNORE, comments=False))


def rewritten(tree: exp.Query, can_plan: CanPlan) -> str | None:
    """Rewrite the statement's subqueries, preserving its rows; return None if this isn't certain to be possible.

    Changes `tree`.
    """
    rewriter = _Rewriter(can_plan)
    for subquery in list(tree.find_all(exp.Exists)):
        if _is_one_row(subquery.this):
            subquery.replace(exp.true())
    # Innermost subqueries come first, because enclosing subqueries are copied.
    for membership in reversed(list(tree.find_all(exp.In))):
        if membership.args.get("query") is not None and not rewriter.replace_membership(membership):
            return None
    for join in reversed(list(tree.find_all(exp.Join))):
        if join.args.get("on") is not None and not rewriter.clear_condition(join):
            return None
    return written(tree)


def make_memberships_null_safe(tree: exp.Query) -> bool:
    """Replace each IN (SELECT …) for which DataFusion or Sail loses NULL; return whether that was possible.

    Changes `tree`, which must have qualified columns.
    """
    rewriter = _QualifiedRewriter(lambda _: False)
    memberships = [one for one in tree.find_all(exp.In) if one.args.get("query") is not None]
    return all(map(rewriter.replace_membership, reversed(memberships)))


def _is_one_row(query: exp.Expr) -> bool:
    """Return whether a subquery is an aggregate without groups, which always has one row."""
    if not isinstance(query, exp.Select) or any(query.args.get(one) for one in ("group", "having", "limit", "offset")):
        return False
    calls = [one for column in query.expressions for one in column.find_all(exp.Anonymous, exp.AggFunc, exp.Explode)]
    if any(isinstance(one, exp.Explode) or one.name.lower() == "unnest" for one in calls):
        return False
    return any(_is_aggregate(one, query) for one in calls)


_AGGREGATES: Final = frozenset({"count", "min", "max", "sum", "avg", "array_agg", "string_agg", "bool_and", "bool_or"})


def _is_aggregate(call: exp.Expr, query: exp.Select) -> bool:
    is_own = call.find_ancestor(exp.Select) is query and call.find_ancestor(exp.Window) is None
    return is_own and (isinstance(call, exp.AggFunc) or call.name.lower() in _AGGREGATES)


class _Rewriter:
    def __init__(self, can_plan: CanPlan) -> None:
        self._can_plan = can_plan
        self._numbers = count(1)

    def replace_membership(self, membership: exp.In) -> bool:
        """Replace `x IN (SELECT …)` unless DataFusion evaluates it correctly; return whether it is correct now."""
        polarity = Polarity(membership)
        query = membership.args["query"].unnest()
        is_correlated = not self._plans(query, membership)
        if polarity.only_true_counts and (polarity.negations == 0 or (polarity.is_own_condition and not is_correlated)):
            return True
        build = self._correlated if is_correlated else self._listed
        is_true, is_not_false = build(membership, query, or_null=False), build(membership, query, or_null=True)
        if is_true is None or is_not_false is None:
            return False
        if not polarity.only_true_counts:
            null = exp.cast(exp.null(), "BOOLEAN")
            case = exp.Case().when(is_true, exp.true()).when(is_not_false, null).else_(exp.false())
            membership.replace(exp.paren(case))
        else:
            membership.replace(is_not_false if polarity.negations % 2 else is_true)
        return True

    def _listed(self, membership: exp.In, query: exp.Query, *, or_null: bool) -> exp.Expr:
        """Return EXISTS over the rows of a query that doesn't depend on outer columns."""
        name, column = f"{_LIST}{next(self._numbers)}", _VALUE
        while any(one.name.lower() == column for one in membership.this.find_all(exp.Identifier)):
            column += "_"  # otherwise the operand would refer to this column
        value = exp.column(column, table=name)
        rows = exp.Subquery(
            this=query.copy(),
            alias=exp.TableAlias(this=exp.to_identifier(name), columns=[exp.to_identifier(column)]),
        )
        found = _equal(value, membership.this, or_null=or_null)
        return exp.Exists(this=exp.select("1").from_(rows).where(found))

    def _correlated(self, membership: exp.In, query: exp.Query, *, or_null: bool) -> exp.Expr | None:
        """Return EXISTS with the comparison inside the query, or None if that would change the meaning."""
        kept = {"expressions", "from_", "joins", "where", "kind", "operation_modifiers"}
        if not isinstance(query, exp.Select) or any(value for name, value in query.args.items() if name not in kept):
            return None
        if len(query.expressions) != 1 or _is_one_row(query):
            return None
        own = {source.alias_or_name for source in _sources(query)}
        select = membership.find_ancestor(exp.Select)
        sources = _sources(select) if select is not None else []
        operand = membership.this.copy()
        for column in operand.find_all(exp.Column) if len(sources) == 1 else ():
            if not column.table:
                column.set("table", exp.to_identifier(sources[0].alias_or_name))
        if any(not column.table or column.table in own for column in operand.find_all(exp.Column)):
            return None
        value = query.expressions[0].unalias()
        if isinstance(value, exp.Star) or value.find(exp.Window):
            return None
        inner = query.copy().select("1", append=False).where(_equal(value.copy(), operand, or_null=or_null))
        return exp.Exists(this=inner)

    def clear_condition(self, join: exp.Join) -> bool:
        """Remove the subqueries from a join condition; return whether that was possible."""
        subqueries = list(_subqueries(join.args["on"]))
        select = join.parent
        if not subqueries:
            return True
        if not isinstance(select, exp.Select):
            return False
        joins = select.args["joins"]
        position = next(index for index, one in enumerate(joins) if one is join)
        if join.side not in _OUTER_SIDES and not any(one.side in {"RIGHT", "FULL"} for one in joins[position + 1 :]):
            conjuncts = list(_conjuncts(join.args["on"]))
            moved = [one for one in conjuncts if any(True for _ in _subqueries(one))]
            rest = [one for one in conjuncts if one not in moved]
            join.set("on", exp.and_(*rest) if rest else exp.true())
            select.where(*moved, copy=False)
            return True
        return all(self._mark(select, position, one) for one in subqueries)

    def _mark(self, select: exp.Select, position: int, subquery: exp.Expr) -> bool:
        """Turn a subquery into a column of the only joined table that it depends on."""
        joins = select.args["joins"]
        sources = [select.args["from_"].this, *(one.this for one in joins[: position + 1])]
        found = next((index for index, one in enumerate(sources) if self._depends_on(one, subquery, select)), None)
        if found is None:
            return False
        source = sources[found]
        name, table = f"{_MARK}{next(self._numbers)}", source.alias_or_name
        column = exp.column(name, table=table)
        is_nullable = any(
            (index < position and index + 1 == found and one.side in {"LEFT", "FULL"})
            or (found <= index < position and one.side in {"RIGHT", "FULL"})
            for index, one in enumerate(joins)
        )
        nothing = exp.select("1").subquery("no_row")
        value: exp.Expr = column.copy()
        if is_nullable:
            null_row = exp.select("*").from_(nothing).join(source.copy(), on=exp.false(), join_type="left")
            of_null = exp.select(column.copy()).from_(self._marked(null_row, subquery, name, table)).subquery()
            value = exp.paren(exp.Case().when(column.copy().is_(exp.null()), of_null).else_(column.copy()))
        rows = self._marked(exp.select("*").from_(source.copy()), subquery, name, table)
        subquery.replace(value)
        source.replace(exp.select("*").from_(rows).subquery(table))
        _hide(select, name, table)
        return True

    def _marked(self, rows: exp.Select, subquery: exp.Expr, name: str, table: str) -> exp.Subquery:
        """Add a column to the rows that contains whether the subquery is true."""
        both = exp.Anonymous(
            this="unnest", expressions=[exp.Anonymous(this="make_array", expressions=[exp.true(), exp.false()])]
        )
        twice = rows.select(exp.alias_(both, name)).subquery(table)
        is_true = exp.Is(this=exp.paren(subquery.copy()), expression=exp.true())
        kept = exp.EQ(this=exp.column(name, table=table), expression=exp.paren(is_true))
        return exp.select("*").from_(twice).where(kept).subquery(table)

    def _depends_on(self, source: exp.Expr, subquery: exp.Expr, select: exp.Select) -> bool:
        trial = exp.select("1").from_(source.copy()).where(subquery.copy())
        return bool(source.alias_or_name) and self._plans(trial, select)

    def _plans(self, query: exp.Query, scope: exp.Expr) -> bool:
        return self._can_plan(written(_with_tables(query, scope)))


class _QualifiedRewriter(_Rewriter):
    """Determines by name which columns and tables a subquery depends on."""

    def _plans(self, query: exp.Query, scope: exp.Expr) -> bool:
        del scope
        inner = {one.alias_or_name for one in query.find_all(exp.Table, exp.Subquery, exp.CTE)}
        return all(column.table in inner for column in query.find_all(exp.Column) if column.table)


class Polarity:
    """The context of a Boolean expression: whether NULL has the effect of false, and the number of enclosing NOTs."""

    def __init__(self, expression: exp.Expr) -> None:
        self.negations = 0
        self.only_true_counts = False
        self.is_own_condition = True
        node, above = expression, expression.parent
        while isinstance(above, (exp.And, exp.Or, exp.Not, exp.Paren)):
            self.negations += isinstance(above, exp.Not)
            if isinstance(above, exp.Or) or (isinstance(above, exp.Not) and node is not expression):
                self.is_own_condition = False
            node, above = above, above.parent
        self.only_true_counts = isinstance(above, _CONDITIONS)
        if isinstance(above, exp.Join):
            self.is_own_condition = False


def _equal(value: exp.Expr, operand: exp.Expr, *, or_null: bool) -> exp.Expr:
    equal = exp.EQ(this=value.copy(), expression=exp.paren(operand.copy()))
    if not or_null:
        return equal
    nulls = (exp.paren(one.copy()).is_(exp.null()) for one in (value, operand))
    return exp.paren(exp.or_(equal, *nulls))


def _subqueries(condition: exp.Expr) -> Iterator[exp.Expr]:
    """Find EXISTS and IN (SELECT …) that are not nested in one another or in a subquery."""
    if isinstance(condition, exp.Exists) or (isinstance(condition, exp.In) and condition.args.get("query")):
        yield condition
    elif not isinstance(condition, exp.Query):
        for below in condition.iter_expressions():
            yield from _subqueries(below)


def _conjuncts(condition: exp.Expr) -> Iterator[exp.Expr]:
    if isinstance(condition, exp.And):
        yield from _conjuncts(condition.this)
        yield from _conjuncts(condition.expression)
    elif isinstance(condition, exp.Paren):
        yield from _conjuncts(condition.this)
    else:
        yield exp.paren(condition.copy()) if isinstance(condition, exp.Or) else condition.copy()


def _sources(select: exp.Select) -> list[exp.Expr]:
    first = select.args.get("from_")
    return [*([first.this] if first else []), *(one.this for one in select.args.get("joins") or ())]


def _with_tables(query: exp.Query, scope: exp.Expr) -> exp.Query:
    """Return a copy of a query that includes the WITH tables visible at a position."""
    query = query.copy()
    above: exp.Expr | None = scope
    tables: list[exp.Expr] = []
    is_recursive = False
    while above is not None:
        if found := above.args.get("with_"):
            tables = [*(one.copy() for one in found.expressions if scope not in one.walk()), *tables]
            is_recursive = is_recursive or bool(found.args.get("recursive"))
        above = above.parent
    if tables:
        own = query.args.get("with_")
        query.set("with_", exp.With(expressions=[*tables, *(own.expressions if own else ())], recursive=is_recursive))
    return query


def _hide(select: exp.Select, name: str, table: str) -> None:
    """Exclude a column that is added to a table from `*`."""
    for column in select.expressions:
        star = column if isinstance(column, exp.Star) else column.this if isinstance(column, exp.Column) else None
        if isinstance(star, exp.Star) and (column is star or column.table == table):
            star.set("except_", [*(star.args.get("except_") or ()), exp.to_identifier(name)])
