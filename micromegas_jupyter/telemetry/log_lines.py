"""Log line filters, which work the same in terminals, in notebooks, and when following a log."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from micromegas_jupyter.telemetry.levels import Level

LINE_COLUMNS: Final = ("time", "level", "exe", "target", "msg")

VIEW_COLUMNS: Final = (*LINE_COLUMNS, "properties")


class ValueFilter(NamedTuple):
    """Keeps only the lines with a value in a column or property, or only the others."""

    key: str
    value: str
    is_excluded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFilter:
    """Conditions on `log_entries`; strings match anywhere in their column, ignoring case."""

    level: Level | None = None
    """The minimum severity."""
    search: str | None = None
    service: str | None = None
    target: str | None = None
    values: tuple[ValueFilter, ...] = ()

    def build_sql(self, *columns: str) -> tuple[str, dict[str, object]]:
        """Return a statement that selects these columns of the lines, in no particular order, and its parameters.

        >>> LogFilter(search="time out").build_sql("msg")
        ('SELECT msg FROM log_entries WHERE strpos(lower(msg), lower(:msg)) > 0', {'msg': 'time out'})
        """
        parameters: dict[str, object] = {}
        conditions = []
        if self.level is not None:
            conditions.append("level <= :level")
            parameters["level"] = int(self.level)
        for column, text in (("msg", self.search), ("exe", self.service), ("target", self.target)):
            if text is not None:
                conditions.append(f"strpos(lower({column}), lower(:{column})) > 0")
                parameters[column] = text
        for number, (key, value, is_excluded) in enumerate(self.values):
            field = key
            if key not in LINE_COLUMNS:
                field = f"property_get(properties, :key{number})"
                parameters[f"key{number}"] = key
            parameters[f"value{number}"] = value
            excluded = f"({field} IS NULL OR {field} <> :value{number})"
            conditions.append(excluded if is_excluded else f"{field} = :value{number}")
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return f"SELECT {', '.join(columns)} FROM log_entries{where}", parameters  # noqa: S608 - own names
