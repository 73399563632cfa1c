"""A sign-in in a token file, and the programs that use it, without sockets and by a fake clock."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from micromegas_jupyter.auth import OidcAuthProvider
from micromegas_jupyter.auth.tokens.store import FileTokenStore, LoginKey, StoredLogin, parse_token
from tests.fakes.scripted_provider import DirectCalls

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from micromegas_jupyter.core.http import HttpAnswer
    from micromegas_jupyter.core.system import Secret
    from tests.fakes.clock import FakeClock
    from tests.fakes.scripted_provider import ScriptedProvider


class DatedCalls(DirectCalls):
    """Puts the provider's own time on each answer, as the Date header does."""

    def __init__(self, provider: ScriptedProvider, clock: FakeClock) -> None:
        super().__init__(provider)
        self._provider_clock = clock

    def fetch_json(self, url: str) -> HttpAnswer:
        return replace(super().fetch_json(url), date=self._provider_clock.now())

    def post_form(
        self,
        url: str,
        fields: Mapping[str, str | Secret],
        *,
        headers: Mapping[str, str | Secret] | None = None,
        needs_body: bool = True,
    ) -> HttpAnswer:
        answer = super().post_form(url, fields, headers=headers, needs_body=needs_body)
        return replace(answer, date=self._provider_clock.now())


class StoredSignIn:
    """Writes the token file of one sign-in and opens it as any number of programs would."""

    def __init__(
        self, idp: ScriptedProvider, path: Path, *, clock: FakeClock, idp_clock: FakeClock | None = None
    ) -> None:
        self.idp = idp
        self.path = path
        self._clock = clock
        self._calls = DatedCalls(idp, idp_clock or clock)

    def write(self, *, ends_in_seconds: float = 3600, **changes: object) -> None:
        token = {**self.idp.stored_token(ends_in_seconds=ends_in_seconds), **changes}
        kept = {name: value for name, value in token.items() if value is not None}
        self.path.write_text(json.dumps({"issuer": self.idp.issuer, "client_id": "notebook", "token": kept}))

    def open(
        self,
        *,
        audience: str | None = None,
        scope: str | None = None,
        resource: str | None = None,
    ) -> OidcAuthProvider:
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

    def opened(self, *, ends_in_seconds: float = 3600, **changes: object) -> OidcAuthProvider:
        self.write(ends_in_seconds=ends_in_seconds, **changes)
        return self.open()

    def token(self) -> dict[str, object]:
        return json.loads(self.path.read_text())["token"]

    def store(self) -> FileTokenStore:
        return FileTokenStore(self.path)

    def login(self, *, audience: str | None = None, scope: str | None = None) -> StoredLogin:
        tokens = parse_token(self.idp.stored_token(ends_in_seconds=3600))
        return StoredLogin(
            key=LoginKey(issuer=self.idp.issuer, client_id="notebook", audience=audience, scope=scope), tokens=tokens
        )
