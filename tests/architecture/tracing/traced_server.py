"""Run a server until the line `end`, and write which files it has used since the line before that."""

import atexit
import sys

import sitecustomize

sitecustomize.start()  # before the server's threads

from micromegas_jupyter.gateway.backend import Engine, EngineAddress, EngineSettings  # noqa: E402
from micromegas_jupyter.gateway.tables import EngineTables  # noqa: E402
from tests.fakes.servers import build_pool, open_server  # noqa: E402

lake, uri = sys.argv[1:]
address = EngineAddress.parse(uri) if uri else None
tables = None if address is None else EngineTables(Engine(EngineSettings(address=address, dialect="datafusion")))
pool = build_pool(tables, worker={"lake": lake or None, "preloaded": "traced_executor"})
with open_server(pool, engine=tables) as server:
    print(server.port, flush=True)
    while sys.stdin.readline() != "end\n":
        sitecustomize.start()
        print("traced", flush=True)
    sitecustomize.write()
    atexit.unregister(sitecustomize.write)
