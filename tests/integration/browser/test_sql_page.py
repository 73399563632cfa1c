"""A web page reads `/sql` with apache-arrow, by the example of docs/clients.md."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.architecture.guide_text import blocks
from tests.fakes.servers import FAILS_LATE
from tests.integration.agents.harness import serving_agents
from tests.integration.browser.conftest import STATE_TIMEOUT_MILLISECONDS
from tests.integration.other_provider.installing import install_once

pytestmark = [pytest.mark.integration, pytest.mark.slow]

IMPORT = 'import { tableFromIPC } from "apache-arrow";'
#: With `streams` the library reads the response itself, and overlooks how that ended.
QUERY = """async ([code, url, token, sql, streams]) => {
    if (streams) code = code.replace("response.arrayBuffer()", "response");
    const define = new Function("tableFromIPC", "url", "token", `${code}; return query;`);
    const query = define(Arrow.tableFromIPC, url, token);
    try {
        const found = await query(sql);
        return [found.numRows, Number(found.getChild("n").get(found.numRows - 1))];
    } catch (error) {
        return String(error);
    }
}"""


@pytest.fixture
def arrow(pytestconfig, tmp_path):
    """The port of a page that has loaded apache-arrow."""
    source = Path(__file__).parent / "arrow"
    kept = install_once(pytestconfig.cache.mkdir("arrow"), source=source, files=("package.json", "package-lock.json"))
    (tmp_path / "arrow.js").write_bytes((kept / "node_modules/apache-arrow/Arrow.es2015.min.js").read_bytes())
    (tmp_path / "index.html").write_text("<script src=arrow.js></script>")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_a_page_of_an_allowed_origin_reads_rows_and_others_do_not(browser, arrow):
    (example,) = [block.text for block in blocks("clients.md") if block.language == "js"]
    assert example.startswith(IMPORT)
    many = "SELECT value AS n FROM generate_series(1, 1000000) AS t(value)"
    with serving_agents(origins=[f"http://localhost:{arrow}"]) as served:
        found = {}
        for host in ("localhost", "127.0.0.1"):
            page = browser.new_page()
            page.set_default_timeout(STATE_TIMEOUT_MILLISECONDS)
            page.goto(f"http://{host}:{arrow}/index.html")

            def query(sql, token="alice", page=page, *, streams=False):
                code = example.removeprefix(IMPORT)
                return page.evaluate(QUERY, [code, f"http://127.0.0.1:{served.port}", token, sql, streams])

            found[host] = [
                query(many),
                query("SELECT nn"),
                query(FAILS_LATE),
                query(FAILS_LATE, streams=True),
                query(many, token="mallory"),
            ]
            page.close()

    rows, wrong, late, streamed, unknown = found["localhost"]
    assert rows == [1_000_000, 1_000_000]
    assert '"code":"SQL001"' in wrong
    assert late.startswith("TypeError: ")
    assert streamed.startswith("Error: Expected to read")
    assert '"code":"AUTH' in unknown
    assert set(found["127.0.0.1"]) == {"TypeError: Failed to fetch"}
