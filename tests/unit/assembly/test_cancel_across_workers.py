"""Cancelling a query in the other workers says what became of it, and never that nothing ran when nobody knows."""

from __future__ import annotations

import asyncio

import pytest
from micromegas_jupyter.assembly.workers.others_answers import OthersAnswers, read_answers
from micromegas_jupyter.assembly.workers.served import cancel_in_others

from micromegas_jupyter.errors import Unavailable

CANCELLED, CANCELLING, NOT_CANCELLABLE = 1, 2, 3


class Others:
    """Implements `served.Others` as far as questions go."""

    def __init__(self, told: dict[str, object]) -> None:
        self._told = told

    def ask_others(self, what: str, **facts: object) -> OthersAnswers:
        assert (what, facts) == ("cancel", {"key": "6b6579"})
        return read_answers(self._told)


def _told(*statuses: int, missing: object = 0) -> dict[str, object]:
    return {"answers": [{"status": status} for status in statuses], "missing": missing}


@pytest.mark.parametrize(
    ("told", "status"),
    [
        (_told(), NOT_CANCELLABLE),
        (_told(NOT_CANCELLABLE, CANCELLED), CANCELLED),
        (_told(CANCELLED, missing=1), CANCELLING),
        (_told(CANCELLING, missing=1), CANCELLING),
    ],
)
def test_a_status_is_that_of_all_workers(told: dict[str, object], status: int) -> None:
    assert asyncio.run(cancel_in_others(Others(told), b"key")) == status


@pytest.mark.parametrize("told", [_told(missing=1), _told(NOT_CANCELLABLE, missing=1), {}, {"answers": "noise"}])
def test_a_worker_that_does_not_answer_may_run_the_query(told: dict[str, object]) -> None:
    with pytest.raises(Unavailable):
        asyncio.run(cancel_in_others(Others(told), b"key"))
