"""Ports that stay free until they are used."""

import secrets
import socket

# Below what systems give to sockets that ask for any port, so that no other test's connection takes one meanwhile.
_FIRST, _LAST = 20_000, 32_000
_MOST_TRIES = 100
# Given to tests of this process, which may not listen there yet.
_given = set()


def free_port():
    """Return a port of loopback that nobody listens at, for a program that has to be told its port."""
    for _ in range(_MOST_TRIES):
        port = _FIRST + secrets.randbelow(_LAST - _FIRST)
        if port in _given:
            continue
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        _given.add(port)
        return port
    raise AssertionError(f"no port between {_FIRST} and {_LAST} is free")
