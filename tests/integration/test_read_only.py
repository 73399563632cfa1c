"""Nothing that changes the server's state can be reached in a read-only call.

The entry points are those of the server's registries: methods, actions and their operations, functions, statements, and
pages. A new one fails here until it is tried, and it is tried twice: read-only, when it must change nothing, and not.
"""

import asyncio
import base64
import hashlib
import inspect
import itertools
import json
import logging
from contextlib import closing, suppress
from dataclasses import replace
from typing import get_args, get_type_hints
from unittest.mock import Mock

import grpc
import pyarrow as pa
import pytest
import requests
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from micromegas_jupyter import connect
from micromegas_jupyter.access import user_keys
from micromegas_jupyter.access.user_keys import KEYS_ACTION
from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.config.access import AccessSettings, RoleSetting
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.engine.functions.administration import ADMINISTRATION_NAMES
from micromegas_jupyter.errors import PermissionDenied, ReadOnlyCall, UsageError
from micromegas_jupyter.executors import ingest as ingest_process
from micromegas_jupyter.flightsql.commands import messages, pack_any, statement_ticket
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.lake.writer import LakeWriter
from micromegas_jupyter.otlp.exchange import Signal
from micromegas_jupyter.server import cut_off, ingest
from micromegas_jupyter.server.cut_off import CUT_OFF_ACTION, DenyList
from micromegas_jupyter.server.flight_methods import QUERIES_ACTION, QUERY_OPERATIONS, RELOAD_ACTION, FlightMethods
from micromegas_jupyter.server.flight_server import ServerThread
from micromegas_jupyter.server.http.endpoint import HttpEndpoint
from micromegas_jupyter.server.http.json_page import Site
from micromegas_jupyter.server.http.pages import PATHS, Page
from micromegas_jupyter.server.ingest import TABLES_ACTION
from micromegas_jupyter.server.settings import FlightServerSettings
from micromegas_jupyter.telemetry.view_definitions import parse_view_statement
from tests.fakes.servers import ENDLESS, build_pool
from tests.fakes.telemetry_rows import NOON_NS, log_batch
from tests.fakes.validator import ReloadableFake
from tests.integration.flight_harness import ALICE, BOB, FlightHarness, descriptor_bytes, result_of, rows_of
from tests.integration.ingest.lake_server import create_command, ingest_frames
from tests.integration.lakehouse.test_materialized_views import CREATE
from tests.integration.otlp.exporting import export

pytestmark = pytest.mark.integration

AUDIT = "micromegas_jupyter.audit.access"
READ_ONLY = ("x-micromegas-read-only", "true")
ORDERS = pa.table({"id": [1, 2, 3]})
RANGE = "'2026-11-24', '2026-11-30'"
_TIMES = itertools.count(NOON_NS)
FLIGHT_INFO = messages.FlightInfo(endpoint=[messages.FlightEndpoint(ticket={"ticket": statement_ticket("SELECT 1")})])


def _schema(name):
    return base64.b64encode(pa.schema([(name, pa.int64())]).serialize().to_pybytes()).decode()


def _methods():
    """The registry of methods and actions, without a server."""
    parts = {name: Mock() for name in inspect.signature(FlightMethods.__init__).parameters if name != "self"}
    return FlightMethods(**parts)


def _pages(base=Page):
    for page in base.__subclasses__():
        yield page
        yield from _pages(page)


def _entry_points():
    """What can be called, as the registries have it; actions with operations are replaced by these."""
    methods = _methods()
    with_operations = {
        TABLES_ACTION: [one.__struct_config__.tag for one in get_args(ingest._AnyRequest)],
        QUERIES_ACTION: list(QUERY_OPERATIONS),
        CUT_OFF_ACTION: get_args(get_type_hints(cut_off._Request)["operation"]),
        KEYS_ACTION: get_args(get_type_hints(user_keys._Request)["operation"]),
    }
    changing = {"POST", "PUT", "PATCH", "DELETE"}
    return {
        *methods.by_name(),
        *(f"action {name}" for name in methods._actions if name not in with_operations),
        *(f"{name} {operation}" for name, operations in with_operations.items() for operation in operations),
        *(signal.method for signal in Signal),
        *(f"function {name}" for name in ADMINISTRATION_NAMES),
        *(f"statement {one.__name__}" for one in get_args(get_type_hints(parse_view_statement)["return"])[:-1]),
        *(f"page {one.__name__}" for one in _pages() if _answers(one) & changing and not inspect.isabstract(one)),
    }


