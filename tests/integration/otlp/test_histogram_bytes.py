"""Points of histograms as other encoders write them: in pieces, one by one, with missing bytes, and by the million."""

import struct

import pytest

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.otlp.decode import decode_request
from micromegas_jupyter.otlp.exchange import ExportRequest, Signal
from micromegas_jupyter.otlp.mapping import OriginCache, map_request
from tests.integration.otlp.exporting import NOON

EXPLICIT, EXPONENTIAL = 9, 10


def field(number, data):
    size = len(data)
    return bytes([number << 3 | 2, *(size >> bits & 0x7F | 0x80 for bits in (0, 7, 14)), size >> 21]) + data


def fixed(number, value):
    return bytes([number << 3 | 1]) + (
        struct.pack("<d", value) if isinstance(value, float) else value.to_bytes(8, "little")
    )


def packed(*values):
    return b"".join(fixed(1, value)[1:] for value in values)


def take(*points, kind=EXPLICIT):
    """Map an export of one metric whose points are these bytes, after time and count."""
    metric = b"".join(field(1, fixed(3, NOON) + point) for point in points) + b"\x10\x02"
    body = field(1, field(2, field(2, field(1, b"m") + field(kind, metric))))
    request = ExportRequest(signal=Signal.METRICS, body=body)
    return map_request(request.signal, decode_request(request), origins=OriginCache(), now_ns=NOON, is_trusted=False)


COUNT = fixed(4, 3)
GOOD = COUNT + field(6, packed(1, 2)) + field(7, packed(1.0))


@pytest.mark.parametrize(
    "point",
    [
        GOOD,
        COUNT + fixed(6, 1) + fixed(6, 2) + fixed(7, 1.0),
        COUNT + field(6, packed(1, 2)) + fixed(7, 1.0),
        COUNT + fixed(6, 1) + fixed(6, 2) + field(7, packed(1.0)),
        COUNT + field(6, packed(1)) + field(6, packed(2)) + field(6, b"") + field(7, packed(1.0)),
        COUNT + field(6, packed(1)) + fixed(6, 2) + field(7, packed(1.0)),
    ],
)
def test_lists_are_read_however_they_are_packed(point):
    mapped = take(GOOD, point, GOOD)
    assert not mapped.refusals.count
    for one in mapped.records["histograms"]["histogram"].to_pylist():
        assert (one["bounds"], one["indices"], one["counts"]) == ([1.0], [0, 1], [1, 2])


@pytest.mark.parametrize(
    "point",
    [
        COUNT + field(6, packed(1, 2)[:-1]) + field(7, packed(1.0)),
        COUNT + field(6, packed(1, 2)) + field(7, packed(1.0)[:-1]),
        COUNT + field(6, packed(1, 2) + b"\0") + field(7, packed(1.0)),
        COUNT + field(6, packed(1, 2)[:12]) + field(6, packed(1, 2)[12:]) + field(7, packed(1.0)),
        COUNT + field(6, packed(1, 2)[1:]) + field(7, packed(1.0)[1:]),
    ],
)
def test_a_list_with_missing_bytes_is_malformed(point):
    # The second one's bytes would fill up those of the first.
    for points in ([point], [GOOD, point], [point, point]):
        with pytest.raises(UsageError, match="not an OTLP message"):
            take(*points)


def test_an_export_has_a_limited_number_of_buckets():
    point = fixed(4, 2000) + field(8, field(2, b"\x01" * 2000))
    assert not take(*[point] * 3, kind=EXPONENTIAL).refusals.count
    with pytest.raises(UsageError, match="4,000,000 buckets"):
        take(*[point] * 2001, kind=EXPONENTIAL)
    many = COUNT + fixed(6, 1) * 100_000
    mapped = take(GOOD, many)
    assert (mapped.refusals.count, "more than 2,000 buckets" in mapped.refusals.reason) == (1, True)
