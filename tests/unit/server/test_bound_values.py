"""Few values travel with their types; many do not."""

import pyarrow as pa

from micromegas_jupyter.server.bound_values import pack_values, unpack_values
from tests.fuzz.wire_samples import VALUES


def test_values_come_back_with_their_types() -> None:
    packed = pack_values(VALUES)

    assert packed is not None
    assert unpack_values(packed) == VALUES


def test_a_part_of_a_batch_travels_alone() -> None:
    part = pa.record_batch({"0": pa.array(range(100_000))}).slice(5, 2)

    packed = pack_values(part)

    assert packed is not None
    assert len(packed) < 1000
    assert unpack_values(packed) == part


def test_large_values_do_not_travel() -> None:
    assert pack_values(pa.record_batch({"0": [bytes(64 * 1024)]})) is None
    assert pack_values(pa.record_batch({f"{number}": [1] for number in range(1000)})) is None
    assert pack_values(pa.record_batch({"0": pa.array(["x" * 100_000, "y"]).dictionary_encode()})) is None


def test_no_bytes_are_no_values() -> None:
    assert unpack_values(b"") is None