def _answers(page):
    """The HTTP methods that a page implements."""
    return {name for name in page.SUPPORTED_METHODS if getattr(page, name.lower()) is not getattr(Page, name.lower())}


class System:
    """A server with all of its state: a lake, denials, users who are cut off, running queries, a configuration."""

    def __init__(self, folder):
        self.root = folder / "lake"
        writer = LakeWriter(Storage(self.root), interval_seconds=0)
        for number in range(2):
            writer.append("log_entries", log_batch([number])).result()
        writer.close()
        self.validator = ReloadableFake()
        self.key_file = folder / "api-keys.json"
        self.key_file.write_text("[]")
        roles = {"everyone": RoleSetting(makes_own_keys=True)}
        self.validator.known["alice"] = replace(self.validator.known["alice"], roles=tuple(roles))
        self.validator.user_keys = user_keys.UserKeys(
            settings=lambda: AccessSettings(roles=roles, default_roles=tuple(roles)),
            find_file=lambda: self.key_file,
            on_change=lambda: None,
            max_days=30,
            clock=SYSTEM_CLOCK,
        )
        self.denials = DenyList(str(folder / "denials.json"))
        options = {"lake": str(self.root), "denials_file": str(folder / "denials.json")}
        self.pool = build_pool(Lake(Storage(self.root)), worker=options, max_executors=4)
        self.server = ServerThread(
            pool=self.pool,
            validator=self.validator,
            settings=FlightServerSettings(port=0),
            deny_list=self.denials,
        )
        self.server.start()
        self.endpoint = HttpEndpoint(
            "127.0.0.1",
            0,
            validator=self.validator,
            registries=(),
            readiness=lambda: None,
            exports=self.server.exports,
            sql=Site(calls=self.server.http_calls),
        )
        self.url = f"http://127.0.0.1:{self.endpoint.start()}"
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.server.port}")
        self.flight = FlightHarness(self.server, self.pool, self.validator, self.channel)
        self.rule = self.denials.store.add("client = 'nobody'", "kept", created_by="root")
        self.of_bob = self.flight.read(ENDLESS, metadata=BOB)
        self.query_id = dict(self.of_bob.initial_metadata())["x-micromegas-query-id"]
        self.flight.wait_until_running()

    @property
    def key_id(self):
        return json.loads(self.key_file.read_text())[0]["sha256"][:8]

    def close(self):
        self.of_bob.cancel()
        self.channel.close()
        self.endpoint.stop()
        self.server.stop(grace_seconds=0)

    def state(self):
        """All that calls can change."""
        files = (path for path in self.root.rglob("*") if path.is_file() and "_micromegas" not in path.parts)
        found = self.denials.store.read()
        return {
            "lake": {str(path): hashlib.sha256(path.read_bytes()).digest() for path in files},
            "rules": [rule.rule_id for rule in found.rules],
            "cut off": [one.identity for one in found.cut_off],
            "bob": self.of_bob.is_active(),
            "reloads": self.validator.reloads,
            "keys": self.key_file.read_text(),
        }


@pytest.fixture
def system(tmp_path, monkeypatch):
    monkeypatch.setattr(ingest_process, "_MAINTENANCE_SECONDS", 3600.0)
    monkeypatch.setattr(cut_off, "_REPORT_SECONDS", 0.5)
    with closing(System(tmp_path)) as running:
        yield running


def _action(name, body=b""):
    return lambda system, metadata: system.flight.act(name, body, metadata=metadata)


def _operation(name, operation, **members):
    def call(system, metadata):
        named = {key: value(system) if callable(value) else value for key, value in members.items()}
        return system.flight.act(name, json.dumps({"operation": operation, **named}).encode(), metadata=metadata)

    return call


def _table(operation, **members):
    return _operation(TABLES_ACTION, operation, **members)


def _statement(sql):
    return lambda system, metadata: system.flight.query(sql.format(rule=system.rule), metadata=metadata)


def _call(method, *requests):
    return lambda system, metadata: system.flight.call(method, *requests, metadata=metadata)


def _upload(system, metadata):
    return system.flight.call("DoPut", *ingest_frames(create_command("orders"), ORDERS), metadata=metadata)


