"""Ends everything that a profile keeps of sign-ins, with the settings' way of reaching the providers."""

from collections.abc import Mapping

from micromegas_jupyter.auth.logout import end_stored_sign_ins
from micromegas_jupyter.auth.logout_report import LogoutReport
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.config.client import ClientSettings
from micromegas_jupyter.core.http import ProviderCalls
from micromegas_jupyter.core.system import SYSTEM_BROWSER, SYSTEM_CLOCK, Browser, Clock
from micromegas_jupyter.wiring.credentials import client_proof
from micromegas_jupyter.wiring.provider_calls import provider_http
from micromegas_jupyter.wiring.sign_in_files import stored_sign_ins


def logout(  # noqa: PLR0913 - the seams
    settings: ClientSettings,
    *,
    environ: Mapping[str, str] | None = None,
    end_session: bool = False,
    browser: Browser = SYSTEM_BROWSER,
    http: ProviderCalls | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> LogoutReport:
    """End every sign-in of the settings' profile, here and at the providers.

    The application that the settings name proves itself as they say; for any other, nothing is known that it could
    prove itself with, so a provider that wants a proof does not revoke its tokens, and the report says so.

    Args:
        settings: Whose sign-ins.
        environ: Stands in for the process environment.
        end_session: Whether the person's session at the provider is to end, too.
        browser: Shows the page that ends it.
        http: Calls the providers; by default as the settings say.
        clock: Tells the time.

    Raises:
        TokenStoreError: A sign-in could not be removed; all others have ended.
    """
    calls = http

    def connect(issuer: str, client_id: str) -> ProviderConnection:
        nonlocal calls
        calls = provider_http(settings) if calls is None else calls
        is_configured = (issuer, client_id) == (settings.issuer, settings.client_id)
        proof = client_proof(settings) if is_configured else None
        return ProviderConnection(issuer, client_id, proof, http=calls, clock=clock)

    return end_stored_sign_ins(
        stored_sign_ins(settings, environ),
        connect,
        issuer=settings.issuer if settings.client_id is not None else None,
        client_id=settings.client_id,
        clock=clock,
        browser=browser if end_session else None,
    )
