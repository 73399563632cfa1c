"""A session bus and a GNOME keyring of a test's own: nothing of the person's desktop is touched."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time

import pytest
from jeepney import DBusAddress, new_method_call
from jeepney.io.blocking import open_dbus_connection

_CONFIGURATION = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={path}</listen>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""
_BUS = DBusAddress("/org/freedesktop/DBus", bus_name="org.freedesktop.DBus", interface="org.freedesktop.DBus")


def require_programs():
    for program in ("dbus-daemon", "gnome-keyring-daemon"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing: apt-get install -y dbus-daemon gnome-keyring")


class SessionBus:
    """A context manager; the bus starts no services by itself, the keyring's daemon is started by a method.

    Attributes:
        environ: The variables of a session on this bus.
    """

    def __init__(self, folder):
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder),
            "XDG_DATA_HOME": str(folder / "data"),
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path={folder}/bus",
        }

    def __enter__(self):
        configuration = self._folder / "bus.conf"
        configuration.write_text(_CONFIGURATION.format(path=self._folder / "bus"))
        self._start("dbus-daemon", "--nofork", f"--config-file={configuration}")
        _wait_until((self._folder / "bus").exists)
        return self

    def __exit__(self, *_error):
        for process in reversed(self._processes):
            process.kill()
            process.wait(60)

    def start_keyring(self, *, password):
        unlock = [] if password is None else ["--unlock"]
        process = self._start("gnome-keyring-daemon", "--foreground", "--components=secrets", *unlock, takes_input=True)
        assert process.stdin is not None
        with process.stdin as words:
            words.write(password or b"")
        _wait_until(lambda: self._has_owner("org.freedesktop.secrets"))

    def stop_keyring(self):
        process = self._processes.pop()
        process.terminate()
        process.wait(60)

    def _start(self, *command, takes_input=False):
        process = subprocess.Popen(
            command,
            env=self.environ,
            stdin=subprocess.PIPE if takes_input else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._processes.append(process)
        return process

    def _has_owner(self, name):
        with open_dbus_connection(self.environ["DBUS_SESSION_BUS_ADDRESS"]) as connection:
            question = new_method_call(_BUS, "NameHasOwner", "s", (name,))
            return bool(connection.send_and_get_reply(question, timeout=60).body[0])


def _wait_until(is_so):
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline, "the session bus or the keyring did not start"
        threading.Event().wait(0.02)
