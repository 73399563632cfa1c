"""Tables whose stored rows are partial states: how several states of one key become one row.

The same rule exists twice, as SQL for the engine at query time and as a function on Arrow tables for
compaction; both give the same rows. When either is applied is the engine's and the lakehouse's business.
"""

from dataclasses import dataclass

import pyarrow as pa

_POSITION = "__position"


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeRule:
    """How the partial states of one key are merged.

    Attributes:
        key: The column that tells whose state a row is.
        order_by: The columns that order the states of one key; attributes come from the first state.
        latest: The columns of which the greatest value counts; all others are attributes.
    """

    key: str
    order_by: tuple[str, ...]
    latest: tuple[str, ...]


def build_merge_sql(rule: MergeRule, *, column_names: list[str], raw_name: str) -> str:
    """Return the SELECT (DataFusion SQL) that merges the raw rows, with `column_names` in their order."""
    order = ", ".join(f'"{name}"' for name in rule.order_by)

    def expression(name: str) -> str:
        if name == rule.key:
            return f'"{name}"'
        if name in rule.latest:
            return f'max("{name}") AS "{name}"'
        return f'first_value("{name}" ORDER BY {order}) AS "{name}"'

    columns = ", ".join(expression(name) for name in column_names)
    # Every name comes from a table definition of this package.
    return f'SELECT {columns} FROM "{raw_name}" GROUP BY "{rule.key}"'  # noqa: S608


def merge_rows(rows: pa.Table, rule: MergeRule) -> pa.Table:
    """Merge the partial states in `rows`; the result is a state of the same schema, one row for each key."""
    ordered = rows.sort_by([(name, "ascending") for name in rule.order_by])
    numbered = ordered.append_column(_POSITION, pa.array(range(ordered.num_rows), pa.int64()))
    grouped = numbered.group_by(rule.key, use_threads=False).aggregate(
        [(_POSITION, "min"), *((name, "max") for name in rule.latest)]
    )
    merged = ordered.take(grouped.column(f"{_POSITION}_min"))
    for name in rule.latest:
        index = merged.schema.get_field_index(name)
        merged = merged.set_column(index, merged.schema.field(index), grouped.column(f"{name}_max"))
    return merged
