"""Real Jupyter servers as child processes, browsers without a window, and the kernels that the servers start."""

from __future__ import annotations

import json
import os
import queue
import re
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urljoin, urlsplit

import psutil
import requests
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_server.auth.security import passwd

from micromegas_jupyter.demo.provider import scripted_person
from tests.fakes.waiting import wait_until
from tests.integration.notebook.kernels import REPOSITORY, AttendedKernel

if TYPE_CHECKING:
    from pathlib import Path

START_SECONDS = 180
TIMEOUT_SECONDS = 120
TOKEN = "a-token-of-this-server"
PASSWORD = "a password of this server"
LOAD = "%load_ext micromegas_jupyter"

_OTHER_EXTENSIONS = ("jupyter_lsp", "jupyter_server_proxy", "jupyter_server_terminals", "jupyterlab", "notebook_shim")
# They take longer to start than all that is tested here.
_WITHOUT_OTHER_EXTENSIONS = {"ServerApp": {"jpserver_extensions": dict.fromkeys(_OTHER_EXTENSIONS, False)}}
# What kernels and servers log at their most talkative is what the tests look through.
_TALKATIVE_KERNELS = "c = get_config()\nc.Application.log_level = 10\n"


until = partial(wait_until, seconds=START_SECONDS, pause_seconds=0.05)


@dataclass(kw_only=True)
class JupyterServer:
    """A running server; its door is a "token", a "password" or "open"."""

    url: str
    folder: Path
    door: str
    kernel_folders: list[Path] = field(default_factory=list)

    @property
    def log(self):
        """What it and its kernels have logged so far."""
        return "".join(path.read_text(encoding="utf-8", errors="replace") for path in self.folder.glob("*.log"))

    def browser(self):
        """Return a browser of somebody who has just signed in to this server; each is another person."""
        session = requests.Session()
        session.trust_env = False
        if self.door == "token":
            session.get(f"{self.url}login", params={"token": TOKEN}, timeout=TIMEOUT_SECONDS)
        else:
            session.get(f"{self.url}login", timeout=TIMEOUT_SECONDS)
        if self.door == "password":
            form = {"password": PASSWORD, "_xsrf": session.cookies["_xsrf"]}
            session.post(f"{self.url}login", data=form, timeout=TIMEOUT_SECONDS, allow_redirects=False)
        return session

    def _api(self, method, path, **options):
        with self.browser() as session:
            session.cookies.set("_xsrf", "0123456789abcdef")
            headers = {"X-XSRFToken": "0123456789abcdef"}
            answer = session.request(method, f"{self.url}{path}", headers=headers, timeout=START_SECONDS, **options)
        answer.raise_for_status()
        return answer

    @contextmanager
    def kernel(self):
        """Start a kernel through the server's own API, with the magics loaded."""
        kernel_id = self._api("POST", "api/kernels", json={"name": "python3"}).json()["id"]
        kernel = ServerKernel(self, kernel_id)
        try:
            kernel.run(LOAD)
            yield kernel
        finally:
            kernel.close()
            self._api("DELETE", f"api/kernels/{kernel_id}")

    def restart(self, kernel):
        """Restart a kernel in place, as the button of a notebook does."""
        self._api("POST", f"api/kernels/{kernel.kernel_id}/restart")
        kernel.wait_until_ready()

    def raw(self, request):
        """Send bytes and return the answer's status and text; 0 when the server only hung up."""
        parts = urlsplit(self.url)
        with socket.create_connection((parts.hostname, parts.port), timeout=TIMEOUT_SECONDS) as connection:
            with suppress(ConnectionError):
                connection.sendall(request)
            answer = b""
            with suppress(ConnectionError):
                while chunk := connection.recv(65536):
                    answer += chunk
        found = re.match(rb"HTTP/1\.1 (\d{3})", answer)
        return int(found.group(1)) if found else 0, answer.decode("utf-8", "replace")


class PatientClient(BlockingKernelClient):
    """Waits for a kernel that another process started, however long that takes; Jupyter's own gives up early."""

    def wait_for_ready(self, timeout=None):
        """Wait until it answers, and until what it publishes arrives, which goes over another connection."""
        for _try in range(TIMEOUT_SECONDS):
            request = self.kernel_info()
            while self.get_shell_msg(timeout=timeout)["parent_header"].get("msg_id") != request:
                continue
            with suppress(queue.Empty):
                while self.get_iopub_msg(timeout=1)["parent_header"].get("msg_id") != request:
                    continue
                return
        raise AssertionError("nothing that the kernel publishes arrives")


class RemoteKernel(AttendedKernel):
    """A kernel that another program started; below one of the folders it says how it is reached."""

    def __init__(self, kernel_id, folders):
        self.kernel_id = kernel_id
        self._folders = folders
        super().__init__(self)

    def client(self):
        name = f"kernel-{self.kernel_id}.json"
        files = until(lambda: [file for folder in self._folders for file in folder.rglob(name)], "a connection file")
        client = PatientClient(connection_file=str(files[0]))
        client.load_connection_file()
        return client


