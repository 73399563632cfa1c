"""The files of docs/deploy/compose.yaml work together: its commands run as processes, with other addresses and paths.

A certified provider takes the place of Keycloak, whose image these tests cannot run.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import pytest
import requests
import yaml

from micromegas_jupyter import FlightSQLClient
from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.core.system import SYSTEM_CLOCK, SYSTEM_RANDOMNESS
from micromegas_jupyter.oidc.authorization import build_authorization_request, parse_callback
from tests.architecture.guide_text import DOCS
from tests.fakes.certificates import Authority
from tests.fakes.ports import free_port
from tests.fakes.waiting import wait_until
from tests.integration.other_provider.person import sign_in_other

pytestmark = [pytest.mark.integration, pytest.mark.slow]

DEPLOY = DOCS / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
COMMAND = [sys.executable, "-m", "micromegas_jupyter.cli"]
TIMEOUT_SECONDS = 120


def find(program):
    found = shutil.which(program, path=os.pathsep.join([os.environ["PATH"], "/usr/sbin"]))
    if found is None:
        pytest.skip(f"{program} is missing: .ci/run installs it")
    return found


class Deployment:
    """Server, HAProxy, and Prometheus with the files of docs/deploy."""

    def __init__(self, folder, provider):
        names = ("flight", "http", "public_flight", "public_http", "public_identity", "prometheus")
        self.ports = {name: free_port() for name in names}
        self.folder, self.provider, self._started = folder, provider, contextlib.ExitStack()
        self.authority = Authority(folder)
        self.authority.issue("tls")

    def text(self, name):
        """Return a file with the addresses and paths of this machine in place of those of the containers."""
        ports = self.ports
        changes = {
            "/etc/haproxy/tls/": f"{self.folder}/",
            "/etc/prometheus/": f"{self.folder}/",
            "/etc/micromegas/": f"{self.folder}/",
            "bind :50051": f"bind 127.0.0.1:{ports['public_flight']}",
            "bind :8082": f"bind 127.0.0.1:{ports['public_http']}",
            "bind :8443": f"bind 127.0.0.1:{ports['public_identity']}",
            " server:50051": f" 127.0.0.1:{ports['flight']}",
            " server:8082": f" 127.0.0.1:{ports['http']}",
            '"server:8082"': f'"127.0.0.1:{ports["http"]}"',
            "port 8082": f"port {ports['http']}",
            "keycloak:8080": f"127.0.0.1:{urlsplit(self.provider.issuer).port}",
            "https://lake.example.com:8443/realms/lake": self.provider.issuer,
            '"lake-notebooks"': json.dumps(self.provider.client_id),
        }
        text = (DEPLOY / name).read_text(encoding="utf-8")
        for theirs, ours in changes.items():
            text = text.replace(theirs, ours)
        return text

    def write(self, *names):
        for name in names:
            (self.folder / name).write_text(self.text(name), encoding="utf-8")

    def start(self, *command):
        log = self._started.enter_context((self.folder / "log.txt").open("a"))
        process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self._started.callback(process.wait, 30)
        self._started.callback(process.terminate)

    def start_server(self):
        places = {
            "0.0.0.0": "127.0.0.1",
            "172.28.0.10": "127.0.0.1",
            "/var/lib/micromegas": str(self.folder),
            "/var/cache/micromegas": str(self.folder / "spill"),
            "/etc/micromegas": str(self.folder),
            "http-port=8082": f"http-port={self.ports['http']}",
        }
        arguments = " ".join(COMPOSE["services"]["server"]["command"])
        for theirs, ours in places.items():
            arguments = arguments.replace(theirs, ours)
        (self.folder / "spill").mkdir()
        self.start(*COMMAND, "serve", *arguments.split(), f"--port={self.ports['flight']}")

    def get(self, port, path, **headers):
        url = f"https://127.0.0.1:{self.ports[port]}{path}"
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(url, headers=headers, verify=str(self.authority.ca_file), timeout=10)
        return None

    def close(self):
        self._started.close()


@pytest.fixture
def deployment(tmp_path, other_provider):
    found = Deployment(tmp_path, other_provider)
    haproxy, prometheus = find("haproxy"), find("prometheus")
    found.write("access.json", "haproxy.cfg", "prometheus.yml", "alerts.yml")
    keys = [*COMMAND, "keys", "create", "prometheus", "--scope", "metrics", "--file", "keys.json"]
    done = subprocess.run(keys, cwd=tmp_path, capture_output=True, text=True, check=True)
    (tmp_path / "micromegas.key").write_text(done.stdout)
    try:
        found.start_server()
        found.start(haproxy, "-f", "haproxy.cfg")
        address = f"127.0.0.1:{found.ports['prometheus']}"
        found.start(prometheus, "--config.file=prometheus.yml", f"--web.listen-address={address}")
        yield found
    finally:
        found.close()


def sign_in(provider):
    connection = ProviderConnection(provider.issuer, provider.client_id, None, http=None, clock=SYSTEM_CLOCK)
    request = build_authorization_request(
        connection.metadata(),
        client_id=connection.client_id,
        redirect_uri=provider.redirect_uri,
        scope="openid email",
        randomness=SYSTEM_RANDOMNESS,
    )
    answer = sign_in_other(request.url, visit_callback=False)
    code = parse_callback(answer.partition("?")[2], request=request, metadata=connection.metadata())
    return connection.exchange_code(request, code)


def scraped(port):
    """Return whether Prometheus has reached its target, or None before it has tried."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/targets", timeout=10) as response:
            targets = json.load(response)["data"]["activeTargets"]
    except urllib.error.URLError:
        return None
    return [(target["health"], target["lastError"]) for target in targets if target["health"] != "unknown"]


