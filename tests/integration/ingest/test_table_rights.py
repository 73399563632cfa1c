"""Who may write to which tables: people by their roles and programs by their keys, through real calls."""

import base64
import hashlib
import json
import logging
import threading
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from adbc_driver_flightsql import DatabaseOptions
from adbc_driver_flightsql import dbapi as adbc

from micromegas_jupyter.access.config import ReloadingValidator
from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.errors import MicromegasError, PermissionDenied, ResourcesExhausted, UsageError
from micromegas_jupyter.flightsql.framing import FlightDataEncoder
from tests.fakes.clock import FakeClock
from tests.fakes.mint import AUDIENCE, ISSUER, ec_key, mint
from tests.fakes.waiting import wait_until
from tests.integration.flight_harness import messages, opening_frame, result_of, running_server

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore:Cannot disable autocommit:Warning")]

ORDERS = pa.table({"id": [1, 2, 3], "city": ["Oslo", "Rome", "Bern"]})
MODEL_TABLES = {"blocks", "histograms", "log_entries", "measures", "otel_spans", "processes", "streams"}
ROLES = {
    "reader": {"tables": {"orders": None, "*": "1 = 1"}},
    "loader": {"ingest": ["orders", "log_entries"]},
    "partly": {"tables": {"partly_read": "id = 1"}, "owns": ["partly_read"]},
    "nothing": {"tables": ["no_such_table"]},
    "team": {"tables": ["team_a"], "owns": ["team_*"]},
    "everything": {"tables": ["*"], "owns": ["*"], "ingest": ["*"]},
}
KEYS = {
    "reader": {"roles": ["reader", "team"]},  # without the scope `write`, a key only reads
    "narrow": {"scopes": ["read", "ingest:orders", "ingest:log_*"]},
    "wide": {"scopes": ["read", "ingest"]},
    "other": {"scopes": ["read", "ingest"]},
    "writer": {"scopes": ["write"], "roles": ["team", "loader"]},
}


@pytest.fixture(scope="module")
def validator(tmp_path_factory):
    folder = tmp_path_factory.mktemp("access")
    (folder / "jwks.json").write_text(json.dumps({"keys": [ec_key().jwk()]}))
    issuer = {
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "jwks_file": str(folder / "jwks.json"),
        "groups_claim": ["groups"],
        "group_roles": {name: [name] for name in ROLES},
        "admin_groups": ["admins"],
    }
    keys = [
        {"name": name, "sha256": hashlib.sha256(_key(name).encode()).hexdigest(), **key} for name, key in KEYS.items()
    ]
    config = folder / "access.json"
    config.write_text(json.dumps({"oidc": {"issuers": [issuer]}, "api_keys": keys, "roles": ROLES}))
    made = ReloadingValidator({"MICROMEGAS_ACCESS_CONFIG": str(config)}, clock=FakeClock())
    yield made
    made.close()


@pytest.fixture(scope="module")
def flight(validator, tmp_path_factory):
    lake = tmp_path_factory.mktemp("lake")
    with running_server(validator=validator, worker={"lake": str(lake)}, max_calls_per_caller=100) as harness:
        yield harness


def _key(name):
    return f"the-key-of-{name}-for-this-test"


def _person(name, *groups):
    return mint(subject=name, groups=list(groups), key=ec_key(), expires_in=3000)


@pytest.fixture
def as_person(flight):
    """Open a client of somebody with these groups."""

    @contextmanager
    def connect(name, *groups):
        with _client(flight, _person(name, *groups)) as client:
            yield client

    return connect


@pytest.fixture
def with_key(flight):
    return lambda name: _client(flight, _key(name))


@pytest.fixture
def admin(flight):
    with _client(flight, _person("ada", "admins")) as client:
        yield client
        for table in client.table_summaries():
            if table.name not in MODEL_TABLES:
                client.drop_table(table.name)


def _client(flight, token):
    return FlightSQLClient(flight.uri, auth_provider=StaticTokenAuthProvider(token))


def _rows(admin, table):
    return admin.describe_table(table).row_count


def test_a_role_lets_people_send_rows_to_its_tables_only_and_create_none(admin, as_person):
    admin.bulk_ingest("orders", ORDERS, mode="create")
    with as_person("bob", "loader") as bob:
        assert bob.bulk_ingest("orders", ORDERS).record_count == 3
        assert bob.bulk_ingest("orders", ORDERS, mode="create_append").record_count == 3
        for table, mode in [("others", "append"), ("orders", "create"), ("orders", "replace"), ("others", "create")]:
            with pytest.raises(PermissionDenied):
                bob.bulk_ingest(table, ORDERS, mode=mode)
        admin.drop_table("orders")
        with pytest.raises(UsageError):  # to append to a table that is not there creates none
            bob.bulk_ingest("orders", ORDERS, mode="create_append")

    assert {table.name for table in admin.table_summaries()} == MODEL_TABLES


