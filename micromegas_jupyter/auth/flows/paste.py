"""The paste flow: the user pastes their browser's final address, because no redirect can reach this program.

No server listens on that address. The browser shows that it can't connect, which is expected.
"""

from urllib.parse import parse_qsl

from micromegas_jupyter.auth.flows.base import CallbackFlow, LoginRequest
from micromegas_jupyter.auth.flows.loopback import parse_loopback_address
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import (
    LoginFailed,
    LoginRefused,
    MicromegasError,
    ProviderMisbehaved,
    ProviderUnavailable,
    UsageError,
)
from micromegas_jupyter.oidc.authorization import MAX_CALLBACK_PARAMETERS, is_callback_of

TIMEOUT_SECONDS = 600.0
MAX_PASTED_CHARACTERS = 16 * 1024
MAX_TRIES = 10
# A fixed port, so that a single address can be registered: some providers compare ports, although RFC 8252 section 7.3
# says not to.
PASTE_PORT = 48080

_QUOTES = "\"'`<>\u2018\u2019\u201c\u201d"


class PasteFlow(CallbackFlow):
    """A code grant whose callback the user pastes."""

    def __init__(self, request: LoginRequest) -> None:
        address = parse_loopback_address(request.redirect_uri)
        redirect_uri = f"http://{address.authority(address.port or PASTE_PORT)}{address.path}"
        grant = request.build_grant(request.connection.metadata(), redirect_uri)
        timeout_seconds = request.wait_seconds(TIMEOUT_SECONDS)
        super().__init__(request.build_prompt(Flow.PASTE, timeout_seconds, start_url=grant.request.url), grant)
        self._pasted_grant = grant
        self._tries = 0

    def submit(self, text: str | Secret) -> None:
        """Submit the user's input: the whole address, or the part after its question mark."""
        text = text if isinstance(text, Secret) else Secret(text)  # keeps it out of tracebacks
        with self._lock:
            if self._ended.is_set():
                raise UsageError("This sign-in no longer accepts a URL.", remedy="Start the sign-in again.")
            self._tries += 1
            try:
                self._callback = self._callback_in(text)
            except (UsageError, ProviderMisbehaved):
                if self._tries >= MAX_TRIES:
                    self._callback = LoginFailed(f"None of the {MAX_TRIES} pasted addresses belongs to this sign-in.")
                    self._ended.set()
                raise
            self._ended.set()

    def _callback_in(self, text: Secret) -> Secret | MicromegasError:
        if len(text.reveal()) > MAX_PASTED_CHARACTERS:
            raise self._mismatch("The pasted text is too long.")
        query = Secret(_query_in(text.reveal()))
        if not is_callback_of(query.reveal(), self._pasted_grant.request):
            raise self._mismatch("The pasted text isn't the URL of this sign-in's last page.")
        names = set(dict(parse_qsl(query.reveal(), keep_blank_values=True, max_num_fields=MAX_CALLBACK_PARAMETERS)))
        if not {"code", "error"} & names:
            raise self._mismatch("The pasted URL is from an earlier page of this sign-in.")
        try:
            return self._pasted_grant.code_in(query)
        except (LoginRefused, ProviderUnavailable) as error:
            return error

    def _mismatch(self, what: str) -> UsageError:
        return UsageError(
            what,
            remedy="Sign in on the page that was shown. When the browser reports that it can't open the next page, "
            f"paste the whole address from its address bar; it begins with {self._pasted_grant.request.redirect_uri}?",
        )


def _query_in(text: str) -> str:
    """Return the query string of a pasted address, which a terminal or mail program may have broken or quoted."""
    address = "".join(text.split()).strip(_QUOTES)
    before, mark, after = address.partition("?")
    query = after if mark and "=" not in before else address
    return query.partition("#")[0]
