"""Plans joins so that three defects of DataFusion 55.2 (54.1 has them, too) cannot give wrong rows.

**Filters above joins** are pushed down in the physical plan by column name, not by position. Where both sides of a join
have a column of that name, a filter can end up on the wrong one, and rows are lost. The logical optimizer has already
pushed down whatever may go below an outer join, so each filter that is still above one gets a volatile term, which
keeps it where it is. (Fixed upstream by https://github.com/apache/datafusion/pull/25259, planned for DataFusion 56.)

**Constants below outer joins:** a column that a filter sets equal to a constant still counts as constant above an outer
join, where it can also be NULL. It is then ignored by GROUP BY, ORDER BY and PARTITION BY. So these filters compare by
IS NOT DISTINCT FROM, from which DataFusion does not derive a constant; it prunes files just as well.

**Nested-loop joins** read their left side again when it does not fit into memory and there is room on disk, but a scan
returns its files only once. They need a session that cannot spill.

The filters are changed in the optimized logical plan, in its protobuf form. A plan that has no such form (it reads a
table function or an information schema, or is nested too deeply) runs unchanged if the physical plan shows neither of
the first two defects, and is refused otherwise.
"""

from __future__ import annotations

import enum
import functools
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from datafusion import functions, lit
from datafusion.plan import LogicalPlan

from micromegas_jupyter.engine.errors import is_engine_failure
from micromegas_jupyter.engine.sessions import READ_ONLY
from micromegas_jupyter.errors import UnsupportedStatement

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pyarrow as pa
    from datafusion import DataFrame, SessionContext

# A literal with a line break can look like a line of its own; then a plan seems to have a join that it does not have.
_JOIN: Final = re.compile(r"^ *(?:(?:\w+ )+Join:|Subquery:)", re.MULTILINE)
_OUTER_JOIN: Final = re.compile(r"^ *(?:Left|Right|Full|LeftMark|RightMark) Join:", re.MULTILINE)
_NESTED_LOOP_JOIN: Final = re.compile(r"^ *(?!Cross )(?:\w+ )+Join: *(?:Filter:.*)?$", re.MULTILINE)

# `LogicalPlanNode` in DataFusion's datafusion.proto: numbers of the kinds of nodes, and of their fields that are nodes.
_FILTER: Final = 4
_JOIN_NODE: Final = 7
_INPUTS: Final[Mapping[int, tuple[int, ...]]] = {
    1: (),  # listing scan
    3: (1,),  # projection
    _FILTER: (1,),
    5: (1,),  # limit
    6: (1,),  # aggregate
    _JOIN_NODE: (1, 2),
    8: (1,),  # sort
    10: (),  # empty relation
    13: (1,),  # window
    16: (),  # values
    19: (1,),  # union
    21: (1,),  # subquery alias
    23: (1,),  # distinct
    30: (1,),  # unnest
    31: (2, 3),  # recursive query
    32: (),  # work table of a recursive query
}
#: In which field a node has expressions: a projection, a filter and a join.
_EXPRESSIONS: Final[Mapping[int, int]] = {3: 2, _FILTER: 2, _JOIN_NODE: 8}
_JOIN_TYPE: Final = 3
_LEFT, _RIGHT, _FULL, _LEFT_MARK, _RIGHT_MARK = 1, 2, 3, 8, 9
_OUTER: Final = frozenset({_LEFT, _RIGHT, _FULL, _LEFT_MARK, _RIGHT_MARK})
#: The inputs of which rows can be replaced by NULL.
_NULLABLE: Final[Mapping[int, tuple[int, ...]]] = {_LEFT: (2,), _RIGHT: (1,), _FULL: (1, 2)}
# `LogicalExprNode`: numbers of the kinds of expressions, and of their fields that are expressions.
_LITERAL: Final = 3
_BINARY: Final = 4
_CASE: Final = 10
_SUBQUERY: Final = 36
_SUBQUERY_KEY: Final = bytes([0xA2, 0x02])
_OPERANDS: Final[Mapping[int, tuple[int, ...]]] = {
    **dict.fromkeys((1, _LITERAL), ()),  # column, literal
    2: (1,),  # alias
    _BINARY: (1,),
    **dict.fromkeys((6, 7, 8, 13, *range(25, 31)), (1,)),  # IS NULL, NOT, negative, IS TRUE and their like
    9: (1, 3, 4),  # BETWEEN
    **dict.fromkeys((11, 17), (1,)),  # CAST, TRY_CAST
    14: (1, 2),  # IN
    20: (2,),  # scalar function
}
_OPERAND, _OPERATOR = 1, 3
_NULL_VALUE: Final = 33

