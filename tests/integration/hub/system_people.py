"""System users of this machine for the people of a Hub, made for one run of the tests and removed after it."""

import pwd
import subprocess

NEEDS_ROOT = (
    "The JupyterHub tests make a system user for each person: run them as root, with `useradd` (Debian's package "
    "passwd), as .ci/run does."
)


class SystemPeople:
    """Users with home folders that nobody else can read."""

    def __init__(self, homes):
        self._homes = homes
        self._names = []

    def add(self, name):
        """Make a user and return the home folder."""
        home = self._homes / name
        _run("useradd", "--create-home", "--home-dir", str(home), "--shell", "/bin/bash", "--user-group", name)
        self._names.append(name)
        home.chmod(0o700)
        return home

    def ids(self, name):
        """Return a user's ids as this machine numbers them: of the user and of the group."""
        entry = pwd.getpwnam(name)
        return entry.pw_uid, entry.pw_gid

    def remove(self):
        while self._names:
            _run("userdel", self._names.pop())


def _run(*command):
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False, umask=0o022
    )
    assert done.returncode == 0, f"{command[0]}: {done.stderr}"
