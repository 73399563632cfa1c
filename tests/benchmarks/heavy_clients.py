"""A program that runs heavy statements for several callers at once: a process of its own, apart from what is timed.

It reads `{"uri": …, "keys": […], "statements": […]}`; each key's caller repeats one of the statements. For each further
line it prints how the statements ended so far, by outcome.
"""

import json
import os
import sys
import threading
from collections import Counter

from micromegas_jupyter import FlightSQLClient
from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.errors import MicromegasError


def _repeat(uri, key, sql, begun, ends):
    with FlightSQLClient(uri, auth_provider=StaticTokenAuthProvider(key)) as client:
        client.query_arrow("SELECT 1")
        begun.wait()
        while True:
            try:
                client.query_arrow(sql)
            except MicromegasError as error:
                ends.append(error.code)
            else:
                ends.append("ok")


def main():
    task = json.loads(sys.stdin.readline())
    ends = []
    begun = threading.Barrier(len(task["keys"]) + 1)
    for number, key in enumerate(task["keys"]):
        sql = task["statements"][number % len(task["statements"])]
        threading.Thread(target=_repeat, args=(task["uri"], key, sql, begun, ends), daemon=True).start()
    begun.wait()
    for _ in sys.stdin:
        print(json.dumps(Counter(ends)), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
