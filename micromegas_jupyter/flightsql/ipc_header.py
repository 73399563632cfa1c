"""Look into the flatbuffer header of an Arrow IPC message before Arrow acts on it.

Arrow allocates what a compressed buffer says it will hold, so its size has to be known from the header and the first
bytes of each buffer alone; pyarrow offers no way to see it. Decoding the data is left to `decoding`.

Source: Arrow format/Message.fbs (tables `Message`, `RecordBatch`, `DictionaryBatch`) and the flatbuffers encoding.
"""

import enum
import struct
from dataclasses import dataclass
from typing import Final

from micromegas_jupyter.errors import UsageError

_MESSAGE_HEADER_TYPE: Final = 1
_MESSAGE_HEADER: Final = 2
_MESSAGE_BODY_LENGTH: Final = 3
_DICTIONARY_ID: Final = 0
_DICTIONARY_DATA: Final = 1
_DICTIONARY_IS_DELTA: Final = 2
_BATCH_LENGTH: Final = 0
_BATCH_BUFFERS: Final = 2
_BATCH_COMPRESSION: Final = 3
_BUFFER_BYTES: Final = 16
_PREFIX_BYTES: Final = 8
_NOT_COMPRESSED: Final = -1


class HeaderKind(enum.Enum):
    """What an IPC message holds; the values are those of the `MessageHeader` union."""

    SCHEMA = 1
    DICTIONARY_BATCH = 2
    RECORD_BATCH = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class IpcHeader:
    """The facts of a message header.

    Attributes:
        kind: What the message holds.
        body_length: The bytes of body that it announces.
        is_compressed: Whether the body's buffers are compressed.
        row_count: The rows that a batch announces; for a dictionary its entries.
        dictionary_id: Which dictionary a dictionary batch is for; 0 in other messages.
        is_delta: Whether a dictionary batch adds to the one before instead of taking its place.
        buffers: Offset and length in the body of each buffer, for compressed bodies only.
    """

    kind: HeaderKind
    body_length: int
    is_compressed: bool
    row_count: int = 0
    dictionary_id: int = 0
    is_delta: bool = False
    buffers: tuple[tuple[int, int], ...] = ()


def read_header(data: bytes) -> IpcHeader:
    """Read the flatbuffer of one IPC message (without the encapsulation's length prefix).

    Raises:
        UsageError: Not such a header.
    """
    try:
        return _read_header(data)
    except (struct.error, ValueError):
        raise not_arrow_data() from None


def unpacked_length(header: IpcHeader, body: bytes) -> int:
    """Return how many bytes the buffers of a compressed body say they will take once they are decompressed.

    Raises:
        UsageError: A buffer lies outside of the body, or announces less than nothing.
    """
    total = 0
    for offset, length in header.buffers:
        if offset < 0 or length < 0 or offset + length > len(body):
            raise not_arrow_data()
        if length == 0:
            continue
        if length < _PREFIX_BYTES:
            raise not_arrow_data()
        announced = int.from_bytes(body[offset : offset + _PREFIX_BYTES], "little", signed=True)
        if announced < _NOT_COMPRESSED:
            raise not_arrow_data()
        total += length if announced == _NOT_COMPRESSED else announced
    return total


def not_arrow_data() -> UsageError:
    """Return the error for bytes that are not what they should be."""
    return UsageError("What was sent is not valid Arrow data.", remedy="Use a Flight SQL client.")


def _read_header(data: bytes) -> IpcHeader:
    message = _indirect(data, 0)
    kind = HeaderKind(_scalar(data, message, _MESSAGE_HEADER_TYPE, "<B"))
    body_length = _scalar(data, message, _MESSAGE_BODY_LENGTH, "<q")
    header = _table(data, message, _MESSAGE_HEADER)
    if kind is HeaderKind.SCHEMA:
        return IpcHeader(kind=kind, body_length=body_length, is_compressed=False)
    is_dictionary = kind is HeaderKind.DICTIONARY_BATCH
    batch = _table(data, header, _DICTIONARY_DATA) if is_dictionary else header
    is_compressed = _field(data, batch, _BATCH_COMPRESSION) is not None
    row_count = _scalar(data, batch, _BATCH_LENGTH, "<q")
    if row_count < 0:
        raise ValueError("fewer rows than none")
    return IpcHeader(
        kind=kind,
        body_length=body_length,
        is_compressed=is_compressed,
        row_count=row_count,
        dictionary_id=_scalar(data, header, _DICTIONARY_ID, "<q") if is_dictionary else 0,
        is_delta=is_dictionary and bool(_scalar(data, header, _DICTIONARY_IS_DELTA, "<B")),
        buffers=_read_buffers(data, batch) if is_compressed else (),
    )


def _read_buffers(data: bytes, batch: int) -> tuple[tuple[int, int], ...]:
    position = _field(data, batch, _BATCH_BUFFERS)
    if position is None:
        return ()
    vector = _indirect(data, position)
    count = _read(data, "<I", vector)
    start = vector + 4
    if start + count * _BUFFER_BYTES > len(data):
        raise ValueError("more buffers than fit")
    return tuple(struct.iter_unpack("<qq", data[start : start + count * _BUFFER_BYTES]))


def _read(data: bytes, form: str, position: int) -> int:
    if position < 0:
        raise ValueError("before the start")
    number: int = struct.unpack_from(form, data, position)[0]
    return number


def _indirect(data: bytes, position: int) -> int:
    return position + _read(data, "<I", position)


def _field(data: bytes, table: int, slot: int) -> int | None:
    """Return the position of a table's field, None when it has its default."""
    vtable = table - _read(data, "<i", table)
    offset_position = 4 + 2 * slot
    if offset_position + 2 > _read(data, "<H", vtable):
        return None
    offset = _read(data, "<H", vtable + offset_position)
    return table + offset if offset else None


def _scalar(data: bytes, table: int, slot: int, form: str) -> int:
    position = _field(data, table, slot)
    return 0 if position is None else _read(data, form, position)


def _table(data: bytes, table: int, slot: int) -> int:
    position = _field(data, table, slot)
    if position is None:
        raise ValueError("a required table is missing")
    return _indirect(data, position)
