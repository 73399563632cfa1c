"""Values for `:name` in a statement: they travel beside the SQL as typed Arrow columns, never inside it.

Where placeholders stand is found by `sql_text`; how the statement and its row reach a server is `prepared`'s job.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa

from micromegas_jupyter.client.sql_text import Placeholder, find_placeholders
from micromegas_jupyter.client.typed_values import to_scalar
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.flightsql.framing import ParameterLimits

MAX_VALUES: Final = ParameterLimits().max_columns
"""How many values one statement may bind, the elements of lists counted; this project's server takes no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expansion:
    """A list's place in the statement that is sent, which is longer than its name in the one that was given.

    Attributes:
        line: Its line, from 1.
        column: Where it begins there, from 1.
        sent_characters: How long it is.
        given_characters: How long `:name` is.
    """

    line: int
    column: int
    sent_characters: int
    given_characters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundStatement:
    """A statement whose values stand apart.

    Attributes:
        sql: The statement with `$name` where it had `:name`, and `$name_1, $name_2, …` for a list.
        row: One row with a column for each placeholder, named without the `$`.
        expansions: The places of lists, in order.
    """

    sql: str = field(repr=False)
    row: pa.RecordBatch = field(repr=False)
    expansions: tuple[Expansion, ...] = ()

    def given_column(self, line: int, column: int) -> int:
        """Return where in the statement that was given a column of `sql` is; the line is the same in both."""
        shift = 0
        for expansion in self.expansions:
            if expansion.line != line or column < expansion.column:
                continue
            if column < expansion.column + expansion.sent_characters:
                return expansion.column - shift  # within the list: its name
            shift += expansion.sent_characters - expansion.given_characters
        return column - shift


def parameter_names(sql: str) -> tuple[str, ...]:
    """Return the names of a statement's `:name` placeholders, each once, in order of appearance."""
    return tuple(dict.fromkeys(placeholder.name for placeholder in find_placeholders(sql)))


def bind_named(sql: str, values: Mapping[str, object]) -> BoundStatement:
    """Bind a value to every `:name` of a statement; values without a placeholder are left aside.

    A list, tuple, set, one-dimensional array, pandas or polars Series or Arrow array stands for its elements, after
    `IN` or between commas: `IN :names`, `IN (:names)`. What is missing in a Series is NULL.

    Raises:
        UsageError: A name has no value, a value cannot be sent, a list is empty or stands in the wrong place, or
            there are too many values.
    """
    found = list(find_placeholders(sql))
    names = dict.fromkeys(placeholder.name for placeholder in found)
    _check_names(names, values)
    elements = {name: elements_of(values[name]) for name in names}
    _check_lists(elements)
    columns = _name_columns(elements)
    scalars = {
        column: to_scalar(value, name=name)
        for name, listed in elements.items()
        for column, value in zip(columns[name], [values[name]] if listed is None else listed, strict=True)
    }
    arrays = [pa.array([scalar], scalar.type) for scalar in scalars.values()]
    row = pa.RecordBatch.from_arrays(arrays, names=list(scalars))
    rewritten, expansions = _rewrite(sql, found, columns, elements)
    return BoundStatement(sql=rewritten, row=row, expansions=expansions)


def frozen_values(sql: str, values: Mapping[str, object]) -> dict[str, object]:
    """Return the values of a statement's placeholders as they are now, whatever becomes of the lists that hold them.

    Raises:
        UsageError: As for `bind_named`.
    """
    bind_named(sql, values)
    frozen = {}
    for name in parameter_names(sql):
        value, elements = values[name], elements_of(values[name])
        # A view shows whatever its buffer holds later.
        kept = bytes(value) if isinstance(value, (bytearray, memoryview)) else value
        frozen[name] = kept if elements is None else tuple(elements)
    return frozen


def elements_of(value: object) -> Sequence[object] | None:
    """Return the values that a list, a set or a column of some library holds; None for a single value."""
    if isinstance(value, (list, tuple, pa.Array, pa.ChunkedArray)):
        return value
    if isinstance(value, (set, frozenset)):
        return list(value)
    return _column_elements(value)


