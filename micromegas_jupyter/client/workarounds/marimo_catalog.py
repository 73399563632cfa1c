"""Makes marimo's data sources panel list tables.

marimo 0.25 (`marimo._sql.utils.is_cheap_dialect`) lists the tables of five dialects only. For others it leaves that to
`get_schemas`, which returns nothing for ADBC connections (`marimo._sql.engines.adbc`). The SQL of the server is close
to PostgreSQL's, which is also what marimo's editor then highlights.
"""

import sys


def vendor_name() -> str:
    """Return the vendor name in ADBC's information, which marimo uses as the dialect."""
    return "PostgreSQL" if "marimo" in sys.modules else "Micromegas"


def catalog_name() -> str:
    """Return the name of the only catalog; marimo shows a nameless one as *Not connected*."""
    return "lake" if "marimo" in sys.modules else ""
