"""Errors become gRPC statuses here, and nowhere else in the server.

The words of a status and the details beside it are made by `flightsql.error_details`.
"""

import asyncio
import logging
import math
from typing import Final

import grpc

from micromegas_jupyter.errors import InternalError, MicromegasError, ResourcesExhausted, ServerUnavailable
from micromegas_jupyter.flightsql.error_details import ERROR_DETAILS_KEY, encode_error, status_text

RETRY_PUSHBACK_TRAILER: Final = "grpc-retry-pushback-ms"

_LOG: Final = logging.getLogger("micromegas_jupyter.server")
_STOPPING_RETRY_MILLISECONDS: Final = 1000
_NOT_ANSWERED: Final = (GeneratorExit, KeyboardInterrupt, SystemExit, grpc.aio.AbortError)


def ends_task(error: BaseException) -> bool:
    """Tell whether an error ends the task or the process instead of being an answer to a call.

    A part that merely raises `CancelledError` has failed: only a task that somebody cancelled is cancelled.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is None or task.cancelling() > 0
    return isinstance(error, _NOT_ANSWERED)


def translate_error(error: BaseException, query_id: str) -> MicromegasError:
    """Return the error that the client may see; what is not the package's own goes to the log and becomes a defect.

    Engines written in Rust raise panics that are no `Exception`, hence `BaseException`.

    Raises:
        BaseException: `error` itself when it ends the task or the process.
    """
    if ends_task(error):
        raise error
    if not isinstance(error, MicromegasError):
        _LOG.error("a call failed unexpectedly, query_id=%s", query_id, exc_info=error)
        return InternalError("The server failed to answer.", query_id=query_id)
    if error.query_id is None:
        error.query_id = query_id
    return error


async def abort_call(context: grpc.aio.ServicerContext[bytes, bytes], error: MicromegasError) -> None:
    """End a call with the error's status, and with the trailers that were set before.

    Raises:
        grpc.aio.AbortError: Always; it ends the handler.
    """
    trailers = [*(context.trailing_metadata() or ()), (ERROR_DETAILS_KEY, encode_error(error))]
    # Source: gRPC A6, "Pushback".
    if isinstance(error, ResourcesExhausted) and error.retry_after_seconds is not None:
        trailers.append((RETRY_PUSHBACK_TRAILER, str(math.ceil(error.retry_after_seconds * 1000))))
    elif isinstance(error, ServerUnavailable):
        trailers.append((RETRY_PUSHBACK_TRAILER, str(_STOPPING_RETRY_MILLISECONDS)))
    await context.abort(
        grpc.StatusCode[error.grpc_code],
        details=status_text(error),
        trailing_metadata=tuple(trailers),
    )