def _column_elements(column: Any) -> list[object] | None:
    """Return the first values of a column of numpy, pandas or polars, one more than can be bound; None for others.

    The libraries are not imported for a look at a value that may be of none of them.
    """
    match type(column).__module__.partition(".")[0], getattr(column, "ndim", None):
        case "numpy", 1:
            return list(column[: MAX_VALUES + 1])
        case "pandas", 1:
            # A Series by itself may slice by its labels.
            first = getattr(column, "iloc", column)[: MAX_VALUES + 1]
            return [None if gone else element for element, gone in zip(first, first.isna(), strict=True)]
        case "polars", _ if hasattr(column, "to_arrow") and hasattr(column, "dtype"):
            return list(column[: MAX_VALUES + 1])
        case _:
            return None


def _check_names(names: Collection[str], values: Mapping[str, object]) -> None:
    missing = [name for name in names if name not in values]
    if missing:
        listed = ", ".join(f":{name}" for name in missing)
        raise UsageError(f"There is no value for {listed}.", remedy="Give each placeholder a value in params.")
    for name in names:
        if not name.isascii():
            raise UsageError(f"The placeholder :{name} has a name outside ASCII.", remedy="Use letters, digits and _.")


def _check_lists(elements: Mapping[str, Sequence[object] | None]) -> None:
    count = sum(1 if listed is None else len(listed) for listed in elements.values())
    if count > MAX_VALUES:
        raise UsageError(
            f"The statement binds more than {MAX_VALUES} values, which is not possible.",
            remedy="Use a shorter list, or select the values in the statement.",
        )
    for name, listed in elements.items():
        if listed is not None and not len(listed):
            raise UsageError(
                f"The list :{name} is empty.",
                remedy="IN needs at least one value: run the statement only when there is one.",
            )


def _name_columns(elements: Mapping[str, Sequence[object] | None]) -> dict[str, list[str]]:
    """Return the column names of each placeholder; those of a list's elements never meet another placeholder's."""
    columns: dict[str, list[str]] = {}
    taken = {name.lower() for name in elements}
    for name, listed in elements.items():
        if listed is None:
            columns[name] = [name]
            continue
        stem = name
        while any(f"{stem}_{number}".lower() in taken for number in range(1, len(listed) + 1)):
            stem += "_"
        columns[name] = [f"{stem}_{number}" for number in range(1, len(listed) + 1)]
        taken.update(column.lower() for column in columns[name])
    return columns


def _rewrite(
    sql: str,
    found: list[Placeholder],
    columns: Mapping[str, list[str]],
    elements: Mapping[str, Sequence[object] | None],
) -> tuple[str, tuple[Expansion, ...]]:
    parts: list[str] = []
    expansions = []
    position, line, column = 0, 1, 1
    for placeholder in found:
        is_list = elements[placeholder.name] is not None
        before = sql[position : placeholder.start]
        listed = _expand(placeholder, columns[placeholder.name], is_list=is_list)
        line += before.count("\n")
        column = len(before) - before.rfind("\n") if "\n" in before else column + len(before)
        if is_list:
            given_characters = placeholder.end - placeholder.start
            expansions.append(
                Expansion(line=line, column=column, sent_characters=len(listed), given_characters=given_characters)
            )
        parts += [before, listed]
        column += len(listed)
        position = placeholder.end
    return "".join([*parts, sql[position:]]), tuple(expansions)


def _expand(placeholder: Placeholder, columns: Sequence[str], *, is_list: bool) -> str:
    listed = ", ".join(f"${column}" for column in columns)
    if not is_list:
        return listed
    if placeholder.preceded_by == "IN":
        return f"({listed})"
    if placeholder.preceded_by in {"(", ","}:
        return listed
    raise UsageError(
        f"The list :{placeholder.name} stands where one value is needed.", remedy="Use it after IN, or between commas."
    )
