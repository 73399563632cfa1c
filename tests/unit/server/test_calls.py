"""Errors become statuses without their words; what ends a task is not answered."""

import asyncio
from typing import Any

import pytest

from micromegas_jupyter.errors import InternalError, InvalidStatement, MicromegasError, ResourcesExhausted
from micromegas_jupyter.server.flight_service import abort_call, translate_error


class Panic(BaseException):
    """What a library written in Rust raises when it panics: not an `Exception`."""


@pytest.mark.parametrize(("own", "expected"), [(None, "q-1"), ("q-0", "q-0")])
def test_the_packages_own_error_stays_and_gains_a_query_id(own: str | None, expected: str) -> None:
    error = InvalidStatement("No such column.", query_id=own)

    assert translate_error(error, "q-1") is error
    assert error.query_id == expected


@pytest.mark.parametrize("error", [RuntimeError("/srv/secret.py"), Panic("/srv/secret.rs")])
def test_anything_else_is_a_defect_whose_words_stay_in_the_log(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    translated = translate_error(error, "q-1")

    assert type(translated) is InternalError
    assert translated.query_id == "q-1"
    assert "secret" not in str(translated)
    assert "secret" in caplog.text
    assert "q-1" in caplog.text


def test_a_function_that_raises_cancelled_error_has_failed() -> None:
    async def scenario() -> MicromegasError:
        return translate_error(asyncio.CancelledError(), "q-1")

    assert type(asyncio.run(scenario())) is InternalError


def test_a_cancelled_task_is_cancelled() -> None:
    async def scenario() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError as error:
            translate_error(error, "q-1")

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(scenario())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), GeneratorExit()])
def test_what_ends_the_task_or_the_process_passes_through(error: BaseException) -> None:
    with pytest.raises(type(error)):
        translate_error(error, "q-1")


class Context:
    """As much of a servicer context as this test needs."""

    def __init__(self, *trailers: tuple[str, str]) -> None:
        self.trailers = trailers
        self.sent: Any = []

    def trailing_metadata(self) -> tuple[tuple[str, str], ...]:
        return self.trailers

    async def abort(
        self, _code: object, *, details: str, trailing_metadata: tuple[tuple[str, str | bytes], ...]
    ) -> None:
        self.sent = dict(trailing_metadata)


@pytest.mark.parametrize(("seconds", "milliseconds"), [(1.5, "1500"), (0.0001, "1"), (60.0, "60000")])
def test_when_to_try_again_is_a_trailer_beside_those_that_were_set_before(seconds: float, milliseconds: str) -> None:
    context: Any = Context(("x-micromegas-notice", "This key ends soon."))

    asyncio.run(abort_call(context, ResourcesExhausted("Too often.", retry_after_seconds=seconds)))

    assert context.sent["grpc-retry-pushback-ms"] == milliseconds
    assert sorted(context.sent) == ["grpc-retry-pushback-ms", "micromegas-error-bin", "x-micromegas-notice"]