def _post(system, metadata):
    (path,) = [path for path, signal in PATHS.items() if signal is Signal.LOGS and path.startswith("/v1")]
    headers = dict(metadata) | {"content-type": "application/x-protobuf"}
    answer = requests.post(system.url + path, data=_records(Signal.LOGS), headers=headers, timeout=60)
    assert answer.status_code in {200, ReadOnlyCall.http_status}, answer.content
    answer.error = ReadOnlyCall("") if b"AUTH021" in answer.content else None
    return answer


def _post_statement(system, metadata):
    body = {"sql": "SELECT deny_queries('entrypoint = ''web'' ', 'z')"}
    answer = requests.post(f"{system.url}/sql", json=body, headers=dict(metadata), timeout=60)
    assert answer.status_code in {200, ReadOnlyCall.http_status}, answer.content
    answer.error = ReadOnlyCall("") if answer.status_code != 200 and answer.json()["code"] == "AUTH021" else None
    return answer


def _records(signal):
    """Return an export of one record, other than that of another call."""
    now = next(_TIMES)
    match signal:
        case Signal.LOGS:
            record = LogRecord(time_unix_nano=now)
        case Signal.TRACES:
            record = Span(trace_id=b"t" * 16, span_id=b"s" * 8, start_time_unix_nano=now, end_time_unix_nano=now)
        case Signal.METRICS:
            record = Metric(name="m")
            record.gauge.data_points.add(time_unix_nano=now, as_double=1.0)
    return export(signal, record).SerializeToString()


def _export(signal):
    return lambda system, metadata: system.flight.call(signal.method, _records(signal), metadata=metadata)


_TICKET = messages.Ticket(ticket=statement_ticket("SELECT 1")).SerializeToString()
_QUERY = descriptor_bytes(messages.CommandStatementQuery(query="SELECT 1"))
_CAROL = {"issuer": "https://id.example", "subject": "carol"}
_PREPARE = pack_any(messages.ActionCreatePreparedStatementRequest(query="SELECT 1"))
_FORGET = pack_any(messages.ActionClosePreparedStatementRequest(prepared_statement_handle=b"unknown"))
_CANCEL_FLIGHT = messages.CancelFlightInfoRequest(info=FLIGHT_INFO).SerializeToString()
_CANCEL_QUERY = pack_any(messages.ActionCancelQueryRequest(info=FLIGHT_INFO.SerializeToString()))
_RENEW = messages.RenewFlightEndpointRequest(endpoint=FLIGHT_INFO.endpoint[0]).SerializeToString()
_ZONE = messages.SessionOptionValue(string_value="UTC")
_SET = messages.SetSessionOptionsRequest(session_options={"timezone": _ZONE}).SerializeToString()