_FILTER_PUSHDOWN: Final = "physical_plan after FilterPushdown"
_SAME: Final = "SAME TEXT AS ABOVE"
_NULLABLE_INPUTS: Final = {"Left": {1}, "Right": {0}, "Full": {0, 1}}
# The first of several window expressions stands for all, since they have the same keys.
_SORT: Final = re.compile(r"^ *(?:Sort(?:Exec)?: .*|WindowAggr: .*?(?= BETWEEN ))", re.MULTILINE)
_SORT_KEY: Final = re.compile(r"([^ ,[][^,[]*) (?:ASC|DESC)\b")
_PARTITION: Final = re.compile(r"PARTITION BY \[([^\]]*)\]")
_OUTER_JOIN_STEP: Final = re.compile(r"JoinExec: .*join_type=(?:Left|Right|Full|LeftMark|RightMark),")
_MAX_VARINT_BYTES: Final = 10
_GROUPS_BY_ORDER: Final = "ordering_mode="


@dataclass(frozen=True, slots=True)
class PlannedJoins:
    """A statement with joins, safe to run; one with nested loops must run in a session that cannot spill."""

    frame: DataFrame = field(repr=False)  # its repr would run it
    has_nested_loops: bool


def may_join(plan_text: str) -> bool:
    """Return whether an unoptimized plan, one step a line, may have a join or become one."""
    return _JOIN.search(plan_text) is not None


def plan_joins(session: SessionContext, frame: DataFrame, *, sql: str, values: Mapping[str, pa.Scalar]) -> PlannedJoins:
    """Return a plan of the statement that gives the right rows.

    `frame` is planned in a session for joins, and not EXPLAIN.
    """
    try:
        plan = frame.optimized_logical_plan()
    except BaseException as error:
        if not is_engine_failure(error):
            raise
        return PlannedJoins(frame, has_nested_loops=False)  # it fails in the same way when it runs
    text = plan.display_indent()
    has_nested_loops = _NESTED_LOOP_JOIN.search(text) is not None
    frame = session.create_dataframe_from_logical_plan(plan)
    if _OUTER_JOIN.search(text):
        try:
            frame = _rewrite(session, frame, plan)
        except BaseException as error:
            if not is_engine_failure(error):
                raise
            _check_unchanged(session, plan, sql=sql, values=values)
    return PlannedJoins(frame, has_nested_loops)


def _rewrite(session: SessionContext, frame: DataFrame, plan: LogicalPlan) -> DataFrame:
    """Return `frame` with changed filters, or as it is where none needs a change."""
    node = plan.to_bytes(session)
    rewritten = _Rewriter().rewrite(node)
    if rewritten == node:
        return frame
    frame = session.create_dataframe_from_logical_plan(LogicalPlan.from_bytes(session, rewritten))
    frame.optimized_logical_plan()
    return frame


