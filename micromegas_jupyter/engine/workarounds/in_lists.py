"""Prevents DataFusion 55.2 from losing NULL when it simplifies expressions.

`x NOT IN (1, 2) OR x NOT IN (3, 4)` becomes true, and `x IN (1, 2) AND x IN (3, 4)` false, even for rows in which x is
NULL. `x = 1 OR x = 2` counts as a list. In the same way, `x ~ '.*'` is false and `x ^ x` is 0 for such rows. (Fixed
upstream by https://github.com/apache/datafusion/pull/24258 and its predecessors, planned for DataFusion 56.) False
instead of NULL is harmless if only true counts: in conditions, below AND and OR. Everywhere else, such an expression is
wrapped in a CASE that returns NULL for a NULL operand, which prevents the simplification. The same applies to NOT IN
with NULL in its list: it is never true, but the simplification ignores the NULL when it combines two lists.

The lists of a statement are found in a plan that is optimized without simplification: there, subqueries have become
joins, and columns of derived tables their expressions.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from datafusion import DataFrame, Expr, SessionContext, lit
from datafusion.plan import LogicalPlan

from micromegas_jupyter.engine.errors import is_engine_failure
from micromegas_jupyter.engine.workarounds.plan_messages import (
    EMPTYING_RULES,
    Step,
    find_steps,
    message_class,
    operands,
    optimizer_without,
    type_of,
)
from micromegas_jupyter.errors import UnsupportedStatement, UsageError

# Without simplification, the NULL in a list would become a column.
_LEFT_OUT: Final = ("simplify_expressions", "common_sub_expression_eliminate", *EMPTYING_RULES)
_MAY_BE_AFFECTED: Final = re.compile(r"(?: IN \(\[| OR ).*(?: IN \(\[| OR )|\(\"\.\*\"\)| BIT_XOR ", re.DOTALL)
_LISTED: Final = re.compile(r" IN \(\[| OR ")
# Expressions that use a truth value for more than a condition: a function (except a literal), a comparison, NOT, CASE,
# IS.
_USED: Final = re.compile(
    r"\b(?:NOT|CASE|IS) |\.\*|\bBIT_XOR |[])] (?!(?:AND|OR|[-+*/%]) )\S|"
    r"(?:[=<>~]|FROM) (?:\(|(?:(?!AND |OR )\S+ )+?IN \(\[)|"
    r"\b(?!(?:(?:Large)?Utf8(?:View)?|U?Int\d+|Float\d+|Date32|Decimal\d+|outer_ref|substr|lower|upper)\()\w+\("
)
# A list of any length and two comparisons with constants have the same weight; two lists are needed.
_LIST_WEIGHT: Final = 2
_TWO_LISTS: Final = 4
_WEIGHTS: Final[Mapping[str, int]] = {
    "Eq": 1,
    "NotEq": 1,
    **dict.fromkeys(("RegexMatch", "RegexIMatch", "BitwiseXor"), _TWO_LISTS),
}
_IS_TRUE: Final = 25
_MATCHES_ALL: Final = b".*"
# The expressions of these nodes are conditions; the values of others matter.
_CONDITIONS: Final = frozenset({"Filter", "Join", "Scan"})
_CONDITION: Final = re.compile(r"(?:\w+ )*(?:Filter|Join|TableScan):")
_NAMED: Final = frozenset({"Projection", "Aggregate", "Window"})


def with_null_safe_lists(session: SessionContext, frame: DataFrame, text: str) -> DataFrame:
    """Return `frame`, a statement other than EXPLAIN, in a form that simplification handles correctly.

    `text` is its plan, one step per line.
    """
    if not _MAY_BE_AFFECTED.search(text) or all(map(_is_plain, find_steps(frame.logical_plan()))):
        return frame
    try:
        unsimplified = optimizer_without(*_LEFT_OUT).create_dataframe_from_logical_plan(frame.logical_plan())
        optimized = unsimplified.optimized_logical_plan()
    except BaseException as error:
        if not is_engine_failure(error):
            raise
        return frame  # it fails in the same way when it runs
    try:
        node = message_class("Node").FromString(optimized.to_bytes(session))
        if not _rewrite_node(node, session):
            return frame
        plan = LogicalPlan.from_bytes(session, node.SerializeToString())
        changed = session.create_dataframe_from_logical_plan(plan)
        changed.optimized_logical_plan()  # a part without columns fails here
    except BaseException as error:
        if not is_engine_failure(error):
            raise
        _check_unchanged(optimized)
        return frame
    return changed


def _is_plain(step: Step) -> bool:
    """Return whether a step has no lists, or is a condition that consists only of AND, OR, and comparisons."""
    if not _LISTED.search(step.text) and ".*" not in step.text and "BIT_XOR" not in step.text:
        return True
    return _CONDITION.match(step.text) is not None and not _USED.search(step.text)


def null_safe_condition(condition: Expr) -> Expr:
    """Return `condition`, a filter's expression, in a form that simplification handles correctly."""
    if not _MAY_BE_AFFECTED.search(condition.canonical_name()):
        return condition
    try:
        expression = message_class("Expr").FromString(condition.to_bytes())
        has_changed = _rewrite_expression(expression, None, is_condition=True)
        return Expr.from_bytes(expression.SerializeToString()) if has_changed else condition
    except BaseException as error:
        if not is_engine_failure(error):
            raise
        return condition  # its simplification is tested on rows


