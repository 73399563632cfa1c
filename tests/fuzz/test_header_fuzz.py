"""Damaged call metadata: options, tags and addresses come out, or one of the project's own errors."""

from contextlib import suppress

import pytest

from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.server.authentication import (
    find_client_address,
    group_headers,
    parse_authorization,
    parse_client_tags,
    parse_compression,
    parse_statement,
    resolve_attribution,
)
from tests.fakes.validator import FakeValidator
from tests.fuzz.conftest import sizes
from tests.fuzz.damage import damage_text

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

HEADERS = {
    "authorization": "Bearer alice",
    "query_range_begin": "2026-11-24T12:00:00.123456789+02:00",
    "query_range_end": "2026-11-24T13:00:00Z",
    "limit": "100",
    "preserve_dictionary": "true",
    "x-micromegas-compression": "zstd",
    "x-client-type": "python",
    "x-client-agent": "none",
    "x-user-id": "alice",
    "x-user-email": "alice%40example.com",
    "x-user-name": "Alice%20%C3%89",
    "x-forwarded-for": "192.0.2.7, [2001:db8::7]:4711",
    "x-real-ip": "192.0.2.7",
}
PEER = "ipv4:10.0.0.1:4711"
PROXIES = frozenset({"10.0.0.1"})
CALLER = FakeValidator().validate_token("alice")


@sizes(short=5_000, long=500_000)
def test_a_damaged_header_is_read_or_refused(fuzzing):
    readers = (
        parse_authorization,
        lambda headers: parse_statement(headers, "SELECT 1", CALLER, is_read_only=False),
        parse_compression,
        parse_client_tags,
        lambda headers: resolve_attribution(CALLER, headers),
        lambda headers: find_client_address(PEER, headers, PROXIES),
    )
    for _ in range(fuzzing.tries):
        sent = [
            (name, damage_text(value, fuzzing.random) if fuzzing.random.random() < 0.5 else value)
            for name, value in HEADERS.items()
        ]
        headers = group_headers([*sent, *fuzzing.random.choices(sent, k=fuzzing.random.choice((0, 0, 1)))])

        for read in readers:
            with suppress(MicromegasError):
                fuzzing.attempt(read, headers)
