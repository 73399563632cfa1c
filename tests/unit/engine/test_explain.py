"""No path is left in a described plan."""

from __future__ import annotations

import pyarrow as pa

from micromegas_jupyter.engine.planning.plan_checks import PathScrubber

FILES = ["/srv/my lake/date=1/a.parquet", "/srv/my lake/date=2/b.parquet"]


def test_file_groups_become_their_number() -> None:
    plan = (
        "DataSourceExec: file_groups={2 groups: [[srv/my%20lake/date=1/a.parquet:0..10, x.parquet], "
        "[srv/my%20lake/date=2/b.parquet:3..9, ...]]}, projection=[x], predicate=x@1 IN ([1])"
    )

    cleaned = PathScrubber([FILES]).clean(plan)

    assert cleaned == "DataSourceExec: file_groups={2 groups}, projection=[x], predicate=x@1 IN ([1])"


def test_any_other_mention_of_a_folder_is_removed() -> None:
    scrubber = PathScrubber([FILES, ["/mnt/a/x.parquet"], ["s3://bucket/lake/y.parquet"]])

    assert scrubber.clean("see /srv/my lake/date=1/a.parquet, ok") == "see …, ok"
    assert scrubber.clean("see srv/my%20lake/date=9/z, ok") == "see …, ok"
    assert scrubber.clean("[mnt/a/x.parquet:1..2]") == "[…]"
    assert scrubber.clean("s3://bucket/lake/y.parquet") == "s3:/…"


def test_files_without_a_common_folder_are_all_known() -> None:
    scrubber = PathScrubber([["/one/a.parquet", "/two/b.parquet"]])

    assert scrubber.clean("one/a.parquet two/b.parquet three") == "… … three"


def test_without_files_only_groups_are_cleaned() -> None:
    assert PathScrubber([[]]).clean("a/b file_groups={1 group: [[a/b]]}") == "a/b file_groups={1 group}"


def test_every_text_column_of_a_batch_is_cleaned() -> None:
    batch = pa.record_batch({"plan_type": ["p", None], "plan": ["/srv/my lake/x", "y"], "n": [1, 2]})

    cleaned = PathScrubber([FILES]).clean_batch(batch)

    assert cleaned.to_pydict() == {"plan_type": ["p", None], "plan": ["…", "y"], "n": [1, 2]}