#: What changes nothing.
READS = {
    "GetFlightInfo": _call("GetFlightInfo", _QUERY),
    "PollFlightInfo": _call("PollFlightInfo", _QUERY),
    "GetSchema": _call("GetSchema", _QUERY),
    "DoGet": _call("DoGet", _TICKET),
    "ListActions": _call("ListActions", b""),
    "DoAction": _action("MicromegasWhoAmI"),
    "action CreatePreparedStatement": _action("CreatePreparedStatement", _PREPARE),
    "action ClosePreparedStatement": _action("ClosePreparedStatement", _FORGET),
    "action CancelFlightInfo": _action("CancelFlightInfo", _CANCEL_FLIGHT),
    "action CancelQuery": _action("CancelQuery", _CANCEL_QUERY),
    "action RenewFlightEndpoint": _action("RenewFlightEndpoint", _RENEW),
    "action GetSessionOptions": _action("GetSessionOptions"),
    "action SetSessionOptions": _action("SetSessionOptions", _SET),
    "action CloseSession": _action("CloseSession"),
    "action MicromegasWhoAmI": _action("MicromegasWhoAmI"),
    f"{TABLES_ACTION} list": _table("list"),
    f"{TABLES_ACTION} describe": _table("describe", table="log_entries"),
    f"{TABLES_ACTION} history": _table("history", table="log_entries"),
    f"{QUERIES_ACTION} list": _operation(QUERIES_ACTION, "list"),
    f"{QUERIES_ACTION} progress": _operation(QUERIES_ACTION, "progress", query_id="unknown"),
    f"{CUT_OFF_ACTION} list": _operation(CUT_OFF_ACTION, "list"),
    f"{KEYS_ACTION} list": _operation(KEYS_ACTION, "list"),
    "function list_query_denials": _statement("SELECT * FROM list_query_denials()"),
    "function list_view_set_definitions": _statement("SELECT * FROM list_view_set_definitions()"),
}
#: What changes something, each possible after those before it.
CHANGES = {
    "DoPut": _upload,
    f"{TABLES_ACTION} create": _table("create", table="made", schema=_schema("a")),
    f"{TABLES_ACTION} add_column": _table("add_column", table="made", schema=_schema("b")),
    f"{TABLES_ACTION} set_retention": _table("set_retention", table="orders", days=9),
    f"{TABLES_ACTION} set_undo_hours": _table("set_undo_hours", table="orders", hours=9),
    f"{TABLES_ACTION} set_time_travel": _table("set_time_travel", table="orders", to="readers"),
    f"{TABLES_ACTION} delete": _table("delete", table="orders", where="id = 2"),
    f"{TABLES_ACTION} restore": _table("restore", table="orders", to=0),
    f"{TABLES_ACTION} drop": _table("drop", table="made"),
    **{signal.method: _export(signal) for signal in Signal},
    "page ExportPage": _post,
    "page SqlPage": _post_statement,
    f"{TABLES_ACTION} optimize": _table("optimize", table="log_entries"),
    "statement CreateView": _statement(CREATE.replace("{", "{{").replace("}", "}}")),
    "function materialize_partitions": _statement(f"SELECT msg FROM materialize_partitions('per_minute', {RANGE}, 60)"),
    "function regenerate_partitions": _statement(f"SELECT msg FROM regenerate_partitions('per_minute', {RANGE}, 60)"),
    "function retire_partitions": _statement(f"SELECT * FROM retire_partitions('per_minute', 'global', {RANGE})"),
    "statement DropView": _statement("DROP MATERIALIZED VIEW per_minute"),
    "function deny_queries": _statement("SELECT deny_queries('client = ''x''', 'y')"),
    "function remove_query_denial": _statement("SELECT remove_query_denial('{rule}')"),
    f"{CUT_OFF_ACTION} add": _operation(CUT_OFF_ACTION, "add", **_CAROL),
    f"{CUT_OFF_ACTION} remove": _operation(CUT_OFF_ACTION, "remove", **_CAROL),
    f"action {RELOAD_ACTION}": _action(RELOAD_ACTION),
    f"{KEYS_ACTION} create": _operation(KEYS_ACTION, "create"),
    f"{KEYS_ACTION} revoke": _operation(KEYS_ACTION, "revoke", id=lambda system: system.key_id),
    f"{QUERIES_ACTION} cancel": _operation(QUERIES_ACTION, "cancel", query_id=lambda system: system.query_id),
}
#: Rejected in any call.
NEVER = {
    "function retire_partition_by_file": _statement("SELECT retire_partition_by_file('x')"),
    "function retire_partition_by_metadata": _statement("SELECT retire_partition_by_metadata('a', 'b', 'c', 'd')"),
}
#: They respond with 404.
ABSENT = {"page UpstreamPage", "page DisabledPage"}
#: Its calls are read-only without the header (tests/integration/agents).
ALWAYS_READ_ONLY = {"page McpPage"}


def test_every_entry_point_is_tried():
    assert {*READS, *CHANGES, *NEVER, *ABSENT, *ALWAYS_READ_ONLY} == _entry_points()


def test_a_read_only_call_changes_nothing_even_of_an_administrator(system):
    for name, call in READS.items():
        before = system.state()
        assert not isinstance(call(system, (*ALICE, READ_ONLY)).error, PermissionDenied), name
        assert system.state() == before, name
    dry_run = _table("restore", table="log_entries", to=0, dry_run=True)
    assert dry_run(system, (*ALICE, READ_ONLY)).error is None
    for name, call in NEVER.items():
        assert call(system, (*ALICE, READ_ONLY)).error is not None, name
    for name, call in CHANGES.items():
        before = system.state()
        assert isinstance(call(system, (*ALICE, READ_ONLY)).error, ReadOnlyCall), name
        assert system.state() == before, name
        assert call(system, (*ALICE, ("x-micromegas-read-only", "false"))).error is None, name
        if name.endswith("cancel"):
            with suppress(grpc.RpcError):
                list(system.of_bob)
        assert system.state() != before, name


