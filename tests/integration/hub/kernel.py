"""A kernel of a person's server at the Hub, which the server's own API starts."""

from contextlib import suppress

import requests

from tests.integration.hub.running import until
from tests.integration.notebook.kernels import AttendedKernel
from tests.integration.relay.servers import PatientClient


class HubKernel(AttendedKernel):
    """A kernel of a person's server, driven as a front end with a person drives it. A context manager that ends it."""

    def __init__(self, hub, login, server=""):
        self._hub = hub
        self._home = hub.people[login].home
        self._path = hub.server_path(login, server)
        answer = hub.call("POST", f"{self._path}api/kernels", hub.witness_token, json={"name": "python3"})
        answer.raise_for_status()
        self.kernel_id = answer.json()["id"]
        super().__init__(self)

    def client(self):
        name = f"kernel-{self.kernel_id}.json"
        file = until(lambda: next(iter(self._home.rglob(name)), None), "a connection file")
        client = PatientClient(connection_file=str(file))
        client.load_connection_file()
        return client

    def end(self):
        """Close the channels and have the server end the kernel."""
        self.close()
        with suppress(requests.ConnectionError):  # the server is gone already
            self._hub.call("DELETE", f"{self._path}api/kernels/{self.kernel_id}", self._hub.witness_token)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.end()
