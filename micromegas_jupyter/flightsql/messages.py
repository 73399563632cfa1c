"""The message classes of Flight, Flight SQL, gRPC health and issued tickets, in a descriptor pool of their own.

The classes come from a compiled descriptor set (`proto/wire.binpb`, built from the `.proto` files beside it) that
is loaded into a private pool. Generated modules would share protobuf's default pool with any other Flight SQL
client in the process, which refuses a second definition of the same names, and would be tied to one protobuf
version. Only `google.protobuf.Any` and the definition of a timestamp are the library's own.
"""

from importlib import resources
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

FLIGHT_SERVICE: Final = "arrow.flight.protocol.FlightService"
_PACKAGES: Final = ("arrow.flight.protocol", "arrow.flight.protocol.sql", "grpc.health.v1", "micromegas_jupyter")


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


def __getattr__(name: str) -> Any:
    """Return the class of the message with this name; it becomes a name of the module when it is first used."""
    for package in _PACKAGES:
        try:
            descriptor = _POOL.FindMessageTypeByName(f"{package}.{name}")
        except KeyError:
            continue
        globals()[name] = message_factory.GetMessageClass(descriptor)
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
