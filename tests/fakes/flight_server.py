"""A Flight service whose answers a test scripts; it notes every call. It knows no SQL."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import grpc
import pyarrow as pa

from micromegas_jupyter.flightsql.commands import ERROR_DETAILS_KEY, encode_error, messages, status_text
from micromegas_jupyter.flightsql.framing import FlightDataEncoder

_SERVICE = "/arrow.flight.protocol.FlightService/"
SMALL_TABLE = pa.table({"n": pa.array([1, 2, 3], pa.int64())})


def rows(table):
    encoder = FlightDataEncoder(table.schema)
    yield encoder.encode_schema()
    for batch in table.to_batches():
        yield from encoder.encode_batch(batch)


def results(*bodies):
    return lambda _call: iter([messages.Result(body=body).SerializeToString() for body in bodies])


def fail_with(error, *, pushback_ms=-1):
    """Return an answer that is this project's own error, and asks for the call not to be made again."""

    def answer(call):
        call.context.set_trailing_metadata(((ERROR_DETAILS_KEY, encode_error(error)), *_pushback(pushback_ms)))
        call.context.abort(grpc.StatusCode[error.grpc_code], status_text(error))
        yield b""

    return answer


def fail_plainly(code, text="Something.", *, pushback_ms=-1):
    """Return an answer that is any other server's error, and asks for the call not to be made again."""

    def answer(call):
        call.context.set_trailing_metadata(_pushback(pushback_ms))
        call.context.abort(grpc.StatusCode[code], text)
        yield b""

    return answer


def _pushback(milliseconds):
    return () if milliseconds is None else (("grpc-retry-pushback-ms", str(milliseconds)),)


class FakeFlightServer(grpc.GenericRpcHandler):
    """Answers `DoGet` with `SMALL_TABLE` and everything else with UNIMPLEMENTED, until a test says otherwise.

    An answer is a function of the call that yields serialised messages; `answers` maps `DoGet`, `GetFlightInfo`,
    `DoPut` and `DoAction:<type>` to one.
    """

    def __init__(self, port=0):
        self.answers = {"DoGet": lambda _call: rows(SMALL_TABLE)}
        self.calls = []
        self.call_arrived = threading.Event()
        self.closing = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(16), handlers=(self,))
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()

    @property
    def uri(self):
        return f"grpc://127.0.0.1:{self.port}"

    def close(self):
        # Calls are cut first: an answer that is let go before ends as a whole one.
        stopped = self._server.stop(None)
        self.closing.set()
        stopped.wait(60)

    def service(self, details):
        method = details.method.removeprefix(_SERVICE)

        def serve(requests, context):
            metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
            ended = threading.Event()
            context.add_callback(ended.set)
            kind = _MESSAGES.get(method, messages.Ticket)
            sent = [kind.FromString(request) for request in requests]
            call = SimpleNamespace(method=method, metadata=metadata, messages=sent, context=context, ended=ended)
            self.calls.append(call)
            self.call_arrived.set()
            name = f"{method}:{call.messages[0].type}" if method == "DoAction" else method
            yield from self.answers.get(name, fail_plainly("UNIMPLEMENTED"))(call)

        return grpc.stream_stream_rpc_method_handler(serve)

    def stall_after(self, *first):
        """Return an answer that sends `first` and then nothing until the call or the server ends."""

        def answer(call):
            yield from first
            while not (call.ended.wait(0.02) or self.closing.is_set()):
                pass

        return answer


_MESSAGES = {
    "DoGet": messages.Ticket,
    "DoAction": messages.Action,
    "GetFlightInfo": messages.FlightDescriptor,
    "DoPut": messages.FlightData,
}
