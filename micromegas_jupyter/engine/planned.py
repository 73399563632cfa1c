"""A statement between its text and its rows: what was read of it, and its plan in a session."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from micromegas_jupyter.engine.barrier import Barrier
from micromegas_jupyter.engine.plan_checks import check_plan
from micromegas_jupyter.engine.sessions import READ_ONLY

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from datafusion import DataFrame, SessionContext
    from datafusion.plan import LogicalPlan

    from micromegas_jupyter.contracts import AuthContext
    from micromegas_jupyter.engine.contract import StatementRequest
    from micromegas_jupyter.engine.reading import Reading
    from micromegas_jupyter.engine.sessions import LentSession
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
    frame: DataFrame = field(repr=False)  # its repr would run the statement
    plan: LogicalPlan
    tables: Sequence[VisibleTable]
    init_seconds: float
    plan_text: str
    barrier: Barrier = Barrier.NONE
    is_for_joins: bool = False
    lent: LentSession | None = None

    @property
    def is_filtered(self) -> bool:
        """Whether the caller sees only some rows of one of the tables."""
        return any(table.conditions for table in self.tables)

    def give_back(self) -> None:
        """Release the session; this plan will not run."""
        if self.lent is not None:
            self.lent.release()


def planned_in(  # noqa: PLR0913 - options by keyword, all of them facts of one plan
    session: SessionContext,
    statement: Statement,
    *,
    tables: Sequence[VisibleTable] = (),
    init_seconds: float = 0.0,
    barrier: Barrier = Barrier.NONE,
    is_for_joins: bool = False,
    lent: LentSession | None = None,
) -> Planned:
    """Plan a statement and check the plan, before anything of it is optimized.

    Args:
        session: Where it would run, with all that it mentions.
        statement: What is planned.
        tables: Those that are in the session.
        init_seconds: How long it took to fill the session.
        barrier: Which of these tables are behind the barrier.
        is_for_joins: Whether the session is one for statements with joins.
        lent: The session, when it is to be released.

    Raises:
        StatementRefused: It would write, or reads what is not shown.
        Exception: DataFusion's own, where it cannot be planned; see `errors.translate`.
    """
    frame = session.sql_with_options(statement.reading.placeholders.sql, READ_ONLY, param_values=statement.values)
    plan = frame.logical_plan()
    return Planned(
        session=session,
        frame=frame,
        plan=plan,
        tables=tables,
        init_seconds=init_seconds,
        plan_text=check_plan(plan),
        barrier=barrier,
        is_for_joins=is_for_joins,
        lent=lent,
    )
