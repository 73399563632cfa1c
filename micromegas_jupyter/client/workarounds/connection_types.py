"""Makes pandas and Polars read a connection's results as Arrow data.

Both look at the connection's type instead of its methods, and otherwise read row by row, which is slower, and loses
nanoseconds and the sizes of numbers:

- pandas 2.2 to 3.1 (`pandas.io.sql.pandasSQL_builder`) requires an `adbc_driver_manager.dbapi.Connection`. Importing
  that module takes half a second, because it loads pandas and Polars. So our class becomes its virtual subclass only
  once another library has loaded it.
- Polars 1.31 to 2.1 (`polars.io.database._executor`) requires that the name of the type's module begins with `adbc_`.
  It imports `adbc_driver_manager` for such connections, so they must not be called that without it.
"""

import sys
from typing import Any


class ArrowConnection:
    """Base of the client's class if `adbc_driver_manager` is installed, named like an ADBC driver."""

    __module__ = "adbc_driver_micromegas"

    @property  # type: ignore[misc]
    def __class__(self) -> Any:  # `isinstance` checks this before it compares types
        """The type; pandas has loaded ADBC's type by the time it checks this."""
        connection = getattr(sys.modules.get("adbc_driver_manager.dbapi"), "Connection", None)
        if connection is not None:
            connection.register(ArrowConnection)
        return type(self)
