"""Plans statements so that four defects of DataFusion 55.2 (54.1 has them, too) cannot return wrong rows.

**Filters above joins** are pushed down in the physical plan by column name, not by position. If both sides of a join
have a column with that name, a filter may end up on the wrong one, and rows are lost. The logical optimizer has already
pushed down everything that may go below an outer join, so each remaining filter gets a volatile term, which keeps it in
place. (Fixed upstream by https://github.com/apache/datafusion/pull/25259, planned for DataFusion 56.)

**Constants below outer joins:** a column that a filter compares with a constant still counts as constant above an outer
join, where it can also be NULL. GROUP BY, ORDER BY, and PARTITION BY then ignore it. These filters therefore use IS NOT
DISTINCT FROM, because DataFusion does not derive a constant from it; it prunes files just as well.

**Values that a join or a limit has read** filter the scans below it, and are pushed down by column name, too. These
dynamic filters are disabled unless each affected column has a unique name below.

**Nested-loop joins** read their left side again if it does not fit into memory and spilling is possible, but a scan
returns its files only once. They need a session that cannot spill.

The filters are changed in the optimized logical plan, in its protobuf form. A plan without such a form (it reads a
table function or an information schema, or is nested too deeply) runs unchanged if the physical plan shows neither of
the first two defects, and is rejected otherwise.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import pyarrow as pa
from datafusion import Expr, SessionContext, functions, lit
from datafusion.plan import LogicalPlan

from micromegas_jupyter.engine.errors import is_engine_failure
from micromegas_jupyter.engine.sessions import DYNAMIC_FILTERS
from micromegas_jupyter.engine.workarounds.plan_messages import (
    EMPTYING_RULES,
    message_class,
    operands,
    optimizer_without,
    type_of,
)
from micromegas_jupyter.errors import UnsupportedStatement

# A literal with a line break can look like a separate line, so a plan may seem to have a join when it doesn't.
_JOIN: Final = re.compile(r"^ *(?:(?:\w+ )+Join:|Subquery:)", re.MULTILINE)
_OUTER_JOIN: Final = re.compile(r"^ *(?:Left|Right|Full|LeftMark|RightMark) Join:", re.MULTILINE)
_NESTED_LOOP_JOIN: Final = re.compile(r"^ *(?!Cross )(?:\w+ )+Join: *(?:Filter:.*)?$", re.MULTILINE)

_LEFT, _RIGHT, _FULL, _LEFT_MARK, _RIGHT_MARK = 1, 2, 3, 8, 9
_OUTER: Final = frozenset({_LEFT, _RIGHT, _FULL, _LEFT_MARK, _RIGHT_MARK})
#: The inputs whose rows can be replaced by NULL.
_NULLABLE: Final[Mapping[int, tuple[str, ...]]] = {_LEFT: ("f2",), _RIGHT: ("f1",), _FULL: ("f1", "f2")}
_SUBQUERY_KEY: Final = bytes([0xA2, 0x02])  # of field 36

_FILTER_PUSHDOWN: Final = "physical_plan after FilterPushdown"
_SAME: Final = "SAME TEXT AS ABOVE"
_NULLABLE_INPUTS: Final = {"Left": {1}, "Right": {0}, "Full": {0, 1}}
# The first of several window expressions represents all of them, because they have the same keys.
_SORT: Final = re.compile(r"^ *(?:Sort(?:Exec)?: .*|WindowAggr: .*?(?= BETWEEN ))", re.MULTILINE)
_SORT_KEY: Final = re.compile(r"([^ ,[][^,[]*) (?:ASC|DESC)\b")
_PARTITION: Final = re.compile(r"PARTITION BY \[([^\]]*)\]")
_OUTER_JOIN_STEP: Final = re.compile(r"JoinExec: .*join_type=(?:Left|Right|Full|LeftMark|RightMark),")
_GROUPS_BY_ORDER: Final = "ordering_mode="


# Maps each column name to the expressions that define it; an empty string stands for a table's column.
_Definitions = defaultdict[str, list[str]]


def may_join(plan_text: str) -> bool:
    """Return whether an unoptimized plan (one step per line) may have a join or be converted to one."""
    return _JOIN.search(plan_text) is not None


def has_nested_loops(optimized: LogicalPlan) -> bool:
    """Return whether a plan has a join without an equality, which must run in a session that cannot spill."""
    return _NESTED_LOOP_JOIN.search(optimized.display_indent()) is not None


def plan_joins(
    session: SessionContext,
    written: LogicalPlan,
    optimized: LogicalPlan,
    *,
    explain: Callable[[], list[pa.RecordBatch]],
) -> LogicalPlan:
    """Return a plan with correct rows for a statement with joins, except EXPLAIN.

    `explain` returns the rows of EXPLAIN VERBOSE for the statement.
    """
    if not _OUTER_JOIN.search(optimized.display_indent()):
        return optimized
    without_empty = optimizer_without(*EMPTYING_RULES).create_dataframe_from_logical_plan(written)
    for plan in (lambda: optimized, without_empty.optimized_logical_plan):
        changed = _try_rewrite(session, plan, unchanged=optimized)
        if changed is not None:
            return changed
    _check_unchanged(optimized, explain())
    return optimized


def find_dynamic_filters(plan: LogicalPlan, floats: Iterable[str] = ()) -> set[str]:
    """Return the `DYNAMIC_FILTERS` that are safe for an optimized plan, given its tables' float columns.

    Each column that their filters may affect must have a unique name below them. It must not contain floats, because
    the bounds that exclude row groups ignore NaN.
    """
    if "<subquery>" in plan.display_indent():
        return set()  # its plan is not among the inputs
    may_filter = {*DYNAMIC_FILTERS}
    try:
        _define_columns(plan, may_filter, {*floats})
    except Exception:  # noqa: BLE001 - a step that DataFusion-Python has no class for
        return set()
    return may_filter


def _define_columns(plan: LogicalPlan, may_filter: set[str], floats: set[str]) -> _Definitions:
    """Return the columns that a step and its inputs define; remove filters that may affect two of them."""
    below = [_define_columns(one, may_filter, floats) for one in plan.inputs()]
    node: Any = plan.to_variant()
    kind = type(node).__name__
    defined: _Definitions = defaultdict(list)
    for name, text in _DEFINITIONS[kind](node):
        defined[name].append(text)
    for columns in below:
        for name, texts in columns.items():
            defined[name] += texts
    if kind == "Join":
        pairs = (zip(keys, below, strict=True) for keys in node.on())
        if not all(_is_clear(key, columns, floats) for pair in pairs for key, columns in pair):
            may_filter.discard("join")
    elif kind == "Sort" and not all(_is_clear(key.expr(), defined, floats) for key in node.sort_exprs()):
        may_filter.discard("limit")
    return defined


def _computed(expressions: Iterable[Expr]) -> Iterator[tuple[str, str]]:
    return ((one.schema_name(), one.canonical_name()) for one in expressions if one.variant_name() != "Column")


#: The columns that a step defines, each with its expression, by the step's kind.
_DEFINITIONS: Final[Mapping[str, Callable[[Any], Iterable[tuple[str, str]]]]] = {
    "TableScan": lambda node: ((name, "") for _, name in node.projection()),
    "Projection": lambda node: _computed(node.projections()),
    "Aggregate": lambda node: _computed((*node.group_by_exprs(), *node.aggregate_exprs())),
    "WindowExpr": lambda node: _computed(node.get_window_expr()),
    **dict.fromkeys(("Filter", "Join", "SubqueryAlias", "Sort", "Limit", "Distinct", "Union"), lambda _: ()),
}


def _is_clear(expression: Expr, columns: _Definitions, floats: set[str]) -> bool:
    """Return whether all columns that an expression may use are defined once, and none contains floats."""
    waiting, known = [expression.canonical_name()], {""}
    while waiting:
        text = waiting.pop()
        odd = {name for name in columns if re.search(r"\W", name) and name in text}
        for name in odd | {*re.findall(r"\w+", text)} & columns.keys():
            if len(columns[name]) > 1 or name in floats:
                return False
            waiting += {*columns[name]} - known
            known.update(columns[name])
    return True


def _try_rewrite(
    session: SessionContext, plan: Callable[[], LogicalPlan], *, unchanged: LogicalPlan
) -> LogicalPlan | None:
    """Return a plan with changed filters, `unchanged` if no change is needed, or None if it has no protobuf form."""
    try:
        node = message_class("Node").FromString(plan().to_bytes(session))
        rewriter = _Rewriter()
        rewriter.rewrite(node)
        if not rewriter.has_changed:
            return unchanged
        changed = LogicalPlan.from_bytes(session, node.SerializeToString())
        return session.create_dataframe_from_logical_plan(changed).optimized_logical_plan()
    except BaseException as error:
        if not is_engine_failure(error):
            raise
        return None


class _Rewriter:
    """Changes the filters of a plan. Raises ValueError for unknown nodes and for subqueries in unknown expressions."""

    has_changed = False

    def rewrite(self, node: Any, *, is_nullable: bool = False) -> bool:
        """Change a node and its inputs; return whether there is an outer join.

        `is_nullable` is whether an outer join above it can replace its rows with NULL.
        """
        ((kind, (body,)),) = node.ListFields()
        join_type = body.f3[0] if kind.message_type.name == "Join" and body.f3 else 0
        is_outer = join_type in _OUTER
        nullable = _NULLABLE.get(join_type, ())
        for field, values in body.ListFields():
            for value in values if type_of(field) == "Node" else ():
                is_outer |= self.rewrite(value, is_nullable=is_nullable or field.name in nullable)
        self._rewrite_expressions(body)
        if kind.message_type.name == "Filter":
            (predicate,) = body.f2
            if is_nullable:
                self._drop_constants(predicate)
            if is_outer:
                kept = message_class("Expr").FromString((functions.random() < lit(0.0)).to_bytes())
                either = message_class("Binary")(f1=[predicate, kept], f3=["Or"])
                predicate.CopyFrom(message_class("Expr")(f4=[either]))
                self.has_changed = True
        return is_outer

    def _rewrite_expressions(self, body: Any) -> None:
        for one in operands(body):
            self._rewrite_subqueries(one)
        rest = type(body).FromString(body.SerializeToString())
        for field, _ in body.ListFields():
            rest.ClearField(field.name)
        if _SUBQUERY_KEY in rest.SerializeToString():
            raise ValueError("a subquery in an unknown expression")

    def _rewrite_subqueries(self, expression: Any) -> None:
        if _SUBQUERY_KEY not in expression.SerializeToString():
            return
        ((kind, (body,)),) = expression.ListFields()
        if kind.message_type.name == "Subquery":
            self.rewrite(body.f1[0].f1[0])
        for one in operands(body):
            self._rewrite_subqueries(one)

    def _drop_constants(self, predicate: Any) -> None:
        """Change a predicate to be true for the same rows without implying that a column is constant."""
        for binary in predicate.f4:
            match list(binary.f3):
                case ["And"]:
                    for operand in binary.f1:
                        self._drop_constants(operand)
                case ["Eq"] if any(literal and not literal[0].f33 for literal in (one.f3 for one in binary.f1)):
                    binary.f3[0] = "IsNotDistinctFrom"
                    self.has_changed = True


def _check_unchanged(plan: LogicalPlan, explained: list[pa.RecordBatch]) -> None:
    """Check that DataFusion plans a statement with outer joins correctly."""
    steps = [(row["plan_type"], row["plan"]) for batch in explained for row in batch.to_pylist()]
    before = after = ""
    for name, step in steps:
        if name == _FILTER_PUSHDOWN:
            after = before if step == _SAME else step
            break
        before = before if step == _SAME else step
    final = dict(steps).get("physical_plan")
    if final is None:
        return  # it fails when it runs
    moves_filters = _conditions(_above_outer_joins(before)) != _conditions(_above_outer_joins(after))
    uses_constants = (
        any(_GROUPS_BY_ORDER in step for above in _above_outer_joins(final) for step in above)
        or _sort_keys(final) < _sort_keys(plan.display_indent())
    ) and _has_constants(plan)
    if moves_filters or uses_constants:
        raise UnsupportedStatement(
            "The engine cannot run the outer joins of this statement correctly.",
            remedy="Nest fewer subqueries, or don't combine them with table functions or information_schema.",
        )


def _has_constants(plan: LogicalPlan, *, is_nullable: bool = False) -> bool:
    """Return whether a filter may make a column constant in rows that an outer join can replace with NULL."""
    step = plan.display()
    if " = " in step and (step.startswith("Filter: ") if is_nullable else "(<subquery>)" in step):
        return True
    nullable = _NULLABLE_INPUTS.get(step.partition(" Join:")[0], ())
    return any(
        _has_constants(below, is_nullable=is_nullable or index in nullable) for index, below in enumerate(plan.inputs())
    )


def _above_outer_joins(plan: str) -> list[list[str]]:
    """Return the steps of a physical plan above each outer join."""
    found: list[list[str]] = []
    above: list[tuple[int, str]] = []
    for line in plan.splitlines():
        step = line.lstrip()
        depth = len(line) - len(step)
        while above and above[-1][0] >= depth:
            above.pop()
        if _OUTER_JOIN_STEP.search(step):
            found.append([one for _, one in above])
        above.append((depth, step))
    return found


def _conditions(above: list[list[str]]) -> list[int]:
    return [sum(1 + step.count(" AND ") for step in steps if step.startswith("FilterExec: ")) for steps in above]


def _sort_keys(plan: str) -> int:
    """Return the number of sort keys, for the result and for windows."""
    keys = 0
    for line in _SORT.findall(plan):
        partition = _PARTITION.search(line)
        keys += len({*_SORT_KEY.findall(line), *(partition[1].split(", ") if partition else ())})
    return keys