class _Rewriter:
    """Changes the filters of a plan."""

    def __init__(self) -> None:
        self._outer_joins = 0

    def rewrite(self, node: bytes, *, is_nullable: bool = False) -> bytes:
        """Return a node with its filters changed.

        `is_nullable` is whether an outer join above it can replace its rows by NULL. KeyError for a node, or a subquery
        in an expression, of an unknown kind.
        """
        (kind,) = read_fields(node)
        inputs = _INPUTS[kind.number]
        if not inputs:
            return node
        before = self._outer_joins
        fields = read_fields(kind.value)
        nullable = inputs if is_nullable else ()
        if kind.number == _JOIN_NODE:
            join_type = next((one.value[0] for one in fields if one.number == _JOIN_TYPE), 0)
            self._outer_joins += join_type in _OUTER
            nullable = nullable or _NULLABLE.get(join_type, ())
        for index, one in enumerate(fields):
            if one.number in inputs:
                fields[index] = one._replace(value=self.rewrite(one.value, is_nullable=one.number in nullable))
        is_above_join = self._outer_joins > before
        for index, one in enumerate(fields):
            if one.number == _EXPRESSIONS.get(kind.number):
                expression = self._rewrite_subqueries(one.value)
                if kind.number == _FILTER:
                    expression = _changed(expression, is_above_join=is_above_join, is_nullable=is_nullable)
                fields[index] = one._replace(value=expression)
            elif one.number not in inputs and _SUBQUERY_KEY in one.value:
                raise KeyError(kind.number)
        return write_fields([kind._replace(value=write_fields(fields))])

    def _rewrite_subqueries(self, expression: bytes) -> bytes:
        if _SUBQUERY_KEY not in expression:
            return expression
        (kind,) = read_fields(expression)
        match kind.number:
            case number if number == _SUBQUERY:
                body = _mapped(kind.value, (1,), lambda subquery: _mapped(subquery, (1,), self.rewrite))
            case number if number == _CASE:
                body = _mapped(kind.value, (1, 3), self._rewrite_subqueries)
                body = _mapped(body, (2,), lambda branch: _mapped(branch, (1, 2), self._rewrite_subqueries))
            case number:
                body = _mapped(kind.value, _OPERANDS[number], self._rewrite_subqueries)
        return write_fields([kind._replace(value=body)])


def _mapped(message: bytes, numbers: tuple[int, ...], change: Callable[[bytes], bytes]) -> bytes:
    fields = read_fields(message)
    return write_fields([one._replace(value=change(one.value)) if one.number in numbers else one for one in fields])


def _changed(predicate: bytes, *, is_above_join: bool, is_nullable: bool) -> bytes:
    """Return a predicate that is true for the same rows."""
    if is_nullable:
        predicate = _without_constants(predicate)
    return _either(predicate, _never()) if is_above_join else predicate


def _without_constants(predicate: bytes) -> bytes:
    """Return a predicate that is true for the same rows, and from which no column follows to be constant."""
    (kind,) = read_fields(predicate)
    if kind.number != _BINARY:
        return predicate
    fields = read_fields(kind.value)
    (operator,) = (one for one in fields if one.number == _OPERATOR)
    operands = [one for one in fields if one.number == _OPERAND]
    if operator.value == b"And":
        operands = [operand._replace(value=_without_constants(operand.value)) for operand in operands]
    elif operator.value == b"Eq":
        if not any(_is_value(operand.value) for operand in operands):
            return predicate
        operator = operator._replace(value=b"IsNotDistinctFrom")
    return write_fields([kind._replace(value=write_fields([*operands, operator]))])


def _is_value(expression: bytes) -> bool:
    """Return whether an expression is a literal other than NULL."""
    (kind,) = read_fields(expression)
    return kind.number == _LITERAL and all(one.number != _NULL_VALUE for one in read_fields(kind.value))


def _either(first: bytes, second: bytes) -> bytes:
    operands = [Field(_OPERAND, WireType.LENGTH_DELIMITED, operand) for operand in (first, second)]
    binary = write_fields([*operands, Field(_OPERATOR, WireType.LENGTH_DELIMITED, b"Or")])
    return write_fields([Field(_BINARY, WireType.LENGTH_DELIMITED, binary)])


@functools.cache
def _never() -> bytes:
    return (functions.random() < lit(0.0)).to_bytes()


