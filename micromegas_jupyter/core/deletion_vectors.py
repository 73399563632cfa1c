"""Decodes the deletion vectors of Delta tables: which rows of a data file are no longer in the table.

Sources: https://github.com/delta-io/delta/blob/master/PROTOCOL.md (Deletion Vector Format), and
https://github.com/RoaringBitmap/RoaringFormatSpec for the 32-bit maps inside.
"""

import functools
import struct
import zlib
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa

from micromegas_jupyter.core.protocols import DeletionVector

#: A stored vector is preceded by its size and followed by a checksum.
FRAME_BYTES: Final = 8
_MAGIC: Final = 1681511377
_RUNS_COOKIE: Final = 12347
_PLAIN_COOKIE: Final = 12346
_MIN_OFFSETS: Final = 4  # a map with runs and fewer containers doesn't have offsets for them
_MAX_ARRAY: Final = 4096
_CONTAINER: Final = 1 << 16
_MAX_ROWS: Final = 1 << 31  # rows per file, regardless of the log
_Z85: Final = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_DIGITS: Final = {digit: value for value, digit in enumerate(_Z85)}

_Array = np.ndarray[Any, np.dtype[Any]]


class DamagedVector(Exception):
    """A deletion vector whose use would make deleted rows reappear. The text completes "a deletion vector "."""


def decode_z85(text: str) -> bytes:
    """Decode a Z85 string."""
    if len(text) % 5:
        raise DamagedVector("is not Z85")
    found = bytearray()
    for start in range(0, len(text), 5):
        try:
            number = functools.reduce(lambda total, digit: 85 * total + _DIGITS[digit], text[start : start + 5], 0)
            found += number.to_bytes(4, "big")
        except (KeyError, OverflowError):
            raise DamagedVector("is not Z85") from None
    return bytes(found)


def unframed(vector: DeletionVector, stored: bytes) -> bytes:
    """Return the content of a deletion vector that is stored in a file."""
    if len(stored) != vector.size + FRAME_BYTES or struct.unpack(">i", stored[:4])[0] != vector.size:
        raise DamagedVector("has a different size than the log specifies")
    content = stored[4:-4]
    if struct.unpack(">I", stored[-4:])[0] != zlib.crc32(content):
        raise DamagedVector("has an incorrect checksum")
    return content


def decode_vector(vector: DeletionVector, content: bytes) -> pa.BooleanArray:
    """Return a flag for each row of a file, true if it is live; rows beyond the last flag are live, too."""
    if len(content) != vector.size:
        raise DamagedVector("has a different size than the log specifies")
    try:
        return _live(vector, _Cursor(content))
    except (ValueError, OverflowError):  # raised by NumPy if there are too few bytes
        raise DamagedVector("is incomplete") from None


def _live(vector: DeletionVector, cursor: "_Cursor") -> pa.BooleanArray:
    if cursor.number("<i4") != _MAGIC:
        raise DamagedVector("has an unknown encoding")
    limit = _MAX_ROWS if vector.rows is None else min(vector.rows, _MAX_ROWS)
    packed: dict[int, bytes] = {}
    last, count = -1, 0
    for _ in range(cursor.number("<i8")):
        high = cursor.number("<u4") * _CONTAINER
        for key, deleted in cursor.containers():
            place, rows = high + key, np.flatnonzero(deleted)
            if place <= last or (len(rows) and place * _CONTAINER + int(rows[-1]) >= limit):
                raise DamagedVector("deletes rows that aren't in its file")
            packed[place] = np.packbits(~deleted, bitorder="little").tobytes()
            last, count = place, count + len(rows)
    if count != vector.cardinality:
        raise DamagedVector("deletes a different number of rows than the log specifies")
    none_deleted = b"\xff" * (_CONTAINER // 8)
    bits = b"".join(packed.get(place, none_deleted) for place in range(last + 1))
    return pa.BooleanArray.from_buffers(pa.bool_(), 8 * len(bits), [None, pa.py_buffer(bits)])


class _Cursor:
    """Reads consecutive numbers."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def take(self, kind: str, count: int) -> _Array:
        """Return the next `count` numbers; raises `ValueError` if there are fewer."""
        if not count:
            return np.empty(0, kind)
        found = np.frombuffer(self._content, kind, count, self._at)
        self._at += found.nbytes
        return found

    def number(self, kind: str) -> int:
        return int(self.take(kind, 1)[0])

    def containers(self) -> Iterator[tuple[int, _Array]]:
        """Yield a 32-bit map's containers: the upper half of the row numbers, and which of 65,536 rows are deleted."""
        cookie = self.number("<u4")
        if cookie & 0xFFFF == _RUNS_COOKIE:
            count = (cookie >> 16) + 1
            have_runs = np.unpackbits(self.take("u1", (count + 7) // 8), count=count, bitorder="little")
        elif cookie == _PLAIN_COOKIE:
            count = self.number("<u4")
            have_runs = np.zeros(min(count, _CONTAINER), "u1")
        else:
            raise DamagedVector("has a map in an unknown format")
        if count > _CONTAINER:
            raise DamagedVector("has a map that is too large")
        heads = self.take("<u2", 2 * count).tolist()
        if cookie == _PLAIN_COOKIE or count >= _MIN_OFFSETS:
            self.take("<u4", count)  # skip the containers' offsets, because the containers are contiguous
        for key, less_one, has_runs in zip(heads[::2], heads[1::2], have_runs.tolist(), strict=True):
            yield key, self._container(less_one + 1, has_runs=bool(has_runs))

    def _container(self, count: int, *, has_runs: bool) -> _Array:
        if not has_runs and count > _MAX_ARRAY:
            return np.unpackbits(self.take("u1", _CONTAINER // 8), bitorder="little").astype(np.bool_)
        deleted = np.zeros(_CONTAINER, np.bool_)
        if not has_runs:
            deleted[self.take("<u2", count)] = True
            return deleted
        pairs = self.take("<u2", 2 * self.number("<u2")).tolist()
        for first, more in zip(pairs[::2], pairs[1::2], strict=True):
            deleted[first : first + more + 1] = True
        return deleted
