"""A process of its own that stores one sign-in after another until it is killed: `python … FILE`."""

import itertools
import sys

from micromegas_jupyter.auth.tokens.store import FileTokenStore, LoginKey, StoredLogin
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.oidc.authorization import TokenSet


def main() -> None:
    store = FileTokenStore(sys.argv[1])
    for number in itertools.count():
        access_token = Secret(str(number % 10) * (1000 + number % 5000))
        login = StoredLogin(
            key=LoginKey(issuer="https://id.example.com", client_id="c"), tokens=TokenSet(access_token=access_token)
        )
        with store.locked():
            store.save(login)
        if number == 0:
            print("ready", flush=True)


main()
