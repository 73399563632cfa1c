"""A sign-in in a token file, and the programs that use it, without sockets and by a fake clock."""

import json
from dataclasses import replace

from micromegas_jupyter.auth import OidcAuthProvider
from micromegas_jupyter.auth.tokens.store import FileTokenStore, LoginKey, StoredLogin, parse_token
from tests.fakes.scripted_provider import DirectCalls


class DatedCalls(DirectCalls):
    """Puts the provider's own time on each answer, as the Date header does."""

    def __init__(self, provider, clock):
        super().__init__(provider)
        self._provider_clock = clock

    def fetch_json(self, url):
        return replace(super().fetch_json(url), date=self._provider_clock.now())

    def post_form(self, url, fields, *, headers=None, needs_body=True):
        answer = super().post_form(url, fields, headers=headers, needs_body=needs_body)
        return replace(answer, date=self._provider_clock.now())


class StoredSignIn:
    """Writes the token file of one sign-in and opens it as any number of programs would."""

    def __init__(self, idp, path, *, clock, idp_clock=None):
        self.idp = idp
        self.path = path
        self._clock = clock
        self._calls = DatedCalls(idp, idp_clock or clock)

    def write(self, *, ends_in_seconds=3600, **changes):
        token = {**self.idp.stored_token(ends_in_seconds=ends_in_seconds), **changes}
        kept = {name: value for name, value in token.items() if value is not None}
        self.path.write_text(json.dumps({"issuer": self.idp.issuer, "client_id": "notebook", "token": kept}))

    def open(self, *, audience=None, scope=None, resource=None):
        return OidcAuthProvider(
            self.idp.issuer,
            "notebook",
            token_file=self.path,
            audience=audience,
            scope=scope,
            resource=resource,
            http=self._calls,
            clock=self._clock,
        )

    def opened(self, *, ends_in_seconds=3600, **changes):
        self.write(ends_in_seconds=ends_in_seconds, **changes)
        return self.open()

    def token(self):
        return json.loads(self.path.read_text())["token"]

    def store(self):
        return FileTokenStore(self.path)

    def login(self, *, audience=None, scope=None):
        tokens = parse_token(self.idp.stored_token(ends_in_seconds=3600))
        return StoredLogin(
            key=LoginKey(issuer=self.idp.issuer, client_id="notebook", audience=audience, scope=scope), tokens=tokens
        )
