"""Files that change while callers call: no call fails that should pass, and changes take effect in time."""

import json
import logging
import subprocess
import sys
import threading
from collections import Counter

import pytest

from micromegas_jupyter.access.api_keys import KeyFile, make_api_key
from micromegas_jupyter.access.config import ReloadingValidator
from micromegas_jupyter.core.system import SYSTEM_CLOCK, SYSTEM_RANDOMNESS
from tests.fakes.mint import ISSUER, ec_key, mint
from tests.fakes.validator import is_accepted
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.integration

VERSIONS, LONG_VERSIONS = 10, 50
CALLERS = 4


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.json"


def add_key(path, name):
    made = make_api_key(name, randomness=SYSTEM_RANDOMNESS, now=SYSTEM_CLOCK.now(), scopes=frozenset({"read"}))
    KeyFile(path).change(lambda keys: (*keys, made.setting), creates=True)
    return made


@pytest.mark.slow
def test_no_call_fails_while_files_are_replaced_again_and_again(path, tmp_path, pytestconfig):
    lasting, fixed = add_key(path, "lasting").secret.reveal(), mint(key=ec_key(), exp=4_000_000_000, iat=0)
    keys, config = tmp_path / "jwks.json", tmp_path / "access.json"
    keys.write_text(json.dumps({"keys": [ec_key().jwk()]}))
    issuer = {"issuer": ISSUER, "audience": "lake", "jwks_file": str(keys)}
    content = {"api_key_file": str(path), "oidc": {"issuers": [issuer]}}
    config.write_text(json.dumps(content))
    validator = ReloadingValidator({"MICROMEGAS_ACCESS_CONFIG": str(config)}, watch_interval_seconds=0.02)
    stopping, outcomes, lock = threading.Event(), Counter(), threading.Lock()

    def call(token):
        own = Counter()
        while not stopping.is_set():
            try:
                validator.cached_context(token) or validator.validate_token(token)
                own["accepted"] += 1
            except Exception as error:  # noqa: BLE001 - whatever it is, it is counted and fails the test
                own[type(error).__name__] += 1
        with lock:
            outcomes.update(own)

    callers = [threading.Thread(target=call, args=(token,)) for token in (lasting, fixed) * (CALLERS // 2)]
    for caller in callers:
        caller.start()
    for version in range(LONG_VERSIONS if pytestconfig.getoption("--long") else VERSIONS):
        passing = add_key(path, f"passing-{version}").secret.reveal()
        wait_until(lambda token=passing: is_accepted(validator, token), "the new key is accepted")
        if version % 5 == 0:
            config.write_text(json.dumps({**content, "denied": [f"api_key|passing-{version}"]}))
            wait_until(lambda token=passing: not is_accepted(validator, token), "it is refused", seconds=30)
    stopping.set()
    for caller in callers:
        caller.join(60)
    validator.close()

    assert set(outcomes) == {"accepted"}
    assert outcomes["accepted"] > 1000


def test_a_file_that_is_written_in_place_bit_by_bit_never_shuts_anybody_out(path, caplog):
    made = add_key(path, "report")
    validator = ReloadingValidator({"MICROMEGAS_API_KEY_FILE": str(path)}, watch_interval_seconds=0.01)
    content, pause = path.read_text(), threading.Event()

    with caplog.at_level(logging.ERROR, "micromegas_jupyter.access"):
        with path.open("w") as file:
            for number, character in enumerate(content.replace("report", "altered")):
                file.write(character)
                file.flush()
                pause.wait(0.002)
                assert is_accepted(validator, made.secret.reveal())
                if number == len(content) // 2:
                    wait_until(lambda: caplog.records, "an unfinished version is looked at")
        wait_until(lambda: validator.settings.api_keys[0].name == "altered", "the last version counts")

    assert is_accepted(validator, made.secret.reveal())
    validator.close()


def test_watching_does_not_keep_a_process_alive(path):
    add_key(path, "report")
    program = (
        "from micromegas_jupyter.access import validator_from_environment; "
        f"validator_from_environment({{'MICROMEGAS_API_KEY_FILE': {str(path)!r}}})"
    )

    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
