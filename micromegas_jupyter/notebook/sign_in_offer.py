"""What a running sign-in asks of the person: open an address, type a code, or paste an address, in words.

Nothing here is kept once the sign-in has ended: an authorization address holds the sign-in's state.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from micromegas_jupyter.notebook.words import cut, printable
from micromegas_jupyter.redirect.routing import START_PATH
from micromegas_jupyter.settings import Flow

if TYPE_CHECKING:
    from micromegas_jupyter.notebook.parts import Login

CODE_WARNING = "Only type it if you started this."
PASTE_HINT = "When the browser ends at an address that does not load, copy that address and paste it below."

_MAX_CODE_CHARACTERS = 64
_START_PATH = re.compile(rf"/(?!/)[\x21-\x7e]*{START_PATH}[A-Za-z0-9_.-]+", re.ASCII)
_WEB_SCHEMES = ("http://", "https://")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInOffer:
    """What a running sign-in asks of the person.

    Attributes:
        flow: The way to sign in.
        address: The page to open, as a path where it is the Jupyter server's own; empty when it is neither.
        user_code: What to type there; empty unless the flow has a code.
        scan_address: An address that already holds the code, for another device's camera; never opened here.
    """

    flow: Flow
    address: str = field(repr=False)
    user_code: str = field(default="", repr=False)
    scan_address: str = field(default="", repr=False)


def offer_of(login: Login) -> SignInOffer:
    """Return what a sign-in asks of the person."""
    if login.flow is Flow.DEVICE:
        return SignInOffer(
            flow=Flow.DEVICE,
            address=_web_address(login.verification_uri),
            user_code=cut(printable(login.user_code or ""), _MAX_CODE_CHARACTERS),
            scan_address=_web_address(login.verification_uri_complete),
        )
    if login.flow is Flow.REDIRECT:
        return SignInOffer(flow=Flow.REDIRECT, address=_server_address(login.start_url))
    return SignInOffer(flow=login.flow, address=_web_address(login.start_url))


def offer_line(offer: SignInOffer, *, issuer: str, until: str) -> str:
    """Return in one line what to do.

    Args:
        offer: What is asked.
        issuer: The identity provider's name.
        until: Until when, as ` until 12:10 UTC`; empty when that is not known.
    """
    if offer.flow is Flow.DEVICE:
        return (
            f"Sign in at {issuer}: go to {offer.address} and type {offer.user_code}{until}. {CODE_WARNING} "
            "This notebook continues by itself."
        )
    if offer.flow is Flow.PASTE:
        return f"Sign in at {issuer}: open {offer.address}{until}. {PASTE_HINT}"
    where = " of this Jupyter server" if offer.address.startswith("/") else ""
    return f"Sign in at {issuer}: open {offer.address}{where}{until}. This notebook continues by itself."


def waiting_line(offer: SignInOffer, *, issuer: str, until: str) -> str:
    """Return in one line what a cell waits for.

    Where the page was loaded again while the kernel is busy, this line is all that is left of the sign-in.
    """
    address = waiting_address(offer)
    if offer.flow is Flow.DEVICE:
        return f"waiting for you to type {offer.user_code} at {address or issuer}{until}"
    where = f": open {address}" if address else ""
    return f"waiting for you to sign in at {issuer}{where}{until}"


def waiting_address(offer: SignInOffer) -> str:
    """Return the address that a waiting cell shows; empty where it would hold the sign-in's state."""
    return "" if offer.flow is Flow.PASTE else offer.address


def _server_address(address: str | None) -> str:
    # A path below the page that shows it: the kernel need not know under which address a browser reaches its server.
    if address is not None and _START_PATH.fullmatch(address):
        return address
    return _web_address(address)


def _web_address(address: str | None) -> str:
    # Only such an address becomes a link.
    if address is None or not address.startswith(_WEB_SCHEMES):
        return ""
    return printable(address)
