"""The Flight library behind a small face: bytes and batches in and out, errors of this package, bounded connecting."""

import os
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import certifi
import pyarrow as pa
from pyarrow import flight

from micromegas_jupyter.client.address import ServerAddress
from micromegas_jupyter.client.calls import Call, CallRecord, CallRecorder
from micromegas_jupyter.client.statuses import translate_failure
from micromegas_jupyter.core.protocols import HiddenBytes
from micromegas_jupyter.errors import InternalError, ServerUnavailable, UsageError

_MAX_CERTIFICATE_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """A certificate with what leads to its authority, and its key, both in PEM."""

    chain: bytes = field(repr=False)
    key: HiddenBytes = field(repr=False)


def read_client_certificate(
    certificate_file: str | Path | None, key_file: str | Path | None
) -> ClientCertificate | None:
    """Read a certificate and its key; None when neither is given."""
    if certificate_file is None and key_file is None:
        return None
    if certificate_file is None or key_file is None:
        raise UsageError(
            "Only one of client_certificate_file and client_key_file is given.", remedy="Give both, or neither."
        )
    files = Path(certificate_file).expanduser(), Path(key_file).expanduser()
    try:
        # Without a password OpenSSL would ask for one on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(*files, password="")
        chain, key = (_read(file) for file in files)
    except (OSError, ssl.SSLError):  # the second is what a damaged file gives
        raise UsageError(
            "The client's certificate and its key cannot be read, or do not fit.",
            remedy="Name PEM files: the chain with the client's own certificate first, and its key without a password.",
        ) from None
    return ClientCertificate(chain=chain, key=HiddenBytes(key))


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(_MAX_CERTIFICATE_BYTES)


_MAX_CA_BUNDLE_BYTES: Final = 8 * 1024 * 1024
_MAX_MESSAGE_BYTES: Final = 256 * 1024 * 1024
_MAX_RESULTS: Final = 64
_MAX_RESULT_BYTES: Final = 16 * 1024 * 1024

# Servers answer more than one ping in five minutes with a refusal (gRPC's default); a little less often finds a dead
# connection while a long query says nothing.
_KEEPALIVE_MILLISECONDS: Final = 310_000
_KEEPALIVE_TIMEOUT_MILLISECONDS: Final = 20_000
_CONNECT_TIMEOUT_MILLISECONDS: Final = 10_000
# Above gRPC's default of 8 kB, at which it drops answers at random.
_MAX_METADATA_BYTES: Final = 64 * 1024

# gRPC begins with 64 kB that a server may send unasked, in frames of 16 kB; rows come in messages far above that.
_WINDOW_BYTES: Final = 4 * 1024 * 1024
_MAX_FRAME_BYTES: Final = 4 * 1024 * 1024

# gRPC lets channels with the same options share a connection and the pauses between attempts to make one, so an option
# of our own keeps them apart.
_CONNECTION_NUMBER: Final = "micromegas.connection"

_OPTIONS: Final = [
    ("grpc.keepalive_time_ms", _KEEPALIVE_MILLISECONDS),
    ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MILLISECONDS),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.min_reconnect_backoff_ms", _CONNECT_TIMEOUT_MILLISECONDS),
    ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.http2.lookahead_bytes", _WINDOW_BYTES),
    ("grpc.http2.max_frame_size", _MAX_FRAME_BYTES),
]


def _channel_options(address: ServerAddress) -> list[tuple[str, int]]:
    # A proxy would read what is not encrypted, token included, and cannot reach this machine's own loopback.
    may_use_proxy = address.is_encrypted and not address.is_loopback
    return [*_OPTIONS, ("grpc.enable_http_proxy", int(may_use_proxy))]


class FlightStream:
    """The answer of one `DoGet`. `cancel` may be called from any thread, the rest from one.

    `close` calls `on_close`, which lets go of what the answer holds on the server.
    """

    def __init__(self, reader: flight.FlightStreamReader, call: Call, on_close: Callable[[], None]) -> None:
        self._reader = reader
        self._call = call
        self.close = on_close

    @property
    def schema(self) -> pa.Schema:
        """The schema of every batch."""
        return self._reader.schema

    def read_batch(self) -> pa.RecordBatch | None:
        """Return the next batch, None at the end."""
        while True:
            try:
                chunk = self._reader.read_chunk()
            except StopIteration:
                return None
            except Exception as error:
                raise translate_failure(error, self._call) from error
            if chunk.data is not None:
                return chunk.data

    def cancel(self) -> None:
        """Tell the server to stop; safe at any time."""
        self._reader.cancel()


