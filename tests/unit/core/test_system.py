"""Values that stay secret, the environment, and work on another thread."""

import contextvars
import pickle
import threading

import pytest

from micromegas_jupyter.core.system import (
    HiddenBytes,
    HiddenText,
    Secret,
    SecretObject,
    process_variables,
    run_interruptibly,
    secret_object,
)

_cell: contextvars.ContextVar[str] = contextvars.ContextVar("cell")


def test_what_is_secret_can_be_read_and_shows_nothing():
    secret, found = Secret("sesame"), secret_object({"access_token": "sesame"})
    text, data, variables = HiddenText("sesame"), HiddenBytes(b"sesame"), process_variables({"SETTING": "sesame"})

    assert (secret.reveal(), text, data) == ("sesame", "sesame", b"sesame")
    assert (found, variables) == ({"access_token": "sesame"}, {"SETTING": "sesame"})
    assert [secret_object(value) for value in (None, [], "text", 1)] == [None] * 4
    assert "sesame" not in f"{[secret, found, text, data, variables]}{secret}{found}{variables}"


@pytest.mark.parametrize("value", [Secret("sesame"), SecretObject(a=1)], ids=["text", "object"])
def test_a_secret_cannot_be_pickled(value):
    with pytest.raises(TypeError):
        pickle.dumps(value)


def test_the_variables_of_the_process_are_read_when_asked_for(monkeypatch):
    monkeypatch.setenv("SOME_SETTING", "sesame")

    assert process_variables()["SOME_SETTING"] == "sesame"


def test_work_on_another_thread_gives_its_result_its_error_and_its_context_back():
    never = threading.Event()
    _cell.set("c1")

    assert run_interruptibly(_cell.get) == "c1"
    assert run_interruptibly(lambda: never.wait(0.3)) is False  # longer than one wait
    with pytest.raises(ZeroDivisionError):
        run_interruptibly(lambda: 1 // 0)
