"""Tells addresses inside a network from those of the public internet.

What follows from that is for the caller to say.
"""

import ipaddress

# An IPv4 address stands in the last four bytes of these: RFC 6052 section 2.1.
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
# RFC 8215. Not every version of Python knows it.
_TRANSLATED_LOCALLY = ipaddress.IPv6Network("64:ff9b:1::/48")


def is_private_address(address: str) -> bool:
    """Whether an IP address is not one of the public internet; anything that is no IP address counts as private.

    Private, loopback, link-local, unique-local, site-local, shared (RFC 6598), documentation, reserved and multicast
    addresses are, and so are IPv6 forms that stand for such an IPv4 address. Source: IANA's special-purpose registries.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return True
    if isinstance(found, ipaddress.IPv6Address):
        if found.is_site_local or found in _TRANSLATED_LOCALLY:
            return True
        found = _embedded_ipv4(found) or found
    return not found.is_global or found.is_multicast


def _embedded_ipv4(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address in _TRANSLATED:
        return ipaddress.IPv4Address(address.packed[-4:])
    # RFC 4291 section 2.5.5.2; RFC 3056 section 2.
    return address.ipv4_mapped or address.sixtofour
