from datetime import UTC, datetime, timedelta

import pytest

from micromegas_jupyter.notebook.formatting import (
    bytes_text,
    cut,
    host_text,
    printable,
    remaining_text,
    rows_text,
    seconds_text,
    short_query_id,
    time_text,
    where_text,
)

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1.0, "expired"), (0.9, "expired"), (59.9, "59 s"), (60.0, "1 min"), (7199.0, "119 min"), (7200.0, "2 h")],
)
def test_what_still_holds_is_told_in_its_largest_unit_and_never_too_long(seconds: float, text: str) -> None:
    assert remaining_text(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1400, "1.4 kB"), (9_960, "10 kB"), (999_600, "1.0 MB"),
        (131_000_000, "131 MB"), (2_500_000_000, "2.5 GB"), (5_000_000_000_000_000, "5,000 TB"),
    ],
)  # fmt: skip
def test_sizes_are_written_in_decimal_units(size: int, text: str) -> None:
    assert bytes_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1.0, "0.00 s"), (0.02, "0.02 s"), (0.1, "0.1 s"), (4.06, "4.1 s"), (59.94, "59.9 s"), (59.96, "1 min 00 s"),
        (125.0, "2 min 05 s"),
    ],
)  # fmt: skip
def test_durations_are_written_with_few_digits(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_one_row_is_not_rows() -> None:
    assert [rows_text(count) for count in (0, 1, 1_842_113)] == ["0 rows", "1 row", "1,842,113 rows"]


def test_a_moment_has_its_date_only_when_it_is_far() -> None:
    assert time_text(NOW + timedelta(hours=3), now=NOW) == "15:00 UTC"
    assert time_text(NOW + timedelta(days=3), now=NOW) == "2026-11-27 12:00 UTC"


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("https://id.example.com/realms/x", "id.example.com"),
        ("grpc://localhost:50051", "localhost:50051"),
        ("https://user:password@id.example.com/", "id.example.com"),
        ("no url", "no url"),
        ("http://[half", "http://[half"),
    ],
)
def test_a_url_is_known_by_its_host_and_never_shows_a_password(url: str, text: str) -> None:
    assert host_text(url) == text


def test_control_and_direction_characters_are_written_out() -> None:
    assert printable("a\x1b[31mb\u202ec\nd\x9be") == "a\\x1b[31mb\\u202ec\\nd\\x9be"


def test_letters_of_all_scripts_stay() -> None:
    assert printable("Zoë 山田 علی\u200cرضا 👩\u200d🔬") == "Zoë 山田 علی\u200cرضا 👩\u200d🔬"


def test_a_long_text_ends_with_an_ellipsis() -> None:
    assert (cut("abcdef", 6), cut("abcdefg", 6)) == ("abcdef", "abcde…")


def test_a_place_names_the_provider_before_the_server() -> None:
    assert where_text("id.example.com", "lake.example.com:50051") == " at id.example.com (for lake.example.com:50051)"
    assert where_text("", "lake.example.com:50051") == " (for lake.example.com:50051)"


def test_a_query_is_known_by_the_first_characters_of_its_id() -> None:
    assert short_query_id("7f3a91c2-d4e5-4f6a-8b7c-9d0e1f2a3b4c") == "7f3a91c2"
