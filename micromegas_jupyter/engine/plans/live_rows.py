"""Provides the rows of Delta tables as defined by the log: only live rows, with the table's column names.

Both are expressions over the native scan of the files, so that filters, pruning, and limits work as in other tables.
DataFusion's row numbers within a file include rows that a scan skips. The functions here are not registered in any
session, so statements can't call them.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from cachetools import LRUCache
from datafusion import DataFrame, Expr, col, udf
from datafusion import functions as f

from micromegas_jupyter.core.deletion_vectors import FRAME_BYTES, decode_vector, decode_z85, unframed
from micromegas_jupyter.core.protocols import FIELD_ID, DeletionVector
from micromegas_jupyter.engine.scanner import quoted
from micromegas_jupyter.errors import InternalError

# The dictionary of a batch from a single file contains the file's name only once.
_NAMES: Final = pa.dictionary(pa.int32(), pa.string())
_ALL_ROWS: Final = (1 << 63) - 1
_CACHED_BYTES: Final = 32 * 1024 * 1024
_ENTRY_BYTES: Final = 512

#: How to convert a file's values to a column's type, unless only names differ. For a struct: each field's position in
#: the file and its own fit, or None if missing; for a list, the fit of its values; for a map, those of keys and values.
Fit = tuple[Any, ...] | None
Fits = tuple[Fit, ...]
#: Reads parts of a file by their offsets and sizes; raises `FileNotFoundError`.
ReadParts = Callable[[str, Sequence[int], Sequence[int]], Sequence[bytes]]


class Vectors:
    """Loads deletion vectors, and caches the most recently used ones."""

    def __init__(self) -> None:
        self._live: LRUCache[DeletionVector, pa.BooleanArray] = LRUCache(
            _CACHED_BYTES, lambda live: live.nbytes + _ENTRY_BYTES
        )

    def load(self, vectors: Mapping[str, DeletionVector], read: ReadParts) -> dict[str, pa.BooleanArray]:
        """Return which rows of files are live; raises `DamagedVector`, or `FileNotFoundError` if a file is missing."""
        found = {one: self._live[one] for one in vectors.values() if one in self._live}
        missing = sorted({*vectors.values()} - found.keys(), key=lambda one: (one.location, one.offset or 0))
        for location, group in itertools.groupby(missing, key=lambda one: "" if one.offset is None else one.location):
            some = list(group)
            if location:
                parts = read(location, [one.offset or 0 for one in some], [one.size + FRAME_BYTES for one in some])
                contents = list(map(unframed, some, parts))
            else:
                contents = [decode_z85(one.location)[: one.size] for one in some]
            for vector, content in zip(some, contents, strict=True):
                found[vector] = live = decode_vector(vector, content)
                with suppress(ValueError):  # larger than the cache
                    self._live[vector] = live
        return {path: found[vector] for path, vector in vectors.items()}


def live_rows(
    rows: DataFrame, paths: Sequence[str], urls: Sequence[str], live: Mapping[str, pa.BooleanArray]
) -> DataFrame:
    """Return the live rows of a scan of files; the scan's `urls` refer to the files or to a folder of links."""
    if len(paths) == 1:
        return _filtered(rows, functools.partial(_is_live, live[paths[0]]), f.file_row_index())
    is_linked = len(urls) < len(paths)
    places = [f"{place:06d}" for place in range(len(paths))]
    names = places if is_linked else [_name(urlsplit(url).path) for url in urls]
    by_name = {name: live[path] for name, path in zip(names, paths, strict=True)}
    if len(by_name) < len(paths):
        raise InternalError("Two files of a table have the same name.")
    decide = functools.partial(_are_live, by_name, is_linked)
    return _filtered(rows, decide, f.file_row_index(), f.input_file_name().cast(_NAMES))


