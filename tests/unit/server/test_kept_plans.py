"""A plan is kept for one ticket, caller and request, for two seconds, and runs once."""

from __future__ import annotations

import asyncio
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from micromegas_jupyter.contracts import AuthContext, AuthType, TableAccess
from micromegas_jupyter.engine import StatementRequest
from micromegas_jupyter.seams import SYSTEM_CLOCK
from micromegas_jupyter.server.kept_plans import KEPT_SECONDS, MOST_KEPT, KeptPlans
from tests.fakes.clock import FakeClock
from tests.fakes.engine import NUMBERS, FakePlannedQuery

if TYPE_CHECKING:
    from collections.abc import Callable

ALICE = AuthContext(
    subject="alice", issuer="https://id.example", auth_type=AuthType.OIDC, table_access=TableAccess(filters={"t": ()})
)
REQUEST = StatementRequest(sql="SELECT ?", parameters=pa.record_batch({"0": [1]}))
PLANNED: Any = FakePlannedQuery(NUMBERS.schema, lambda: None)  # type: ignore[arg-type, return-value]


def check(body: Callable[[KeptPlans, FakeClock], None]) -> None:
    async def run() -> None:
        clock = FakeClock()
        body(KeptPlans(clock), clock)

    asyncio.run(run())


def test_a_plan_is_given_once_to_the_same_caller_for_the_same_request() -> None:
    def body(kept: KeptPlans, clock: FakeClock) -> None:
        kept.keep(b"1", PLANNED, REQUEST, ALICE)
        again = replace(REQUEST, parameters=pa.record_batch({"0": [1]}), runs_at_once=True)

        assert kept.take(b"1", again, replace(ALICE)) is PLANNED
        assert kept.take(b"1", again, ALICE) is None

    check(body)


@pytest.mark.parametrize(
    ("ticket_id", "request_", "caller"),
    [
        (b"2", REQUEST, ALICE),
        (b"1", replace(REQUEST, sql="SELECT ? "), ALICE),
        (b"1", replace(REQUEST, row_limit=1), ALICE),
        (b"1", replace(REQUEST, preserve_dictionary=True), ALICE),
        (b"1", replace(REQUEST, parameters=None), ALICE),
        (b"1", replace(REQUEST, parameters=pa.record_batch({"0": [2]})), ALICE),
        (b"1", REQUEST, replace(ALICE, subject="bob")),
        (b"1", REQUEST, replace(ALICE, is_admin=True)),
        (b"1", REQUEST, replace(ALICE, table_access=TableAccess(filters={"t": ("a = 1",)}))),
        (b"1", REQUEST, replace(ALICE, table_access=None)),
    ],
)
def test_a_plan_is_not_given_to_anybody_else_or_for_anything_else(
    ticket_id: bytes, request_: StatementRequest, caller: AuthContext
) -> None:
    def body(kept: KeptPlans, clock: FakeClock) -> None:
        kept.keep(b"1", PLANNED, REQUEST, ALICE)

        assert kept.take(ticket_id, request_, caller) is None

    check(body)


def test_a_plan_is_not_given_when_its_time_is_over() -> None:
    def body(kept: KeptPlans, clock: FakeClock) -> None:
        kept.keep(b"1", PLANNED, REQUEST, ALICE)

        clock.advance(KEPT_SECONDS)

        assert kept.take(b"1", REQUEST, ALICE) is None

    check(body)


def test_only_the_last_plans_are_kept() -> None:
    def body(kept: KeptPlans, clock: FakeClock) -> None:
        for number in range(MOST_KEPT + 1):
            kept.keep(str(number).encode(), PLANNED, REQUEST, ALICE)

        assert len(kept) == MOST_KEPT
        assert kept.take(b"0", REQUEST, ALICE) is None
        assert kept.take(b"1", REQUEST, ALICE) is PLANNED

    check(body)


def test_long_statements_and_several_rows_of_values_are_not_kept() -> None:
    def body(kept: KeptPlans, clock: FakeClock) -> None:
        kept.keep(b"1", PLANNED, replace(REQUEST, sql="SELECT 1" + " " * 5000), ALICE)
        kept.keep(b"2", PLANNED, replace(REQUEST, parameters=pa.record_batch({"0": [1, 2]})), ALICE)

        assert len(kept) == 0

    check(body)


def test_plans_that_nobody_comes_for_are_let_go() -> None:
    async def run() -> None:
        kept, is_gone = KeptPlans(SYSTEM_CLOCK, seconds=0.05), asyncio.Event()
        planned: Any = FakePlannedQuery(NUMBERS.schema, lambda: None)  # type: ignore[arg-type, return-value]
        weakref.finalize(planned, is_gone.set)
        kept.keep(b"1", planned, REQUEST, ALICE)

        del planned

        async with asyncio.timeout(30):
            await is_gone.wait()
        assert len(kept) == 0

    asyncio.run(run())
