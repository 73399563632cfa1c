"""What a caller gives as `params`: a mapping for the names in a statement, or a sequence for its `?` or `$1`, `$2`.

How `:name` is found, rewritten and typed is `parameters`' job.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import pyarrow as pa

from micromegas_jupyter.client.parameters import MAX_VALUES, BoundStatement, bind_named, parameter_names
from micromegas_jupyter.client.sql_text import find_dollar_names
from micromegas_jupyter.client.typed_values import to_scalar
from micromegas_jupyter.errors import UsageError

Params = Mapping[str, object] | Sequence[object] | None

_WAYS: Final = "Give a mapping for :name or $name, a list or tuple for ? or $1."


def bind(sql: str, params: Params) -> BoundStatement | None:
    """Bind the values of `params`; None when there are none.

    Args:
        sql: The statement.
        params: A mapping of names to values for `:name` and `$name`; values without a placeholder are left aside. Or a
            list or tuple of values for `?` in order, or for `$1`, `$2`, …; how many there have to be, the server says.

    Raises:
        UsageError: It is something else, or does not fit the placeholders; otherwise as for `bind_named`.
    """
    if params is None:
        return None
    if isinstance(params, Mapping):
        bound = _with_dollar_names(bind_named(sql, params), sql, params)
    elif isinstance(params, (list, tuple)):
        bound = _bind_in_order(sql, params)
    else:
        raise UsageError(f"params is of type {type(params).__name__}.", remedy=_WAYS)
    return bound if bound.row.num_columns else None


def _with_dollar_names(bound: BoundStatement, sql: str, values: Mapping[str, object]) -> BoundStatement:
    """Add the values of `$name`, which is what the server itself calls them."""
    names = [name for name in dict.fromkeys(find_dollar_names(sql)) if name in values]
    columns = dict(zip(bound.row.schema.names, bound.row.columns, strict=True))
    for name in names:
        if name not in columns:
            scalar = to_scalar(values[name], name=name)
            columns[name] = pa.array([scalar], scalar.type)
    row = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    return BoundStatement(sql=bound.sql, row=row, expansions=bound.expansions)


def _bind_in_order(sql: str, values: Sequence[object]) -> BoundStatement:
    if names := parameter_names(sql):
        raise UsageError(f"The statement has a name, :{names[0]}, and params has none.", remedy=_WAYS)
    if len(values) > MAX_VALUES:
        raise UsageError(
            f"The statement binds more than {MAX_VALUES} values, which is not possible.",
            remedy="Select the values in the statement.",
        )
    scalars = [to_scalar(value, name=str(number)) for number, value in enumerate(values, start=1)]
    # Flight SQL's clients name the columns from 0 on, also where the statement counts from $1.
    row = pa.RecordBatch.from_arrays(
        [pa.array([scalar], scalar.type) for scalar in scalars], names=[str(index) for index in range(len(scalars))]
    )
    return BoundStatement(sql=sql, row=row)