def _filtered(rows: DataFrame, decide: Callable[..., pa.Array], *arguments: Expr) -> DataFrame:
    """Return the rows for which a function of the row number, and possibly the file name, is true.

    Only a scan can evaluate the arguments, so they are columns directly above it. Because the function is volatile,
    DataFusion does not move it below these columns.
    """
    names = rows.schema().names
    columns, extra = [col(quoted(name)) for name in names], "row"
    while any(name.startswith(extra) for name in names):
        extra += "_"
    known = [one.alias(f"{extra}{place}") for place, one in enumerate(arguments)]
    kinds = [pa.int64(), _NAMES][: len(arguments)]
    is_live = udf(decide, kinds, pa.bool_(), "volatile", "row_is_live")
    found = rows.select(*columns, *known).filter(is_live(*(col(f"{extra}{place}") for place in range(len(known)))))
    return found.select(*columns)


def all_of(rows: DataFrame) -> DataFrame:
    """Wrap rows so that no expression above them is evaluated on deleted rows.

    A LIMIT stops filters above it. Other expressions do not move below the filter, which reads row numbers.
    """
    return rows.limit(_ALL_ROWS)


def _name(path: str) -> str:
    """Return a file's normalized name, because names may be quoted differently."""
    return unquote(unquote(path)).lstrip("/")


def _are_live(
    by_name: Mapping[str, pa.BooleanArray],
    is_linked: bool,  # noqa: FBT001
    rows: pa.Array,
    names: pa.DictionaryArray,
) -> pa.Array:
    # Rows of an unknown file must not count as live, so its name raises an error.
    lives = [by_name[name.rpartition("/")[2] if is_linked else _name(name)] for name in names.dictionary.to_pylist()]
    if len(lives) == 1 and not names.null_count:
        return _is_live(lives[0], rows)
    runs, start, parts = pc.run_end_encode(names.indices), 0, [pa.array([], pa.bool_())]
    for place, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
        parts.append(_is_live(lives[place], rows.slice(start, end - start)))
        start = end
    return pa.concat_arrays(parts)


def _is_live(live: pa.BooleanArray, rows: pa.Array) -> pa.Array:
    numbers = rows.to_numpy()
    count, known = len(numbers), len(live)
    if not count:
        return pa.array([], pa.bool_())
    first, last = int(numbers[0]), int(numbers[-1])
    if last < known and last - first == count - 1 and (numbers[1:] - numbers[:-1] == 1).all():
        return live.slice(first, count)  # most batches have contiguous rows
    if first >= known and (numbers >= known).all():
        return pa.array(np.ones(count, np.bool_))
    is_known = numbers < known
    found = np.ones(count, np.bool_)
    found[is_known] = live.take(pa.array(numbers[is_known])).to_numpy(zero_copy_only=False)
    return pa.array(found)


def with_names(rows: DataFrame, stored: pa.Schema, wanted: pa.Schema, fits: Fits = ()) -> DataFrame:
    """Rename columns by position, including nested fields; they are copied only if types differ."""
    columns = []
    for one, other, fit in itertools.zip_longest(stored, wanted, fits):
        column = col(quoted(one.name))
        if one.type != other.type or fit is not None:
            rename = functools.partial(_fitted, other.type, fit)
            column = udf(rename, [one.type], other.type, "immutable", "with_names")(column)
        is_same = one.name == other.name and one.type == other.type  # an alias with the same name would be ambiguous
        columns.append(column if is_same and fit is None else column.alias(other.name))
    return rows.select(*columns)


class _Renamed:
    """An array relabeled with the field names of another type that has the same structure."""

    def __init__(self, wanted: pa.DataType, values: pa.Array) -> None:
        self._wanted = wanted
        self._values = values

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[Any, Any]:
        return self._wanted.__arrow_c_schema__(), self._values.__arrow_c_array__()[1]


def _fitted(wanted: pa.DataType, fit: Fit, values: pa.Array) -> pa.Array:
    if fit is None:
        return pa.array(_Renamed(wanted, values))
    if pa.types.is_struct(wanted):
        columns = [
            pa.nulls(len(values), field.type) if one is None else _fitted(field.type, one[1], values.field(one[0]))
            for field, one in zip(wanted, fit, strict=True)
        ]
        return pa.StructArray.from_arrays(columns, fields=list(wanted), mask=values.is_null())
    if pa.types.is_map(wanted):  # a list of keys and values
        before, after = (pa.list_(pa.struct([one.key_field, one.item_field])) for one in (values.type, wanted))
        entries = pa.array(_Renamed(before, values))
        return pa.array(_Renamed(wanted, _fitted(after, (tuple(enumerate(fit)),), entries)))
    inside = _fitted(wanted.value_type, fit[0], values.values)
    return pa.Array.from_buffers(wanted, len(values), values.buffers()[:2], values.null_count, values.offset, [inside])