class ServerKernel(RemoteKernel):
    """A kernel that a server started, driven as a front end with a person drives it."""

    def __init__(self, server, kernel_id):
        self.server = server
        super().__init__(kernel_id, server.kernel_folders)

    def start_url(self, *, logs_out_first=True):
        """Begin a sign-in in place of any other and return the address that the cell shows, as a browser has it."""
        if logs_out_first:
            self.run("%micromegas_logout")
        cell = self.run("%micromegas_login")
        assert cell.reply["status"] == "ok", cell
        text = cell.of("display_data")[-1]["data"]["text/plain"]
        return urljoin(self.server.url, next(word for word in text.split() if "micromegas/start/" in word))

    def whoami(self):
        """Return what the kernel says about who is signed in; the Flight SQL server is none that runs."""
        cell = self.run("%micromegas_whoami")
        shown = [content["data"]["text/plain"] for content in cell.of("display_data")]
        return "\n".join([*shown, *("\n".join(content["traceback"]) for content in cell.of("error"))])


@contextmanager
def jupyter_server(folder, *options, environ, base_url="/", door="token"):
    runtime = folder / "runtime"
    (folder / "config").mkdir()
    (folder / "config" / "jupyter_server_config.json").write_text(json.dumps(_WITHOUT_OTHER_EXTENSIONS))
    (folder / "ipython" / "profile_default").mkdir(parents=True)
    (folder / "ipython" / "profile_default" / "ipython_kernel_config.py").write_text(_TALKATIVE_KERNELS)
    own = {
        **environ,
        "HOME": str(folder),
        "JUPYTER_RUNTIME_DIR": str(runtime),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_TOKEN": TOKEN if door == "token" else "",
    }
    command = [
        sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", "--ServerApp.port=0",
        "--ServerApp.ip=127.0.0.1", f"--ServerApp.base_url={base_url}", f"--ServerApp.root_dir={REPOSITORY}",
        "--debug", *options,
    ]  # fmt: skip
    if door == "open":
        command.append("--IdentityProvider.token=")
    if door == "password":
        # A cheap hash: the tests sign in often.
        command.append(f"--PasswordIdentityProvider.hashed_password={passwd(PASSWORD, 'sha256')}")
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=own, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        url = wait_for_address(runtime, process, folder / "server.log")
        yield JupyterServer(url=url, folder=folder, door=door, kernel_folders=[runtime])
    finally:
        process.terminate()
        process.wait(timeout=60)


def wait_for_address(runtime, process, log):
    """Return the address of a Jupyter server that starts, as soon as it listens."""

    def look():
        assert process.poll() is None, log.read_text()[-3000:]
        for path in runtime.glob("jpserver-*.json"):
            with suppress(ValueError, IndexError, requests.ConnectionError):  # being written, or not listening yet
                url = str(json.loads(path.read_text())["url"]).replace("localhost", "127.0.0.1")
                if ":0/" in url:  # jupyter_server before 2.20 writes the port that was asked for
                    listening = [one for one in psutil.Process(process.pid).net_connections() if one.status == "LISTEN"]
                    url = url.replace(":0/", f":{listening[0].laddr.port}/")
                requests.get(f"{url}api", timeout=TIMEOUT_SECONDS)
                return url
        return None

    return until(look, "a server that listens")


def kernel_environment(folder, *, issuer, client_id):
    """Return this process's variables and what a kernel needs to sign in."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MICROMEGAS_", "KERNEL_"))}
    return {
        **environ,
        "MICROMEGAS_OIDC_ISSUER": issuer,
        "MICROMEGAS_OIDC_CLIENT_ID": client_id,
        "MICROMEGAS_CONFIG_DIR": str(folder / "micromegas"),
        "MICROMEGAS_ANALYTICS_URI": "grpc://127.0.0.1:1",
    }


class SignIn:
    """A sign-in that a kernel waits for."""

    def __init__(self, kernel, *, logs_out_first=True):
        self.kernel = kernel
        self.browser = kernel.server.browser()
        self.start_url = kernel.start_url(logs_out_first=logs_out_first)
        self.authorization_url = ""

    @property
    def state(self):
        return parse_qs(urlsplit(self.authorization_url).query)["state"][0]

    @property
    def redirect_uri(self):
        return parse_qs(urlsplit(self.authorization_url).query)["redirect_uri"][0]

    def start(self, **options):
        answer = self.get(self.start_url, **options)
        self.authorization_url = answer.headers.get("Location", "")
        return answer

    def answer(self, sign_in=scripted_person.sign_in, **options):
        """Sign in at the provider and return the address that it sends the browser back to."""
        self.start()
        return sign_in(self.authorization_url, visit_callback=False, **options)

    def get(self, url, **options):
        return self.browser.get(url, **{"allow_redirects": False, "timeout": TIMEOUT_SECONDS, **options})

    def come_back(self, callback):
        """Open the callback and what it leads to, and return the last page's text."""
        handed_over = self.get(callback)
        assert handed_over.status_code == 303, handed_over.text
        return self.get(urljoin(callback, handed_over.headers["Location"])).text

    def still_works(self):
        """Whether the sign-in, whatever was tried before, comes to a good end now."""
        return "Signed in as Alice Martin." in self.come_back(self.answer())
