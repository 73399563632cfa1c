"""The local line of `micromegas whoami`."""

import json
import subprocess
import sys
from pathlib import PurePath

import pytest

from micromegas_jupyter.auth import OidcAuthProvider, StaticTokenAuthProvider
from micromegas_jupyter.cli.whoami_command import local_line
from micromegas_jupyter.config.client import Bearer, ClientSettings
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import ProviderUnavailable
from tests.fakes.mint import ec_key, mint_raw
from tests.fakes.scripted_provider import ScriptedProvider

SETTINGS = ClientSettings(issuer="https://id.example.com", client_id="robot")


class ServiceProvider:
    """Gives one token, or fails."""

    def __init__(self, answer):
        self._answer = answer

    def get_token(self):
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def _jwt(**claims):
    return mint_raw(json.dumps(claims).encode(), key=ec_key())


def test_an_api_key_is_named_by_its_file_and_not_shown():
    settings = ClientSettings(api_key_file=PurePath("/secrets/of/robot.key"))

    assert local_line(settings, StaticTokenAuthProvider("the-key")) == "API key from robot.key"


def test_a_programs_token_says_who_it_is():
    ends = int(SYSTEM_CLOCK.now().timestamp()) + 630
    token = _jwt(email="robot@lake.example.com", iss="https://accounts.example.com", exp=ends)

    line = local_line(ClientSettings(), ServiceProvider(token))

    assert (
        line == "robot@lake.example.com (service account) · accounts.example.com · token valid 10 min, renews by itself"
    )


def test_a_token_that_says_nothing_leaves_what_the_settings_say():
    assert local_line(SETTINGS, ServiceProvider("opaque")) == "robot (service account) · id.example.com"


def test_a_token_that_cannot_be_had_is_an_error():
    with pytest.raises(ProviderUnavailable):
        local_line(SETTINGS, ServiceProvider(ProviderUnavailable("The identity provider does not answer.")))


def test_a_fresh_sign_in_needs_none_of_the_slow_libraries(tmp_path):
    idp = ScriptedProvider()
    stored = {"issuer": idp.issuer, "client_id": idp.client_id, "token": idp.stored_token(ends_in_seconds=3600)}
    (tmp_path / "tokens.json").write_text(json.dumps(stored))
    (tmp_path / "tokens.json").chmod(0o600)
    slow = ("authlib", "filelock", "joserfc", "numpy", "pandas", "pyarrow", "requests", "webbrowser")
    program = (
        "import sys; from micromegas_jupyter import wiring, cli; "
        "from micromegas_jupyter.cli import whoami_command; "
        "settings = wiring.load_client_settings(); "
        "print(whoami_command.local_line(settings, wiring.stored_provider(settings)).split()[0], "
        f"[name for name in {slow!r} if name in sys.modules])"
    )
    environ = {
        "MICROMEGAS_CONFIG_DIR": str(tmp_path),
        "MICROMEGAS_OIDC_ISSUER": idp.issuer,
        "MICROMEGAS_OIDC_CLIENT_ID": idp.client_id,
    }

    result = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "Alice []"


def test_a_person_whom_the_tokens_do_not_name_is_signed_in_all_the_same():
    settings = ClientSettings(issuer="https://id.example.com", client_id="notebook", bearer=Bearer.ACCESS_TOKEN)
    token = {"access_token": "opaque", "token_type": "Bearer", "expires_at": int(SYSTEM_CLOCK.now().timestamp()) + 600}
    provider = OidcAuthProvider(settings.issuer, "notebook", token=token, bearer=Bearer.ACCESS_TOKEN)

    assert local_line(settings, provider) == "signed in at id.example.com; the sign-in does not say who you are"