def has_structs(kind: pa.DataType) -> bool:
    """Return whether a type contains structs."""
    return pa.types.is_struct(kind) or any(has_structs(kind.field(place).type) for place in range(kind.num_fields))


def has_structs_in_maps(kind: pa.DataType) -> bool:
    """Return whether a type contains structs within maps, at any depth."""
    if pa.types.is_map(kind):
        return has_structs(kind.key_type) or has_structs(kind.item_type)
    return any(has_structs_in_maps(kind.field(place).type) for place in range(kind.num_fields))


def fit_to_file(wanted: pa.Schema, found: pa.Schema) -> tuple[pa.Schema, Fits]:
    """Return the columns to read from a file, and their `Fits`; missing columns get an unused name."""
    fields, fits, taken = [], [], {*found.names}
    for field, other in zip(wanted, _matches(wanted, found), strict=True):
        name = field.name if other is None else other.name
        while other is None and name in taken:
            name += "_"
        taken.add(name)
        kind, fit = (field.type, None) if other is None else _fit(field.type, other.type)
        fields.append(pa.field(name, kind, field.nullable))
        fits.append(fit)
    return pa.schema(fields), tuple(fits)


def _matches(wanted: Iterable[pa.Field], found: Iterable[pa.Field]) -> list[pa.Field | None]:
    """Return the file's field for each wanted field, by ID. Files without IDs use the physical names."""
    others = list(found)
    by_id = {one.metadata[FIELD_ID]: one for one in others if FIELD_ID in (one.metadata or {})}
    by_name = {one.name: one for one in others}
    ids = [(field, (field.metadata or {}).get(FIELD_ID)) for field in wanted]
    return [by_id.get(one) if by_id and one is not None else by_name.get(field.name) for field, one in ids]


def _fit(wanted: pa.DataType, found: pa.DataType, *, by_position: bool = False) -> tuple[pa.DataType, Fit]:
    """Return the type for reading a file's values, and the `Fit` to convert them.

    DataFusion matches struct fields by name, but by position inside maps. It rejects a struct without any matching
    field.
    """
    if pa.types.is_struct(wanted) and pa.types.is_struct(found):
        matches = _matches(wanted.fields, found.fields)
        known = [one for one in matches if one is not None]
        read = found.fields if by_position or not known else known
        inner = {
            other.name: _fit(field.type, other.type, by_position=by_position)
            for field, other in zip(wanted, matches, strict=True)
            if other is not None
        }
        places = {one.name: place for place, one in enumerate(read)}
        fit = tuple(None if one is None else (places[one.name], inner[one.name][1]) for one in matches)
        is_same = fit == tuple((place, None) for place in range(len(read)))
        kinds = [inner[one.name][0] if one.name in inner else one.type for one in read]
        fields = [pa.field(one.name, kind) for one, kind in zip(read, kinds, strict=True)]
        return pa.struct(fields), None if is_same else fit
    if pa.types.is_list(wanted) and (pa.types.is_list(found) or pa.types.is_large_list(found)):
        kind, inside = _fit(wanted.value_type, found.value_type, by_position=by_position)
        return pa.list_(wanted.value_field.with_type(kind)), None if inside is None else (inside,)
    if pa.types.is_map(wanted) and pa.types.is_map(found):
        key, of_key = _fit(wanted.key_type, found.key_type, by_position=True)
        item, of_item = _fit(wanted.item_type, found.item_type, by_position=True)
        kind = pa.map_(wanted.key_field.with_type(key), wanted.item_field.with_type(item))
        return kind, None if of_key is of_item is None else (of_key, of_item)
    return wanted, None
