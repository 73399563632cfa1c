"""Executors, and the process that they are forked from, hold none of a server's secrets and none of its callers'."""

import json
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pyarrow as pa
import pytest

from micromegas_jupyter import FlightSQLClient
from micromegas_jupyter.auth import StaticTokenAuthProvider
from tests.fakes.certificates import Authority
from tests.fakes.mint import ISSUER, ec_key, mint
from tests.integration.executors.server_process import ServerProcess

pytestmark = pytest.mark.integration

#: Every secret that can be chosen begins so; it is new in each run, so that no file of this project holds it.
PREFIX = f"planted{secrets.token_hex(8)}"
SQL_MARKER = f"asked{secrets.token_hex(8)}"
_FAR_FUTURE = 4_000_000_000
_CHUNK_BYTES = 4 << 20
_OVERLAP_BYTES = 256
_NOT_MEMORY = ("[vvar]", "[vsyscall]")
_ALLOWED_DESCRIPTORS = ("/dev/null", "socket:[", "pipe:[", "anon_inode:")


def planted(name):
    return f"{PREFIX}{name}"


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("secrets")
    authority = Authority(folder)
    pair = authority.issue("server")
    (jwks_file := folder / "jwks.json").write_text(json.dumps({"keys": [ec_key().jwk()]}), encoding="utf-8")
    (key_file := folder / "keys.json").write_text(
        json.dumps([{"name": "file", "key": planted("key-in-a-file"), "scopes": ["read", "ingest"]}]), encoding="utf-8"
    )
    key_file.chmod(0o600)
    token = mint(key=ec_key(), subject="alice", iat=0, exp=_FAR_FUTURE)
    variables = {
        "MICROMEGAS_API_KEYS": json.dumps([{"name": "variable", "key": planted("key-in-a-variable")}]),
        "MICROMEGAS_API_KEY_FILE": str(key_file),
        "MICROMEGAS_OIDC_CONFIG": json.dumps(
            {"issuers": [{"issuer": ISSUER, "audience": "lake", "jwks_file": str(jwks_file)}]}
        ),
        "MICROMEGAS_OIDC_CLIENT_SECRET": planted("client-secret"),
        "SOME_PASSWORD": planted("password"),
    }
    options = ("--no-telemetry", "--tls-certificate", str(pair.certificate_file), "--tls-key", str(pair.key_file))
    needles = {
        "planted": PREFIX.encode(),
        "bearer token": token.rpartition(".")[2].encode(),
        "private key of TLS": pair.key_file.read_bytes().splitlines()[2],
    }
    with ServerProcess(
        folder / "server", lake=folder / "lake", keys={}, options=options, variables=variables
    ) as server:
        credentials = [planted("key-in-a-file"), planted("key-in-a-variable"), token] * 4
        with ThreadPoolExecutor(len(credentials)) as threads:
            list(threads.map(lambda one: _use(server, one, str(authority.ca_file)), credentials))
        with FlightSQLClient(
            server.uri,
            auth_provider=StaticTokenAuthProvider(planted("key-in-a-file")),
            ca_bundle=str(authority.ca_file),
        ) as client:
            client.bulk_ingest("notes", pa.table({"n": [1, 2, 3]}), mode="create")
            assert client.query("SELECT sum(n) AS n FROM notes")["n"].tolist() == [6]
        zygote = server.zygote()
        yield SimpleNamespace(
            server=server, needles=needles, zygote=zygote, executors=lambda: zygote.children(recursive=True)
        )


def _use(server, credential, ca_bundle):
    provider = StaticTokenAuthProvider(credential)
    with FlightSQLClient(server.uri, auth_provider=provider, ca_bundle=ca_bundle) as client:
        for number in range(2):
            sql = f"SELECT '{SQL_MARKER}' AS marker, :number AS n FROM generate_series(1, 50000) ORDER BY value DESC"
            assert client.query_arrow(sql, params={"number": number}).num_rows == 50_000
        client.list_tables()


def _memory(pid):
    """Yield what a process has in its memory, but for what is only mapped from files."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines():
            span, rights, _, _, _, *path = line.split(maxsplit=5)
            mapped = path[0] if path else ""
            if not rights.startswith("r") or mapped in _NOT_MEMORY or (mapped.startswith("/") and "w" not in rights):
                continue
            start, end = (int(bound, 16) for bound in span.split("-"))
            for place in range(start, end, _CHUNK_BYTES):
                memory.seek(place)
                with suppress(OSError):  # it was unmapped meanwhile
                    yield memory.read(min(_CHUNK_BYTES + _OVERLAP_BYTES, end - place))


def _found(pid, needles):
    """Return which needles are in a process's memory, each with what stands around it."""
    found = {}
    for chunk in _memory(pid):
        for name, needle in needles.items():
            if (place := chunk.find(needle)) >= 0:
                found[name] = chunk[max(0, place - 40) : place + 80]
    return found


def _found_in_each(processes, needles):
    """Return what each process holds that runs still: one that ran maintenance ends meanwhile."""
    found = {}
    for process in processes:
        with suppress(FileNotFoundError, ProcessLookupError):
            found[process.pid] = _found(process.pid, needles)
    return found


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may read the memory of these processes")


@needs_root
def test_the_scan_finds_what_the_front_has_and_what_executors_may_have(scene):
    in_front = _found(scene.server.front.pid, scene.needles)
    in_executors = _found_in_each(scene.executors(), {"sql": SQL_MARKER.encode()})

    assert in_front.keys() == scene.needles.keys()
    assert any(in_executors.values())


@needs_root
def test_no_secret_is_in_the_memory_of_an_executor(scene):
    processes = [scene.zygote, *scene.executors()]

    found = _found_in_each(processes, scene.needles)

    assert len(found) > 2
    assert not any(found.values()), found


@needs_root
def test_no_secret_is_in_the_environment_or_the_arguments_of_an_executor(scene):
    for process in (scene.zygote, *scene.executors()):
        for name in ("environ", "cmdline"):
            content = Path(f"/proc/{process.pid}/{name}").read_bytes()
            assert content
            assert not [needle for needle in scene.needles.values() if needle in content]
            assert b"MICROMEGAS_" not in content


@needs_root
def test_executors_have_no_descriptor_of_the_front(scene):
    for process in (scene.zygote, *scene.executors()):
        links = {str(link.readlink()) for link in Path(f"/proc/{process.pid}/fd").iterdir()}
        others = {link for link in links if not link.startswith(_ALLOWED_DESCRIPTORS)}
        # Standard error is a file: an executor's own, and one for the process that forks them.
        own = {link for link in others if link.endswith("/stderr")} if process == scene.zygote else set()
        # The process that stores rows holds the logs of the tables that it writes to.
        of_tables = (".parquet", "/_delta_log")
        assert all(f"/{process.pid}/" in link or link.endswith(of_tables) for link in others - own), others
        assert process.net_connections("inet") == []
        if process != scene.zygote:
            assert process.rlimit(psutil.RLIMIT_CORE) == (0, 0)
