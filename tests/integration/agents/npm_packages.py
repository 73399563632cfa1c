"""npm's packages for tests of agents: the conformance runner, and the TypeScript SDKs in `client.mjs`."""

import json
import subprocess
import threading
from pathlib import Path

from tests.integration.other_provider.installing import find_node, install_once

FILES = ("package.json", "package-lock.json", "client.mjs")
SOURCE = Path(__file__).parent / "npm"
CONFORMANCE = Path("node_modules") / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
_TIMEOUT_SECONDS = 120.0


def install(pytestconfig):
    """Return the folder of the packages; `.ci/run` fills it ahead of the tests."""
    return install_once(Path(pytestconfig.cache.mkdir("agents")), source=SOURCE, files=FILES)


def run_clients(folder, tasks, *, walk=None):
    """Run the tasks of `client.mjs`; return their outcomes. `walk` signs in at an address and returns the answer's."""
    node, _ = find_node()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([node, "client.mjs"], cwd=folder, **pipes) as process:
        deadline = threading.Timer(_TIMEOUT_SECONDS, process.kill)
        deadline.start()
        try:
            print(json.dumps(tasks), file=process.stdin, flush=True)
            outcomes = []
            for line in process.stdout:
                found = json.loads(line)
                if "open" in found:
                    print(walk(found["open"]), file=process.stdin, flush=True)
                else:
                    outcomes.append(found["outcomes"])
            assert process.wait() == 0, process.stderr.read()[-2000:]
        finally:
            deadline.cancel()
    return outcomes
