"""Lets marimo's panel of data sources list tables.

marimo 0.25 (`marimo._sql.utils.is_cheap_dialect`) lists the tables of five dialects only. For others it leaves that to
`get_schemas`, which returns nothing for ADBC connections (`marimo._sql.engines.adbc`). The SQL of the server is close
to PostgreSQL's, which is also what marimo's editor then highlights.
"""

import sys


def vendor_name() -> str:
    """Return the vendor that ADBC's information shows; marimo takes it for the dialect."""
    return "PostgreSQL" if "marimo" in sys.modules else "Micromegas"


def catalog_name() -> str:
    """Return the name of the one catalog; marimo shows one without a name as *Not connected*."""
    return "lake" if "marimo" in sys.modules else ""
