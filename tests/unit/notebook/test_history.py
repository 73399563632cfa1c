"""Statements that are stored for the side panels of other kernels."""

import os

import pytest

from micromegas_jupyter.notebook.history import StoredHistory, without_values

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("sql", "kept"),
    [
        ('SELECT a1, "b\'2" FROM t WHERE x = :x', 'SELECT a1, "b\'2" FROM t WHERE x = :x'),
        (f"SELECT '{SECRET}', 'it''s {SECRET}', 42, -1.5e-3, .5", "SELECT ?, ?, ?, -?-?, ?"),
        (f"SELECT E'\\'{SECRET}', X'0{SECRET}', $a$ '{SECRET} $a$, $${SECRET}$$", "SELECT ?, ?, ?, ?"),
        (f"SELECT 1 -- {SECRET}\n/* {SECRET} */ FROM t", "SELECT ?  \n  FROM t"),
        (f"SELECT '{SECRET}", "SELECT ?"),
        (f"SELECT $$ {SECRET}", "SELECT ?"),
        (f"SELECT /* {SECRET}", "SELECT"),
    ],
)
def test_kept_statements_have_no_values(sql, kept):
    assert without_values(sql).split() == kept.split()
    assert SECRET not in without_values(sql)


def test_statements_of_other_kernels_are_listed_once_and_only_their_user_can_read_them(tmp_path):
    folder = tmp_path / "history"
    first, second = StoredHistory(folder), StoredHistory(folder)
    for statement in ("SELECT 'a' FROM t", "SELECT 'b' FROM t", "SELECT u"):
        first.add(statement)
    second.add("SELECT own")
    (folder / "damaged.json").write_text("{", encoding="utf-8")

    assert second.others() == ["SELECT u", "SELECT ? FROM t"]
    assert first.others() == ["SELECT own"]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.glob("[0-9a-f]*.json") if path.stem != "damaged"} == {0o600}


def test_a_bounded_number_of_statements_and_kernels_is_kept(tmp_path):
    for number in range(25):
        StoredHistory(tmp_path).add(f"SELECT c{number}")
        newest = max(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (number, number))
    last = StoredHistory(tmp_path)
    for number in range(150):
        last.add(f"SELECT d{number}")

    assert len(list(tmp_path.iterdir())) == 20
    assert len(StoredHistory(tmp_path).others()) == 100
