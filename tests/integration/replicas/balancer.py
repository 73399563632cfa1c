"""A proxy of gRPC that sends each call to the next server: bytes in, bytes out, in both directions.

It asks no server for its health: a server gets calls as long as it is connected, also while it drains.
"""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count

import grpc

_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 128 * 1024),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
)
_OWN_HEADERS = ("user-agent", "grpc-")
_MAX_CALLS = 128
_MAX_SECONDS = 3600


class Balancer(grpc.GenericRpcHandler):
    """Listens at `uri`; `calls` counts what each address got."""

    def __init__(self, addresses):
        self.calls = Counter()
        self._addresses, self._turns = tuple(addresses), count()
        self._connected, self._changed = set(), threading.Condition()
        self._channels = {address: grpc.insecure_channel(address, options=_OPTIONS) for address in addresses}
        for address, channel in self._channels.items():
            channel.subscribe(partial(self._note, address), try_to_connect=True)
            self.await_connection(address)
        threads = ThreadPoolExecutor(_MAX_CALLS)
        self._server = grpc.server(threads, handlers=(self,), options=_OPTIONS)
        self.uri = f"grpc://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def close(self):
        self._server.stop(0).wait()
        for channel in self._channels.values():
            channel.close()

    def await_connection(self, address):
        """Wait until a server can get calls again."""
        with self._changed:
            assert self._changed.wait_for(lambda: address in self._connected, timeout=60)

    def _note(self, address, state):
        with self._changed:
            (self._connected.add if state is grpc.ChannelConnectivity.READY else self._connected.discard)(address)
            self._changed.notify_all()
        if state is grpc.ChannelConnectivity.IDLE:  # the connection was closed
            self._channels[address].subscribe(lambda _: None, try_to_connect=True)

    def service(self, handler_call_details):
        return grpc.stream_stream_rpc_method_handler(partial(self._forward, handler_call_details.method))

    def _next_address(self):
        turn = next(self._turns)
        with self._changed:
            usable = [address for address in self._addresses if address in self._connected] or self._addresses
            address = usable[turn % len(usable)]
            self.calls[address] += 1
        return address

    def _forward(self, method, requests, context):
        metadata = [pair for pair in context.invocation_metadata() if not pair[0].startswith(_OWN_HEADERS)]
        seconds = min(context.time_remaining(), _MAX_SECONDS)  # of a call without a deadline, centuries
        call = self._channels[self._next_address()].stream_stream(method)(requests, metadata=metadata, timeout=seconds)
        context.add_callback(call.cancel)  # does nothing once it has ended
        context.send_initial_metadata(call.initial_metadata())
        try:
            yield from call
        except grpc.RpcError:
            context.set_code(call.code())
            context.set_details(call.details())
        context.set_trailing_metadata(call.trailing_metadata())
