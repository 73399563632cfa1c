import pytest

from micromegas_jupyter.lake.files import Segment, is_writer_id, parse_segment, select_visible


def test_a_name_says_writer_and_range() -> None:
    segment = Segment("writer1", 32, 63)

    assert segment.file_name == "writer1-000000000032-000000000063.parquet"
    assert parse_segment("writer1-000000000032-000000000063.parquet") == segment
    assert parse_segment("writer1-000000000032-000000000063.dropped") == segment._replace(is_tombstone=True)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "part-0.parquet",
        ".writer1-000000000000-000000000000.w.tmp",
        "writer1-000000000000-000000000000.parquet.tmp",
        "wri-ter-000000000000-000000000000.parquet",
        "writer1-000000000005-000000000004.parquet",
        "writer1-0000000000000-000000000000.parquet",
        "writer1-٠٠٠٠٠٠٠٠٠٠٠٠-000000000000.parquet",
        "writer1-000000000000-000000000000.parquet\n",
    ],
)
def test_any_other_file_is_no_segment(name: str) -> None:
    assert parse_segment(name) is None


@pytest.mark.parametrize("writer_id", ["", "a-b", "a/b", "..", "a" * 65, "ä"])
def test_a_writer_id_is_of_letters_and_digits(writer_id: str) -> None:
    assert not is_writer_id(writer_id)


def test_a_merged_file_hides_what_it_was_made_of() -> None:
    merged = Segment("a", 0, 3)
    sources = [Segment("a", 0, 0), Segment("a", 1, 2), Segment("a", 3, 3)]
    beyond = Segment("a", 4, 4)

    assert select_visible([beyond, *sources, merged]) == [merged, beyond]


def test_a_merged_file_hides_nothing_of_another_writer() -> None:
    assert select_visible([Segment("b", 1, 1), Segment("a", 0, 3)]) == [Segment("a", 0, 3), Segment("b", 1, 1)]


def test_merged_files_of_several_tiers_nest() -> None:
    segments = [Segment("a", 0, 15), Segment("a", 4, 7), Segment("a", 5, 5), Segment("a", 16, 19), Segment("a", 17, 17)]

    assert select_visible(segments) == [Segment("a", 0, 15), Segment("a", 16, 19)]


def test_a_tombstone_hides_rows_of_its_range_and_itself() -> None:
    rows = [Segment("a", 0, 3), Segment("a", 2, 2), Segment("a", 4, 4)]

    assert select_visible([*rows, Segment("a", 0, 3, is_tombstone=True)]) == [Segment("a", 4, 4)]


def test_a_wider_merged_file_is_visible_around_a_tombstone() -> None:
    tombstone = Segment("a", 0, 3, is_tombstone=True)

    assert select_visible([tombstone, Segment("a", 0, 15), Segment("a", 0, 3)]) == [Segment("a", 0, 15)]


def test_covering_is_never_mutual() -> None:
    rows, tombstone = Segment("a", 0, 3), Segment("a", 0, 3, is_tombstone=True)

    assert tombstone.covers(rows)
    assert not rows.covers(tombstone)
    assert not rows.covers(rows)
