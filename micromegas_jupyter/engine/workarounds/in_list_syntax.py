"""Does the same as `in_lists`, but in the syntax trees of statements for Sail, an engine with the same defect."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from sqlglot import exp

from micromegas_jupyter.engine.workarounds.subquery_syntax import Polarity

_LIST_WEIGHT: Final = 2
_COMPARISON_WEIGHT: Final = 1
_TWO_LISTS: Final = 4


def make_lists_null_safe(tree: exp.Expr) -> None:
    """Wrap lists that an engine could simplify to true or false in a CASE that is NULL for a NULL operand."""
    found = list(_exposed(tree))
    weights: Counter[str] = Counter()
    for _, operand, weight in found:
        weights[operand.sql()] += weight
    for expression, operand, _ in found:
        if weights[operand.sql()] >= _TWO_LISTS:
            null = exp.cast(exp.null(), "BOOLEAN")
            case = exp.Case().when(operand.copy().is_(exp.null()), null).else_(expression.copy())
            expression.replace(exp.paren(case))


def _exposed(tree: exp.Expr) -> Iterator[tuple[exp.Expr, exp.Expr, int]]:
    """Find lists, and comparisons that can become lists, if NULL and false have different effects on them."""
    for node in tree.find_all(exp.In, exp.EQ, exp.NEQ):
        polarity = Polarity(node)
        if isinstance(node, exp.In):
            has_null = not all(isinstance(one.unnest(), exp.Literal | exp.Neg) for one in node.expressions)
            is_harmless = polarity.only_true_counts and (polarity.negations == 0 or polarity.is_own_condition)
            if node.expressions and (has_null or not is_harmless):
                yield node, node.this, _TWO_LISTS if has_null else _LIST_WEIGHT
        elif not polarity.only_true_counts or polarity.negations:
            sides = (node.this, node.expression)
            operand = next((one for one in sides if not isinstance(one, exp.Literal)), None)
            if operand is not None and any(isinstance(one, exp.Literal) for one in sides):
                yield node, operand, _COMPARISON_WEIGHT
