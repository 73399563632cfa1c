"""Each variable of the client half is read, and `connect()` follows variables, profiles and a wrapper module."""

import json
import subprocess
import sys

import pytest

from tests.fakes.certificates import Authority
from tests.fakes.platform_stand_ins import GoogleTokenEndpoint

pytestmark = pytest.mark.integration

APPLICATION = {"OIDC_ISSUER": "https://127.0.0.1:1", "OIDC_CLIENT_ID": "lake-notebooks"}
GROUPS = {
    "person": {
        **APPLICATION, "ANALYTICS_URI": "grpc+tls://127.0.0.1:1", "CA_BUNDLE": "{ca}",
        "CLIENT_CERTIFICATE_FILE": "{certificate}", "CLIENT_KEY_FILE": "{key}", "OIDC_PRESET": "generic",
        "OIDC_SCOPE": "openid", "OIDC_RESOURCE": "https://lake.example.com", "OIDC_BEARER": "access_token",
        "OIDC_REDIRECT_URI": "http://127.0.0.1:48080/callback", "OIDC_FLOW": "device",
        "OIDC_PROXY": "http://127.0.0.1:1", "OIDC_TIMEOUT_SECONDS": "5", "TOKEN_STORAGE": "keyring",
    },
    "private key": {
        **APPLICATION, "OIDC_AUDIENCE": "lake", "OIDC_PRIVATE_KEY_FILE": "{key}", "OIDC_PRIVATE_KEY_ID": "key-1",
        "OIDC_PRIVATE_KEY_AUDIENCE": "issuer", "OIDC_PRIVATE_KEY_ALGORITHM": "ES256",
    },
    "secret": {**APPLICATION, "OIDC_CLIENT_SECRET": "secret-of-this-test"},
    "secret file": {**APPLICATION, "OIDC_CLIENT_SECRET_FILE": "{secret}"},
    "service account": {"OIDC_SERVICE_ACCOUNT_FILE": "{account}", "OIDC_AUDIENCE": "lake"},
    "pod": {
        **APPLICATION, "OIDC_WORKLOAD": "kubernetes", "OIDC_WORKLOAD_EXCHANGE": "token-exchange",
        "OIDC_WORKLOAD_TOKEN_FILE": "{secret}",
    },
    "machine": {"OIDC_WORKLOAD": "azure", "OIDC_WORKLOAD_AUDIENCE": "lake", "OIDC_WORKLOAD_CLIENT_ID": "second"},
}  # fmt: skip

# A proof of the application or of the program is one setting; `doctor` names what makes it one, and not its details.
DETAILS = (
    "OIDC_PRIVATE_KEY_AUDIENCE", "OIDC_PRIVATE_KEY_ID", "OIDC_PRIVATE_KEY_ALGORITHM", "OIDC_WORKLOAD_EXCHANGE",
    "OIDC_WORKLOAD_AUDIENCE", "OIDC_WORKLOAD_TOKEN_FILE", "OIDC_WORKLOAD_CLIENT_ID",
)  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    authority = Authority(folder)
    pair = authority.issue("notebook")
    (folder / "secret").write_text("secret-of-this-test")
    with GoogleTokenEndpoint() as google:
        (folder / "account.json").write_text(google.key_file())
    for name in ("secret", "account.json", "notebook.key"):
        (folder / name).chmod(0o600)
    return {
        "ca": str(authority.ca_file),
        "certificate": str(pair.certificate_file),
        "key": str(pair.key_file),
        "secret": str(folder / "secret"),
        "account": str(folder / "account.json"),
    }


@pytest.mark.parametrize("group", GROUPS)
def test_doctor_names_each_variable_that_is_set(micromegas_here, nobody, files, group):
    variables = {f"MICROMEGAS_{name}": value.format(**files) for name, value in GROUPS[group].items()}

    result = micromegas_here("doctor", "--json", environ={**nobody, **variables})

    checks = {check["check"]: check for check in json.loads(result.stdout)["checks"]}
    named = {f"MICROMEGAS_{name}" for name in GROUPS[group] if name not in DETAILS}
    assert set(checks["settings"]["facts"]["origins"].values()) == named
    assert "secret-of-this-test" not in result.stdout + result.stderr


