"""The Python examples of docs/clients.md, by where they can run."""

from tests.architecture.guide_text import blocks

_ALL = [block for block in blocks("clients.md") if block.language == "python"]


def _needs_dbapi(block):
    return "import flightsql" in block.text or "datafusion+flightsql" in block.text


# These need `flightsql-dbapi`, which is not in the environment of the tests.
DBAPI_EXAMPLES = [block for block in _ALL if _needs_dbapi(block)]
# These sign a service account in at a provider, and need TLS.
OAUTH_EXAMPLES = [block for block in _ALL if "client_secret" in block.text]
# These run with `client` in an environment with marimo, and in IPython.
MARIMO_EXAMPLES = [block for block in _ALL if "import marimo" in block.text]
CELL_EXAMPLES = [block for block in _ALL if block.text.startswith("%")]
_ELSEWHERE = (*DBAPI_EXAMPLES, *OAUTH_EXAMPLES, *MARIMO_EXAMPLES, *CELL_EXAMPLES)
EXAMPLES = [block for block in _ALL if block not in _ELSEWHERE and not block.is_marked]
