"""Tables that clients make: with which columns, seen by whom, and what is refused."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from adbc_driver_flightsql import DatabaseOptions
from adbc_driver_flightsql import dbapi as adbc
from adbc_driver_manager import Error as AdbcError
from adbc_driver_manager import NotSupportedError

from micromegas_jupyter.core.protocols import WriteMode, WriteRequest
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.lake.lake import Lake
from tests.fakes.telemetry_rows import PAIRS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.ingest.lake_server import LakeServer


pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:Cannot disable autocommit:Warning"),
]

_WHEN = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def connection(server: LakeServer) -> Iterator[adbc.Connection]:
    kwargs = {DatabaseOptions.AUTHORIZATION_HEADER.value: "Bearer alice"}
    with adbc.connect(server.uri, db_kwargs=kwargs, autocommit=True) as opened:
        yield opened


def _ingest(connection: adbc.Connection, table: str, rows: pa.Table, mode: str = "create") -> int:
    with connection.cursor() as cursor:
        count: int = cursor.adbc_ingest(table, rows, mode=mode)
    return count


def test_a_table_is_made_filled_and_read(server: LakeServer, connection: adbc.Connection) -> None:
    created = _ingest(connection, "orders", pa.table({"id": [1, 2], "name": ["a", None]}))
    appended = _ingest(connection, "orders", pa.table({"name": ["c"], "id": pa.array([3], pa.int8())}), "append")
    either = _ingest(connection, "orders", pa.table({"id": [4]}), "create_append")

    assert (created, appended, either) == (2, 1, 1)
    with server.client("bob") as bob:
        assert bob.query_arrow("SELECT * FROM orders ORDER BY id").to_pydict() == {
            "id": [1, 2, 3, 4],
            "name": ["a", None, "c", None],
        }
        assert bob.list_tables()["orders"].names == ["id", "name"]


def test_every_kept_type_reads_back(server: LakeServer, connection: adbc.Connection) -> None:
    values = {
        "flag": pa.array([True, None]),
        "small": pa.array([-1, None], pa.int8()),
        "large": pa.array([2**64 - 1, None], pa.uint64()),
        "half": pa.array([1.5, None], pa.float16()),
        "real": pa.array([1.5, None]),
        "money": pa.array([Decimal("1.10"), None], pa.decimal128(20, 2)),
        "day": pa.array([date(2026, 1, 1), None], pa.date64()),
        "clock": pa.array([time(1, 2), None], pa.time64("us")),
        "seconds": pa.array([_WHEN.replace(tzinfo=None), None], pa.timestamp("s")),
        "zoned": pa.array([_WHEN, None], pa.timestamp("us", "Europe/Paris")),
        "span": pa.array([timedelta(seconds=1), None], pa.duration("us")),
        "text": pa.array(["ü", None], pa.large_utf8()),
        "view": pa.array(["a longer text than twelve", None], pa.string_view()),
        "word": pa.array(["a", None]).dictionary_encode(),
        "bytes": pa.array([b"\0", None], pa.large_binary()),
        "fixed": pa.array([b"ab", None], pa.binary(2)),
        "list": pa.array([["a", None], None], pa.large_list(pa.utf8())),
        "pair": pa.array([[1, 2], None], pa.list_(pa.int32(), 2)),
        "struct": pa.array([{"a": 1, "b": ["x"]}, None]),
        "map": pa.array([[("k", 1)], None], pa.map_(pa.utf8(), pa.int64())),
        "pairs": pa.array([[{"key": "a", "value": "b"}], None], PAIRS),
    }
    table = pa.table(values)

    _ingest(connection, "kinds", table)
    _ingest(connection, "kinds", table, "append")

    with server.client("alice") as client:
        found = client.query_arrow("SELECT * FROM kinds")
    expected = {name: column.to_pylist() * 2 for name, column in values.items()}
    expected["seconds"] = [_WHEN.replace(tzinfo=None), None] * 2
    assert found.to_pydict() == expected


@pytest.mark.parametrize(
    "name",
    ["", "Orders", "1st", "a" * 64, "a-b", "a/b", "../a", "a.b", "a b", "ä", "_private", "a\0b", "blocks", "a\nb"],
)
def test_a_name_that_could_be_misread_is_refused(server: LakeServer, name: str) -> None:
    sink = Lake(server.root).sink()
    before = server.files()

    with pytest.raises(UsageError):
        sink.open_write(WriteRequest(table=name, mode=WriteMode.CREATE), pa.schema({"id": pa.int64()}))

    assert server.files() == before


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array([None]), "null"),
        (pa.array([[None]]), "list<item: null>"),
        (pa.array([{"a": 1}], pa.struct([])), "struct<>"),
        (pa.array([_WHEN], pa.timestamp("us", "Nowhere/At_All")), "Nowhere"),
        (pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])]), "union"),
    ],
    ids=["null", "list of null", "empty struct", "unknown zone", "union"],
)
def test_a_type_that_is_not_kept_is_refused_by_column(connection: adbc.Connection, column: pa.Array, kind: str) -> None:
    with pytest.raises(AdbcError, match=kind):
        _ingest(connection, "odd", pa.table({"odd": column}))


def test_a_table_is_made_once_and_never_replaced(server: LakeServer, connection: adbc.Connection) -> None:
    _ingest(connection, "once", pa.table({"id": [1]}))

    with pytest.raises(AdbcError, match="There is a table once already"):
        _ingest(connection, "once", pa.table({"id": [2]}))
    with pytest.raises(NotSupportedError, match="never replaced"):
        _ingest(connection, "once", pa.table({"id": [3]}), "replace")
    with pytest.raises(AdbcError, match="There is no table 'absent'"):
        _ingest(connection, "absent", pa.table({"id": [3]}), "append")

    assert server.column("SELECT id FROM once") == [1]
