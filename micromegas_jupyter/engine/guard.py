"""Refuses a statement, before DataFusion parses it, whose size or shape could crash or stall the process.

The limits were measured on DataFusion 54 and 55 (see `Limits`). Whether a statement only reads is decided on its plan
(`sessions.READ_ONLY`, `plan_checks`), and so is how much its steps repeat each other (`plan_work`). A statement within
all limits can still run without end.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from micromegas_jupyter.engine.expansion import plan_copies
from micromegas_jupyter.engine.scanner import Kind, Scan, Token, scan
from micromegas_jupyter.errors import InvalidStatement, StatementRefused


class Limits:
    """What a statement's shape may be at most, and what DataFusion 54 or 55 did beyond it.

    Measured with a 64 MiB planning stack and the runtime's own 2 MiB worker stacks; "crash" is a segmentation fault.
    """

    #: Parsing doubles with each bracket around an error: 16 take 0.1 s, 24 more than 3 s; CAST in CAST 48 never ends.
    BRACKET_DEPTH: Final = 16
    #: Tokens times two to the power of their depth: the parser's work at its worst, 1.2 s at any depth.
    REREAD_TOKENS: Final = 4_000_000
    #: Optimising doubles twice with each CASE in a CASE's condition: 12 take 0.5 s, 16 more than 10 s.
    CASE_DEPTH: Final = 8
    #: One expression: crash at 1,280 (`ORDER BY x+x+…`), 1,536 (`IS TRUE …`); `WHERE x+x+…` of 1,280 takes 9 s.
    EXPRESSION_OPERATORS: Final = 256
    #: All expressions together, since the optimiser may put one into another.
    OPERATORS: Final = 512
    #: UNION, EXCEPT, INTERSECT: crash at 384; UNION ALL of 4,096 takes more than 10 s.
    SET_OPERATIONS: Final = 64
    #: Joins: crash at 384 (LEFT JOIN), inner joins of 256 take more than 10 s. Counted again on the plan.
    JOINS: Final = 64
    #: SELECTs: 1,024 EXISTS take 8 s, a chain of 2,560 CTEs 5 s.
    SELECTS: Final = 128
    #: Parsing doubles with each WITH in a WITH: 16 take 0.05 s, 24 more than 10 s.
    WITHS: Final = 12
    #: Brackets that follow a word: 4,096 function calls take 6 s.
    CALLS: Final = 1000
    #: OVER: 640 different windows take 6 s, 768 more than 10 s.
    WINDOWS: Final = 128
    #: Columns in CUBE, ROLLUP and GROUPING SETS together: CUBE of 16 makes 65,536 groupings, 20 take more than 10 s.
    GROUPING_COLUMNS: Final = 12
    #: Copies of sub-plans that references to CTEs make; 65,536 take 5 s.
    PLAN_COPIES: Final = 1000


# fmt: off
_WORD_OPERATORS = frozenset({
    "and", "or", "xor", "not", "is", "in", "like", "ilike", "rlike", "regexp",
    "similar", "between", "at", "collate", "div", "overlaps", "isnull", "notnull", "match",
})
# fmt: on
_AFTER_FROM = frozenset(
    {"where", "group", "having", "order", "limit", "select", "union", "except", "intersect", "window"}
)
_SHAPING = _WORD_OPERATORS | _AFTER_FROM | {"case", "end", "from", "join"}
_SET_OPERATIONS = frozenset({"union", "except", "intersect", "minus"})
_GROUPINGS = frozenset({"cube", "rollup", "sets"})


def check_statement(sql: str, *, max_bytes: int) -> Scan:
    """Return the tokens of `sql` when it is one statement within the limits.

    Raises:
        InvalidStatement: There is no statement, or the text is not Unicode.
        StatementRefused: A limit is passed, or there are several statements.
    """
    _check_size(sql, max_bytes)
    scanned = scan(sql)
    _check_single(scanned)
    _check_counts(scanned)
    _check_nesting(scanned)
    if plan_copies(scanned, at_most=Limits.PLAN_COPIES) > Limits.PLAN_COPIES:
        raise _refusal("copies of common table expressions", Limits.PLAN_COPIES)
    return scanned


def _refusal(what: str, limit: int) -> StatementRefused:
    return StatementRefused(f"The statement has more {what} than the {limit} that this server takes.")


def _check_size(sql: str, max_bytes: int) -> None:
    try:
        too_long = len(sql) > max_bytes or len(sql.encode()) > max_bytes
    except UnicodeEncodeError as error:
        raise InvalidStatement("The statement holds half a character (a lone surrogate).") from error
    if too_long:
        raise StatementRefused(f"The statement is longer than the {max_bytes} bytes that this server takes.")


def _check_single(scanned: Scan) -> None:
    tokens = scanned.tokens
    if all(token.kind is Kind.SEMICOLON for token in tokens):
        raise InvalidStatement("There is no statement.", remedy="Send one SELECT statement.")
    ended = False
    for token in tokens:
        if token.start >= scanned.certain_until:
            return  # DataFusion itself refuses a second statement; here a `;` may be part of a quote
        if token.kind is Kind.SEMICOLON:
            ended = True
        elif ended:
            raise StatementRefused("The text holds several statements.", remedy="Send one statement at a time.")


def _check_counts(scanned: Scan) -> None:
    words = Counter(token.text.lower() for token in scanned.tokens if token.kind is Kind.WORD)
    for what, count, limit in (
        ("set operations", sum(words[word] for word in _SET_OPERATIONS), Limits.SET_OPERATIONS),
        ("SELECTs", max(words["select"], words["from"]), Limits.SELECTS),
        ("WITHs", words["with"], Limits.WITHS),
        ("windows", words["over"], Limits.WINDOWS),
    ):
        if count > limit:
            raise _refusal(what, limit)


def _check_nesting(scanned: Scan) -> None:
    shape = _Shape()
    previous: Token | None = None
    for token in scanned.tokens:
        shape.read(token, previous, is_certain=token.start < scanned.certain_until)
        previous = token


class _Frame:
    """What was seen since one bracket: operators of the running and the longest expression, open CASEs, the clause."""

    __slots__ = ("cases", "grouping", "in_from", "longest", "running")

    def __init__(self, *, grouping: bool = False) -> None:
        self.running = 0
        self.longest = 0
        self.cases = 0
        self.grouping = grouping
        self.in_from = False


class _Shape:
    """Follows brackets, CASEs and operators through the tokens and raises once a limit is passed."""

    def __init__(self) -> None:
        self._frames = [_Frame()]
        self._cases = 0
        self._operators = 0
        self._calls = 0
        self._grouping_columns = 0
        self._joins = 0
        self._reread = 0
        self._weight = 1  # two to the power of the depth

    def read(self, token: Token, previous: Token | None, *, is_certain: bool) -> None:
        self._reread += self._weight
        if self._reread > Limits.REREAD_TOKENS:
            raise StatementRefused("The statement is too long for how deeply its brackets nest.")
        kind = token.kind
        if kind is Kind.WORD:
            word = token.text.lower()
            if word in _SHAPING:
                self._word(word, previous, is_certain=is_certain)
        elif kind is Kind.OPERATOR:
            self._operator()
        elif kind is Kind.COMMA:
            self._comma()
        elif kind is Kind.OPEN:
            self._open(token, previous)
        elif kind is Kind.CLOSE and is_certain:
            self._close()

    def _open(self, token: Token, previous: Token | None) -> None:
        after_word = previous is not None and previous.kind is Kind.WORD
        if after_word or token.text == "[":
            self._calls += 1
            if self._calls > Limits.CALLS:
                raise _refusal("function calls", Limits.CALLS)
        if len(self._frames) > Limits.BRACKET_DEPTH:
            raise StatementRefused(
                f"The statement nests brackets deeper than the {Limits.BRACKET_DEPTH} levels that this server takes."
            )
        is_grouping = after_word and previous is not None and previous.text.lower() in _GROUPINGS
        self._weight *= 2
        self._frames.append(_Frame(grouping=is_grouping or self._frames[-1].grouping))
        if is_grouping:
            self._count_grouping_column()

    def _close(self) -> None:
        if len(self._frames) == 1:
            return  # one closing bracket too many: DataFusion will say so
        self._weight //= 2
        frame = self._frames.pop()
        self._cases -= frame.cases
        self._add_to_expression(max(frame.longest, frame.running))

    def _comma(self) -> None:
        frame = self._frames[-1]
        frame.longest = max(frame.longest, frame.running)
        frame.running = 0
        if frame.grouping:
            self._count_grouping_column()
        if frame.in_from:
            self._count_join()

    def _operator(self) -> None:
        self._operators += 1
        if self._operators > Limits.OPERATORS:
            raise _refusal("operators", Limits.OPERATORS)
        self._add_to_expression(1)

    def _word(self, word: str, previous: Token | None, *, is_certain: bool) -> None:
        if word in _WORD_OPERATORS:
            self._operator()
        elif word in _AFTER_FROM:
            self._frames[-1].in_from = False
        elif word == "from":
            self._frames[-1].in_from = True
        elif word == "join":
            self._count_join()
        elif word == "case":
            self._frames[-1].cases += 1
            self._cases += 1
            if self._cases > Limits.CASE_DEPTH:
                raise StatementRefused(
                    f"The statement nests CASE deeper than the {Limits.CASE_DEPTH} levels that this server takes."
                )
        elif word == "end" and is_certain and self._frames[-1].cases and not (previous and previous.text == "."):
            self._frames[-1].cases -= 1
            self._cases -= 1

    def _add_to_expression(self, operators: int) -> None:
        frame = self._frames[-1]
        frame.running += operators
        if frame.running > Limits.EXPRESSION_OPERATORS:
            raise _refusal("operators in one expression", Limits.EXPRESSION_OPERATORS)

    def _count_join(self) -> None:
        self._joins += 1
        if self._joins > Limits.JOINS:
            raise _refusal("joins", Limits.JOINS)

    def _count_grouping_column(self) -> None:
        self._grouping_columns += 1
        if self._grouping_columns > Limits.GROUPING_COLUMNS:
            raise _refusal("columns in CUBE, ROLLUP and GROUPING SETS", Limits.GROUPING_COLUMNS)
