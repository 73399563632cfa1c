"""A folder is a lake when this package wrote it, or when it holds nothing yet; anything else is somebody else's."""

import pytest

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.lakehouse import FolderKind, find_folder_kind, make_lake_folder

SEGMENT = "0123456789abcdef-000000000001-000000000001.parquet"


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ([], FolderKind.LAKE),
        ([".hidden", "lost+found/x", "_temporary/y"], FolderKind.LAKE),
        ([".writers/a.lock"], FolderKind.LAKE),
        ([".tables/a.table", "query_denials.json"], FolderKind.LAKE),
        ([f"log_entries/{SEGMENT}"], FolderKind.LAKE),
        (["orders.parquet"], FolderKind.OTHER),
        (["orders/2026.parquet"], FolderKind.OTHER),
        (["notes.txt"], FolderKind.OTHER),
    ],
)
def test_what_lies_in_it_decides(tmp_path, files, kind):
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()

    assert find_folder_kind(tmp_path) is kind


def test_a_folder_that_is_not_there_is_a_lake_to_be(tmp_path):
    assert find_folder_kind(tmp_path / "absent") is FolderKind.LAKE


def test_a_lake_stays_one_whatever_comes_to_lie_in_it(tmp_path):
    make_lake_folder(tmp_path / "lake")
    (tmp_path / "lake" / "query_denials.json").touch()

    assert find_folder_kind(tmp_path / "lake") is FolderKind.LAKE


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_what_is_no_folder_is_refused(tmp_path, name):
    (tmp_path / "file").touch()

    with pytest.raises(UsageError, match="is a file, or lies below one") as caught:
        find_folder_kind(tmp_path / name)

    assert str(tmp_path) not in str(caught.value)
