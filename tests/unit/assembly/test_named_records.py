"""A worker's log records say which worker it is."""

import logging

import pytest
from micromegas_jupyter.assembly.workers.named_records import name_records


@pytest.fixture(autouse=True)
def _former_factory():
    before = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(before)


@pytest.mark.parametrize(
    ("logger", "worker"),
    [
        ("micromegas_jupyter.server", 2),
        ("micromegas_jupyter.audit", None),
        ("micromegas_jupyter.audit.access", None),
        ("tornado.general", None),
    ],
)
def test_the_packages_own_records_name_the_worker(caplog, logger, worker):
    name_records(1)
    name_records(2)

    logging.getLogger(logger).warning("Slow.", extra={"seconds": 3})

    (record,) = caplog.records
    assert (getattr(record, "worker", None), record.seconds) == (worker, 3)


def test_a_record_that_is_made_without_a_name_is_no_defect():
    name_records(1)

    assert logging.makeLogRecord({"name": "n"}).name == "n"
