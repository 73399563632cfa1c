"""Values that stay secret, the environment, and work on another thread."""

import contextvars
import pickle
import threading

import pytest

from micromegas_jupyter.core.system import (
    HiddenBytes,
    HiddenText,
    Secret,
    process_variables,
    run_interruptibly,
    secret_object,
)

_cell = contextvars.ContextVar("cell")


def test_what_is_secret_can_be_read_but_neither_shown_nor_pickled():
    secret, found = Secret("sesame"), secret_object({"access_token": "sesame"})
    text, data, variables = HiddenText("sesame"), HiddenBytes(b"sesame"), process_variables({"SETTING": "sesame"})

    assert (secret.reveal(), text, data) == ("sesame", "sesame", b"sesame")
    assert (found, variables) == ({"access_token": "sesame"}, {"SETTING": "sesame"})
    assert [secret_object(value) for value in (None, [], "text", 1)] == [None] * 4
    for value in (secret, found):
        with pytest.raises(TypeError):
            pickle.dumps(value)
    assert "sesame" not in f"{[secret, found, text, data, variables]}{secret}{found}{variables}"


def test_work_on_another_thread_gives_its_result_its_error_and_its_context_back():
    never = threading.Event()
    _cell.set("c1")

    assert run_interruptibly(_cell.get) == "c1"
    assert run_interruptibly(lambda: never.wait(0.3)) is False  # longer than one wait
    with pytest.raises(ZeroDivisionError):
        run_interruptibly(lambda: 1 // 0)