def _check_unchanged(session: SessionContext, plan: LogicalPlan, *, sql: str, values: Mapping[str, pa.Scalar]) -> None:
    """Check that a statement with outer joins is right as DataFusion plans it."""
    described = session.sql_with_options(f"EXPLAIN VERBOSE {sql}", READ_ONLY, param_values=dict(values)).collect()
    steps = [(row["plan_type"], row["plan"]) for batch in described for row in batch.to_pylist()]
    before = after = ""
    for name, step in steps:
        if name == _FILTER_PUSHDOWN:
            after = before if step == _SAME else step
            break
        before = before if step == _SAME else step
    final = dict(steps)["physical_plan"]
    moves_filters = _conditions(_above_outer_joins(before)) != _conditions(_above_outer_joins(after))
    uses_constants = (
        any(_GROUPS_BY_ORDER in step for above in _above_outer_joins(final) for step in above)
        or _sort_keys(final) < _sort_keys(plan.display_indent())
    ) and _has_constants(plan)
    if moves_filters or uses_constants:
        raise UnsupportedStatement(
            "The engine cannot run the outer joins of this statement correctly.",
            remedy="Nest fewer subqueries, or use no table function and no information_schema beside them.",
        )


def _has_constants(plan: LogicalPlan, *, is_nullable: bool = False) -> bool:
    """Return whether a column of rows that an outer join can replace by NULL may be set equal to a constant."""
    step = plan.display()
    if " = " in step and (step.startswith("Filter: ") if is_nullable else "(<subquery>)" in step):
        return True
    nullable = _NULLABLE_INPUTS.get(step.partition(" Join:")[0], ())
    return any(
        _has_constants(below, is_nullable=is_nullable or index in nullable) for index, below in enumerate(plan.inputs())
    )


def _above_outer_joins(plan: str) -> list[list[str]]:
    """Return the steps of a physical plan that are above each outer join."""
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
    """Return how many keys its rows are sorted by, for the result and for windows."""
    keys = 0
    for line in _SORT.findall(plan):
        partition = _PARTITION.search(line)
        keys += len({*_SORT_KEY.findall(line), *(partition[1].split(", ") if partition else ())})
    return keys


class WireType(enum.IntEnum):
    """How a field's value is written (protobuf encoding guide, "Message Structure")."""

    VARINT = 0
    FIXED64 = 1
    LENGTH_DELIMITED = 2
    FIXED32 = 5


class Field(NamedTuple):
    """One field of a protobuf message; the value of a length-delimited one is without its length."""

    number: int
    wire_type: WireType
    value: bytes


def read_fields(message: bytes) -> list[Field]:
    """Return the fields of a protobuf message in order, without its schema; ValueError for other bytes."""
    fields: list[Field] = []
    start = 0
    while start < len(message):
        key, start = _read_varint(message, start)
        wire_type = WireType(key & 7)
        match wire_type:
            case WireType.VARINT:
                end = _read_varint(message, start)[1]
            case WireType.LENGTH_DELIMITED:
                length, start = _read_varint(message, start)
                end = start + length
            case _:
                end = start + (8 if wire_type is WireType.FIXED64 else 4)
        if end > len(message):
            raise ValueError("a protobuf field is cut short")
        fields.append(Field(key >> 3, wire_type, message[start:end]))
        start = end
    return fields


def write_fields(fields: list[Field]) -> bytes:
    """Return the message that has `fields` in order; the inverse of `read_fields`."""
    pieces: list[bytes] = []
    for number, wire_type, value in fields:
        pieces.append(build_varint(number << 3 | wire_type))
        if wire_type is WireType.LENGTH_DELIMITED:
            pieces.append(build_varint(len(value)))
        pieces.append(value)
    return b"".join(pieces)


def _read_varint(message: bytes, start: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(message[start : start + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:  # noqa: PLR2004 - the bit that says that more follow
            return value, start + index + 1
    raise ValueError("a protobuf number is cut short")


def build_varint(value: int) -> bytes:
    """Return a number in protobuf's variable length."""
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits of a byte
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_MIXES_TYPES: Final = re.compile(r"\bCASE\b|^ *Union\b", re.MULTILINE)


def may_mix_types(plan_text: str) -> bool:
    """Return whether an unoptimized plan, one step a line, may announce other types than its result has."""
    return _MIXES_TYPES.search(plan_text) is not None


def with_result_types(session: SessionContext, frame: DataFrame) -> DataFrame:
    """Return `frame`, a statement that is not EXPLAIN, with the schema of its result; `session` is its session."""
    try:
        return session.create_dataframe_from_logical_plan(frame.optimized_logical_plan())
    except BaseException as error:
        if not is_engine_failure(error):
            raise
        return frame  # it fails in the same way when it runs
