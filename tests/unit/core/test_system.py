"""The outside world's real versions."""

import pytest

from micromegas_jupyter.core.system import process_variables


def test_the_variables_of_the_process_are_read_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SETTING", "sesame")

    assert process_variables()["SOME_SETTING"] == "sesame"


def test_others_stand_in_for_them() -> None:
    assert process_variables({"SOME_SETTING": "sesame"}) == {"SOME_SETTING": "sesame"}


def test_only_their_names_are_shown() -> None:
    variables = process_variables({"SOME_SETTING": "sesame", "ANOTHER": "secret"})

    assert (repr(variables), str(variables)) == ("Variables(SOME_SETTING, ANOTHER)",) * 2


def test_what_was_taken_once_is_not_copied_again() -> None:
    variables = process_variables()

    assert process_variables(variables) is variables
