"""Says in each log record of a worker process which worker it is."""

import logging
from typing import Any, Final

_PACKAGE: Final = "micromegas_jupyter"
_AUDIT: Final = "micromegas_jupyter.audit"  # its lines hold their facts themselves


def name_records(number: object) -> None:
    """Give the package's records the fact `worker` from now on; a later call replaces the number."""

    def make(*arguments: Any, **more: Any) -> logging.LogRecord:
        record = logging.LogRecord(*arguments, **more)
        name = record.name or ""  # `makeLogRecord` makes one without a name first
        if name.startswith(_PACKAGE) and not name.startswith(_AUDIT):
            record.worker = number
        return record

    logging.setLogRecordFactory(make)
