"""Looks, as a system user, through all that this user can reach for texts that must not be there.

Run by `test_reach` as a program. One JSON object comes on standard input, so that what is looked for stands in no file,
argument or variable; one JSON object goes out, with what was found and how much was looked at.
"""

import http.client
import json
import os
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

MAX_FILE_BYTES = 8_000_000
SILENCE_SECONDS = 1.0


class Search:
    """Counts what was looked at and keeps where something was found: needles anywhere, words in answers only."""

    def __init__(self, needles, words):
        self._needles = {name: text.encode() for name, text in needles.items()}
        self._words = {name: text.encode() for name, text in words.items()}
        self.found = []
        self.looked_at = {"files": 0, "processes": 0, "answers": 0}

    def look(self, where, data, kind):
        self.looked_at[kind] += 1
        wanted = self._needles | (self._words if kind == "answers" else {})
        self.found += [f"{name} in {where}" for name, text in wanted.items() if text in data]

    def files(self, folder, since, *, depth=100):
        for parent, folders, names in os.walk(folder):
            if parent.count("/") - folder.count("/") >= depth:
                folders.clear()
            for name in names:
                path = Path(parent) / name
                try:
                    status = path.lstat()
                    if path.is_file() and status.st_mtime >= since and status.st_size <= MAX_FILE_BYTES:
                        self.look(str(path), path.read_bytes(), "files")
                except OSError:
                    continue

    def processes(self):
        for process in Path("/proc").iterdir():
            if not process.name.isdigit() or int(process.name) == os.getpid():
                continue
            for name in ("environ", "cmdline"):
                try:
                    self.look(str(process / name), (process / name).read_bytes(), "processes")
                except OSError:
                    continue
            self._open_files(process / "fd")

    def _open_files(self, folder):
        """Look into the files that a process has open: their folders may be closed to its user, these ways are not."""
        try:
            for link in folder.iterdir():
                if link.is_file():
                    with link.open("rb") as file:
                        self.look(f"{link} ({link.readlink()})", file.read(MAX_FILE_BYTES), "files")
        except OSError:
            return

    def addresses(self, calls, token):
        for method, url, body in calls:
            self.look(f"{method} {url} {body}".strip(), _ask(method, url, token, body), "answers")

    def port(self, port, paths, token):
        """Ask a port for each path, in vain where something else than HTTP is spoken: once is enough there."""
        for path in paths:
            answer = _ask("GET", f"http://127.0.0.1:{port}/{path}", token, "", seconds=SILENCE_SECONDS)
            if not answer:
                break
            self.look(f"port {port} /{path}", answer, "answers")


def _ask(method, url, token, body, *, seconds=60):
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, data=body.encode() or None, headers=headers, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=seconds) as answer:
            return bytes(answer.read(MAX_FILE_BYTES))
    except urllib.error.HTTPError as error:
        return bytes(error.read(MAX_FILE_BYTES))
    except (OSError, ValueError, http.client.HTTPException):
        return b""


def main():
    wanted = json.load(sys.stdin)
    search = Search(wanted["needles"], wanted["words"])
    for folder in wanted["folders"]:
        search.files(folder, wanted["since"])
    for folder in wanted["shallow"]:
        search.files(folder, wanted["since"], depth=1)
    search.processes()
    search.look("its own environment", repr(dict(os.environ)).encode(), "processes")
    search.addresses(wanted["calls"], wanted["token"])
    with ThreadPoolExecutor(len(wanted["ports"])) as pool:
        list(pool.map(lambda port: search.port(port, wanted["paths"], wanted["token"]), wanted["ports"]))
    print(json.dumps({"user": os.getuid(), "found": search.found, "looked_at": search.looked_at}))


if __name__ == "__main__":
    main()
