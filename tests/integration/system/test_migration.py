"""The way from API keys to client credentials in docs/migration.md, with its own files and commands, under load."""

import json
import shlex
import threading
from contextlib import ExitStack
from itertools import pairwise

import pyarrow as pa
import pytest

from micromegas_jupyter import FlightSQLClient
from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.cli import main
from micromegas_jupyter.errors import MicromegasError, Rejected
from micromegas_jupyter.wiring import client_side
from tests.architecture.guide_text import blocks, read_page
from tests.fakes.waiting import wait_until
from tests.integration.executors.server_process import ServerProcess

pytestmark = pytest.mark.integration

PAUSE_SECONDS = 0.05
# Where the blocks of each stage are.
TITLES = [
    "1. Both in parallel",
    "2. Find keys in use",
    "3. Warn",
    "4. Reject",
    "5. Remove",
    "Service accounts",
]
PARALLEL, USAGE, WARNING, REFUSAL, REMOVAL = TITLES[:5]


class Caller:
    """Asks again and again with one credential at a time, from a thread of its own."""

    def __init__(self, name, client):
        self.name, self._clients = name, [client]
        self.answers, self.failures, self.notices = 0, [], []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def move_to(self, client):
        self._clients.append(client)

    def _run(self):
        while not self._stopping.wait(PAUSE_SECONDS):
            client = self._clients[-1]
            client.on_notice(self.notices.append)
            try:
                client.query_arrow("SELECT 1")
                self.answers += 1
            except MicromegasError as error:
                self.failures.append(error)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_error):
        self._stopping.set()
        self._thread.join(60)
        for client in self._clients:
            client.close()


class Rehearsal:
    """The page's files and commands, with this machine's names in place of the page's."""

    def __init__(self, folder, provider, capsys):
        self.folder, self._capsys = folder, capsys
        self.config, self.keys, self.secret = folder / "access.json", folder / "keys.json", folder / "client-secret"
        self.secret.touch(0o600)
        self.secret.write_text(provider.service_secret.reveal())
        self._own = {
            "https://id.example.com|alice": f"{provider.issuer}|{provider.service_key_client_id}",
            "https://id.example.com": provider.issuer,
            "lake-nightly": provider.service_client_id,
            "/etc/micromegas/access.json": f"{self.config}.new",
            "/etc/micromegas": str(folder),
            "/etc/lake/client-secret": str(self.secret),
            "/srv/lake": str(folder / "lake"),
        }
        self._private_key = folder / "operator.pem"
        self._private_key.touch(0o600)
        self._private_key.write_text(provider.service_key.reveal())
        # Who runs the commands: an administrator that signs in with a private key.
        self.operator = {
            "MICROMEGAS_OIDC_ISSUER": provider.issuer,
            "MICROMEGAS_OIDC_CLIENT_ID": provider.service_key_client_id,
            "MICROMEGAS_OIDC_PRIVATE_KEY_FILE": str(self._private_key),
            "MICROMEGAS_OIDC_AUDIENCE": provider.resource,
        }
        self.content = {}

    def serve_at(self, uri):
        self._own["grpc+tls://lake.example.com:50051"] = uri
        self.operator["MICROMEGAS_ANALYTICS_URI"] = uri

    def blocks(self, title, language):
        page, following = read_page("migration.md"), dict(pairwise(TITLES))[title]
        start, end = (page[: page.index(f"\n### {text}")].count("\n") + 1 for text in (title, following))
        found = [block for block in blocks("migration.md") if start <= int(block.place.split(":")[1]) < end]
        texts = [block.text for block in found if block.language == language]
        for theirs, ours in self._own.items():
            texts = [text.replace(theirs, ours) for text in texts]
        return texts

    def write(self, title):
        """Put the stage's file in place of the former one, or its members, once the page's check of it has passed."""
        (text,) = self.blocks(title, "json")
        members = json.loads(text)
        self.content = members if "oidc" in members else {**self.content, **members}
        beside = self.config.with_suffix(".json.new")
        beside.touch(0o600)
        beside.write_text(json.dumps(self.content))
        if title in {PARALLEL, REFUSAL}:  # each check takes a second or two
            self.run(self.blocks(PARALLEL, "sh")[0])
        beside.rename(self.config)

    def run(self, text, environ=None, options=()):
        """Run a block's `micromegas` command with its exports, and return what it prints."""
        *exports, command = [shlex.split(line) for line in text.strip().splitlines()]
        variables = dict(word.split("=", 1) for _export, word in exports)
        assert command[0] == "micromegas"
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**(self.operator if environ is None else environ), **variables}.items():
                patch.setenv(name, value)
            self._capsys.readouterr()
            status = main.run([*command[1:], *options])
        printed = self._capsys.readouterr()
        assert status == 0, printed.err
        return printed.out


