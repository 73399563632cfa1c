"""The search for secrets finds one that was planted in each kind of place, and in each form."""

import base64
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from micromegas_jupyter.core.system import SYSTEM_CLOCK
from tests.fakes.mint import mint
from tests.fakes.waiting import wait_until
from tests.integration.notebook.kernels import attended_kernel
from tests.integration.system.escapes import leaking_program
from tests.integration.system.escapes.gathering import (
    ProcessWatch,
    everything_logged,
    file_texts,
    noted_texts,
    telemetry_texts,
)
from tests.integration.system.escapes.run_of_everything import INSIDE, REPOSITORY
from tests.integration.system.escapes.secrets_in_play import (
    Allowed,
    Kind,
    KnownSecret,
    Place,
    SecretsInPlay,
    Text,
    scan,
    summary,
)

pytestmark = pytest.mark.integration

WAIT_SECONDS = 60
PLANTED = "a planted/secret+that&nobody%should=see-0123456789"
SECRET = KnownSecret(kind=Kind.CLIENT_SECRET, text=PLANTED)
TOKEN = KnownSecret(kind=Kind.ID_TOKEN, text=mint())


def base64_of(text):
    return base64.b64encode(text.encode()).decode()


FORMS = {
    "as it is": str,
    "in JSON": json.dumps,
    "in a repr": repr,
    "in a query": quote_plus,
    "in a path": lambda text: quote(text, safe=""),
    "base64": base64_of,
    "base64url": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "Basic": lambda text: base64_of(f"app:{text}"),
    "Basic of a longer name": lambda text: base64_of(f"other:{text}"),
    "hexadecimal": lambda text: text.encode().hex(),
    "cut": lambda text: text[:24],
    "the end": lambda text: text[-24:],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("secret", [SECRET, TOKEN], ids=["secret", "token"])
def test_a_secret_is_found_in_each_form(secret, form):
    text = Text(place=Place.LOG, name="somewhere", text=f"before {FORMS[form](secret.text)} after")

    findings = scan([text], [secret])

    assert [(finding.kind, finding.name) for finding in findings] == [(secret.kind, "somewhere")]


@pytest.mark.parametrize("segment", [0, 1, 2])
def test_each_part_of_a_token_is_found(segment):
    text = Text(place=Place.OUTPUT, name="somewhere", text=f"<{TOKEN.text.split('.')[segment]}>")

    assert scan([text], [TOKEN])


def test_a_line_of_a_private_key_is_found():
    lines = [base64_of(f"{number:048}") for number in range(3)]
    key = "\n".join(["-----BEGIN PRIVATE KEY-----", *lines, "-----END PRIVATE KEY-----"])
    text = Text(place=Place.OUTPUT, name="somewhere", text=f"key: {lines[1]}")

    assert scan([text], [KnownSecret(kind=Kind.PRIVATE_KEY, text=key)])


def test_what_is_no_secret_is_not_found():
    other = mint(subject="somebody else")
    text = Text(place=Place.OUTPUT, name="somewhere", text=f"{other.split('.')[2]} a planted 0123456789 secret")

    assert scan([text], [SECRET, TOKEN]) == []


@pytest.mark.parametrize(
    ("place", "name", "kind", "count"),
    [
        (Place.LOG, "/kept/tokens.json", Kind.CLIENT_SECRET, 1),
        (Place.FILE, "/elsewhere", Kind.CLIENT_SECRET, 1),
        (Place.FILE, "/kept/tokens.json", Kind.STATE, 1),
        (Place.FILE, "/kept/tokens.json", Kind.CLIENT_SECRET, 0),
    ],
)
def test_only_what_is_allowed_there_is_not_found(place, name, kind, count):
    rule = Allowed(place=Place.FILE, name="^/kept/", kinds=frozenset({Kind.CLIENT_SECRET}), reason="it is kept there")
    secret = KnownSecret(kind=kind, text=PLANTED)

    assert len(scan([Text(place=place, name=name, text=PLANTED)], [secret], [rule])) == count


@pytest.fixture
def leaked(tmp_path):
    """What the watches see of a program that lets a secret escape in every way."""
    for name in ("home", "notes", "tmp", "work"):
        (tmp_path / name).mkdir()
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{INSIDE}{os.pathsep}{REPOSITORY}",
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "tmp"),
        "ESCAPES_FOLDER": str(tmp_path / "notes"),
    }
    processes = ProcessWatch()
    command = [sys.executable, str(leaking_program.__file__)]
    with subprocess.Popen(
        command, env=environ, cwd=tmp_path / "work", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        program.stdin.write(f"{PLANTED}\n")
        program.stdin.flush()
        shown = program.stdout.readline() + program.stdout.readline()
        processes.look()
        rest, _ = program.communicate("\n", timeout=WAIT_SECONDS)
    assert program.returncode == 0
    output = Text(place=Place.OUTPUT, name="program", text=shown + rest)
    notes = tmp_path / "notes"
    return [output, *noted_texts(notes), *file_texts(tmp_path, leave_out=[notes]), *processes.texts()]


def test_a_secret_that_a_program_lets_escape_is_found_in_each_place(leaked):
    findings = {(finding.place, Path(finding.name).name) for finding in scan(leaked, [SECRET])}

    child = f"child of a program: {Path(sys.executable).name}"
    temporary = {name for place, name in findings if place is Place.FILE and name.startswith("tmp")}
    assert len(temporary) == 1, "the file that was there for a moment only"
    assert findings == {
        *((Place.FILE, name) for name in temporary),
        (Place.ARGUMENTS, "child of a program"),
        (Place.ARGUMENTS, child),
        (Place.ENVIRONMENT, "child of a program"),
        (Place.ENVIRONMENT, child),
        (Place.FILE, "a file without a name"),
        (Place.FILE, "left-behind"),
        (Place.HISTORY, ".python_history"),
        (Place.LOG, "urllib3.connectionpool"),
        (Place.OUTPUT, "program"),
        (Place.REPR, "micromegas_jupyter.leaking.Careless"),
        (Place.TRACEBACK, "LoginFailed"),
    }, summary(scan(leaked, [SECRET]))


def test_a_secret_that_a_cell_shows_is_found_in_the_notebook():
    with attended_kernel() as kernel:
        kernel.run(f"print({PLANTED!r})")
        saved = Text(place=Place.NOTEBOOK, name="saved", text=kernel.saved())

    assert scan([saved], [SECRET])


def test_a_secret_that_the_server_logs_is_found_in_its_log_and_its_telemetry(stack):
    texts = []
    secret = KnownSecret(kind=Kind.API_KEY, text=f"{PLANTED}-{SYSTEM_CLOCK.now().isoformat()}")
    with everything_logged(texts):
        logging.getLogger("micromegas_jupyter.server").info("A call came.", extra={"credential": secret.text})
        logging.getLogger("micromegas_jupyter.server").info("A call came with %s.", secret.text)

    recorded = wait_until(lambda: scan(telemetry_texts(stack), [secret]), "the log is recorded", pause_seconds=0.2)

    assert {finding.name for finding in recorded} == {"log_entries"}
    assert {finding.name for finding in scan(texts, [secret])} == {"server: micromegas_jupyter.server"}


def test_secrets_are_known_by_the_names_of_what_holds_them():
    secrets = SecretsInPlay()

    secrets.note_address("http://127.0.0.1/callback?code=one-time-code&state=state-of-it&iss=http://id.example")
    secrets.note_headers({"authorization": f"Basic {base64_of('app:pass%2Bword-of-app')}"})
    secrets.note_text(json.dumps({"device_code": "code-of-device", "interval": 5, "user_code": "WDJB-0000"}))

    assert {(secret.kind, secret.text) for secret in secrets} == {
        (Kind.AUTHORIZATION_CODE, "one-time-code"),
        (Kind.STATE, "state-of-it"),
        (Kind.CLIENT_SECRET, "pass%2Bword-of-app"),
        (Kind.CLIENT_SECRET, "pass+word-of-app"),
        (Kind.DEVICE_CODE, "code-of-device"),
        (Kind.USER_CODE, "WDJB-0000"),
    }
