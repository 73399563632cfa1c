"""The message classes come from a committed descriptor set and live beside another Flight SQL client's."""

import importlib

import pytest
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool

from micromegas_jupyter.flightsql.commands import descriptor_set_bytes, messages, pack_any
from tests.unit.flightsql.compile_descriptors import compile_descriptors


def test_the_committed_descriptor_set_fits_the_proto_files() -> None:
    committed = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set_bytes())

    fresh = descriptor_pb2.FileDescriptorSet.FromString(compile_descriptors())

    assert committed == fresh


def test_the_classes_do_not_enter_the_default_pool() -> None:
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("grpc.health.v1.HealthCheckRequest")


def test_upstreams_messages_live_in_the_same_process_and_read_ours() -> None:
    upstream = importlib.import_module("micromegas.flightsql.FlightSql_pb2")
    ours = pack_any(messages.ActionCreatePreparedStatementResult(prepared_statement_handle=b"h", dataset_schema=b"s"))

    theirs = upstream.ActionCreatePreparedStatementResult()
    was_unpacked = any_pb2.Any.FromString(ours).Unpack(theirs)

    assert was_unpacked
    assert (theirs.prepared_statement_handle, theirs.dataset_schema) == (b"h", b"s")


def test_every_flight_sql_field_has_the_number_and_type_that_upstream_has() -> None:
    upstream = importlib.import_module("micromegas.flightsql.FlightSql_pb2")
    committed = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set_bytes())
    (ours,) = [file for file in committed.file if file.package == "arrow.flight.protocol.sql"]
    theirs = descriptor_pb2.FileDescriptorProto()
    upstream.DESCRIPTOR.CopyToProto(theirs)
    their_messages = {message.name: message for message in theirs.message_type}
    their_messages["TableDefinitionOptions"] = their_messages["CommandStatementIngest"].nested_type[0]

    def facts(message: descriptor_pb2.DescriptorProto) -> set[tuple[str, int, int, int]]:
        return {(field.name, field.number, field.type, field.label) for field in message.field}

    for message in ours.message_type:
        assert facts(message) == facts(their_messages[message.name]), message.name
