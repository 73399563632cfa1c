"""A statement that was quick is small, whatever its plan looks like; one that took a while is medium."""

from __future__ import annotations

import pytest

from micromegas_jupyter.engine import WorkClass
from micromegas_jupyter.server import experience as module
from micromegas_jupyter.server.experience import Experience

SQL = "SELECT * FROM spans WHERE process_id = 'a'"
SAME_SHAPE = "select * from spans where process_id = 'b'"


ANN, BOB = ("issuer", "ann"), ("issuer", "bob")


def _run(experience: Experience, sql: str, seconds: float, planned: WorkClass = WorkClass.HEAVY) -> None:
    with experience.watch(sql, planned, ANN, worked_seconds=lambda: seconds, busy_seconds=lambda: None):
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


def test_a_small_plan_never_becomes_heavy_however_long_it_took_on_a_busy_machine() -> None:
    experience = Experience()

    _run(experience, SQL, 9.0, WorkClass.SMALL)
    assert experience.correct(SQL, WorkClass.SMALL, ANN) is WorkClass.SMALL

    for _ in range(5):
        _run(experience, SQL, 9.0, WorkClass.SMALL)
    assert experience.correct(SQL, WorkClass.SMALL, ANN) is WorkClass.MEDIUM


@pytest.mark.parametrize("planned", [WorkClass.SMALL, WorkClass.HEAVY])
@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ((0.08, 0.08), WorkClass.SMALL),
        ((0.08, 0.08, 0.08), WorkClass.MEDIUM),
        ((0.08, 0.08, 0.01, 0.08), WorkClass.SMALL),
        ((0.08, 0.08, 0.08, 0.01), WorkClass.SMALL),
    ],
)
def test_what_took_a_while_several_times_is_medium_until_it_is_quick(
    seconds: tuple[float, ...], expected: WorkClass, planned: WorkClass
) -> None:
    experience = Experience()

    for each in seconds:
        _run(experience, SQL, each, planned)

    assert experience.correct(SAME_SHAPE, planned, ANN) is expected
    assert experience.correct(SAME_SHAPE, WorkClass.SMALL, BOB) is WorkClass.SMALL


def test_what_only_waited_for_others_is_not_medium() -> None:
    experience = Experience()

    for _ in range(5):
        with experience.watch(SQL, WorkClass.SMALL, ANN, worked_seconds=lambda: 9.0, busy_seconds=lambda: 0.002):
            pass

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
        experience.watch(SQL, WorkClass.HEAVY, ANN, worked_seconds=lambda: 0.01, busy_seconds=lambda: 0.01),
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
