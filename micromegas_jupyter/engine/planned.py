"""A statement on its way: what was read of it, and its plan in a session."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from micromegas_jupyter.engine.barrier import Apart
from micromegas_jupyter.engine.plan_checks import check_plan, check_work
from micromegas_jupyter.engine.sessions import READ_ONLY

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from datafusion import DataFrame, SessionContext

    from micromegas_jupyter.contracts import AuthContext
    from micromegas_jupyter.engine.contract import StatementRequest
    from micromegas_jupyter.engine.plan_work import PlanWork
    from micromegas_jupyter.engine.reading import Reading
    from micromegas_jupyter.engine.session_pool import LentSession
    from micromegas_jupyter.engine.visibility import VisibleTable
    from micromegas_jupyter.errors import MicromegasError


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One request after its text was read, and the tables that its caller sees."""

    request: StatementRequest
    caller: AuthContext
    reading: Reading
    values: dict[str, pa.Scalar] = field(repr=False)
    tables: list[VisibleTable] = field(default_factory=list, repr=False)
    init_seconds: float = 0.0
    failures: list[MicromegasError] = field(default_factory=list, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A statement's plan, and the tables in its session."""

    session: SessionContext
    frame: DataFrame
    tables: Sequence[VisibleTable]
    init_seconds: float
    plan_text: str
    work: PlanWork | None = None
    apart: Apart = Apart.NONE
    is_for_joins: bool = False
    lent: LentSession | None = None

    @property
    def is_filtered(self) -> bool:
        """Whether the caller sees some rows only of one of the tables."""
        return any(table.conditions for table in self.tables)

    def give_back(self) -> None:
        """Say that it will not run."""
        if self.lent is not None:
            self.lent.give_back()


def planned_in(
    session: SessionContext,
    statement: Statement,
    *,
    tables: Sequence[VisibleTable] = (),
    init_seconds: float = 0.0,
    apart: Apart = Apart.NONE,
) -> Planned:
    """Plan a statement and check the plan, before anything of it is optimised.

    Args:
        session: Where it would run, with all that it mentions.
        statement: What is planned.
        tables: Those that are in the session.
        init_seconds: How long it took to fill the session.
        apart: Which tables' rows are kept apart there.

    Raises:
        StatementRefused: It would write, or is larger than the limits.
        Exception: DataFusion's own, where it cannot be planned; see `errors.translate`.
    """
    frame = session.sql_with_options(statement.reading.placeholders.sql, READ_ONLY, param_values=statement.values)
    plan = frame.logical_plan()
    plan_text = check_plan(plan)
    # Behind the barrier it is the same statement.
    work = None if apart is not Apart.NONE else check_work(plan, statement.reading.scanned)
    return Planned(
        session=session,
        frame=frame,
        tables=tables,
        init_seconds=init_seconds,
        plan_text=plan_text,
        work=work,
        apart=apart,
    )
