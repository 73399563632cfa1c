"""Runs a JupyterHub as root, with a server for each person as a system user of that person's own."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import psutil
import requests

from micromegas_jupyter.seams import SYSTEM_CLOCK
from tests.integration.hub.browser import TIMEOUT_SECONDS, HubBrowser
from tests.integration.notebook.kernels import AttendedKernel
from tests.integration.other_provider.installing import find_node
from tests.integration.relay.servers import PatientClient

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.integration.hub.readable_python import ReadablePython
    from tests.integration.hub.system_people import SystemPeople
    from tests.integration.other_provider.running import OtherProvider

Found = TypeVar("Found")

START_SECONDS = 180
CONFIG = Path(__file__).with_name("jupyterhub_config.py")
_LOOK_SECONDS = 0.05
# They take longer to start than all that is tested here.
_LEAN = {
    "JUPYTERHUB_SINGLEUSER_APP": "jupyter_server.serverapp.ServerApp",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def until(look: Callable[[], Found], what: str, *, seconds: float = START_SECONDS) -> Found:
    """Look until something is found, and return it."""
    deadline = SYSTEM_CLOCK.monotonic() + seconds
    pause = threading.Event()
    while not (found := look()):
        assert SYSTEM_CLOCK.monotonic() < deadline, f"in {seconds} s it did not come to: {what}"
        pause.wait(_LOOK_SECONDS)
    return found


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nobody listens at now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _each in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@dataclass(kw_only=True)
class HubPerson:
    """A person of the Hub.

    Attributes:
        login: The name at the provider: `alice` or `bob`.
        subject: What the provider calls the person in tokens.
        name: The name at the Hub and of the system user, which no other run of the tests uses.
        home: The system user's home folder.
    """

    login: str
    subject: str
    name: str
    home: Path


@dataclass(kw_only=True)
class RunningHub:
    """The Hub, its proxy, its service and the servers that it started.

    Attributes:
        folder: What only root can read: configuration, database, log.
        provider: Where people sign in.
        people: By their names at the provider.
        system: The system users.
        margin_seconds: How much is left of a token at least.
        config: What JupyterHub is started with.
    """

    folder: Path
    provider: OtherProvider
    python: ReadablePython
    proxy_folder: Path
    people: dict[str, HubPerson]
    system: SystemPeople
    environment: Mapping[str, str]
    margin_seconds: int = 2
    config: Path = CONFIG
    crypt_key: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)
    witness_token: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)
    ports: list[int] = field(default_factory=lambda: free_ports(4))
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}/"

    @property
    def service_url(self) -> str:
        """The service's address for kernels."""
        return f"{self.url}services/micromegas/"

    @property
    def log(self) -> str:
        """What the Hub, the service and the servers have logged so far."""
        return (self.folder / "hub.log").read_text(encoding="utf-8", errors="replace")

    def start(self) -> None:
        """Start it and wait until Hub, proxy and service answer."""
        node, _npm = find_node()
        values = {
            "url": self.url,
            "hub_port": self.ports[1],
            "proxy_port": self.ports[2],
            "service_port": self.ports[3],
            "folder": str(self.folder),
            "issuer": self.provider.issuer,
            "client_id": self.provider.hub_client_id,
            "client_secret": self.provider.service_secret.reveal(),
            "redirect_client_id": self.provider.client_id,
            "names": {person.subject: person.name for person in self.people.values()},
            "proxy_command": [
                str(node),
                str(self.proxy_folder / "node_modules/configurable-http-proxy/bin/configurable-http-proxy"),
            ],
            "python": str(self.python.executable),
            "environment": {**_LEAN, **self.python.environment, **self.environment},
            "witness_token": self.witness_token,
            "margin_seconds": self.margin_seconds,
        }
        file = self.folder / "values.json"
        file.write_text(json.dumps(values), encoding="utf-8")
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("MICROMEGAS_", "KERNEL_"))}
        environ |= {**self.python.environment, "TEST_HUB": str(file), "JUPYTERHUB_CRYPT_KEY": self.crypt_key}
        # What has to be compiled is compiled once, by root, for all system users.
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        with (self.folder / "hub.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self.python.executable), "-m", "jupyterhub", "-f", str(self.config)],
                cwd=self.folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until(self._answers, "a Hub whose service answers")

    def stop(self, *, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it; SIGTERM ends the servers, too."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def browser(self) -> HubBrowser:
        """Return a new browser."""
        return HubBrowser(self.url, self.provider.issuer)

    def api(self, method: str, path: str, *, token: str | None = None, **options: Any) -> requests.Response:
        """Call the Hub's API, as the witness when no other token is given."""
        return self._call(method, f"{self.url}hub/api/{path}", token or self.witness_token, **options)

    def start_server(self, login: str, server: str = "") -> None:
        """Start a person's server and wait until it answers."""
        person = self.people[login]
        path = f"users/{person.name}/servers/{server}" if server else f"users/{person.name}/server"
        answer = self.api("POST", path)
        assert answer.status_code in {201, 202}, answer.text
        until(lambda: self._server(person, server).get("ready"), f"a server of {login}")

    def stop_server(self, login: str, server: str = "") -> None:
        """Stop a person's server and wait until it is gone."""
        person = self.people[login]
        path = f"users/{person.name}/servers/{server}" if server else f"users/{person.name}/server"
        self.api("DELETE", path).raise_for_status()
        until(lambda: not self._server(person, server), f"no server of {login}")

    def server_process(self, login: str, server: str = "") -> psutil.Process:
        """Return the process of a person's server."""
        wanted = (self.people[login].name, server)
        for process in psutil.process_iter():
            try:
                variables = process.environ() if "jupyterhub.singleuser" in process.cmdline() else {}
            except psutil.Error:
                continue
            if (variables.get("JUPYTERHUB_USER"), variables.get("JUPYTERHUB_SERVER_NAME")) == wanted:
                return process
        raise AssertionError(f"no process of {login}")

    def server_token(self, login: str, server: str = "") -> str:
        """Return the Hub token of a person's server, which its kernels have, too."""
        return self.server_process(login, server).environ()["JUPYTERHUB_API_TOKEN"]

    def auth_state(self, login: str) -> dict[str, Any]:
        """Return what the Hub keeps of a person's sign-in."""
        state: dict[str, Any] = self.api("GET", f"users/{self.people[login].name}").json()["auth_state"]
        return state

    def kernel(self, login: str, server: str = "") -> HubKernel:
        """Start a kernel in a person's server, through that server's own API."""
        path = f"{self.url}user/{self.people[login].name}/" + (f"{server}/" if server else "")
        return HubKernel(self, login, path)

    def _call(self, method: str, url: str, token: str, **options: Any) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            headers = {"Authorization": f"Bearer {token}"}
            return session.request(method, url, headers=headers, timeout=TIMEOUT_SECONDS, **options)

    def _server(self, person: HubPerson, server: str) -> dict[str, Any]:
        servers = self.api("GET", f"users/{person.name}").json().get("servers", {})
        found: dict[str, Any] = servers.get(server, {})
        return found

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log[-3000:]
        try:
            return requests.get(f"{self.service_url}health", timeout=TIMEOUT_SECONDS).status_code == requests.codes.ok
        except requests.ConnectionError:
            return False


class HubKernel(AttendedKernel):
    """A kernel of a person's server, driven as a front end with a person drives it. A context manager that ends it.

    Args:
        hub: The Hub.
        login: Whose server.
        path: The server's address.
    """

    def __init__(self, hub: RunningHub, login: str, path: str) -> None:
        self._hub = hub
        self._home = hub.people[login].home
        self._path = path
        answer = hub._call("POST", f"{path}api/kernels", hub.witness_token, json={"name": "python3"})
        answer.raise_for_status()
        self.kernel_id = answer.json()["id"]
        super().__init__(self)

    def client(self) -> PatientClient:
        name = f"kernel-{self.kernel_id}.json"
        file = until(lambda: next(iter(self._home.rglob(name)), None), "a connection file")
        client = PatientClient(connection_file=str(file))
        client.load_connection_file()
        return client

    def end(self) -> None:
        """Close the channels and have the server end the kernel."""
        self.close()
        self._hub._call("DELETE", f"{self._path}api/kernels/{self.kernel_id}", self._hub.witness_token)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.end()