@pytest.mark.parametrize("detail", DETAILS)
def test_a_detail_of_something_that_is_not_set_stops_the_program_by_its_name(micromegas_here, nobody, detail):
    application = {f"MICROMEGAS_{name}": value for name, value in APPLICATION.items()}

    result = micromegas_here("whoami", environ={**nobody, **application, f"MICROMEGAS_{detail}": "none"})

    assert (result.returncode, result.stdout) == (2, "")
    assert f"MICROMEGAS_{detail}" in result.stderr


def test_a_client_without_settings_is_one_of_this_machine(micromegas_here, nobody):
    result = micromegas_here("doctor", "--json", environ=nobody)

    assert "localhost:50051" in json.loads(result.stdout)["checks"][-1]["found"]


def _program(source, environ, *path):
    places = ":".join([*map(str, path), *filter(None, [environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-c", source], env={**environ, "PYTHONPATH": places}, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip


CONNECT = "import micromegas_jupyter as m; print(m.connect({}).query('SELECT current_user() AS who')['who'][0])"


@pytest.fixture
def configured(stack, nobody, tmp_path):
    """A person with a `config.json` whose profile `job` is the demo's service account."""
    service = stack.service_environment()
    secret = tmp_path / "client-secret"
    secret.write_text(service["MICROMEGAS_OIDC_CLIENT_SECRET"])
    secret.chmod(0o600)
    job = {
        "uri": service["MICROMEGAS_ANALYTICS_URI"],
        "client_id": service["MICROMEGAS_OIDC_CLIENT_ID"],
        "issuers": [{"issuer": service["MICROMEGAS_OIDC_ISSUER"], "audience": service["MICROMEGAS_OIDC_AUDIENCE"]}],
        "client_secret_file": str(secret),
    }
    folder = tmp_path / "config"
    folder.mkdir(mode=0o700)
    profiles = {"job": job, "other": {"uri": "grpc://127.0.0.1:1"}}
    (folder / "config.json").write_text(json.dumps({"profiles": profiles, "default_profile": "other"}))
    return nobody


def test_connect_follows_a_profile_by_argument_and_by_variable(stack, configured):
    who = stack.service_environment()["MICROMEGAS_OIDC_CLIENT_ID"]

    by_argument = _program(CONNECT.format("profile='job'"), {**configured, "MICROMEGAS_PROFILE": "nowhere"})
    by_variable = _program(CONNECT.format(""), {**configured, "MICROMEGAS_PROFILE": "job"})

    assert (by_argument.stdout.strip(), by_variable.stdout.strip()) == (who, who), by_argument.stderr


@pytest.mark.parametrize(("name", "mode"), [("config/config.json", 0o666), ("client-secret", 0o644)])
def test_a_file_that_others_could_have_written_or_a_secret_that_they_could_read_is_refused(
    micromegas_here, configured, tmp_path, name, mode
):
    (tmp_path / name).chmod(mode)

    result = micromegas_here("query", "SELECT 1", "--profile", "job", environ=configured)

    assert (result.returncode, result.stdout) == (2, "")
    assert "CONF001" in result.stderr


def test_a_wrapper_module_makes_the_client_unless_an_argument_says_otherwise(stack, micromegas, configured, tmp_path):
    (tmp_path / "acme_wrapper.py").write_text(
        "import pandas\n"
        "class Client:\n"
        "    def query(self, sql, begin=None, end=None):\n"
        "        return pandas.DataFrame({'who': ['the wrapper']})\n"
        "def connect():\n"
        "    return Client()\n"
    )
    environ = {**configured, "MICROMEGAS_PYTHON_MODULE_WRAPPER": "acme_wrapper"}
    who = stack.service_environment()["MICROMEGAS_OIDC_CLIENT_ID"]

    wrapped = _program(CONNECT.format(""), environ, tmp_path)
    chosen = _program(CONNECT.format("profile='job'"), environ, tmp_path)
    # Nothing in the file counts, so that not even a profile has to be chosen.
    file = tmp_path / "config" / "config.json"
    file.write_text(file.read_text().replace(', "default_profile": "other"', ""))
    path = f"{tmp_path}:{environ.get('PYTHONPATH', '')}"
    command = micromegas("query", "SELECT 1", "--format", "csv", environ={**environ, "PYTHONPATH": path})

    assert (wrapped.stdout.strip(), chosen.stdout.strip()) == ("the wrapper", who), wrapped.stderr
    assert "deprecated" in wrapped.stderr
    assert command.stdout.split() == ["who", "the", "wrapper"], command.stderr
