"""Keyrings without a desktop: one that keeps texts in memory, and one that never answers."""

import threading

from keyring.backend import KeyringBackend


class MemoryKeyring(KeyringBackend):
    """Keeps what it is given; `failure` is raised by every call, `writes_left` counts down to one that fails."""

    priority = 1

    def __init__(self):
        super().__init__()
        self.kept = {}
        self.failure = None
        self.writes_left = None

    def get_password(self, service, username):
        self._fail()
        return self.kept.get((service, username))

    def set_password(self, service, username, password):
        self._fail()
        if self.writes_left is not None:
            if self.writes_left == 0:
                raise RuntimeError("out of space")
            self.writes_left -= 1
        self.kept[service, username] = password

    def delete_password(self, service, username):
        self._fail()
        del self.kept[service, username]

    def _fail(self):
        if self.failure is not None:
            raise self.failure


class LockedKeyring(KeyringBackend):
    """Waits for a person that never comes, until `release` is set."""

    priority = 1
    release = threading.Event()

    def get_password(self, *_arguments):
        self.release.wait(60)

    set_password = delete_password = get_password