def check_null_safe(condition: Any) -> None:
    """Check that an expression that a library simplifies itself preserves NULL."""
    if null_safe_condition(condition) is not condition:
        raise UsageError(
            "The condition has several IN lists for one column, and would be true for rows where the column is NULL.",
            remedy="Combine the lists into one.",
        )


def _check_unchanged(plan: LogicalPlan) -> None:
    """Check that a plan without a protobuf form has no expression that needs a change."""
    for is_condition, expression in _expressions(plan):
        try:
            message = message_class("Expr").FromString(expression.to_bytes())
        except BaseException as error:
            if not is_engine_failure(error):
                raise
            continue  # a function or subquery without a protobuf form
        if _rewrite_expression(message, None, is_condition=is_condition):
            raise UnsupportedStatement(
                "The engine cannot evaluate several IN lists for one column correctly in this statement.",
                remedy="Combine the lists into one, or remove table functions and information_schema.",
            )


def _expressions(plan: LogicalPlan) -> Iterator[tuple[bool, Any]]:
    """Return the expressions of a plan's nodes, if they have Python classes, and whether each is a condition."""
    for below in plan.inputs():
        yield from _expressions(below)
    try:
        node: Any = plan.to_variant()
    except Exception:  # noqa: BLE001 - there is no class for this kind
        return
    match type(node).__name__:
        case "Filter":
            yield True, node.predicate()
        case "Join" if node.filter() is not None:
            yield True, node.filter()
        case "Projection":
            yield from ((False, one) for one in node.projections())
        case "Aggregate":
            yield from ((False, one) for one in (*node.group_by_exprs(), *node.aggregate_exprs()))


def _rewrite_node(node: Any, session: SessionContext) -> bool:
    """Change the expressions of a node and its inputs; return whether anything was changed."""
    has_changed = False
    for kind, (body,) in node.ListFields():
        name = kind.message_type.name
        for field, values in body.ListFields():
            for value in values if type_of(field) in {"Node", "Expr", "First"} else ():
                match type_of(field):
                    case "Node":
                        has_changed |= _rewrite_node(value, session)
                    case "First":  # a sort key
                        has_changed |= _rewrite_expression(value.f1[0], session, is_condition=False)
                    case _:
                        has_changed |= _rewrite_expression(
                            value, session, is_condition=name in _CONDITIONS, keeps_name=name in _NAMED
                        )
    return has_changed


class _List(NamedTuple):
    expression: Any
    operand: Any
    weight: int


def _rewrite_expression(
    expression: Any, session: SessionContext | None, *, is_condition: bool, keeps_name: bool = False
) -> bool:
    """Change an expression; `session` has the functions that its subqueries and its name may use."""
    has_changed = False
    if session is not None:
        for plan in _subplans(expression):
            has_changed |= _rewrite_node(plan, session)
    found = list(_exposed_lists(expression, only_true_counts=is_condition, is_below_or=False))
    weights: Counter[bytes] = Counter()
    for one in found:
        weights[_key(one.operand)] += one.weight
    affected = [one for one in found if weights[_key(one.operand)] >= _TWO_LISTS]
    if not affected:
        return has_changed
    name = Expr.from_bytes(expression.SerializeToString(), session).schema_name() if keeps_name else ""
    for one in affected:
        one.expression.CopyFrom(_null_safe(one))
    if keeps_name and not expression.f2:
        named = message_class("Expr")()
        named.f2.add(f1=[expression], f2=[name])
        expression.CopyFrom(named)
    return True


