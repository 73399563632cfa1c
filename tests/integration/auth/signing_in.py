"""How the tests of whole sign-ins sign a person in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from micromegas_jupyter.auth import OidcAuthProvider
from tests.fakes.scripted_browser import ScriptedBrowser

if TYPE_CHECKING:
    from tests.fakes.scripted_provider import ScriptedProvider


def sign_in(idp: ScriptedProvider, browser: ScriptedBrowser | None = None, **options: object) -> OidcAuthProvider:
    arguments = {"browser": browser or ScriptedBrowser(), "timeout_seconds": 10, **options}
    return OidcAuthProvider.login(idp.issuer, "notebook", **arguments)  # type: ignore[arg-type]
