"""Values for `:name` in a statement: they travel beside the SQL as typed Arrow columns, never inside it.

Where placeholders stand is found by `sql_text`; how the statement and its row reach a server is `prepared`'s job.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from micromegas_jupyter.client.sql_text import Placeholder, find_placeholders
from micromegas_jupyter.client.typed_values import to_scalar
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.flightsql.framing import ParameterLimits

MAX_VALUES: Final = ParameterLimits().max_columns
"""How many values one statement may bind, the elements of lists counted; this project's server takes no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundStatement:
    """A statement whose values stand apart.

    Attributes:
        sql: The statement with `$name` where it had `:name`, and `$name_1, $name_2, …` for a list.
        row: One row with a column for each placeholder, named without the `$`.
    """

    sql: str = field(repr=False)
    row: pa.RecordBatch = field(repr=False)


def parameter_names(sql: str) -> tuple[str, ...]:
    """Return the names of a statement's `:name` placeholders, each once, in order of appearance."""
    return tuple(dict.fromkeys(placeholder.name for placeholder in find_placeholders(sql)))


def bind_named(sql: str, values: Mapping[str, object]) -> BoundStatement:
    """Bind a value to every `:name` of a statement; values without a placeholder are left aside.

    A list, tuple or set stands for its elements, after `IN` or between commas: `IN :names`, `IN (:names)`.

    Raises:
        UsageError: A name has no value, a value cannot be sent, a list is empty or stands in the wrong place, or
            there are too many values.
    """
    found = list(find_placeholders(sql))
    names = dict.fromkeys(placeholder.name for placeholder in found)
    _check_names(names, values)
    columns = _name_columns({name: values[name] for name in names})
    scalars = {
        column: to_scalar(value, name=name)
        for name in names
        for column, value in zip(columns[name], _elements(values[name]), strict=True)
    }
    if len(scalars) > MAX_VALUES:
        raise UsageError(
            f"The statement binds {len(scalars)} values; at most {MAX_VALUES} are possible.",
            remedy="Use a shorter list, or select the values in the statement.",
        )
    arrays = [pa.array([scalar], scalar.type) for scalar in scalars.values()]
    row = pa.RecordBatch.from_arrays(arrays, names=list(scalars))
    return BoundStatement(sql=_rewrite(sql, found, columns, values), row=row)


def _check_names(names: Collection[str], values: Mapping[str, object]) -> None:
    missing = [name for name in names if name not in values]
    if missing:
        listed = ", ".join(f":{name}" for name in missing)
        raise UsageError(f"There is no value for {listed}.", remedy="Give each placeholder a value in params.")
    for name in names:
        if not name.isascii():
            raise UsageError(f"The placeholder :{name} has a name outside ASCII.", remedy="Use letters, digits and _.")
        if is_list(values[name]) and not _elements(values[name]):
            raise UsageError(f"The list :{name} is empty.", remedy="IN needs at least one value.")


def is_list(value: object) -> bool:
    """Whether a value stands for its elements."""
    return isinstance(value, (list, tuple, set, frozenset))


def _elements(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]


def _name_columns(values: Mapping[str, object]) -> dict[str, list[str]]:
    """Return the column names of each placeholder; those of a list's elements never meet another placeholder's."""
    columns: dict[str, list[str]] = {}
    taken = {name.lower() for name in values}
    for name, value in values.items():
        if not is_list(value):
            columns[name] = [name]
            continue
        stem = name
        while any(f"{stem}_{number}".lower() in taken for number in range(1, len(_elements(value)) + 1)):
            stem += "_"
        columns[name] = [f"{stem}_{number}" for number in range(1, len(_elements(value)) + 1)]
        taken.update(column.lower() for column in columns[name])
    return columns


def _rewrite(sql: str, found: list[Placeholder], columns: Mapping[str, list[str]], values: Mapping[str, object]) -> str:
    parts, position = [], 0
    for placeholder in found:
        parts += [sql[position : placeholder.start], _expand(placeholder, columns, values)]
        position = placeholder.end
    return "".join([*parts, sql[position:]])


def _expand(placeholder: Placeholder, columns: Mapping[str, list[str]], values: Mapping[str, object]) -> str:
    listed = ", ".join(f"${column}" for column in columns[placeholder.name])
    if not is_list(values[placeholder.name]):
        return listed
    if placeholder.preceded_by == "IN":
        return f"({listed})"
    if placeholder.preceded_by in {"(", ","}:
        return listed
    raise UsageError(
        f"The list :{placeholder.name} stands where one value is needed.", remedy="Use it after IN, or between commas."
    )
