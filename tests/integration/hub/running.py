"""Runs a JupyterHub as root, with a server for each person as a system user of that person's own."""

import json
import os
import secrets
import subprocess
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import requests

from micromegas_jupyter.core.system import SYSTEM_CLOCK
from tests.fakes.ports import free_port
from tests.integration.hub.browser import TIMEOUT_SECONDS, HubBrowser
from tests.integration.hub.guide import configuration_of
from tests.integration.other_provider.installing import find_node
from tests.integration.relay.servers import RemoteKernel, until

PROXY_PROGRAM = "node_modules/configurable-http-proxy/bin/configurable-http-proxy"
CONFIG = Path(__file__).with_name("jupyterhub_config.py")
# What Hubs of one run have in common.
_SHARED = ("provider", "python", "proxy_folder", "people", "system", "environment")
# They take longer to start than all that is tested here.
_LEAN = {
    "JUPYTERHUB_SINGLEUSER_APP": "jupyter_server.serverapp.ServerApp",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


@dataclass(kw_only=True)
class RunningHub:
    """The Hub, its proxy, its service and the servers that it started."""

    folder: Path
    provider: Any
    python: Any
    proxy_folder: Path
    people: dict[str, Any]
    system: Any
    environment: dict[str, str]
    margin_seconds: int = 3
    crypt_key: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)
    witness_token: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)
    ports: list[int] = field(default_factory=lambda: [free_port() for _each in range(5)])
    started_at: float = 0.0
    kernel_started_at: float = 0.0
    _process: subprocess.Popen[bytes] | None = None

    is_bare = False
    health_paths = ("services/micromegas/health", "services/exchanging/health")

    @classmethod
    @contextmanager
    def beside(cls, hub, *, folder, **others):
        """Run another Hub for the same people, with the same programs; `others` are what it has of its own."""
        shared = {name: getattr(hub, name) for name in _SHARED}
        own = cls(folder=folder, **{**shared, **others})
        try:
            own.start()
            yield own
        finally:
            own.stop()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.ports[0]}/"

    @property
    def service_url(self):
        """The service's address for kernels."""
        return f"{self.url}services/micromegas/"

    @property
    def exchanging_url(self):
        """The address for kernels of the service that exchanges tokens."""
        return f"{self.url}services/exchanging/"

    @property
    def log(self):
        """What the Hub, the service and the servers have logged so far."""
        return (self.folder / "hub.log").read_text(encoding="utf-8", errors="replace")

    def start(self, *, as_chart=False):
        """Start it as the guide's plain configuration says, and wait until Hub, proxy and service answer."""
        node, _npm = find_node()
        guide, sections = configuration_of(self, self.ports[3], as_chart=as_chart)
        resource = self.provider.resource
        exchanging, _ = configuration_of(self, self.ports[4], as_chart=as_chart, exchange_resource=resource)
        values = {
            "url": self.url,
            "is_bare": self.is_bare,
            "hub_port": self.ports[1],
            "proxy_port": self.ports[2],
            "folder": str(self.folder),
            "guide": self.own_guide(guide),
            "exchanging_guide": self.own_guide(exchanging),
            "sections": sections,
            "names": {login: person.name for login, person in self.people.items()},
            "proxy_command": [str(node), str(self.proxy_folder / PROXY_PROGRAM)],
            "python": str(self.python.executable),
            "environment": {**_LEAN, **self.python.environment, **self.environment},
            "witness_token": self.witness_token,
        }
        self.started_at = self.started_at or SYSTEM_CLOCK.now().timestamp()
        file = self.folder / "values.json"
        file.write_text(json.dumps(values), encoding="utf-8")
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("MICROMEGAS_", "KERNEL_"))}
        environ |= {
            **self.python.environment,
            "TEST_HUB": str(file),
            "JUPYTERHUB_CRYPT_KEY": self.crypt_key,
            "OAUTH_CLIENT_SECRET": self.provider.service_secret.reveal(),
        }
        # What has to be compiled is compiled once, by root, for all system users.
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        with (self.folder / "hub.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self.python.executable), "-m", "jupyterhub", "-f", str(CONFIG)],
                cwd=self.folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until(self._answers, "a Hub whose service answers")

    def own_guide(self, text):
        """Return a configuration of the guide as this Hub runs it."""
        return text

    def stop(self):
        """Stop Hub, proxy and service; the servers and their kernels go on."""
        process, self._process = self._process, None
        if process is None:
            return
        # A Hub that is stopped while it starts leaves its proxy behind.
        children = psutil.Process(process.pid).children() if process.poll() is None else []
        process.terminate()
        try:
            process.wait(timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                if child.uids().real == os.getuid():
                    child.kill()

    def end(self):
        """Kill it, whatever it started, and every program of its people: nobody needs it to stop in order any more."""
        process, self._process = self._process, None
        if process is not None:
            hub = psutil.Process(process.pid)
            with suppress(psutil.NoSuchProcess):
                for child in [*hub.children(recursive=True), hub]:
                    with suppress(psutil.NoSuchProcess):
                        child.kill()
            process.wait(timeout=TIMEOUT_SECONDS)
        for _round in range(3):  # each may leave a program that was just being started
            left = self._of_people()
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, timeout=TIMEOUT_SECONDS)

    def _of_people(self):
        """Return the programs that run as the Hub's people."""
        users = {self.system.ids(person.name)[0] for person in self.people.values()}
        running = [each for each in psutil.process_iter(["uids", "status"]) if each.info["uids"].real in users]
        return [each for each in running if each.info["status"] != psutil.STATUS_ZOMBIE]

    def browser(self):
        return HubBrowser(self.url, self.provider.issuer)

    def api(self, method, path, **options):
        """Call the Hub's API as the witness."""
        return self.call(method, f"{self.url}hub/api/{path}", **options)

    def _change_server(self, method, login, server):
        path = f"users/{self.people[login].name}/server"
        self.api(method, f"{path}s/{server}" if server else path).raise_for_status()

    def start_server(self, login, server=""):
        self._change_server("POST", login, server)
        until(lambda: self._server(login, server).get("ready"), f"a server of {login}")

    def stop_server(self, login, server=""):
        self._change_server("DELETE", login, server)
        until(lambda: not self._server(login, server), f"no server of {login}")

    def server_process(self, login, server=""):
        wanted = (self.people[login].name, server)
        for process in psutil.process_iter():
            try:
                variables = process.environ() if "jupyterhub.singleuser" in process.cmdline() else {}
            except psutil.Error:
                continue
            is_ours = f":{self.ports[1]}/" in variables.get("JUPYTERHUB_API_URL", "")
            if is_ours and (variables.get("JUPYTERHUB_USER"), variables.get("JUPYTERHUB_SERVER_NAME")) == wanted:
                return process
        raise AssertionError(f"no process of {login}")

    def service_process(self):
        for child in psutil.Process(self._process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                is_service = "micromegas_jupyter.hub" in child.cmdline()
                if is_service and child.environ()["JUPYTERHUB_SERVICE_NAME"] == "micromegas":
                    return child
        raise AssertionError("no process of the service")

    def listening_ports(self):
        hub = psutil.Process(self._process.pid)
        found = set()
        for process in [hub, *hub.children(recursive=True), *self._of_people()]:
            with suppress(psutil.NoSuchProcess):
                connections = process.net_connections("tcp")
                found |= {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN}
        return sorted(found)

    def end_at_provider(self, login):
        """End a person's sign-in at the provider, as a sign-out of everywhere there does."""
        form = {
            "token": self.auth_state(login)["refresh_token"],
            "client_id": self.provider.hub_client_id,
            "client_secret": self.provider.service_secret.reveal(),
        }
        answer = requests.post(f"{self.provider.issuer}/token/revocation", data=form, timeout=TIMEOUT_SECONDS)
        answer.raise_for_status()

    def server_token(self, login, server=""):
        """Return the Hub token of a person's server, which its kernels have, too."""
        return self.server_process(login, server).environ()["JUPYTERHUB_API_TOKEN"]

    def auth_state(self, login):
        """Return what the Hub keeps of a person's sign-in."""
        return self.api("GET", f"users/{self.people[login].name}").json()["auth_state"]

    @contextmanager
    def kernel(self, login):
        """Start a kernel in a person's server, through that server's own API."""
        path = f"{self.url}user/{self.people[login].name}/api/kernels"
        answer = self.call("POST", path, json={"name": "python3"})
        answer.raise_for_status()
        kernel_id = answer.json()["id"]
        kernel = RemoteKernel(kernel_id, [self.people[login].home])
        try:
            yield kernel
        finally:
            kernel.close()
            with suppress(requests.ConnectionError):  # the server is gone already
                self.call("DELETE", f"{path}/{kernel_id}")

    def call(self, method, url, **options):
        with requests.Session() as session:
            session.trust_env = False
            headers = {"Authorization": f"Bearer {self.witness_token}"}
            return session.request(method, url, headers=headers, timeout=TIMEOUT_SECONDS, **options)

    def _server(self, login, server):
        return self.api("GET", f"users/{self.people[login].name}").json().get("servers", {}).get(server, {})

    def _answers(self):
        assert self._process.poll() is None, self.log[-3000:]
        try:
            answers = [requests.get(f"{self.url}{path}", timeout=TIMEOUT_SECONDS) for path in self.health_paths]
            return all(answer.status_code == requests.codes.ok for answer in answers)
        except requests.ConnectionError:
            return False
