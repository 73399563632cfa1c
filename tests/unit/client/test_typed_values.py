"""Python values become Arrow scalars of the same meaning."""

from __future__ import annotations

import enum
import math
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from micromegas_jupyter.client.parameters import to_scalar
from micromegas_jupyter.errors import UsageError

_ID = uuid.UUID("550e8400-e29b-41d4-a716-446655440000")


class _Level(enum.IntEnum):
    ERROR = 2


class _Tag(enum.StrEnum):
    LOG = "log"


@pytest.mark.parametrize(
    ("value", "kind", "stored"),
    [
        (None, pa.null(), None),
        (pd.NaT, pa.null(), None),
        (pd.NA, pa.null(), None),
        (np.datetime64("NaT", "ns"), pa.null(), None),
        (True, pa.bool_(), True),
        (np.bool_(False), pa.bool_(), False),
        (7, pa.int64(), 7),
        (-(2**63), pa.int64(), -(2**63)),
        (2**63, pa.uint64(), 2**63),
        (2**64, pa.decimal128(20, 0), Decimal(2**64)),
        (_Level.ERROR, pa.int64(), 2),
        (np.int32(7), pa.int64(), 7),
        (np.uint64(2**64 - 1), pa.uint64(), 2**64 - 1),
        (1.5, pa.float64(), 1.5),
        (float("inf"), pa.float64(), float("inf")),
        (np.float32(0.5), pa.float64(), 0.5),
        ("it's :a\0", pa.string(), "it's :a\0"),
        (_Tag.LOG, pa.string(), "log"),
        (np.str_("a"), pa.string(), "a"),
        (b"\0\xff", pa.binary(), b"\0\xff"),
        (bytearray(b"a"), pa.binary(), b"a"),
        (Decimal("0.10"), pa.decimal128(2, 2), Decimal("0.10")),
        (Decimal("1" * 50), pa.decimal256(50, 0), Decimal("1" * 50)),
        (date(2026, 11, 24), pa.date32(), date(2026, 11, 24)),
        (pa.scalar(7, pa.int8()), pa.int64(), 7),
        (pa.scalar(None, pa.string()), pa.null(), None),
        (_ID, pa.string(), "550e8400-e29b-41d4-a716-446655440000"),
    ],
    ids=str,
)
def test_a_value_keeps_its_meaning(value: object, kind: pa.DataType, stored: object) -> None:
    scalar = to_scalar(value, name="a")

    assert scalar.type == kind
    assert scalar.as_py() == stored


class _Colour(enum.Enum):
    RED = "red"


def test_a_member_of_a_plain_enumeration_is_refused_with_what_to_bind_instead() -> None:
    with pytest.raises(UsageError, match=r"a member of _Colour\. Bind its value: \.value"):
        to_scalar(_Colour.RED, name="a")


def test_nan_is_a_number_and_not_null() -> None:
    assert math.isnan(to_scalar(float("nan"), name="a").as_py())


@pytest.mark.parametrize(
    ("value", "nanoseconds"),
    [
        (datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC), 1_000_005_000),
        (datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), 0),
        (datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), -1_000),
        (pd.Timestamp("1970-01-01T00:00:00.000000007Z"), 7),
        (pd.Timestamp("1969-12-31T23:59:59.999999999Z"), -1),
    ],
)
def test_a_time_becomes_nanoseconds_in_utc(value: datetime, nanoseconds: int) -> None:
    scalar = to_scalar(value, name="a")

    assert scalar.type == pa.timestamp("ns", "+00:00")
    assert scalar.value == nanoseconds


def test_a_time_that_nanoseconds_cannot_hold_becomes_microseconds() -> None:
    scalar = to_scalar(datetime(1, 1, 1, tzinfo=UTC), name="a")

    assert scalar.type == pa.timestamp("us", "+00:00")
    assert scalar.value == -62_135_596_800_000_000


@pytest.mark.parametrize(
    ("value", "nanoseconds"),
    [
        (timedelta(hours=1, microseconds=1), 3_600_000_001_000),
        (timedelta(microseconds=-1), -1_000),
        (pd.Timedelta(-1, "ns"), -1),
        (np.timedelta64(3, "ns"), 3),
        (np.timedelta64(2, "s"), 2_000_000_000),
    ],
)
def test_a_duration_becomes_nanoseconds(value: object, nanoseconds: int) -> None:
    scalar = to_scalar(value, name="a")

    assert scalar.type == pa.duration("ns")
    assert scalar.value == nanoseconds


def test_a_duration_that_nanoseconds_cannot_hold_becomes_microseconds() -> None:
    scalar = to_scalar(timedelta(days=200_000), name="a")

    assert scalar.type == pa.duration("us")
    assert scalar.value == 17_280_000_000_000_000


def test_a_missing_numpy_duration_is_null() -> None:
    assert to_scalar(np.timedelta64("NaT", "ns"), name="a").type == pa.null()


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 1, 1),  # noqa: DTZ001 - the point of the case
        pd.Timestamp("2026-01-01"),
        np.datetime64("2026-01-01"),
        time(12, 0),
        "\ud800",
        Decimal("NaN"),
        Decimal("1E+90"),
        10**90,
        1j,
        object(),
        {"a": 1},
        pa.scalar([1]),
        pa.scalar(datetime(2026, 1, 1), pa.timestamp("us")),  # noqa: DTZ001 - the point of the case
        [1],
        np.array([1, 2]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_has_no_sql_type_is_refused(value: object) -> None:
    with pytest.raises(UsageError) as caught:
        to_scalar(value, name="when")

    assert ":when" in str(caught.value)