class Transport:
    """A connection to one server, made at the first call and made again when it is lost.

    Calls block the calling thread; they may be made from several threads. Whoever makes a transport closes it.

    Args:
        address: The server.
        ca_bundle: A PEM file of authorities in place of certifi's.
        extra_ca_bundle: A PEM file of authorities to trust besides those.
        certificate: What is shown to a server that asks for a certificate.

    Attributes:
        shows_certificate: Whether there is one to be shown.
        has_answered: Whether the server has ever answered a call.

    Raises:
        UsageError: A file of authorities cannot be used.
    """

    def __init__(
        self,
        address: ServerAddress,
        *,
        ca_bundle: str | Path | None = None,
        extra_ca_bundle: str | Path | None = None,
        certificate: ClientCertificate | None = None,
    ) -> None:
        self._recorder = CallRecorder()
        # Without it, gRPC writes its own log of lost connections to standard error.
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
        roots = _read_all_roots(ca_bundle, extra_ca_bundle) if address.is_encrypted else None
        shows = certificate if address.is_encrypted else None
        self.shows_certificate = shows is not None
        self.has_answered = False

        def connect(number: int) -> flight.FlightClient:
            return flight.connect(
                address.location,
                tls_root_certs=roots,
                cert_chain=None if shows is None else shows.chain,
                private_key=None if shows is None else shows.key,
                middleware=[self._recorder],
                generic_options=[*_channel_options(address), (_CONNECTION_NUMBER, number)],
            )

        self._connect = connect
        self._connection = (0, connect(0))
        self._lock = threading.Lock()
        self._calls_under_way = 0
        self._is_closed = False

    def reconnect(self, failed: CallRecord) -> None:
        """Make calls over another connection than that of a failed one from now on; those under way keep theirs."""
        number, _ = self._connection
        if number == failed.connection:
            self._connection = (number + 1, self._connect(number + 1))

    def tell_notices(self, tell: Callable[[str], None]) -> None:
        """Have `tell` called with what the server says about the credential, in place of a warning in the log."""
        self._recorder.notices.tell_to(tell)

    def do_get(self, ticket: bytes, call: Call, *, on_close: Callable[[], None] = lambda: None) -> FlightStream:
        """Start reading what a ticket stands for; returns when the schema is here."""
        with self._making(call) as client:
            return FlightStream(client.do_get(flight.Ticket(ticket), _options(call)), call, on_close)

    def do_action(self, action_type: str, body: bytes, call: Call) -> list[bytes]:
        """Run an action and return its results."""
        with self._making(call) as client:
            results = client.do_action(flight.Action(action_type, body), _options(call))
            return _bounded(result.body.to_pybytes() for result in results)

    def get_flight_info(self, command: bytes, call: Call) -> flight.FlightInfo:
        """Ask how to run a command."""
        with self._making(call) as client:
            return client.get_flight_info(flight.FlightDescriptor.for_command(command), _options(call))

    def do_put(self, command: bytes, schema: pa.Schema, batches: Iterable[pa.RecordBatch], call: Call) -> bytes | None:
        """Send batches and return the metadata of the server's answer, None when there is none."""
        with self._making(call) as client:
            descriptor = flight.FlightDescriptor.for_command(command)
            writer, reader = client.do_put(descriptor, schema, _options(call))
            with writer:
                for batch in batches:
                    writer.write_batch(batch)
                writer.done_writing()
                answer = reader.read()
            return None if answer is None else answer.to_pybytes()

    def close(self) -> None:
        """Give up the connection, once the calls that are being started have started."""
        with self._lock:
            self._is_closed = True
        self._close_when_unused()

    def _close_when_unused(self) -> None:
        # The Flight library crashes the process when a connection is closed while a call starts on another thread.
        with self._lock:
            is_unused = self._is_closed and not self._calls_under_way
        if is_unused:
            self._connection[1].close()

    @contextmanager
    def _making(self, call: Call) -> Iterator[flight.FlightClient]:
        with self._lock:
            if self._is_closed:
                raise UsageError("The client is closed.", remedy="Make a new one.")
            self._calls_under_way += 1
        call.record.connection, client = self._connection
        try:
            with self._recorder.recording(call.record):
                yield client
            self.has_answered = True
        except Exception as error:
            translated = translate_failure(error, call)
            if call.record.error_details is not None or not isinstance(translated, ServerUnavailable):
                self.has_answered = True
            if translated is error:
                raise
            raise translated from error
        finally:
            with self._lock:
                self._calls_under_way -= 1
            self._close_when_unused()


def _options(call: Call) -> flight.FlightCallOptions:
    return flight.FlightCallOptions(timeout=call.timeout_seconds, headers=[*call.credential.headers, *call.headers])


def _bounded(results: Iterable[bytes]) -> list[bytes]:
    kept: list[bytes] = []
    for result in results:
        kept.append(result)
        if len(kept) > _MAX_RESULTS or sum(map(len, kept)) > _MAX_RESULT_BYTES:
            raise InternalError("The server's answer is larger than it may be.")
    return kept


def _read_all_roots(ca_bundle: str | Path | None, extra_ca_bundle: str | Path | None) -> bytes:
    roots = _read_roots(certifi.where() if ca_bundle is None else ca_bundle, name="ca_bundle")
    return roots if extra_ca_bundle is None else roots + b"\n" + _read_roots(extra_ca_bundle, name="extra_ca_bundle")


def _read_roots(bundle: str | Path, *, name: str) -> bytes:
    try:
        with Path(bundle).expanduser().open("rb") as file:
            pem = file.read(_MAX_CA_BUNDLE_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"The {name} cannot be read: {error.strerror}.", remedy="Name a PEM file of certificates."
        ) from error
    if len(pem) > _MAX_CA_BUNDLE_BYTES or b"-----BEGIN CERTIFICATE-----" not in pem:
        raise UsageError(f"The {name} holds no certificates.", remedy="Name a PEM file of certificates.")
    return pem
