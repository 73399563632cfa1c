"""What a statement showed when it ran counts for more than its plan."""

from __future__ import annotations

import pytest

from micromegas_jupyter.engine import WorkClass
from micromegas_jupyter.server import experience as module
from micromegas_jupyter.server.experience import Experience

SQL = "SELECT * FROM spans WHERE process_id = 'a'"
SAME_SHAPE = "select * from spans where process_id = 'b'"


def _run(experience: Experience, sql: str, seconds: float) -> None:
    with experience.watch(sql, lambda: seconds):
        pass


def test_an_unknown_statement_is_what_its_plan_says() -> None:
    assert Experience().correct(SQL, WorkClass.HEAVY) is WorkClass.HEAVY


@pytest.mark.parametrize(
    ("seconds", "planned", "expected"),
    [
        (0.05, WorkClass.HEAVY, WorkClass.SMALL),
        (1.5, WorkClass.SMALL, WorkClass.HEAVY),
        (0.5, WorkClass.SMALL, WorkClass.SMALL),
        (0.5, WorkClass.HEAVY, WorkClass.HEAVY),
    ],
)
def test_a_run_corrects_what_the_plan_says_for_all_values(
    seconds: float, planned: WorkClass, expected: WorkClass
) -> None:
    experience = Experience()

    _run(experience, SQL, seconds)

    assert experience.correct(SAME_SHAPE, planned) is expected


def test_a_quick_failure_teaches_nothing() -> None:
    experience = Experience()

    with pytest.raises(ValueError, match="zero"), experience.watch(SQL, lambda: 0.01):
        raise ValueError("division by zero")

    assert experience.correct(SQL, WorkClass.HEAVY) is WorkClass.HEAVY


def test_a_long_failure_does() -> None:
    experience = Experience()

    with pytest.raises(ValueError, match="memory"), experience.watch(SQL, lambda: 9.0):
        raise ValueError("out of memory")

    assert experience.correct(SQL, WorkClass.SMALL) is WorkClass.HEAVY


def test_the_longest_unseen_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_KEPT", 2)
    experience = Experience()

    for table in ("a", "b", "c"):
        _run(experience, f"SELECT 1 FROM {table}", 2.0)

    found = [experience.correct(f"SELECT 1 FROM {table}", WorkClass.SMALL) for table in ("a", "b", "c")]
    assert found == [WorkClass.SMALL, WorkClass.HEAVY, WorkClass.HEAVY]