def test_planning_a_change_is_rejected_too(system):
    sql = f"SELECT * FROM retire_partitions('per_minute', 'global', {RANGE})"
    for call in (
        _call("GetFlightInfo", descriptor_bytes(messages.CommandStatementQuery(query=sql))),
        _call("GetSchema", descriptor_bytes(messages.CommandStatementQuery(query="SELECT deny_queries('a', 'b')"))),
        _action("CreatePreparedStatement", pack_any(messages.ActionCreatePreparedStatementRequest(query=CREATE))),
    ):
        assert isinstance(call(system, (*ALICE, READ_ONLY)).error, ReadOnlyCall)


def test_the_front_process_does_not_rely_on_executors_for_partition_calls():
    operations = ingest.TableOperations(Mock(), settings=Mock(), clock=Mock(), metrics=Mock())

    with pytest.raises(ReadOnlyCall):
        asyncio.run(operations.change_partitions(Mock(is_read_only=True), Mock(), Mock()))


def test_administrators_see_and_cancel_only_their_own_queries_in_read_only_calls(system):
    own = system.flight.read(ENDLESS, metadata=(*ALICE, READ_ONLY))
    own_id = dict(own.initial_metadata())["x-micromegas-query-id"]
    system.flight.wait_until_running(2)

    def listed(*more):
        body = result_of(_operation(QUERIES_ACTION, "list")(system, (*ALICE, *more)))
        rows = rows_of(system.flight.query("SELECT query_id FROM running_queries()", metadata=(*ALICE, *more)))
        assert {one["query_id"] for one in json.loads(body)["queries"]} == set(rows["query_id"].to_pylist())
        return set(rows["query_id"].to_pylist())

    assert listed() == {own_id, system.query_id}
    assert listed(READ_ONLY) == {own_id}
    progress = _operation(QUERIES_ACTION, "progress", query_id=system.query_id)
    assert json.loads(result_of(progress(system, (*ALICE, READ_ONLY)))) == {"progress": None}
    for query_id, metadata in ((own_id, ALICE), (system.query_id, BOB)):
        cancel = _operation(QUERIES_ACTION, "cancel", query_id=query_id)
        assert json.loads(result_of(cancel(system, (*metadata, READ_ONLY)))) == {"status": "cancelled"}


def test_a_header_that_is_neither_true_nor_false_is_rejected(system):
    for value in ("", "True", "1", "yes", "true,false"):
        metadata = (*ALICE, (READ_ONLY[0], value))
        answer = requests.post(f"{system.url}/v1/logs", headers=dict(metadata), timeout=60)

        assert type(_statement("SELECT 1")(system, metadata).error) is UsageError
        assert answer.status_code in {400, 415}
        assert b"must be true or false" in answer.content
    twice = _statement("SELECT 1")(system, (*ALICE, READ_ONLY, READ_ONLY))
    assert type(twice.error) is UsageError


def test_a_rejection_is_in_the_audit(system, caplog):
    caplog.set_level(logging.INFO, AUDIT)
    _table("drop", table="log_entries")(system, (*ALICE, READ_ONLY))

    events = [json.loads(one.getMessage()) for one in caplog.records if one.name == AUDIT]
    assert [(one["outcome"], one["reason"], one["code"]) for one in events if one["outcome"] == "forbidden"] == [
        ("forbidden", "read_only", "AUTH021")
    ]


@pytest.mark.parametrize(
    ("setting", "options"), [("true", {}), ("false", {"read_only": True}), ("true", {"read_only": False})]
)
def test_a_client_makes_read_only_calls(system, tmp_path, setting, options):
    options |= {"environ": {"MICROMEGAS_READ_ONLY": setting, "MICROMEGAS_CONFIG_DIR": str(tmp_path)}}
    with connect(system.flight.uri, auth_provider=StaticTokenAuthProvider("alice"), **options) as client:
        for change in (
            lambda: client.bulk_ingest("orders", ORDERS, mode="create"),
            lambda: client.drop_table("log_entries"),
            lambda: client.query("SELECT deny_queries('client = ''x''', 'y')"),
            lambda: client.cancel_query(system.query_id),
        ):
            with pytest.raises(ReadOnlyCall, match="A read-only call can't"):
                change()

        assert client.query_arrow("SELECT count(*) AS n FROM log_entries").to_pylist() == [{"n": 2}]
        assert client.running_queries() == []
