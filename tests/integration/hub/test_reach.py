"""No refresh token, and nothing else that is not a person's own, is within reach of that person's kernels."""

import json
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

# The first test of the folder starts the Hub.
pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

MAX_PIECE_BYTES = 64_000_000
PROGRAM = Path(__file__).with_name("looking.py")
OTHER = {"alice": "bob", "bob": "alice"}
# What stands in an answer that tells a kept sign-in, also one that was renewed after the look began.
WORDS = {"a kept sign-in": '"auth_state": {', "a refresh token": '"refresh_token"'}
# What a kernel could ask the Hub to put into a further token; none of them is its to give.
WISHED_SCOPES = [[], ["admin:auth_state"], ["admin:auth_state!user"], ["admin:users"], ["inherit"]]


def secrets_of(hub, login):
    """Return what must be out of reach of a person: by name, as texts."""
    other = OTHER[login]
    state, others = hub.auth_state(login), hub.auth_state(other)
    return {
        "the own refresh token": state["refresh_token"],
        "somebody else's refresh token": others["refresh_token"],
        "somebody else's ID token": others["id_token"],
        "somebody else's access token": others["access_token"],
        "the token of somebody else's server": hub.server_token(other),
        "the key of the kept sign-ins": hub.crypt_key,
        "the service's token": hub.service_process().environ()["JUPYTERHUB_API_TOKEN"],
        "the witness's token": hub.witness_token,
        "the application's secret": hub.provider.service_secret.reveal(),
    }


def calls(hub):
    """Return what a kernel can ask the Hub, its proxy, the service and everybody's servers."""
    names = [person.name for person in hub.people.values()]
    api = ["", "user", "users", "groups", "services", "services/micromegas", "proxy", "info", "authorizations/token"]
    of_people = ["", "/tokens", "/servers", "/server", "/activity", "?include_stopped_servers=1"]
    service = ["", "token", "redirect", "sign-ins", "health", "callback", "done"]
    asked = [
        *(f"hub/api/{path}" for path in api),
        *(f"hub/api/users/{name}{path}" for name in names for path in of_people),
        *(f"services/micromegas/{path}" for path in service),
        *(f"user/{name}/api/{path}" for name in names for path in ("", "contents", "kernels", "sessions", "status")),
    ]
    posted = [(f"services/micromegas/{path}", "{}") for path in service]
    posted += [
        (f"hub/api/users/{name}/tokens", json.dumps({"scopes": scopes} if scopes else {}))
        for name in names
        for scopes in WISHED_SCOPES
    ]
    return [
        *(("GET", f"{hub.url}{path}", "") for path in asked),
        *(("POST", f"{hub.url}{path}", body) for path, body in posted),
    ]


def look_as(hub, login, readable_folder, needles):
    """Look as the person's system user, with all that the person's server has."""
    person = hub.people[login]
    user, group = hub.system.ids(person.name)
    environ = hub.server_process(login).environ()
    folders = [str(other.home) for other in hub.people.values()]
    folders += [str(hub.folder), str(readable_folder / "home"), "/dev/shm", "/run", "/var/tmp"]
    wanted = {
        "needles": needles,
        "words": WORDS,
        "folders": folders,
        "shallow": ["/tmp"],
        "since": hub.started_at - 60,
        "calls": calls(hub),
        "ports": hub.listening_ports(),
        "paths": ["", "api/routes", "hub/api/users", "hub/api/user"],
        "token": environ["JUPYTERHUB_API_TOKEN"],
    }
    done = subprocess.run(
        [str(hub.python.executable), "-c", PROGRAM.read_text(encoding="utf-8")],
        input=json.dumps(wanted),
        env=environ,
        cwd="/",
        user=user,
        group=group,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["user"] == user
    return found


def memory_of(user):
    """Return what the programs of a system user have in memory, piece by piece, as only root reads it."""
    for process in psutil.process_iter(["uids"]):
        if process.info["uids"].real != user:
            continue
        with suppress(OSError), Path(f"/proc/{process.pid}/mem").open("rb", buffering=0) as memory:
            for line in Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8").splitlines():
                ends, rights, *_rest = line.split()
                if rights.startswith("rw"):
                    start, end = (int(text, 16) for text in ends.split("-"))
                    with suppress(OSError, OverflowError):
                        memory.seek(start)
                        yield memory.read(min(end - start, MAX_PIECE_BYTES))


@pytest.mark.parametrize("login", ["alice", pytest.param("bob", marks=pytest.mark.long)])
def test_no_program_of_a_person_has_a_refresh_token_in_its_memory(signed_in, old_kernel, login):
    person = signed_in.people[login]
    state = signed_in.auth_state(login)
    wanted = {
        "own token": signed_in.server_token(login),
        "refresh token": state["refresh_token"],
        "key of the kept sign-ins": signed_in.crypt_key,
        "application's secret": signed_in.provider.service_secret.reveal(),
    }

    pieces = memory_of(signed_in.system.ids(person.name)[0])
    found = {name for piece in pieces for name, text in wanted.items() if text.encode() in piece}

    assert found == {"own token"}  # which is there, and shows that the look finds things


@pytest.mark.parametrize("login", ["alice", pytest.param("bob", marks=pytest.mark.long)])
def test_no_secret_is_within_reach_of_a_persons_kernels(signed_in, old_kernel, readable_folder, login):
    """The same look finds the own server's token in a process, a note in a file, and a bearer in an answer."""
    note = signed_in.people[login].home / "note.txt"
    note.write_text("a text that everybody may find", encoding="utf-8")
    note.chmod(0o644)
    within_reach = {
        "own token": signed_in.server_token(login),
        "note": "a text that everybody may find",
        "issuer": f'"issuer": "{signed_in.provider.issuer}"',
    }

    looked = look_as(signed_in, login, readable_folder, {**secrets_of(signed_in, login), **within_reach})

    found = [entry for entry in looked["found"] if entry.startswith(tuple(f"{name} in " for name in within_reach))]
    assert [entry for entry in looked["found"] if entry not in found] == []
    assert any(entry.startswith("own token in /proc/") for entry in found)
    assert {f"note in {note}", f"issuer in POST {signed_in.service_url}token {{}}"} <= {*found}
    assert looked["looked_at"]["files"] > 0
    assert looked["looked_at"]["processes"] > 10
    assert looked["looked_at"]["answers"] > 50
