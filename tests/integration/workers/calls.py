"""Calls that never end by themselves, and the ways in which their callers give them up."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import grpc

from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.commands import statement_ticket
from micromegas_jupyter.flightsql.error_details import ERROR_DETAILS_KEY, decode_error

if TYPE_CHECKING:
    from tests.integration.workers.serving import Serving

FLIGHT = "/arrow.flight.protocol.FlightService/"
SHORT_SECONDS = 4.0
PAUSE_SECONDS = 0.02
# Little to send, however many rows.
ENDLESS_ROWS = "SELECT value % 2 = 0 AS is_even FROM generate_series(1, 100000000000)"
SHORT_ROWS = "SELECT value % 2 = 0 AS is_even FROM generate_series(1, 1000000)"
KILLED_CLIENT = """
import sys, grpc
address, method, request = sys.argv[1], sys.argv[2], bytes.fromhex(sys.argv[3])
for _ in grpc.insecure_channel(address).unary_stream(method)(request):
    pass
"""


def ticket(sql: str) -> bytes:
    data: bytes = messages.Ticket(ticket=statement_ticket(sql)).SerializeToString()
    return data


class Given:
    """A call on a channel of its own, read by a thread; `code` is known when `ended` is set."""

    def __init__(self, address: str, sql: str, *, timeout: float | None = None, key: str | None = None) -> None:
        # Without this, channels of one process to one address share a connection, and with it a worker.
        self.channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        self.request = ticket(sql)
        metadata = None if key is None else [("authorization", f"Bearer {key}")]
        self.call = self.channel.unary_stream(f"{FLIGHT}DoGet")(self.request, timeout=timeout, metadata=metadata)
        self.begun, self.ended = threading.Event(), threading.Event()
        self.code: grpc.StatusCode | None = None
        self.trailers: dict[str, str | bytes] = {}
        self.messages = 0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for _ in self.call:
                self.messages += 1
                self.begun.set()
                self.ended.wait(PAUSE_SECONDS)
            self.code = grpc.StatusCode.OK
        except grpc.RpcError as error:
            self.code = error.code()
            self.trailers = dict(error.trailing_metadata() or ())
        finally:
            self.ended.set()

    @property
    def is_retryable(self) -> bool:
        """Whether it ended as UNAVAILABLE, with nothing that says that trying again is of no use."""
        details = self.trailers.get(ERROR_DETAILS_KEY)
        error = decode_error(details) if isinstance(details, bytes) else None
        return self.code is grpc.StatusCode.UNAVAILABLE and (error is None or error.retryable)

    @property
    def has_hint(self) -> bool:
        """Whether it was told when to try again."""
        return "grpc-retry-pushback-ms" in self.trailers

    def close(self) -> None:
        self.channel.close()
        self._thread.join(30)


class Killed:
    """A client of its own that is killed."""

    def __init__(self, server: Serving, sql: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", KILLED_CLIENT, server.address, f"{FLIGHT}DoGet", ticket(sql).hex()],
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def give_up(self) -> None:
        self._process.kill()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class Cancelled:
    """A call that its caller cancels, as an interrupt does."""

    def __init__(self, server: Serving, sql: str) -> None:
        self._given = Given(server.address, sql)

    def give_up(self) -> None:
        self._given.call.cancel()

    def close(self) -> None:
        self._given.close()


class Late:
    """A call whose deadline passes."""

    def __init__(self, server: Serving, sql: str) -> None:
        self._given = Given(server.address, sql, timeout=SHORT_SECONDS)

    @property
    def is_over(self) -> bool:
        """Whether its time is over, on a busy machine perhaps before the statement got much of a processor."""
        return self._given.ended.is_set()

    def give_up(self) -> None:
        assert self._given.ended.wait(60)

    def close(self) -> None:
        self._given.close()


class Asked:
    """A call that another one cancels: CancelFlightInfo, on another connection."""

    def __init__(self, server: Serving, sql: str) -> None:
        self._given = Given(server.address, sql)
        self._server = server

    def give_up(self) -> None:
        endpoint = messages.FlightEndpoint(ticket=messages.Ticket.FromString(self._given.request))
        request = messages.CancelFlightInfoRequest(info=messages.FlightInfo(endpoint=[endpoint]))
        action = messages.Action(type="CancelFlightInfo", body=request.SerializeToString())
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(self._server.address, options=options) as channel:
            answers = list(channel.unary_stream(f"{FLIGHT}DoAction")(action.SerializeToString(), timeout=60))
        assert answers

    def close(self) -> None:
        self._given.close()


WAYS = {"client killed": Killed, "call cancelled": Cancelled, "deadline": Late, "CancelFlightInfo": Asked}
