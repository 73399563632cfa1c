"""Whether a rule denies a query: boolean SQL expressions over what is known of a query before it is planned.

A rule's expression is over `denial_store.MATCH_COLUMNS`, as upstream has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pyarrow as pa
from datafusion import SessionContext

from micromegas_jupyter.engine.denial_store import MATCH_COLUMNS
from micromegas_jupyter.engine.errors import Context, is_engine_failure, translate
from micromegas_jupyter.engine.guard import check_expression
from micromegas_jupyter.engine.scanner import Kind, Scan
from micromegas_jupyter.errors import InvalidStatement, QueryError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from datafusion import DataFrame

_LONGEST_EXPRESSION_BYTES: Final = 4096
_OTHER_ROWS: Final = frozenset({"select", "values", "table", "with"})
_SCHEMA: Final = pa.schema([pa.field(name, pa.string()) for name in MATCH_COLUMNS])
_WORDS_IN_ONE: Final = 3


class MatchRules:
    """Expressions that are ready to be held against queries.

    Raises:
        InvalidStatement: One of them cannot be used.
    """

    def __init__(self, expressions: Sequence[str]) -> None:
        self.expressions = tuple(expressions)
        self._equalities = tuple(_equalities(check_match(one)) for one in expressions)

    @property
    def are_quick(self) -> bool:
        """Whether all of them are compared without the engine."""
        return None not in self._equalities

    def first_match(self, facts: Mapping[str, str | None], hashes: Sequence[str]) -> int | None:
        """Return the place of the first expression that is true for a query, None when there is none.

        An expression that cannot be evaluated for this query (a cast that fails) is not true.

        Args:
            facts: The query's `MATCH_COLUMNS`, `sql_hash` left out.
            hashes: The fingerprints that the query goes by.
        """
        rows = [{**facts, "sql_hash": one} for one in dict.fromkeys(hashes)]
        evaluated = _evaluated(rows, [one for one, quick in self._pairs() if quick is None])
        for place, (expression, quick) in enumerate(self._pairs()):
            if evaluated[expression] if quick is None else any(_is_equal(row, quick) for row in rows):
                return place
        return None

    def _pairs(self) -> zip[tuple[str, tuple[tuple[str, str], ...] | None]]:
        return zip(self.expressions, self._equalities, strict=True)


def check_match(expression: str) -> Scan:
    """Return the tokens of an expression that can be used as a rule.

    Raises:
        InvalidStatement: It is no boolean expression over `MATCH_COLUMNS`, or it names none of them.
    """
    try:
        scanned = check_expression(expression, max_bytes=_LONGEST_EXPRESSION_BYTES)
    except QueryError as error:
        raise InvalidStatement(f"The rule's expression cannot be used. {error.what}") from None
    kinds = {token.kind for token in scanned.tokens}
    names = {token.name for token in scanned.tokens if token.kind in {Kind.WORD, Kind.QUOTED}}
    if not scanned.is_certain or kinds & {Kind.SEMICOLON, Kind.PLACEHOLDER} or names & _OTHER_ROWS:
        raise InvalidStatement("The rule's expression holds a subquery, a placeholder, a semicolon or an open quote.")
    if not names & set(MATCH_COLUMNS):
        raise InvalidStatement(
            "The rule's expression names none of the columns that there are, so it would deny every query or none.",
            remedy=f"Compare one of these with a text: {', '.join(MATCH_COLUMNS)}.",
        )
    try:
        rows = _frame([dict.fromkeys(MATCH_COLUMNS, "x"), {}])
        rows.filter(rows.parse_sql_expr(expression)).collect()
    except BaseException as error:
        if not is_engine_failure(error):
            raise
        told = translate(error, Context(sql=expression))
        # The engine's words are about a whole statement, of which the administrator's own is another.
        what = told.what.replace("The statement ", "It ", 1)
        raise InvalidStatement(f"The rule's expression cannot be used. {what}", remedy=told.remedy) from None
    return scanned


def _equalities(scanned: Scan) -> tuple[tuple[str, str], ...] | None:
    """Return the pairs of column and text of `column = 'text' AND …`; None for any other expression."""
    tokens = [token for token in scanned.tokens if not (token.kind is Kind.WORD and token.name == "and")]
    if len(scanned.tokens) != len(tokens) + len(tokens) // _WORDS_IN_ONE - 1 or len(tokens) % _WORDS_IN_ONE:
        return None
    found = []
    for column, operator, text in zip(tokens[::3], tokens[1::3], tokens[2::3], strict=True):
        if column.name not in MATCH_COLUMNS or operator.text != "=" or not text.text.startswith("'"):
            return None
        found.append((column.name, text.text[1:-1].replace("''", "'")))
    return tuple(found)


def _is_equal(row: Mapping[str, str | None], pairs: tuple[tuple[str, str], ...]) -> bool:
    return all(row.get(column) == text for column, text in pairs)


def _evaluated(rows: Sequence[Mapping[str, str | None]], expressions: Sequence[str]) -> dict[str, bool]:
    """Return for each expression whether it is true for one of the rows."""
    if not expressions:
        return {}
    try:
        frame = _frame(rows)
        # The line break ends a comment that an expression may end with.
        shown = [frame.parse_sql_expr(f"({one}\n) IS TRUE").alias(str(place)) for place, one in enumerate(expressions)]
        found = pa.Table.from_batches(frame.select(*shown).collect()).to_pydict()
    except BaseException as error:
        if not is_engine_failure(error):
            raise
        if len(expressions) == 1:
            return {expressions[0]: False}
        return {one: _evaluated(rows, [one])[one] for one in expressions}
    return {one: any(found[str(place)]) for place, one in enumerate(expressions)}


def _frame(rows: Sequence[Mapping[str, str | None]]) -> DataFrame:
    return SessionContext().read_batch(pa.RecordBatch.from_pylist([dict(row) for row in rows], schema=_SCHEMA))
