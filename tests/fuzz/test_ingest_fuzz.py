"""Damaged Arrow data and commands of an ingest: rows that fit, or a refusal, and never anything else."""

import pytest

from micromegas_jupyter.core.protocols import WriteMode, WriteRequest
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.executors.ingest_worker import UploadStream
from micromegas_jupyter.executors.protocol import Upload
from micromegas_jupyter.executors.settings import IngestSettings
from micromegas_jupyter.flightsql.commands import messages, pack_any, parse_ingest_descriptor
from micromegas_jupyter.lake.types import check_fits, convert_rows, stored_schema
from micromegas_jupyter.telemetry.conversion import check_columns, check_properties
from micromegas_jupyter.telemetry.conversion import convert_rows as convert_telemetry
from micromegas_jupyter.telemetry.tables import PROCESSES
from tests.fuzz.conftest import sizes
from tests.fuzz.damage import JSONB, damage_places, damage_stream, sample_streams

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

_REQUEST = WriteRequest(table="t", mode=WriteMode.CREATE)
_SETTINGS = IngestSettings(max_row_bytes=1024 * 1024, max_bytes=8 * 1024 * 1024)
_UPLOAD = Upload(request=_REQUEST, limits=_SETTINGS, row_count=None)


class _Converting:
    """Implements `contracts.TableSink` and `contracts.TableWrite`: fits the rows to a table and forgets them."""

    def open_write(self, request, schema):
        self._definition = PROCESSES if "process_id" in schema.names else None
        if self._definition is None:
            self._schema = stored_schema(schema)
            check_fits(schema, self._schema)
        else:
            check_columns(schema, self._definition)
        return self

    def write(self, batch):
        if self._definition is None:
            convert_rows(batch, self._schema).validate(full=True)
        else:
            convert_telemetry(batch, self._definition).validate(full=True)

    def commit(self):
        return 0

    def abandon(self):
        """Nothing is kept."""


def _send(frames):
    stream = UploadStream(_Converting(), _UPLOAD)
    for frame in frames:
        stream.take(frame)
    stream.commit()


@sizes(short=3_000, long=300_000)
def test_damaged_rows_are_taken_or_refused(fuzzing):
    streams = sample_streams()
    for frames in streams:
        _send(frames)

    taken = fuzzing.try_all(lambda random: damage_stream(random.choice(streams), random), _send, MicromegasError)

    assert 0 < taken < 3 * fuzzing.tries // 4


@sizes(short=3_000, long=300_000)
def test_damaged_commands_are_read_or_refused(fuzzing):
    command = messages.CommandStatementIngest(table="t", catalog="c", options={"a": "b"})
    command.table_definition_options.if_exists = 2
    packed = pack_any(command)

    fuzzing.try_all(
        lambda random: messages.FlightDescriptor(type=2, cmd=damage_places(packed, random)),
        parse_ingest_descriptor,
        MicromegasError,
    )


@sizes(short=3_000, long=300_000)
def test_damaged_properties_are_read_or_refused(fuzzing):
    nested = bytes.fromhex("400000011000000150000010") + b"k" + bytes.fromhex("80000001200000024000ff") + b"\0" * 5

    fuzzing.try_all(
        lambda random: damage_places(random.choice((JSONB, nested)), random), check_properties, MicromegasError
    )
