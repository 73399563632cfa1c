"""The pages of the data model and of SQL say what a running server offers: each column, its type and meaning."""

import re

import pyarrow as pa
import pytest

from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.telemetry.histograms import OTEL_HISTOGRAM
from micromegas_jupyter.telemetry.tables import (
    EMPTY_SETS,
    REMARKS_KEY,
    ROLE_KEY,
    ROLES,
    TABLES,
    UNIT_KEY,
    VIEWS,
    find_role,
    role_metadata,
)
from tests.architecture.guide_text import blocks, read_page, table_rows
from tests.fakes.validator import FakeValidator
from tests.integration.flight_harness import running_server

pytestmark = pytest.mark.integration

ID = "00000000-0000-4000-8000-000000000001"
PAGE = read_page("data-model.md") + read_page("sql.md")
SECTIONS = dict(re.findall(r"^##+ (.+)\n((?:(?!^##+ ).*\n?)*)", PAGE, re.MULTILINE))
DEFINED = {definition.name: definition for definition in (*TABLES, *VIEWS, *EMPTY_SETS)}
FUNCTIONS = {
    "list_view_sets": "list_view_sets()",
    "list_partitions": "list_partitions()",
    "running_queries": "running_queries()",
    "list_view_set_definitions": "list_view_set_definitions()",
    "process_spans": f"process_spans('{ID}', 'both')",
    "perfetto_trace_chunks": f"perfetto_trace_chunks('{ID}', 'async', TIMESTAMP '2026-11-26T12:00:00', now())",
}
CHANGING = "Functions that change partitions"
TYPES = {
    pa.utf8(): "text", pa.binary(): "bytes", pa.int64(): "bigint", pa.int32(): "int", pa.uint32(): "uint",
    pa.float64(): "double", pa.bool_(): "boolean", pa.dictionary(pa.int32(), pa.utf8()): "text",
    pa.dictionary(pa.int16(), pa.utf8()): "text",
    pa.dictionary(pa.int32(), pa.binary()): "JSONB", pa.timestamp("ns", "+00:00"): "timestamp",
    OTEL_HISTOGRAM: "histogram",
    pa.binary(8): "bytes (8)", pa.binary(16): "bytes (16)", pa.list_(pa.utf8()): "text[]",
}  # fmt: skip


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    lake = Storage(tmp_path_factory.mktemp("lake"))
    with (
        running_server(tables=Lake(lake), validator=FakeValidator(), worker={"lake": lake.uri}) as harness,
        FlightSQLClient(harness.uri, auth_provider=_Alice(), preserve_dictionary=True) as opened,
    ):
        yield opened


class _Alice:
    def get_token(self):
        return "alice"


def _rows(section):
    rows = [row for row in table_rows(SECTIONS[section]) if row[0].startswith("`") and len(row) == 3]
    return [(name.strip("`"), kind, meaning) for name, kind, meaning in rows if "(" not in name]


def _documented(section, schema):
    """Return the columns of a section in the schema's order, with those of the sections that it refers to."""
    text, found = SECTIONS[section], _rows(section)
    if shared := re.search(r"\[common(?: columns)?\]\(#common-columns\)(?: except `(\w+)`)?", text):
        found += [row for row in _rows("Common columns") if row[0] != shared[1]]
    if "[event columns](#event-columns)" in text:
        found += _rows("Event columns")
    if "the columns of [`thread_spans`](#thread_spans)" in text:
        found += _rows("thread_spans")
    if repeated := re.search(r"((?:`\w+`(?:, | and |, and )?)+) of \[`(\w+)`\]\(#", text.replace("\n", " ")):
        found += [row for row in _rows(repeated[2]) if f"`{row[0]}`" in repeated[1]]
    for table, names in re.findall(r"^- `(\w+)\.` followed by ((?:`\w+`[,\s]*)+)", text, re.MULTILINE):
        rows = {name: rest for name, *rest in _rows(table)}
        found += [
            (f"{table}.{name}", rows[name][0].removesuffix("?"), rows[name][1]) for name in re.findall(r"\w+", names)
        ]
    return sorted(found, key=lambda row: schema.names.index(row[0]))


def _served(schema):
    return [(field.name, TYPES[field.type] + ("?" if field.nullable else "")) for field in schema]


def test_the_page_has_every_table_view_and_function(client):
    assert set(DEFINED) | set(FUNCTIONS) | {CHANGING} <= set(SECTIONS)
    assert set(client.list_tables()) == {definition.name for definition in (*TABLES, *VIEWS)}


@pytest.mark.parametrize("name", DEFINED)
def test_columns_are_those_of_the_running_server(client, name):
    source = f"view_instance('{name}', '{ID}')" if DEFINED[name] in EMPTY_SETS else name

    found = client.query_arrow(f"SELECT * FROM {source}")
    documented = _documented(name, found.schema)

    assert [row[:2] for row in documented] == _served(found.schema)
    assert [row[2] for row in documented] == list(DEFINED[name].remarks.values())
    assert DEFINED[name].remark in SECTIONS[name].replace("\n", " ")


def test_the_page_has_the_role_and_unit_of_each_column(client):
    served = [field for name, schema in client.list_tables().items() if name in DEFINED for field in schema]
    others = [field.with_metadata(role_metadata(find_role(field.name))) for one in EMPTY_SETS for field in one.schema]
    found = {}
    for field in (*served, *others):
        role, unit = ((field.metadata or {}).get(key, b"").decode() for key in (ROLE_KEY, UNIT_KEY))
        if role:
            found.setdefault(role, set()).add(f"`{field.name.rpartition('.')[2]}`" + f" in `{unit}`" * bool(unit))

    rows = [row for row in table_rows(SECTIONS["Column roles"]) if row[0] in ROLES]
    assert {role: set(columns.split(", ")) for role, columns in rows} == found


@pytest.mark.parametrize("name", [definition.name for definition in (*TABLES, *VIEWS)])
def test_clients_that_list_tables_get_the_meanings_too(client, name):
    listed = client.list_tables()[name]

    assert [(field.name, field.metadata[REMARKS_KEY].decode()) for field in listed] == [
        (column, meaning) for column, _, meaning in _documented(name, listed)
    ]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_give_the_columns_of_the_page(client, name):
    schema = client.query_arrow(f"SELECT * FROM {FUNCTIONS[name]}").schema

    assert [row[:2] for row in _documented(name, schema)] == _served(schema)


def test_what_changes_partitions_gives_messages(client):
    sql = next(block.text for block in blocks("data-model.md") if "materialize_partitions" in block.text)

    schema = client.prepare_statement(sql).dataset_schema

    assert [row[:2] for row in _documented(CHANGING, schema)] == _served(schema)
    assert client.query_arrow(sql).schema == schema


@pytest.mark.parametrize(
    "block",
    [
        block
        for block in blocks("audit.md", "data-model.md", "ingest.md", "sql.md")
        if block.language == "sql" and "query_denial" not in block.text  # of those the server here has none
    ],
    ids=lambda block: block.place,
)
def test_each_statement_of_the_pages_runs(client, block):
    client.query(block.text)