def test_people_who_own_a_prefix_create_replace_change_and_drop_its_tables(admin, as_person):
    with as_person("carol", "team") as carol, as_person("dan", "team") as dan:
        carol.bulk_ingest("team_a", ORDERS, mode="create")
        carol.add_column("team_a", pa.field("price", pa.float64()))
        assert dan.delete_rows("team_a", "id >= 2") == 2
        described = dan.describe_table("team_a")
        assert [column.name for column in described.columns] == ["id", "city", "price"]
        assert (described.is_owner, described.row_count) == (True, 1)
        dan.set_retention("team_a", 30)
        assert carol.describe_table("team_a").retention_days == 30
        carol.optimize_table("team_a")
        assert carol.table_history("team_a", limit=2)[0].version > carol.table_history("team_a")[-1].version
        dan.bulk_ingest("team_a", pa.table({"other": ["x"]}), mode="replace")
        assert [column.name for column in carol.describe_table("team_a").columns] == ["other"]
        carol.drop_table("team_a")
        dan.create_table("team_a", pa.schema([("id", pa.int64())]))
        assert _rows(admin, "team_a") == 0
        for refused in (
            lambda: carol.create_table("orders", ORDERS.schema),
            lambda: carol.bulk_ingest("teams", ORDERS),
        ):
            with pytest.raises(PermissionDenied):
                refused()


_ALL_ROWS_HAVE = pa.table({"id": [1, 2], "secret": ["shown", "hidden"]})


def test_a_condition_that_fails_shows_no_value_to_whoever_may_not_read_all_rows(admin, as_person):
    admin.bulk_ingest("partly_read", _ALL_ROWS_HAVE, mode="create")
    where = "id = 2 AND CAST(secret AS BIGINT) = 1"

    with as_person("ian", "partly") as ian, pytest.raises(UsageError, match="isn't shown") as raised:
        ian.delete_rows("partly_read", where)
    with pytest.raises(UsageError, match="Cannot cast string"):
        admin.delete_rows("partly_read", where)

    assert "shown'" not in str(raised.value)
    assert "hidden" not in str(raised.value)


# More terms than fit on the stack of a thread, and more memory than a process may have.
@pytest.mark.parametrize("where", ["id = 1" + "+1" * 4900, "secret = repeat('x', 2000000000)"], ids=["stack", "memory"])
def test_a_condition_that_ends_its_process_ends_no_upload(flight, admin, as_person, where):
    admin.bulk_ingest("team_fatal", _ALL_ROWS_HAVE, mode="create_append")
    encoder = FlightDataEncoder(ORDERS.schema)
    command = messages.CommandStatementIngest(table="beside")
    command.table_definition_options.if_not_exist, command.table_definition_options.if_exists = 1, 2
    has_ended = threading.Event()

    def frames():
        yield opening_frame(command, encoder.encode_schema())
        yield from encoder.encode_batch(ORDERS.to_batches()[0])
        has_ended.wait(60)

    token = _person("root", "admins")
    upload = flight.begin("DoPut", frames(), metadata=(("authorization", f"Bearer {token}"),))
    wait_until(lambda: flight.metric("ingests_running"), "the upload is running")
    with as_person("dan", "team") as dan, pytest.raises(MicromegasError):
        dan.delete_rows("team_fatal", where)
    has_ended.set()

    assert len(list(upload)) == 1  # how many rows were stored


def test_what_somebody_neither_reads_nor_writes_to_does_not_exist_for_them(admin, as_person):
    admin.create_table("secret", ORDERS.schema)
    with as_person("carol", "team") as carol:
        answers = [_refusals(carol, name) for name in ("secret", "absent")]
        listed = [table.name for table in carol.table_summaries()]

    assert answers[0] == [text.replace("absent", "secret") for text in answers[1]]
    assert "secret" not in listed


def _refusals(client, table):
    calls = [
        lambda: client.describe_table(table),
        lambda: client.drop_table(table),
        lambda: client.delete_rows(table, "true"),
        lambda: client.add_column(table, pa.field("x", pa.int64())),
        lambda: client.restore_table(table, to="1m"),
        lambda: client.optimize_table(table),
        lambda: client.table_history(table),
        lambda: client.set_retention(table, 3),
    ]
    texts = []
    for call in calls:
        with pytest.raises(UsageError) as refused:
            call()
        texts.append(str(refused.value))
    return texts


