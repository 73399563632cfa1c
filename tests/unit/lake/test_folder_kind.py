"""A folder is a lake when this package wrote it, or when it holds nothing yet; anything else is somebody else's."""

from pathlib import Path

import pytest

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.lake import FolderKind, check_servable, find_folder_kind, make_lake_folder

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


@pytest.mark.parametrize(
    ("address", "scheme"),
    [
        ("s3://bucket/lake", "s3"),
        ("S3://bucket", "S3"),
        ("s3://", "s3"),
        ("s3:/bucket", "s3"),
        ("gs://bucket/a/b", "gs"),
        ("az://container", "az"),
        ("abfss://container@account.dfs.core.windows.net/lake", "abfss"),
        ("file:///srv/lake", "file"),
        ("file://localhost/srv", "file"),
        ("memory://", "memory"),
        ("delta+s3://bucket", "delta+s3"),
        ("no such://x", "no such"),
        ("://x", ""),
        ("x\x1by://x", "x?y"),
    ],
)
def test_an_address_of_storage_elsewhere_is_refused_by_name(address, scheme):
    with pytest.raises(UsageError) as caught:
        check_servable(Path(address))

    assert caught.value.what.startswith(f"{scheme}:// is not supported")
    assert "bucket" not in str(caught.value)  # an address may hold a password


@pytest.mark.parametrize("name", ["lake", "a:b", "/srv/s3:/x", "lake.d", ".", "..", "a b"])
def test_other_names_are_folders(name):
    check_servable(Path(name))


@pytest.mark.parametrize("log", ["_delta_log", "events/_delta_log"])
@pytest.mark.parametrize("others", [[], [".writers/a.lock"], ["orders.parquet"], [f"log_entries/{SEGMENT}"]])
def test_a_delta_table_is_refused_by_name(tmp_path, log, others):
    for name in others:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / log).mkdir(parents=True)

    with pytest.raises(UsageError, match="is a Delta table") as caught:
        find_folder_kind(tmp_path)

    assert caught.value.what.startswith("events " if "events" in log else "The folder ")


def test_a_folder_within_a_delta_table_is_refused(tmp_path):
    (tmp_path / "_delta_log").mkdir()
    (tmp_path / "year=2026").mkdir()

    with pytest.raises(UsageError, match="is a Delta table"):
        find_folder_kind(tmp_path / "year=2026")