def test_users_sign_in_and_query_through_the_proxy_and_prometheus_scrapes(deployment):
    def is_ready():
        answer = deployment.get("public_http", "/ready")
        return answer is not None and answer.status_code == requests.codes.ok

    wait_until(is_ready, "the server behind HAProxy is ready", seconds=TIMEOUT_SECONDS)
    identity = deployment.get("public_identity", "/.well-known/openid-configuration")
    denied = [deployment.get("public_identity", path).status_code for path in ("/admin/", "/realms/master")]
    tokens = sign_in(deployment.provider)
    uri = f"grpc+tls://127.0.0.1:{deployment.ports['public_flight']}"
    provider = StaticTokenAuthProvider(tokens.id_token.reveal())
    with FlightSQLClient(uri, auth_provider=provider, ca_bundle=str(deployment.authority.ca_file)) as client:
        rows = client.query("SELECT current_user() AS name")

    assert identity.json()["authorization_endpoint"]
    assert denied == [requests.codes.forbidden] * 2
    assert rows["name"].tolist() == ["alice"]
    port = deployment.ports["prometheus"]
    assert wait_until(lambda: scraped(port), "Prometheus scrapes", seconds=TIMEOUT_SECONDS) == [("up", "")]


def test_the_realm_and_the_access_configuration_fit_each_other_and_the_compose_file():
    realm = json.loads((DEPLOY / "realm.json").read_text(encoding="utf-8"))
    (issuer,) = json.loads((DEPLOY / "access.json").read_text(encoding="utf-8"))["oidc"]["issuers"]
    keycloak, haproxy = (COMPOSE["services"][name] for name in ("keycloak", "haproxy"))
    (client,), (user,) = realm["clients"], realm["users"]

    assert issuer["issuer"] == f"{keycloak['environment']['KC_HOSTNAME']}/realms/{realm['realm']}"
    assert urlsplit(issuer["issuer"]).hostname in haproxy["networks"]["lake"]["aliases"]
    assert issuer["audience"] == client["clientId"]
    assert issuer["admin_groups"] == [role["name"] for role in realm["roles"]["realm"]]
    assert set(issuer["admin_groups"]) < set(user["realmRoles"])
    assert set(re.findall(r"\$\{(\w+)\}", json.dumps(realm))) <= set(keycloak["environment"])
    mounted = {entry for service in COMPOSE["services"].values() for entry in service["volumes"]}
    assert {entry.split(":")[0] for entry in mounted if entry.startswith("./")} >= {"./access.json", "./realm.json"}
