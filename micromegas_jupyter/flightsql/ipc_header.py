"""Look into the flatbuffer header of an Arrow IPC message before Arrow acts on it.

Arrow allocates what a compressed buffer says it will hold, so compression has to be refused from the header alone;
pyarrow offers no way to see it. Decoding the data is left to `framing`.

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
_DICTIONARY_DATA: Final = 1
_BATCH_COMPRESSION: Final = 3


class HeaderKind(enum.Enum):
    """What an IPC message holds; the values are those of the `MessageHeader` union."""

    SCHEMA = 1
    DICTIONARY_BATCH = 2
    RECORD_BATCH = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class IpcHeader:
    """The facts of a message header: its kind, the bytes of body it announces, whether those are compressed."""

    kind: HeaderKind
    body_length: int
    is_compressed: bool


def read_header(data: bytes) -> IpcHeader:
    """Read the flatbuffer of one IPC message (without the encapsulation's length prefix).

    Raises:
        UsageError: Not such a header.
    """
    try:
        message = _indirect(data, 0)
        kind = HeaderKind(_scalar(data, message, _MESSAGE_HEADER_TYPE, "<B"))
        body_length = _scalar(data, message, _MESSAGE_BODY_LENGTH, "<q")
        header = _table(data, message, _MESSAGE_HEADER)
        batch = _table(data, header, _DICTIONARY_DATA) if kind is HeaderKind.DICTIONARY_BATCH else header
        is_compressed = kind is not HeaderKind.SCHEMA and _field(data, batch, _BATCH_COMPRESSION) is not None
    except (struct.error, ValueError):
        raise UsageError("The parameters are not valid Arrow data.", remedy="Use a Flight SQL client.") from None
    return IpcHeader(kind=kind, body_length=body_length, is_compressed=is_compressed)


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
