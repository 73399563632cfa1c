"""A process of its own that shares a token file: `python child_process.py refresh|write|background FILE`."""

import itertools
import sys

from micromegas_jupyter.auth import OidcAuthProvider
from micromegas_jupyter.auth.tokens import manager
from micromegas_jupyter.auth.tokens.store import FileTokenStore, LoginKey, StoredLogin
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Secret
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.oidc.authorization import TokenSet

# Still referred to when the program ends, as in a notebook.
BACKGROUND = []


def refresh(path):
    """Print the token that it gets after it has read a line, so that several ask at the same moment."""
    provider = OidcAuthProvider.from_file(path)
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        print(provider.get_token(), flush=True)
    except MicromegasError as error:
        print(type(error).__name__, flush=True)


def write(path):
    """Store one sign-in after another until it is killed."""
    store, key = FileTokenStore(path), LoginKey(issuer="https://id.example.com", client_id="c")
    for number in itertools.count():
        tokens = TokenSet(access_token=Secret(str(number % 10) * (1000 + number % 5000)))
        with store.locked():
            store.save(StoredLogin(key=key, tokens=tokens))
        if number == 0:
            print("ready", flush=True)


def background(path):
    """Renew in the background until it reads a line."""
    manager.STOP_WAIT_SECONDS = 60.0  # for a provider on a busy machine
    provider = OidcAuthProvider.from_file(path)
    renewal = manager.BackgroundRenewal(provider, clock=SYSTEM_CLOCK)
    BACKGROUND.extend([provider, renewal])
    renewal.start()
    sys.stdin.readline()


{"refresh": refresh, "write": write, "background": background}[sys.argv[1]](sys.argv[2])