def test_whoever_only_reads_a_table_sees_its_columns_and_changes_nothing(admin, as_person, with_key):
    admin.bulk_ingest("orders", ORDERS, mode="create")
    with as_person("eve", "reader") as eve, with_key("reader") as key:
        for reader in (eve, key):
            described = reader.describe_table("orders")
            assert (described.is_owner, described.row_count, described.version) == (False, None, None)
            assert [column.name for column in described.columns] == ["id", "city"]
            for change in (
                lambda client=reader: client.drop_table("orders"),
                lambda client=reader: client.delete_rows("orders", "true"),
                lambda client=reader: client.restore_table("orders", to=datetime.now(UTC)),
                lambda client=reader: client.table_history("orders"),
                lambda client=reader: client.bulk_ingest("orders", ORDERS),
                lambda client=reader: client.bulk_ingest("team_a", ORDERS, mode="create"),
            ):
                with pytest.raises(PermissionDenied):
                    change()

    assert _rows(admin, "orders") == 3


def test_a_scope_that_names_a_table_lets_a_key_write_to_that_one(admin, with_key):
    with with_key("narrow") as narrow:
        narrow.bulk_ingest("orders", ORDERS, mode="create_append")
        narrow.bulk_ingest("log_own", ORDERS, mode="create")
        for table in ("others", "orders_2", "measures"):
            with pytest.raises(PermissionDenied):
                narrow.bulk_ingest(table, ORDERS, mode="create_append")

    assert _rows(admin, "orders") == 3


def test_a_key_for_every_table_owns_those_that_it_created(admin, with_key):
    with with_key("wide") as wide, with_key("other") as other:
        wide.bulk_ingest("orders", ORDERS, mode="create")
        other.bulk_ingest("orders", ORDERS)
        for refused in (
            lambda: other.drop_table("orders"),
            lambda: other.bulk_ingest("orders", ORDERS, mode="replace"),
            lambda: other.delete_rows("orders", "true"),
        ):
            with pytest.raises(PermissionDenied):
                refused()
        assert _rows(admin, "orders") == 6
        wide.bulk_ingest("orders", ORDERS.slice(0, 1), mode="replace")
        assert wide.delete_rows("orders", "id = 1") == 1
        assert {table.name: table.is_owner for table in other.table_summaries()}["orders"] is False
        wide.drop_table("orders")
        other.bulk_ingest("orders", ORDERS, mode="replace")  # there is none, so it is created

    assert _rows(admin, "orders") == 3


def test_a_key_writes_what_its_roles_allow_with_the_scope_for_it(admin, with_key):
    admin.create_table("orders", ORDERS.schema)
    with with_key("writer") as writer:
        writer.bulk_ingest("orders", ORDERS)
        writer.bulk_ingest("team_a", ORDERS, mode="create")
        writer.drop_table("team_a")
        with pytest.raises(PermissionDenied):
            writer.drop_table("orders")
        with pytest.raises(PermissionDenied):  # it lacks the scope to read, so the columns stay hidden
            writer.describe_table("orders")


def test_tables_of_the_data_model_belong_to_administrators(admin, as_person):
    with as_person("max", "everything") as owner:
        for refused in (
            lambda: owner.delete_rows("log_entries", "true"),
            lambda: owner.set_retention("log_entries", 1),
            lambda: owner.drop_table("log_entries"),
        ):
            with pytest.raises(MicromegasError):
                refused()
        with pytest.raises(UsageError):
            owner.bulk_ingest("log_entries", ORDERS, mode="replace")
    for refused in (
        lambda: admin.drop_table("log_entries"),
        lambda: admin.create_table("log_entries", ORDERS.schema),
        lambda: admin.bulk_ingest("log_entries", ORDERS, mode="replace"),
    ):
        with pytest.raises(UsageError):
            refused()


