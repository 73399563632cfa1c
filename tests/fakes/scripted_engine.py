"""A Flight SQL server that says what a test wants it to say, in bytes."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pyarrow as pa

from micromegas_jupyter.flightsql.commands import FLIGHT_SERVICE, messages
from micromegas_jupyter.flightsql.framing import FlightDataEncoder

ROWS = pa.record_batch({"n": pa.array([1, 2, 3], pa.int64())})
_TABLES = pa.schema(
    [(name, pa.string()) for name in ("catalog_name", "db_schema_name", "table_name", "table_type")]
    + [("table_schema", pa.binary())]
)
_LISTING = "CommandGetTables"


def info_of(schema, *tickets):
    """Return a serialized `FlightInfo`."""
    endpoints = [messages.FlightEndpoint(ticket=messages.Ticket(ticket=ticket)) for ticket in tickets]
    return messages.FlightInfo(schema=schema.serialize().to_pybytes(), endpoint=endpoints).SerializeToString()


def frames_of(*batches):
    """Return the messages of an honest answer."""
    encoder = FlightDataEncoder(batches[0].schema)
    return [encoder.encode_schema(), *(frame for batch in batches for frame in encoder.encode_batch(batch))]


class ScriptedEngine(grpc.GenericRpcHandler):
    """Has no tables; a test sets `info` and `rows`, a message and messages, or a function that gives them."""

    def __init__(self):
        self.info = info_of(ROWS.schema, b"ticket")
        self.rows = frames_of(ROWS)
        self.has_ended = threading.Event()  # the last answer with rows
        self.authorizations = []
        self.read_only = []  # the header of each call
        self.tokens_expired = 0  # those of Handshake
        self.is_listing, self.may_list, self.may_shake_hands = threading.Event(), threading.Event(), threading.Event()
        self.may_list.set()
        self.may_shake_hands.set()

    @property
    def authorization(self):
        """What a handshake gives; once a token has expired, the only one that is accepted."""
        return f"Bearer given {self.tokens_expired}" if self.tokens_expired else "Bearer given"

    def service(self, details):
        methods = {
            "GetFlightInfo": grpc.unary_unary_rpc_method_handler(self._get_info),
            "DoGet": grpc.unary_stream_rpc_method_handler(self._get_rows),
            "ListActions": grpc.unary_stream_rpc_method_handler(self._list_actions),
            "Handshake": grpc.stream_stream_rpc_method_handler(self._shake_hands),
        }
        return methods.get(details.method.removeprefix(f"/{FLIGHT_SERVICE}/"))

    def _note_authorization(self, context):
        self.authorizations += [value for key, value in context.invocation_metadata() if key == "authorization"]

    def _authenticate(self, context):
        self._note_authorization(context)
        self.read_only.append(dict(context.invocation_metadata()).get("x-micromegas-read-only"))
        if self.tokens_expired and dict(context.invocation_metadata()).get("authorization") != self.authorization:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token has expired")

    def _list_actions(self, _request, context):
        self._authenticate(context)
        return iter(())

    def _get_info(self, request, context):
        self._authenticate(context)
        if _LISTING.encode() in request:
            self.is_listing.set()
            self.may_list.wait(60)
            return info_of(_TABLES)
        return self.info(context) if callable(self.info) else self.info

    def _get_rows(self, _request, context):
        self._authenticate(context)
        self.has_ended.clear()
        context.add_callback(self.has_ended.set)
        yield from self.rows(context) if callable(self.rows) else self.rows

    def _shake_hands(self, _requests, context):
        self._note_authorization(context)
        self.may_shake_hands.wait(60)
        context.send_initial_metadata((("authorization", self.authorization),))
        return iter(())


@contextmanager
def running(*, port=0):
    """Run an engine on loopback; its address is `uri`, and `server` can be stopped."""
    engine = ScriptedEngine()
    options = [("grpc.max_send_message_length", -1)]
    engine.server = grpc.server(ThreadPoolExecutor(8), handlers=(engine,), options=options)
    engine.uri = f"grpc://127.0.0.1:{engine.server.add_insecure_port(f'127.0.0.1:{port}')}"
    engine.server.start()
    try:
        yield engine
    finally:
        engine.server.stop(0).wait()
