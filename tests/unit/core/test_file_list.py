"""A table's files as columns tell the same as one by one, and a change makes one version of another."""

import pickle
import random

import numpy as np
import pyarrow as pa
import pytest

from micromegas_jupyter.core.file_list import NO_FILES, FileList, TableChange
from micromegas_jupyter.core.protocols import DataFile, TableSnapshot
from micromegas_jupyter.executors.protocol import pickle_request


def random_files(chance, count):
    """Return files of two partition columns, of some of which little is known."""
    return [
        DataFile(
            f"/lake/t/{chance.random()}.parquet",
            (chance.choice(("a", "", None)), str(chance.randrange(3))),
            chance.choice((None, chance.randrange(100))),
            chance.choice((None, chance.randrange(100, 200))),
        )
        for _ in range(count)
    ]


def table_of(files, *, columns=("rows",)):
    bounds = pa.table({name: pa.array(range(len(files)), pa.int64()) for name in columns})
    return TableSnapshot(name="t", schema=pa.schema({"n": "int64"}), files=files, bounds=bounds)


def test_files_are_as_they_were_given():
    files = random_files(random.Random(1), 20)
    found = FileList.of(files)

    assert list(found) == files
    assert (len(found), found[3], found[1:4]) == (20, files[3], tuple(files[1:4]))
    assert found.paths == [file.path for file in files]
    assert found.partition(0).to_pylist() == [file.partition[0] for file in files]
    assert pickle.loads(pickle.dumps(found)) == found
    assert list(NO_FILES) == []


@pytest.mark.parametrize("seed", range(5))
def test_a_range_of_times_has_the_files_that_may_have_such_rows(seed):
    chance = random.Random(seed)
    files = random_files(chance, 40)
    begin = chance.randrange(200)
    end = begin + chance.randrange(-5, 60)

    mask = FileList.of(files).in_range(begin, end)

    for file, is_found in zip(files, mask, strict=True):
        assert is_found == ((file.end is None or file.end >= begin) and (file.begin is None or file.begin <= end))


@pytest.mark.parametrize("seed", range(8))
def test_a_change_makes_a_later_version_of_an_earlier_one_in_any_process(seed):
    chance = random.Random(seed)
    earlier = later = table_of(FileList.of(random_files(chance, 50)))
    of_executor = pickle.loads(pickle_request(earlier))[0]
    for _ in range(chance.randrange(1, 4)):
        removed = np.array(sorted(chance.sample(range(len(later.files)), chance.randrange(3))), dtype=np.int64)
        added = table_of(FileList.of(random_files(chance, chance.randrange(1, 4))))
        later = TableChange(later, removed, added.files, added.bounds).apply(later)

    packed = pickle_request(TableChange.between(earlier, later))
    (change,) = pickle.loads(packed)

    assert change.apply(of_executor) == later
    assert change.apply(of_executor).bounds.equals(later.bounds)
    assert len(packed) < len(pickle_request(later))


def test_versions_with_little_in_common_have_no_change():
    chance = random.Random(3)
    files = FileList.of(random_files(chance, 10))
    table, other = table_of(files), table_of(FileList.of(random_files(chance, 10)))
    reversed_order = FileList.of([*files][::-1])

    assert TableChange.between(table, other) is None
    assert TableChange.between(table, table_of(reversed_order)) is None
    assert TableChange.between(table, table_of(files, columns=("rows", "min.n"))) is None
    assert TableChange.between(table, table).apply(table) == table
