"""A statement that was quick is small, whatever its plan looks like; one that is small stays so."""

from __future__ import annotations

import pytest

from micromegas_jupyter.engine import WorkClass
from micromegas_jupyter.server import experience as module
from micromegas_jupyter.server.experience import Experience

SQL = "SELECT * FROM spans WHERE process_id = 'a'"
SAME_SHAPE = "select * from spans where process_id = 'b'"


ANN, BOB = ("issuer", "ann"), ("issuer", "bob")


def _run(experience: Experience, sql: str, seconds: float, planned: WorkClass = WorkClass.HEAVY) -> None:
    with experience.watch(sql, planned, ANN, lambda: seconds):
        pass


def test_an_unknown_statement_is_what_its_plan_says() -> None:
    assert Experience().correct(SQL, WorkClass.HEAVY, ANN) is WorkClass.HEAVY
    assert Experience().correct(SQL, WorkClass.SMALL, ANN) is WorkClass.SMALL


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ((0.05,), WorkClass.SMALL),
        ((0.5,), WorkClass.HEAVY),
        ((0.05, 0.5), WorkClass.SMALL),
        ((0.05, 1.5), WorkClass.HEAVY),
    ],
)
def test_a_heavy_plan_that_was_quick_is_small_until_it_takes_long(
    seconds: tuple[float, ...], expected: WorkClass
) -> None:
    experience = Experience()

    for each in seconds:
        _run(experience, SQL, each)

    assert experience.correct(SAME_SHAPE, WorkClass.HEAVY, ANN) is expected


def test_a_small_plan_stays_small_however_long_it_took_on_a_busy_machine() -> None:
    experience = Experience()

    _run(experience, SQL, 9.0, WorkClass.SMALL)

    assert experience.correct(SQL, WorkClass.SMALL, ANN) is WorkClass.SMALL


def test_nobody_learns_from_what_others_ran() -> None:
    experience = Experience()

    _run(experience, SQL, 0.05)

    assert experience.correct(SQL, WorkClass.HEAVY, ANN) is WorkClass.SMALL
    assert experience.correct(SQL, WorkClass.HEAVY, BOB) is WorkClass.HEAVY


def test_a_quick_failure_teaches_nothing() -> None:
    experience = Experience()

    with (
        pytest.raises(ValueError, match="zero"),
        experience.watch(SQL, WorkClass.HEAVY, ANN, lambda: 0.01),
    ):
        raise ValueError("division by zero")

    assert experience.correct(SQL, WorkClass.HEAVY, ANN) is WorkClass.HEAVY


def test_the_longest_unseen_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_KEPT", 2)
    experience = Experience()

    for table in ("a", "b", "c"):
        _run(experience, f"SELECT 1 FROM {table}", 0.0)

    found = [experience.correct(f"SELECT 1 FROM {table}", WorkClass.HEAVY, ANN) for table in ("a", "b", "c")]
    assert found == [WorkClass.HEAVY, WorkClass.SMALL, WorkClass.SMALL]
