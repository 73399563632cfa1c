"""Fields of nested columns keep their values when they are renamed, dropped, and added, by name and by ID."""

import itertools

import pyarrow as pa
import pytest

from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.lake.served_folder import ServedFolder
from tests.fakes.delta_tables import delete_rows, write_mapped
from tests.unit.engine.conftest import asking

BEFORE = {"a": ("a", pa.int64()), "b": ("b", pa.string())}
#: The fields of a struct after a change: their physical names and types.
CHANGES = {
    "renamed": {"z": ("a", pa.int64()), "b": ("b", pa.string())},
    "swapped": {"b": ("a", pa.int64()), "a": ("b", pa.string())},
    "dropped": {"a": ("a", pa.int64())},
    "dropped, then added again": {"a": ("a", pa.int64()), "b": ("col-1", pa.string())},
    "dropped, then added with another type": {"a": ("col-1", pa.bool_()), "b": ("b", pa.string())},
    "added": {"a": ("a", pa.int64()), "b": ("b", pa.string()), "c": ("col-1", pa.int64())},
    "added before the others": {"c": ("col-1", pa.int64()), "a": ("a", pa.int64()), "b": ("b", pa.string())},
    "added as a struct": {"a": ("a", pa.int64()), "b": ("b", pa.string()), "c": ("c", pa.struct([("a", pa.int64())]))},
    "all dropped": {"c": ("col-1", pa.int64())},
    "in another order": {"b": ("b", pa.string()), "a": ("a", pa.int64())},
}
#: The changes of a table without mapped columns.
UNMAPPED = ("dropped", "added", "added before the others", "added as a struct", "in another order")
#: What is around the struct: its type, and a value.
PLACES = {
    "struct": (lambda kind: kind, lambda value: value),
    "struct of struct": (
        lambda kind: pa.struct([("n", pa.int64()), ("in", kind)]),
        lambda value: None if value is None else {"n": 1, "in": value},
    ),
    "list": (pa.list_, lambda value: [value, None, value]),
    "map": (lambda kind: pa.map_(pa.string(), kind), lambda value: [("k", value), ("l", None)]),
    "map of list": (lambda kind: pa.map_(pa.string(), pa.list_(kind)), lambda value: [("k", [value, value])]),
    "list of list": (lambda kind: pa.list_(pa.list_(kind)), lambda value: [[value], [], [value, value]]),
    "struct of list": (lambda kind: pa.struct([("in", pa.list_(kind))]), lambda value: {"in": [value]}),
    "struct of map": (
        lambda kind: pa.struct([("in", pa.map_(pa.string(), kind))]),
        lambda value: {"in": [("k", value)]},
    ),
}
IN_FILES = {"a": "b", "b": "a", "z": "b", "c": "z"}


def rows_of(fields, values, place):
    """Return four rows with a struct, which the last has not, in a place."""
    around, put = PLACES[place]
    kind = pa.struct([(name, type_) for name, (_, type_) in fields.items()])
    return pa.table({"n": range(4), "col": pa.array([put(value) for value in values], around(kind))})


def values_of(fields):
    """Return values of a struct in four rows, by physical names."""
    sample = {"int64": 7, "string": "x", "bool": True}
    return [{physical: sample.get(str(kind), {"a": 9}) for physical, kind in fields.values()}] * 3 + [None]


def seen_as(values, fields):
    """Return values by the names of other fields; one that was not there is null."""
    return [value and {name: value.get(physical) for name, (physical, _) in fields.items()} for value in values]


@pytest.mark.parametrize(
    ("mode", "has_vectors"),
    [
        pytest.param("name", True, id="deleted rows-name"),
        pytest.param("id", False, id="all rows-id"),
        pytest.param("none", True, id="deleted rows-none"),
        pytest.param("none", False, id="all rows-none", marks=[pytest.mark.slow, pytest.mark.long]),
        pytest.param("name", False, id="all rows-name", marks=[pytest.mark.slow, pytest.mark.long]),
        pytest.param("id", True, id="deleted rows-id", marks=[pytest.mark.slow, pytest.mark.long]),
    ],
)
def test_nested_fields_are_those_of_the_table(tmp_path, mode, has_vectors):
    storage, wanted = Storage(tmp_path), {}
    for number, (place, change) in enumerate(itertools.product(PLACES, UNMAPPED if mode == "none" else CHANGES)):
        now, files, rows = CHANGES[change], [], []
        for fields in (BEFORE, now):
            values = values_of(fields)
            names = {"n": "col-n", "col": "col-0", "in": "col-in"} | {name: one for name, (one, _) in fields.items()}
            names = {} if mode == "none" else names
            files.append((rows_of(fields, seen_as(values, fields), place), names))
            rows += rows_of(now, seen_as(values, now), place).to_pylist()
        in_files = IN_FILES if mode == "id" and number % 2 else None
        physical, schema = files[1][1], files[1][0].schema
        write_mapped(storage, f"t{number}", files, mode=mode, physical=physical, in_files=in_files, schema=schema)
        if has_vectors:
            delete_rows(storage, f"t{number}", lambda *_: [1])
        wanted[f"t{number}"] = (f"{place}, {change}", [row for row in rows if row["n"] != 1 or not has_vectors])

    wrong = {}
    with asking(ServedFolder(storage)) as ask:
        for table, (case, rows) in wanted.items():
            try:
                found = ask.rows(f"SELECT * FROM {table}")
            except MicromegasError as error:
                found = str(error)
            if not isinstance(found, list) or sorted(map(str, found)) != sorted(map(str, rows)):
                wrong[case] = found
    assert wrong == {}
