"""A person's own program over the library: every way without a person, renewals, and all that goes wrong.

It is told on standard input where everything is. What an error looks like is noted when its text is asked for.
"""

import errno
import http.client
import json
import os
import pickle
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import micromegas_jupyter
from micromegas_jupyter.auth import OidcAuthProvider, OidcClientCredentialsProvider, StaticTokenAuthProvider
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.wiring import client_side
from micromegas_jupyter.wiring.service_accounts import service_provider

MANNERS = ("description", "error", "page", "redirect")


class Show:
    """Shows what a thing looks like: as text, and pickled if it lets itself be."""

    def __init__(self, pickles):
        self._pickles = pickles
        self._pickles.mkdir()

    def thing(self, name, thing):
        print(name, repr(thing), str(thing), flush=True)
        with suppress(Exception):
            (self._pickles / f"{name}.pickle").write_bytes(pickle.dumps(thing))

    def error(self, name, call, *arguments, **options):
        try:
            call(*arguments, **options)
        except MicromegasError as error:
            print(f"{name}: {type(error).__name__}: {error}", repr(error), flush=True)
        else:
            raise AssertionError(f"{name} raised nothing")


def service_accounts(show, accounts):
    """Get a token in each way without a person, twice."""
    for name, environ in accounts.items():
        settings = client_side.load_client_settings(environ=environ)
        show.thing(f"{name} settings", settings)
        provider = service_provider(settings, environ)
        if name.startswith("wrong"):
            show.error(name, provider.get_token)
            continue
        provider.invalidate(provider.get_token())
        assert provider.get_token()
        show.thing(name, provider)


def person(show, environ):
    """Renew a stored sign-in after the server is said to have refused its token, and use it."""
    provider = client_side.stored_provider(client_side.load_client_settings(environ=environ), environ)
    provider.invalidate(provider.get_token())
    assert provider.get_token(bearer="access_token")
    show.thing("person", provider)
    show.thing("identity", provider.identity())
    with micromegas_jupyter.FlightSQLClient(environ["MICROMEGAS_ANALYTICS_URI"], auth_provider=provider) as client:
        show.thing("client", client)
        assert len(client.query("SELECT 1 AS one")) == 1
        show.error("wrong statement", client.query, "SELECT tagret FROM log_entries")


def servers(show, uri, dead_uri, key):
    for name, address in (("refused key", uri), ("no server", dead_uri)):
        with micromegas_jupyter.FlightSQLClient(address, auth_provider=StaticTokenAuthProvider(key)) as client:
            show.thing(name, client)
            show.error(name, client.query, "SELECT 1")
    show.error("malformed key", StaticTokenAuthProvider, f"{key} and more")


def echoes(show, echo, secret):
    """Meet a provider that repeats what it was sent in everything that it refuses."""
    issuer, client_id = echo["issuer"], echo["client_id"]
    for manner in MANNERS:
        pending = OidcAuthProvider.begin_login(issuer, client_id, secret, flow=Flow.PASTE)
        show.thing(f"pending {manner}", pending)
        show.error("a foreign address", pending.submit, "http://127.0.0.1:1/callback?code=one&state=two")
        pending.submit(follow(pending.start_url or ""))
        show.error(f"code {manner}", pending.result)
    for manner in MANNERS:
        account = OidcClientCredentialsProvider(issuer, client_id, secret)
        show.error(f"account {manner}", account.get_token)
    for manner in MANNERS:
        kept = OidcAuthProvider(issuer, client_id, secret, token=json.loads(Path(echo["ended_token"]).read_text()))
        show.error(f"renewal {manner}", kept.get_token)
    show.error("device", OidcAuthProvider.begin_login, issuer, client_id, secret, flow=Flow.DEVICE)
    pending = OidcAuthProvider.begin_login(issuer, client_id, secret, flow=Flow.DEVICE)
    show.error("device code", pending.result)
    kept = OidcAuthProvider(issuer, client_id, secret, token=json.loads(Path(echo["ended_token"]).read_text()))
    show.thing("logout", kept.logout())


def browser_failures(show, echo, secret):
    """Come back from the browser with a code that the provider does not take, and with one from elsewhere."""
    for name in ("refused", "from elsewhere"):
        pending = OidcAuthProvider.begin_login(echo["issuer"], echo["client_id"], secret, flow=Flow.BROWSER)
        address = follow(follow(pending.start_url or ""))
        follow(address if name == "refused" else address.replace("iss=http", "iss=https"))
        show.error(f"code {name}", pending.result)


def damaged_stores(show, folder, echo):
    token = json.loads(Path(echo["ended_token"]).read_text())
    kept = {"issuer": "http://127.0.0.1:1", "client_id": "notebook", "token": token}
    texts = {
        "cut": json.dumps(kept)[:-20],
        "wrong token": json.dumps({**kept, "token": {**token, "id_token": 7}}),
        "foreign token": json.dumps(kept),
        "no token": json.dumps({**kept, "token": json.dumps(token)}),
    }
    for name, text in texts.items():
        file = folder / f"tokens-{name}.json"
        file.touch(0o600)
        file.write_text(text)
        show.error(name, OidcAuthProvider.from_file, file)
    provider = OidcAuthProvider(echo["issuer"], "notebook", token_file=folder / "tokens-new.json", token=token)
    with full_disk():
        show.error("not kept", provider.save)


@contextmanager
def full_disk():
    def refuse(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    fsync, os.fsync = os.fsync, refuse
    try:
        yield
    finally:
        os.fsync = fsync


def no_provider(show, dead, secret):
    """Give secrets to calls that fail before they are used."""
    show.error("no provider", OidcAuthProvider.begin_login, dead, "app", secret, flow=Flow.PASTE)
    show.error("no provider for an account", OidcClientCredentialsProvider(dead, "app", secret).get_token)
    show.error("plain address", OidcAuthProvider.begin_login, "http://id.example", "app", secret)
    show.error("account at a plain address", OidcClientCredentialsProvider, "http://id.example", "app", secret)
    show.error("damaged token", OidcAuthProvider, dead, "app", secret, token={"access_token": 1, "id_token": secret})
    show.error("no such flow", OidcAuthProvider.begin_login, dead, "app", secret, flow=Flow.HUB)


def follow(url):
    """Sign in as a browser that the provider knows already, and return where it was sent; nothing of this is logged."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    connection.request("GET", f"{parts.path}?{parts.query}")
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.headers["Location"]


def main():
    told = json.load(sys.stdin)
    secret, key = (Path(told[name]).read_text() for name in ("secret_file", "key_file"))
    show = Show(Path(told["pickles"]))
    person(show, told["person"])
    service_accounts(show, told["accounts"])
    servers(show, told["person"]["MICROMEGAS_ANALYTICS_URI"], told["dead_server"], key)
    echoes(show, told["echo"], secret)
    browser_failures(show, told["echo"], secret)
    damaged_stores(show, Path(told["person"]["MICROMEGAS_CONFIG_DIR"]), told["echo"])
    no_provider(show, told["dead_provider"], secret)
    print("done")


if __name__ == "__main__":
    main()
