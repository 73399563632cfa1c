"""Exporters of log records: `python -m tests.benchmarks.exporters URL SECONDS RECORDS AT_ONCE IS_KEPT`.

Each request is made of one that was encoded before, so that the exporters need little of the machine; it prints JSON.
"""

import json
import sys
import threading
import time
import uuid
from collections import Counter

import requests
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from tests.integration.otlp.exporting import NOON, PROTOBUF, any_value, attributes, export

_UNIQUE = "0" * 32
_HEADERS = {"Authorization": "Bearer collector", "Content-Type": PROTOBUF}
_ROUTES = 50


def encode_records(count, *, is_kept):
    """Return a request with a text in it that is to be replaced; without `is_kept` the server refuses its records."""
    records = [
        LogRecord(
            time_unix_nano=NOON + number if is_kept else 2**64 - 1,
            observed_time_unix_nano=NOON,
            severity_number=9,
            severity_text="INFO",
            body=any_value(f"request {number} handled in {number % 977} ms"),
            attributes=attributes(
                {
                    "code.file.path": "/srv/app/main.py", "code.function.name": "handle", "code.line.number": 17,
                    "http.route": f"/r/{number % _ROUTES}",
                }
            ),
            **({"trace_id": uuid.uuid4().bytes, "span_id": uuid.uuid4().bytes[:8]} if number % 2 else {}),
        )
        for number in range(count)
    ]  # fmt: skip
    records[0].body.CopyFrom(any_value(_UNIQUE))
    return export("logs", *records, service=f"exporter-{uuid.uuid4()}").SerializeToString()


def main(url, seconds, count, at_once, is_kept):
    body = encode_records(count, is_kept=is_kept)
    statuses, took, lock = Counter(), [], threading.Lock()
    end = time.perf_counter() + seconds

    def send():
        with requests.Session() as session:
            while (start := time.perf_counter()) < end:
                data = body.replace(_UNIQUE.encode(), uuid.uuid4().hex.encode())
                status = session.post(f"{url}/v1/logs", data=data, headers=_HEADERS, timeout=60).status_code
                with lock:
                    statuses[status] += 1
                    took.append(time.perf_counter() - start)

    threads = [threading.Thread(target=send) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"statuses": statuses, "took": took, "bytes": len(body)}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5] == "True")