def _key(operand: Any) -> bytes:
    return bytes(_without_casts(operand).SerializeToString(deterministic=True))


def _without_casts(expression: Any) -> Any:
    while expression.f2 or expression.f11 or expression.f17:  # alias, CAST, TRY_CAST
        expression = (*expression.f2, *expression.f11, *expression.f17)[0].f1[0]
    return expression


def _subplans(expression: Any) -> Iterator[Any]:
    for kind, (body,) in expression.ListFields():
        if kind.message_type.name == "Subquery":
            yield body.f1[0].f1[0]
        for one in operands(body):
            yield from _subplans(one)


def _null_safe(found: _List) -> Any:
    """Return CASE WHEN operand IS NULL THEN NULL ELSE expression END."""
    new, first = message_class("Expr"), message_class("First")
    null = new.FromString(lit(None).to_bytes())
    branch = message_class("Branch")(f1=[new(f6=[first(f1=[found.operand])])], f2=[null])
    return new(f10=[message_class("Case")(f2=[branch], f3=[found.expression])])


def _exposed_lists(expression: Any, *, only_true_counts: bool, is_below_or: bool) -> Iterator[_List]:
    """Find the lists for which NULL and false, or NULL and true, have different effects."""
    for kind, (body,) in expression.ListFields():
        if (checked := _null_checked(kind, body)) is not None:
            inner = _exposed_lists(body.f3[0], only_true_counts=False, is_below_or=is_below_or)
            yield from (one for one in inner if _key(one.operand) != checked)
            continue
        operator = str(body.f3[0]) if kind.message_type.name == "Binary" else ""
        if kind.message_type.name == "InList":
            is_negated = bool(body.f3 and body.f3[0])
            if is_negated and not all(map(_is_value, body.f2)):
                yield _List(expression, body.f1[0], _TWO_LISTS)
            elif not only_true_counts or (is_below_or and is_negated):
                yield _List(expression, body.f1[0], _LIST_WEIGHT)
        elif operator in _WEIGHTS and not only_true_counts:
            yield from _exposed_operation(expression, operator, body.f1)
        keeps = kind.message_type.name == "Alias" or operator in {"And", "Or"}
        conditions = _inner_conditions(kind, body)
        for one in operands(body):
            if any(one is condition for condition in conditions):
                yield from _exposed_lists(one, only_true_counts=True, is_below_or=False)
            else:
                yield from _exposed_lists(
                    one, only_true_counts=only_true_counts and keeps, is_below_or=is_below_or or operator == "Or"
                )


def _null_checked(kind: Any, body: Any) -> bytes | None:
    """Return the key of the operand if an expression has the form of `_null_safe`; otherwise, None."""
    if kind.message_type.name != "Case" or body.f1 or len(body.f2) != 1 or not body.f3:
        return None
    (condition,), (result,) = body.f2[0].f1, body.f2[0].f2
    is_null = _without_casts(result).f3 and _without_casts(result).f3[0].f33
    return _key(condition.f6[0].f1[0]) if condition.f6 and is_null else None


def _inner_conditions(kind: Any, body: Any) -> Sequence[Any]:
    """Return the operands of an expression for which only true counts, wherever the expression is."""
    match kind.message_type.name:
        case "First" if kind.number == _IS_TRUE:
            return list(body.f1)
        case "Case" if not body.f1:
            return [condition for branch in body.f2 for condition in branch.f1]
        case "Aggregation":
            return list(body.f3)
        case _:
            return []


def _is_value(element: Any) -> bool:
    """Return whether a list element is a constant other than NULL."""
    literal = _without_casts(element).f3
    return bool(literal) and not literal[0].f33


def _exposed_operation(expression: Any, operator: str, sides: Sequence[Any]) -> Iterator[_List]:
    first, *others = sides
    if operator == "BitwiseXor":
        if any(_key(first) == _key(other) for other in others):
            yield _List(expression, first, _WEIGHTS[operator])
        return
    operand = next((one for one in sides if not _without_casts(one).f3), None)
    constant = next((one for one in sides if _without_casts(one).f3), None)
    if operand is None or constant is None:
        return
    if operator in {"Eq", "NotEq"} or _MATCHES_ALL in _key(constant):
        yield _List(expression, operand, _WEIGHTS[operator])
