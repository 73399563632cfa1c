"""Deletion vectors are decoded exactly, and damaged ones bring back no row."""

import random
import struct
import zlib

import numpy as np
import pytest

from micromegas_jupyter.core.deletion_vectors import DamagedVector, decode_vector, decode_z85, unframed
from micromegas_jupyter.core.protocols import DeletionVector
from tests.fakes.delta_tables import encode_rows, z85


def decode(content, cardinality, rows=None):
    vector = DeletionVector("", None, len(content), cardinality, rows)
    live = decode_vector(vector, content).to_numpy(zero_copy_only=False)
    return np.flatnonzero(~live).tolist()


def some_rows(chance):
    """Return rows of every density and place: in arrays, bits, and runs, in one or several containers."""
    top = int(10 ** chance.uniform(0, 6.5))
    rows = {chance.randrange(top) for _ in range(int(10 ** chance.uniform(0, 4)))}
    if chance.random() < 0.5:
        start = chance.randrange(top)
        rows |= set(range(start, start + chance.randrange(1, 9000)))
    return sorted(rows)


@pytest.mark.parametrize("count", [40, pytest.param(400, marks=pytest.mark.long)])
@pytest.mark.parametrize("has_runs", [False, True])
def test_each_vector_deletes_its_rows(count, has_runs):
    chance = random.Random(count)
    for _ in range(count):
        rows = some_rows(chance)
        assert decode(encode_rows(rows, has_runs=has_runs), len(rows)) == rows


def test_z85_is_that_of_its_specification():
    content = bytes([0x86, 0x4F, 0xD2, 0x6F, 0xB5, 0x59, 0xF7, 0x5B])
    assert (decode_z85("HelloWorld"), z85(content)) == (content, "HelloWorld")
    for text in ("Hello!", "Hell~", "%nSc1", "#####"):
        with pytest.raises(DamagedVector):
            decode_z85(text)


def damaged(content, chance):
    """Return other bytes than these: some changed, cut off, or repeated."""
    found = bytearray(content)
    while bytes(found) == content:
        for _ in range(chance.randrange(1, 4)):
            found[chance.randrange(len(found))] = chance.randrange(256)
        if chance.random() < 0.5:
            found = found[: chance.randrange(len(found) + 1)] or bytearray(b"x")
        if chance.random() < 0.1:
            found = found + found
    return bytes(found)


@pytest.mark.parametrize("count", [300, pytest.param(3000, marks=pytest.mark.long)])
def test_a_damaged_file_brings_back_no_row(count):
    chance = random.Random(count)
    for _ in range(count):
        rows = some_rows(chance)[:3000]
        content = encode_rows(rows, has_runs=chance.random() < 0.5)
        stored = struct.pack(">i", len(content)) + content + struct.pack(">I", zlib.crc32(content))
        vector = DeletionVector("v", 1, len(content), len(rows), None)
        with pytest.raises(DamagedVector):
            decode_vector(vector, unframed(vector, damaged(stored, chance)))


@pytest.mark.parametrize("count", [300, pytest.param(3000, marks=pytest.mark.long)])
def test_a_damaged_vector_without_a_checksum_is_rejected_or_deletes_as_many_rows(count):
    chance = random.Random(count)
    for _ in range(count):
        rows = some_rows(chance)[:3000]
        content = damaged(encode_rows(rows, has_runs=chance.random() < 0.5), chance)
        try:
            found = decode(content, len(rows), rows[-1] + 1)
        except DamagedVector:
            continue
        assert (len(found), found[-1] <= rows[-1]) == (len(rows), True)


@pytest.mark.parametrize(
    ("content", "cardinality", "rows"),
    [
        (b"", 0, None),
        (encode_rows([1, 2]), 1, None),
        (encode_rows([1, 2]), 3, None),
        (encode_rows([1, 9]), 2, 9),
        (encode_rows([1 << 31]), 1, None),
        (encode_rows([1 << 40]), 1, 1 << 41),
        (struct.pack("<iq", 1681511377, 1 << 60), 0, None),
        (struct.pack("<iq", 1681511377, -1), 1, None),
        (struct.pack("<iqII", 1681511377, 1, 0, 12345), 0, None),
        (struct.pack("<iqIII", 1681511377, 1, 0, 12346, 1 << 31), 0, None),
        (encode_rows([1])[:-2], 1, None),
    ],
)
def test_what_is_no_vector_of_so_many_rows_is_rejected(content, cardinality, rows):
    with pytest.raises(DamagedVector):
        decode(content, cardinality, rows)
