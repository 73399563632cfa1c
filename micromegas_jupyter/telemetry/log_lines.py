"""Which log lines are read: the same conditions in a terminal, a notebook, and a follow."""

from dataclasses import dataclass
from typing import Final

from micromegas_jupyter.telemetry.levels import Level

LINE_COLUMNS: Final = ("time", "level", "exe", "target", "msg")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFilter:
    """Conditions on `log_entries`; texts are found anywhere in their column, in upper or lower case."""

    level: Level | None = None
    """At least as severe as this."""
    search: str | None = None
    service: str | None = None
    target: str | None = None

    def build_sql(self, *columns: str) -> tuple[str, dict[str, object]]:
        """Return a statement for the columns of the lines, without an order, and its parameters.

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
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return f"SELECT {', '.join(columns)} FROM log_entries{where}", parameters  # noqa: S608 - own names