def _key_client(uri, key):
    return FlightSQLClient(uri, auth_provider=StaticTokenAuthProvider(key))


class Stages:
    """A server and its three callers, through the stages of the page; each method is a stage."""

    def __init__(self, page, server, keys, closing):
        self._page, self._server, self._keys = page, server, keys
        plain = {entry["name"]: entry["key"] for entry in page.content["api_keys"]}
        secrets = {"job": plain["nightly-report"], "dashboard": plain["dashboard"], "loader": keys["loader"]}
        self.callers = [Caller(name, _key_client(server.uri, key)) for name, key in secrets.items()]
        self.job, *self.others = [closing.enter_context(caller) for caller in self.callers]

    def _log(self):
        return self._server.log_file.read_text()

    def go_on(self):
        """Wait until each caller has made some more calls."""
        before = [(caller, caller.answers + len(caller.failures)) for caller in self.callers]
        wait_until(lambda: all(caller.answers + len(caller.failures) > n + 5 for caller, n in before), "they call")

    def enter(self, title):
        reloads = self._log().count("is in force.")
        self._page.write(title)
        wait_until(lambda: self._log().count("is in force.") > reloads, "the stage is in force")
        self.go_on()

    def move_the_job(self):
        self.go_on()
        with _key_client(self._server.uri, self._keys["till"]) as till:
            till.bulk_ingest("sales", pa.table({"n": [1]}), mode="create")
        _checking, moving = self._page.blocks(PARALLEL, "sh")
        assert "(service account)" in self._page.run(moving, {})
        *exports, _whoami = [shlex.split(line)[1] for line in moving.strip().splitlines()]
        own = dict(export.split("=", 1) for export in exports)
        self.job.move_to(client_side.connect(environ=own))
        self.go_on()
        assert [caller.notices for caller in self.callers] == [[], [], []]

    def see_who_still_uses_a_key(self):
        used, revoking = self._page.blocks(USAGE, "sh")

        def usage():
            return {row["name"]: row for row in json.loads(self._page.run(used, options=("--json",)))}

        rows = wait_until(lambda: (rows := usage())["till"]["calls"] and rows, "all of it is recorded")
        for name in ("nightly-report", "dashboard", "loader", "till"):
            row = rows[name]
            assert (row["address"], row["client"], bool(row["last_used"])) == ("127.0.0.1", "python", True)
        assert (rows["till"]["calls"], rows["forgotten"]["calls"]) == (1, 0)
        self._page.run(revoking)

    def warn(self):
        (ending,) = self._page.blocks(WARNING, "sh")
        self._page.run(ending)
        self.enter(WARNING)
        wait_until(lambda: all(caller.notices for caller in self.others), "both are told")
        plain, hashed = [caller.notices[0] for caller in self.others]
        assert ("older form" in plain, "ends on" in hashed) == (True, True)
        assert [caller.failures for caller in self.callers] == [[], [], []]

    def refuse(self):
        self.enter(REFUSAL)
        answered = [caller.answers for caller in self.others]
        self.go_on()
        self.enter(REMOVAL)
        assert [caller.answers for caller in self.others] == answered
        for refusal in [refusal for caller in self.others for refusal in caller.failures]:
            assert (type(refusal), refusal.code) == (Rejected, "AUTH010")
            assert "service account" in refusal.remedy
        for caller, reason in zip(self.others, ("legacy_api_key_refused", "denied"), strict=True):
            assert self._server.audit_lines(outcome="refused", subject=caller.name, reason=reason)


def test_a_job_moves_to_client_credentials_without_a_failed_call_and_keys_end_by_stages(
    tmp_path, other_provider, capsys
):
    page = Rehearsal(tmp_path, other_provider, capsys)
    keys = {
        name: page.run(f"micromegas keys create {name} --file {page.keys} {scope}").strip()
        for name, scope in (("loader", ""), ("forgotten", ""), ("till", "--scope ingest"))
    }
    page.write(PARALLEL)
    server = ServerProcess(
        tmp_path / "server", lake=tmp_path / "lake", keys={}, variables={"HOME": str(tmp_path)},
        options=("--access-config", str(page.config), "--telemetry-interval", "1"),
    )  # fmt: skip
    with server, ExitStack() as closing:
        page.serve_at(server.uri)
        stages = Stages(page, server, keys, closing)

        stages.move_the_job()
        stages.see_who_still_uses_a_key()
        stages.warn()
        stages.refuse()

    moved = server.audit_lines(issuer=other_provider.issuer, user=other_provider.service_client_id, status="ok")
    assert (stages.job.failures, stages.job.notices) == ([], [])
    assert len(moved) > 20
