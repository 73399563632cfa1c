"""The standard health check, the one call that is answered to anybody.

Source: gRPC Health Checking Protocol, grpc.health.v1.
"""

from typing import Final

import grpc

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.commands import parse_message

HEALTH_CHECK_METHOD: Final = "/grpc.health.v1.Health/Check"
FLIGHT_SERVICE: Final = "arrow.flight.protocol.FlightService"


async def answer_health_check(context: grpc.aio.ServicerContext[bytes, bytes], *, is_serving: bool) -> None:
    """Answer whether the server, or the Flight service, takes calls.

    Raises:
        UsageError: The request cannot be read.
        grpc.aio.AbortError: The request asks about a service that is not here (NOT_FOUND, as the protocol says).
    """
    message = await context.read()
    if not isinstance(message, bytes):
        raise UsageError("The health check carries no message.")
    request = parse_message(messages.HealthCheckRequest, message)
    if request.service not in {"", FLIGHT_SERVICE}:
        await context.abort(grpc.StatusCode.NOT_FOUND, "This service is not served here.")
    response = messages.HealthCheckResponse
    status = response.SERVING if is_serving else response.NOT_SERVING
    await context.write(response(status=status).SerializeToString())
