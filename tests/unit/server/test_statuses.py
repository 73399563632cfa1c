"""What is not the package's own error becomes a defect without its words; what ends a task is not answered."""

import asyncio
import logging

import pytest

from micromegas_jupyter.errors import (
    InternalError,
    InvalidStatement,
    MicromegasError,
    QueryCancelled,
    ResourcesExhausted,
)
from micromegas_jupyter.server.calls import abort_call, translate_error


class Panic(BaseException):
    """What a library written in Rust raises when it panics: not an `Exception`."""


def test_the_packages_own_error_gains_the_query_id() -> None:
    error = InvalidStatement("No such column.")

    assert translate_error(error, "q-1") is error
    assert error.query_id == "q-1"


def test_an_error_keeps_the_query_id_that_it_has() -> None:
    error = InvalidStatement("No such column.", query_id="q-0")

    assert translate_error(error, "q-1").query_id == "q-0"


@pytest.mark.parametrize("error", [RuntimeError("/srv/secret.py"), Panic("/srv/secret.rs")])
def test_anything_else_is_a_defect_whose_words_stay_in_the_log(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, logger="micromegas_jupyter.server")

    translated = translate_error(error, "q-1")

    assert type(translated) is InternalError
    assert translated.query_id == "q-1"
    assert "secret" not in str(translated)
    assert "secret" in caplog.text
    assert "q-1" in caplog.text


def test_a_query_that_its_caller_cancelled_by_another_call_is_told_so() -> None:
    error = QueryCancelled("The query was cancelled, as you asked.")

    assert translate_error(error, "q-1") is error
    assert error.grpc_code == "ABORTED"


def test_a_part_that_raises_cancelled_error_has_failed() -> None:
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


class Ended:
    """As much of a servicer context as ending a call needs."""

    def __init__(self, *trailers: tuple[str, str]) -> None:
        self.trailers = trailers
        self.sent: dict[str, str | bytes] = {}

    def trailing_metadata(self) -> tuple[tuple[str, str], ...]:
        return self.trailers

    async def abort(
        self, _code: object, *, details: str, trailing_metadata: tuple[tuple[str, str | bytes], ...]
    ) -> None:
        self.sent = dict(trailing_metadata)


@pytest.mark.parametrize(("seconds", "milliseconds"), [(1.5, "1500"), (0.0001, "1"), (60.0, "60000")])
def test_when_to_come_back_is_a_trailer_that_grpc_clients_know(seconds: float, milliseconds: str) -> None:
    context = Ended()

    asyncio.run(abort_call(context, ResourcesExhausted("Too often.", retry_after_seconds=seconds)))  # type: ignore[arg-type]

    assert context.sent["grpc-retry-pushback-ms"] == milliseconds


def test_an_error_keeps_the_trailers_that_were_set_before() -> None:
    context = Ended(("x-micromegas-notice", "This key ends soon."))

    asyncio.run(abort_call(context, ResourcesExhausted("Too much.")))  # type: ignore[arg-type]

    assert sorted(context.sent) == ["micromegas-error-bin", "x-micromegas-notice"]
