"""`--format reader` in a real kernel, against a server that a test scripts."""

import pyarrow as pa
import pytest

from micromegas_jupyter.flightsql.framing import FlightDataEncoder
from tests.fakes.flight_server import SMALL_TABLE, FakeFlightServer, rows
from tests.integration.notebook.kernels import attended_kernel

pytestmark = pytest.mark.integration

WAIT_SECONDS = 60


@pytest.fixture(scope="module")
def server():
    running = FakeFlightServer()
    yield running
    running.close()


@pytest.fixture(scope="module")
def kernel(server):
    with pytest.MonkeyPatch.context() as patch, attended_kernel() as running:
        patch.delenv("MICROMEGAS_OIDC_ISSUER", raising=False)
        running.run(f"import os; os.environ.update(MICROMEGAS_ANALYTICS_URI={server.uri!r})")
        running.run("%load_ext micromegas_jupyter")
        yield running


def endless(call):
    """Answer with one batch after another until the caller goes away."""
    encoder = FlightDataEncoder(SMALL_TABLE.schema)
    yield encoder.encode_schema()
    while not call.ended.is_set():
        yield from encoder.encode_batch(SMALL_TABLE.to_batches()[0])


def test_later_cells_read_the_rows_and_the_line_of_the_first_follows(kernel, server):
    server.answers["DoGet"] = lambda _call: rows(pa.concat_tables([SMALL_TABLE] * 3))

    opened = kernel.run("%%sql numbers << --format reader\nSELECT n FROM t")
    read = kernel.run("print(sum(batch.num_rows for batch in numbers))")

    (line,) = opened.of("display_data")
    assert line["data"]["text/plain"] == "▸ rows come as you iterate → numbers (reader)"
    last = read.of("update_display_data")[-1]
    assert last["transient"]["display_id"] == line["transient"]["display_id"]
    assert last["data"]["text/plain"].startswith("✓ 9 rows in ")
    assert read.printed == "9\n"


@pytest.mark.parametrize(
    ("leave", "line"),
    [
        ("del numbers", "■ stopped"),
        ("with numbers: next(numbers)", "■ stopped"),
        ("%unload_ext micromegas_jupyter\n%load_ext micromegas_jupyter", None),
    ],
)
def test_a_reader_that_is_left_is_cancelled_on_the_server(kernel, server, leave, line):
    server.answers["DoGet"] = endless
    kernel.run("%sql numbers << --format reader SELECT n FROM t")
    kernel.run("next(numbers)\nNone")
    call = server.calls[-1]
    server.answers["DoGet"] = lambda _call: rows(SMALL_TABLE)  # the extension fetches tables when it is loaded

    before = len(kernel.all_messages)

    def updates():
        later = kernel.all_messages[before:]
        contents = [message["content"] for message in later if message["msg_type"] == "update_display_data"]
        return [content["data"]["text/plain"] for content in contents]

    kernel.run(leave)
    if line is not None:
        kernel.wait_until(lambda: updates()[-1:] != [] and updates()[-1].startswith(line))
    kernel.later_messages(0.5)

    assert call.ended.wait(WAIT_SECONDS)
    assert [text[:9] for text in updates()[-1:]] == ([] if line is None else [line])
