"""The message classes of Flight, Flight SQL, gRPC health and issued tickets, in a descriptor pool of their own.

What the messages mean is in `commands` and `framing`.

The classes come from a compiled descriptor set (`proto/wire.binpb`, built from the `.proto` files beside it) that
is loaded into a private pool. Generated modules would share protobuf's default pool with any other Flight SQL
client in the process, which refuses a second definition of the same names, and would be tied to one protobuf
version. Only `google.protobuf.Any` and the definition of a timestamp are the library's own.
"""

from importlib import resources
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

FLIGHT_SERVICE: Final = "arrow.flight.protocol.FlightService"
_FLIGHT: Final = "arrow.flight.protocol"
_FLIGHT_SQL: Final = "arrow.flight.protocol.sql"
_HEALTH: Final = "grpc.health.v1"
_OWN: Final = "micromegas_jupyter"


def descriptor_set_bytes() -> bytes:
    """Return the committed descriptor set, as protoc wrote it."""
    return resources.files("micromegas_jupyter.flightsql").joinpath("proto", "wire.binpb").read_bytes()


def _build_pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptor_set_bytes()).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL: Final = _build_pool()


def _message_class(package: str, name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{package}.{name}"))


ActionType = _message_class(_FLIGHT, "ActionType")
Action = _message_class(_FLIGHT, "Action")
Result = _message_class(_FLIGHT, "Result")
SchemaResult = _message_class(_FLIGHT, "SchemaResult")
FlightDescriptor = _message_class(_FLIGHT, "FlightDescriptor")
Ticket = _message_class(_FLIGHT, "Ticket")
FlightEndpoint = _message_class(_FLIGHT, "FlightEndpoint")
FlightInfo = _message_class(_FLIGHT, "FlightInfo")
FlightData = _message_class(_FLIGHT, "FlightData")
PutResult = _message_class(_FLIGHT, "PutResult")
PollInfo = _message_class(_FLIGHT, "PollInfo")
CancelFlightInfoRequest = _message_class(_FLIGHT, "CancelFlightInfoRequest")
CancelFlightInfoResult = _message_class(_FLIGHT, "CancelFlightInfoResult")
RenewFlightEndpointRequest = _message_class(_FLIGHT, "RenewFlightEndpointRequest")
SessionOptionValue = _message_class(_FLIGHT, "SessionOptionValue")
SetSessionOptionsRequest = _message_class(_FLIGHT, "SetSessionOptionsRequest")
SetSessionOptionsResult = _message_class(_FLIGHT, "SetSessionOptionsResult")
GetSessionOptionsRequest = _message_class(_FLIGHT, "GetSessionOptionsRequest")
GetSessionOptionsResult = _message_class(_FLIGHT, "GetSessionOptionsResult")
CloseSessionRequest = _message_class(_FLIGHT, "CloseSessionRequest")
CloseSessionResult = _message_class(_FLIGHT, "CloseSessionResult")

CommandStatementQuery = _message_class(_FLIGHT_SQL, "CommandStatementQuery")
TicketStatementQuery = _message_class(_FLIGHT_SQL, "TicketStatementQuery")
CommandPreparedStatementQuery = _message_class(_FLIGHT_SQL, "CommandPreparedStatementQuery")
CommandGetSqlInfo = _message_class(_FLIGHT_SQL, "CommandGetSqlInfo")
CommandGetCatalogs = _message_class(_FLIGHT_SQL, "CommandGetCatalogs")
CommandGetDbSchemas = _message_class(_FLIGHT_SQL, "CommandGetDbSchemas")
CommandGetTables = _message_class(_FLIGHT_SQL, "CommandGetTables")
CommandGetTableTypes = _message_class(_FLIGHT_SQL, "CommandGetTableTypes")
CommandGetPrimaryKeys = _message_class(_FLIGHT_SQL, "CommandGetPrimaryKeys")
CommandGetExportedKeys = _message_class(_FLIGHT_SQL, "CommandGetExportedKeys")
CommandGetImportedKeys = _message_class(_FLIGHT_SQL, "CommandGetImportedKeys")
CommandGetCrossReference = _message_class(_FLIGHT_SQL, "CommandGetCrossReference")
CommandGetXdbcTypeInfo = _message_class(_FLIGHT_SQL, "CommandGetXdbcTypeInfo")
CommandStatementIngest = _message_class(_FLIGHT_SQL, "CommandStatementIngest")
ActionCreatePreparedStatementRequest = _message_class(_FLIGHT_SQL, "ActionCreatePreparedStatementRequest")
ActionCreatePreparedStatementResult = _message_class(_FLIGHT_SQL, "ActionCreatePreparedStatementResult")
ActionClosePreparedStatementRequest = _message_class(_FLIGHT_SQL, "ActionClosePreparedStatementRequest")
ActionCancelQueryRequest = _message_class(_FLIGHT_SQL, "ActionCancelQueryRequest")
ActionCancelQueryResult = _message_class(_FLIGHT_SQL, "ActionCancelQueryResult")
DoPutPreparedStatementResult = _message_class(_FLIGHT_SQL, "DoPutPreparedStatementResult")
DoPutUpdateResult = _message_class(_FLIGHT_SQL, "DoPutUpdateResult")

HealthCheckRequest = _message_class(_HEALTH, "HealthCheckRequest")
HealthCheckResponse = _message_class(_HEALTH, "HealthCheckResponse")

IssuedStatement = _message_class(_OWN, "IssuedStatement")
