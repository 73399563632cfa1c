"""Compile the package's `.proto` files into its descriptor set: `python -m tests.unit.flightsql.compile_descriptors`.

Run it after a change to a `.proto` file; `test_commands` fails until the committed set fits the sources.
"""

from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory

from grpc_tools import protoc

import micromegas_jupyter.flightsql

PROTO_FOLDER = Path(micromegas_jupyter.flightsql.__file__).parent / "proto"
DESCRIPTOR_SET = PROTO_FOLDER / "wire.binpb"


def compile_descriptors():
    """Return the descriptor set of all `.proto` files, in the order of their names."""
    sources = sorted(path.name for path in PROTO_FOLDER.glob("*.proto"))
    well_known = resources.files("grpc_tools").joinpath("_proto")
    with TemporaryDirectory() as folder:
        output = Path(folder) / "set.binpb"
        status = protoc.main(
            ["protoc", f"-I{PROTO_FOLDER}", f"-I{well_known}", f"--descriptor_set_out={output}", *sources]
        )
        if status != 0:
            raise RuntimeError(f"protoc ended with status {status}")
        return output.read_bytes()


if __name__ == "__main__":
    DESCRIPTOR_SET.write_bytes(compile_descriptors())
