"""Headers become options and tags, or an error that names the header."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from micromegas_jupyter.engine import TimeRange
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.server.authentication import (
    ClientTags,
    QueryOptions,
    find_client_address,
    group_headers,
    parse_client_tags,
    parse_compression,
    parse_query_options,
)

PROXY = frozenset({"10.0.0.1"})


def _options(**headers: str) -> QueryOptions:
    return parse_query_options({key: (value,) for key, value in headers.items()})


def test_no_headers_ask_for_nothing() -> None:
    assert _options() == QueryOptions(time_range=None, row_limit=None, preserve_dictionary=False)


def test_a_whole_range_is_read_with_its_offset() -> None:
    options = _options(query_range_begin="2026-11-24T12:00:00+02:00", query_range_end="2026-11-24T12:00:00.25Z")

    assert options.time_range == TimeRange(
        begin=datetime(2026, 11, 24, 12, 0, tzinfo=timezone(timedelta(hours=2))),
        end=datetime(2026, 11, 24, 12, 0, 0, 250_000, tzinfo=UTC),
    )


def test_nanoseconds_widen_the_range() -> None:
    options = _options(
        query_range_begin="2026-11-24T12:00:00.123456789Z", query_range_end="2026-11-24T12:00:01.123456789Z"
    )

    assert options.time_range == TimeRange(
        begin=datetime(2026, 11, 24, 12, 0, 0, 123_456, tzinfo=UTC),
        end=datetime(2026, 11, 24, 12, 0, 1, 123_457, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    "headers",
    [
        {"query_range_begin": "2026-11-24T12:00:00Z"},
        {"query_range_end": "not looked at"},
        {"query_range_begin": "", "query_range_end": ""},
        {"query_range_begin": "2026-11-24T12:00:00Z", "query_range_end": ""},
    ],
    ids=["begin alone", "end alone", "both empty", "one empty"],
)
def test_half_a_range_is_no_range(headers: dict[str, str]) -> None:
    assert _options(**headers).time_range is None


@pytest.mark.parametrize(
    "begin",
    [
        "2026-11-24",
        "2026-11-24T12:00:00",
        "2026-13-24T12:00:00Z",
        "20261124T120000Z",
        "2026-11-24T12:00:60Z",
        "2026-11-24T12:00:00+25:00",
        "yesterday",
        "٢٠٢٦-11-24T12:00:00Z",
    ],
)
def test_what_is_not_a_time_is_refused_by_the_headers_name(begin: str) -> None:
    with pytest.raises(UsageError, match="query_range_begin"):
        _options(query_range_begin=begin, query_range_end="2026-11-24T12:00:00Z")


def test_the_last_instant_cannot_be_rounded_up() -> None:
    with pytest.raises(UsageError, match="query_range_end"):
        _options(query_range_begin="2026-11-24T12:00:00Z", query_range_end="9999-12-31T23:59:59.9999999Z")


def test_a_range_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(UsageError):
        _options(query_range_begin="2026-11-24T12:00:00Z", query_range_end="2026-11-24T11:59:59Z")


def test_a_limit_is_a_whole_number() -> None:
    assert _options(limit="0").row_limit == 0
    assert _options(limit="1000").row_limit == 1000


@pytest.mark.parametrize("limit", ["", "-1", "1.5", "1e3", " 1", "٣", "9" * 19])
def test_another_limit_is_refused(limit: str) -> None:
    with pytest.raises(UsageError):
        _options(limit=limit)


@pytest.mark.parametrize(("value", "expected"), [("true", True), ("TRUE", True), ("false", False), ("1", False)])
def test_dictionaries_are_kept_on_request(value: str, expected: bool) -> None:
    assert _options(preserve_dictionary=value).preserve_dictionary is expected


@pytest.mark.parametrize(
    ("value", "expected"), [("lz4", "lz4"), ("ZSTD", "zstd"), ("none", None), ("", None), (None, None)]
)
def test_rows_are_compressed_on_request(value: str | None, expected: str | None) -> None:
    headers = {} if value is None else {"x-micromegas-compression": (value,)}

    assert parse_compression(headers) == expected


def test_an_unknown_compression_is_refused() -> None:
    with pytest.raises(UsageError, match="lz4, zstd or none"):
        parse_compression({"x-micromegas-compression": ("gzip",)})


def test_client_tags_default_to_unknown() -> None:
    assert parse_client_tags({}) == ClientTags(client="unknown", agent="unknown", entrypoint="unknown", optional={})


def test_client_tags_are_read() -> None:
    headers = {
        "x-client-type": ("python",),
        "x-client-agent": ("none",),
        "x-client-entrypoint": ("jupyter",),
        "x-client-session": ("s-1",),
        "x-client-notebook": ("a.ipynb",),
        "x-client-cell": ("",),
    }

    assert parse_client_tags(headers) == ClientTags(
        client="python", agent="none", entrypoint="jupyter", optional={"session": "s-1", "notebook": "a.ipynb"}
    )


def test_repeated_headers_are_kept_in_order_and_binary_ones_left_out() -> None:
    grouped = group_headers([("authorization", "a"), ("trace-bin", b"\0"), ("authorization", "b")])

    assert grouped == {"authorization": ("a", "b")}
    assert group_headers(None) == {}


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("ipv4:192.0.2.7:4711", "192.0.2.7"),
        ("ipv6:[2001:db8::7]:4711", "2001:db8::7"),
        ("ipv6:%5B::1%5D:4711", "::1"),
        ("unix:/tmp/socket", "unknown"),
        ("ipv4:nonsense", "unknown"),
    ],
)
def test_a_peer_has_an_address(peer: str, expected: str) -> None:
    assert find_client_address(peer, {}, frozenset()) == expected


def test_forwarding_headers_of_anybody_are_ignored() -> None:
    headers = {"x-forwarded-for": ("203.0.113.9",), "x-real-ip": ("203.0.113.9",)}

    assert find_client_address("ipv4:192.0.2.7:1", headers, PROXY) == "192.0.2.7"


def test_a_trusted_proxy_names_the_client_last() -> None:
    headers = {"x-forwarded-for": ("1.1.1.1", "2.2.2.2, 203.0.113.9")}

    assert find_client_address("ipv4:10.0.0.1:1", headers, PROXY) == "203.0.113.9"


def test_a_trusted_proxys_nonsense_leaves_its_own_address() -> None:
    headers = {"x-forwarded-for": ("<script>",), "x-real-ip": ("nobody",)}

    assert find_client_address("ipv4:10.0.0.1:1", headers, PROXY) == "10.0.0.1"


@pytest.mark.parametrize(
    ("entry", "address"),
    [
        ("203.0.113.9:4711", "203.0.113.9"),
        ("1.1.1.1:1, 203.0.113.9:4711", "203.0.113.9"),
        ("2001:db8::9", "2001:db8::9"),
        ("[2001:db8::9]", "2001:db8::9"),
        ("[2001:db8::9]:4711", "2001:db8::9"),
    ],
)
def test_a_trusted_proxy_may_tell_the_port_too(entry: str, address: str) -> None:
    assert find_client_address("ipv4:10.0.0.1:4711", {"x-forwarded-for": (entry,)}, PROXY) == address


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "unknown",
        "203.0.113.9:port",
        "203.0.113.9:123456",
        "203.0.113:4711",
        "[203.0.113.9]:4711",
        "[]:1",
        "1.1.1.1,",
    ],
)
def test_where_a_trusted_proxys_entry_cannot_be_read_no_other_header_is_believed(entry: str) -> None:
    headers = {"x-forwarded-for": (entry,), "x-real-ip": ("203.0.113.66",)}

    assert find_client_address("ipv4:10.0.0.1:4711", headers, PROXY) == "10.0.0.1"


def test_a_trusted_proxy_without_forwarded_for_may_name_the_client_as_real_ip() -> None:
    headers = {"x-real-ip": ("203.0.113.9",)}

    assert find_client_address("ipv4:10.0.0.1:4711", headers, PROXY) == "203.0.113.9"


def test_the_values_of_headers_are_in_no_representation() -> None:
    headers = group_headers([("authorization", "Bearer sesame"), ("limit", "5")])

    assert (repr(headers), str(headers)) == ("ReceivedHeaders(authorization, limit)",) * 2