def test_adbc_replaces_a_table_of_its_own(flight, admin):
    options = {DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {_key('wide')}"}
    with (
        adbc.connect(flight.uri, db_kwargs=options, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        cursor.adbc_ingest("orders", ORDERS, mode="replace")
        cursor.adbc_ingest("orders", ORDERS.slice(0, 2).rename_columns(["number", "city"]), mode="replace")

    described = admin.describe_table("orders")
    assert ([column.name for column in described.columns], described.row_count) == (["number", "city"], 2)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\xff", b"[]", b"{}", b'{"operation": "explode"}', b'{"operation": "drop"}',
        b'{"operation": "drop", "table": "orders", "table": "others"}', b'{"operation": "drop", "table": 5}',
        b'{"operation": "drop", "table": "orders", "force": true}', b'{"operation": "drop", "table": ""}',
        b'{"operation": "delete", "table": "orders"}', b'{"operation": "delete", "table": "orders", "where": ""}',
        b'{"operation": "delete", "table": "orders", "where": "(SELECT 1) = 1; x"}',
        b'{"operation": "history", "table": "orders", "limit": 0}',
        b'{"operation": "set_retention", "table": "orders"}',
        b'{"operation": "set_retention", "table": "orders", "days": 0}',
        b'{"operation": "create", "table": "more", "schema": "AAAA"}',
        b'{"operation": "create", "table": "more", "schema": "no base64"}',
        b'{"operation": "create", "table": "../more", "schema": "AAAA"}',
        json.dumps({"operation": "drop", "table": "x" * 300}).encode(),
    ],
)  # fmt: skip
def test_a_body_that_is_not_an_operation_is_refused(flight, admin, body):
    admin.create_table("orders", ORDERS.schema)

    answer = flight.act("MicromegasTables", body, metadata=_metadata("ada", "admins"))

    assert type(answer.error) is UsageError, answer.text
    assert _rows(admin, "orders") == 0


def test_a_body_of_any_size_is_refused_and_one_that_nests(flight):
    for body in (b'{"operation": "drop", "table": "' + b"x" * 300_000 + b'"}', b"[" * 5000):
        answer = flight.act("MicromegasTables", body, metadata=_metadata("ada", "admins"))
        assert type(answer.error) in {UsageError, ResourcesExhausted}


def _metadata(name, *groups):
    return (("authorization", f"Bearer {_person(name, *groups)}"),)


def test_the_action_is_listed_and_answers_json(flight, admin):
    schema = base64.b64encode(ORDERS.schema.serialize().to_pybytes()).decode()
    body = json.dumps({"operation": "create", "table": "orders", "schema": schema, "partition_by": []}).encode()

    assert json.loads(result_of(flight.act("MicromegasTables", body, metadata=_metadata("ada", "admins")))) == {}
    listed = flight.call("ListActions", b"", metadata=_metadata("ada", "admins"))

    assert "MicromegasTables" in [messages.ActionType.FromString(reply).type for reply in listed.replies]
    assert admin.describe_table("orders").columns[0].type == "int64"


def test_each_operation_leaves_one_audit_line(admin, with_key, caplog):
    admin.bulk_ingest("orders", ORDERS, mode="create")
    caplog.set_level(logging.INFO, "micromegas_jupyter.audit")
    caplog.clear()

    admin.delete_rows("orders", "id < 3")
    with with_key("wide") as wide, pytest.raises(PermissionDenied):
        wide.drop_table("orders")

    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "micromegas_jupyter.audit"]
    assert [(line["action"], line["operation"], line["table"], line["status"]) for line in lines] == [
        ("table", "delete", "orders", "ok"),
        ("table", "drop", "orders", "error"),
    ]
    assert (lines[0]["where"], lines[0]["rows"], lines[0]["user"]) == ("id < 3", 2, "ada")
    assert (lines[1]["error_class"], lines[1]["user"]) == ("denied", "wide")


def test_a_server_that_only_reads_changes_no_tables(validator):
    with (
        running_server(validator=validator) as flight,
        _client(flight, _person("ada", "admins")) as admin,
        pytest.raises(MicromegasError, match="lake"),
    ):
        admin.table_summaries()


def test_operations_on_tables_are_counted_by_their_outcome(flight, admin, as_person):
    ends = [(name, end) for name in ("create", "drop", "delete", "optimize", "other") for end in ("ok", "error")]

    def counts():
        return Counter({(name, end): flight.metric("table_operations_total", operation=name, outcome=end)
                        for name, end in ends})  # fmt: skip

    before = counts()
    admin.create_table("counted", pa.schema([("n", pa.int64())]))
    admin.delete_rows("counted", "n > 1")
    admin.optimize_table("counted")
    with as_person("nobody", "nothing") as nobody, pytest.raises(UsageError):
        nobody.drop_table("counted")
    admin.drop_table("counted")
    flight.act("MicromegasTables", b'{"operation": "guess"}', metadata=_metadata("ada", "admins"))

    done = {(name, "ok"): 1 for name in ("create", "drop", "delete", "optimize")}
    assert counts() - before == {**done, ("drop", "error"): 1, ("other", "error"): 1}
