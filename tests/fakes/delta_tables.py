"""Delta tables as other programs write them: with deletion vectors, and with other names of columns in their files.

Formats: https://github.com/delta-io/delta/blob/master/PROTOCOL.md and
https://github.com/RoaringBitmap/RoaringFormatSpec.
"""

import itertools
import json
import struct
import uuid
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema

from micromegas_jupyter.lake.delta_log import entry_name, log_path, read_state

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


def z85(content):
    """Return bytes, whose number is a multiple of four, as text."""
    numbers = (int.from_bytes(content[at : at + 4], "big") for at in range(0, len(content), 4))
    return "".join(_DIGITS[number // 85**place % 85] for number in numbers for place in (4, 3, 2, 1, 0))


def encode_rows(rows, *, has_runs=False):
    """Return the content of a vector that deletes these rows."""
    rows = np.unique(np.asarray(list(rows), np.uint64))
    maps = {}
    for row in rows.tolist():
        maps.setdefault(row >> 32, {}).setdefault(row >> 16 & 0xFFFF, []).append(row & 0xFFFF)
    parts = [struct.pack("<iq", 1681511377, len(maps))]
    for high, containers in maps.items():
        parts.append(struct.pack("<I", high) + _encode_map(containers, has_runs=has_runs))
    return b"".join(parts)


def _encode_map(containers, *, has_runs):
    heads = b"".join(struct.pack("<HH", key, len(rows) - 1) for key, rows in containers.items())
    bodies = [(_runs if has_runs else _plain)(rows) for rows in containers.values()]
    if has_runs:
        start = struct.pack("<HH", 12347, len(containers) - 1) + b"\xff" * ((len(containers) + 7) // 8)
    else:
        start = struct.pack("<II", 12346, len(containers))
    offsets = b""
    if not has_runs or len(containers) >= 4:
        first = len(start) + len(heads) + 4 * len(containers)
        ends = itertools.accumulate(map(len, bodies), initial=first)
        offsets = b"".join(struct.pack("<I", at) for at, _ in zip(ends, bodies, strict=False))
    return start + heads + offsets + b"".join(bodies)


def _plain(rows):
    if len(rows) <= 4096:
        return np.asarray(rows, "<u2").tobytes()
    bits = np.zeros(1 << 16, np.uint8)
    bits[rows] = 1
    return np.packbits(bits, bitorder="little").tobytes()


def _runs(rows):
    rows = np.asarray(rows)
    parts = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    return struct.pack("<H", len(parts)) + b"".join(struct.pack("<HH", one[0], one[-1] - one[0]) for one in parts)


def delete_rows(storage, table, choose, *, is_inline=False, prefix=""):
    """Delete `choose(path, rows)` of each file in one commit, by vectors in the log or in one file; return the path."""
    delta = DeltaTable(storage.child_uri(table), storage_options=storage.options)
    state, name, blob = read_state(storage, table, delta.version()), uuid.uuid4(), bytearray(b"\x01")
    features = {"deletionVectors", *(state.protocol.get("readerFeatures") or ())}
    if delta.metadata().configuration.get("delta.columnMapping.mode"):
        features.add("columnMapping")
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7}
    protocol |= dict.fromkeys(("readerFeatures", "writerFeatures"), sorted(features))
    actions = [{"commitInfo": {"timestamp": 1, "operation": "DELETE"}}, {"protocol": protocol}]
    for add in state.files.values():
        stats = json.loads(add["stats"])
        rows = list(choose(add["path"], stats["numRecords"]))
        if not rows:
            continue
        content = encode_rows(rows, has_runs=len(rows) % 2 == 0)
        content += b"\0" * (-len(content) % 4) if is_inline else b""
        vector = {"sizeInBytes": len(content), "cardinality": len(set(rows))}
        if is_inline:
            vector |= {"storageType": "i", "pathOrInlineDv": z85(content)}
        else:
            vector |= {"storageType": "u", "pathOrInlineDv": prefix + z85(name.bytes), "offset": len(blob)}
            blob += struct.pack(">i", len(content)) + content + struct.pack(">I", zlib.crc32(content))
        old = {key: add[key] for key in ("path", "deletionVector") if add.get(key)}
        actions.append({"remove": {**old, "deletionTimestamp": 1, "dataChange": True}})
        stats["tightBounds"] = False
        actions.append({"add": {**add, "stats": json.dumps(stats), "dataChange": True, "deletionVector": vector}})
    path = "/".join(filter(None, [table, prefix, f"deletion_vector_{name}.bin"]))
    if not is_inline:
        storage.write(path, bytes(blob))
    lines = "".join(json.dumps(one) + "\n" for one in actions)
    storage.write(log_path(table, entry_name(delta.version() + 1)), lines.encode())
    return path


class _Mapping:
    """The names of fields in the log and in files, at any depth, and IDs, which a field keeps under all its names."""

    def __init__(self, mode):
        self._mode = mode
        self._ids = {}

    def id_of(self, place):
        return self._ids.setdefault(place, len(self._ids) + 1)

    def for_log(self, fields, physical, inside=()):
        """Give the fields of a struct in the log their IDs and physical names."""
        for field in fields:
            place = (*inside, physical.get(field["name"], field["name"]))
            names = {"delta.columnMapping.id": self.id_of(place), "delta.columnMapping.physicalName": place[-1]}
            field["metadata"] = {} if self._mode == "none" else names
            self._for_log(field["type"], physical, place)

    def _for_log(self, kind, physical, place):
        if isinstance(kind, dict):
            self.for_log(kind.get("fields", ()), physical, place)
            for part in ("elementType", "keyType", "valueType"):
                self._for_log(kind.get(part), physical, place)

    def in_file(self, field, physical, in_files, inside=()):
        """Return a field as a file has it."""
        place = (*inside, physical.get(field.name, field.name))
        kind = self._in_file(field.type, physical, in_files, place)
        facts = {"PARQUET:field_id": str(self.id_of(place))} if self._mode == "id" else None
        return pa.field(in_files.get(field.name, place[-1]), kind, field.nullable, facts)

    def _in_file(self, kind, physical, in_files, place):
        if pa.types.is_struct(kind):
            return pa.struct([self.in_file(one, physical, in_files, place) for one in kind])
        if pa.types.is_list(kind):
            return pa.list_(self._in_file(kind.value_type, physical, in_files, place))
        if pa.types.is_map(kind):
            parts = (kind.key_type, kind.item_type)
            return pa.map_(*(self._in_file(part, physical, in_files, place) for part in parts))
        return kind


def _renamed(column, kind):
    """Return values with other names of the fields inside."""
    values = column.combine_chunks()
    values = values.chunk(0) if isinstance(values, pa.ChunkedArray) else values
    return pa.Array._import_from_c_capsule(kind.__arrow_c_schema__(), values.__arrow_c_array__()[1])


def write_mapped(storage, table, files, *, mode, physical, in_files=None, schema=None, by=()):
    """Make a table of Arrow tables, one for each file, with other names of columns in the files.

    `physical` are the names that the log has, at any depth, and `in_files` those that the files have, by IDs. A file of
    an earlier `schema` is a pair of its rows and the physical names of its fields. Fields are the same by these. With
    the mode `none`, columns have only one name.
    """
    mapping = _Mapping(mode)
    files = [one if isinstance(one, tuple) else (one, physical) for one in files]
    schema = schema or files[0][0].schema
    fields = json.loads(Schema.from_arrow(schema).to_json())["fields"]
    mapping.for_log(fields, physical)
    is_mapped = mode != "none"
    reader, writer = (2, 5) if is_mapped else (1, 2)
    protocol = {"minReaderVersion": reader, "minWriterVersion": writer}
    properties = {"delta.columnMapping.mode": mode, "delta.columnMapping.maxColumnId": "999"}
    metadata = {
        "id": str(uuid.uuid4()),
        "format": {"provider": "parquet", "options": {}},
        "schemaString": json.dumps({"type": "struct", "fields": fields}),
        "partitionColumns": list(by),
        "configuration": properties if is_mapped else {},
        "createdTime": 1,
    }
    actions = [{"protocol": protocol}, {"metaData": metadata}]
    for number, (all_columns, names) in enumerate(files):
        partition = {names.get(name, name): all_columns[name][0].as_py() for name in by}
        values = {name: None if value is None else str(value) for name, value in partition.items()}
        rows = all_columns.drop_columns(list(by))
        stored = pa.schema([mapping.in_file(field, names, in_files or {}) for field in rows.schema])
        columns = [_renamed(column, field.type) for column, field in zip(rows.columns, stored, strict=True)]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_arrays(columns, schema=stored), sink)
        content = sink.getvalue().to_pybytes()
        storage.write(f"{table}/{number}.parquet", content)
        stats = {"numRecords": rows.num_rows, "minValues": {}, "maxValues": {}, "nullCount": {}}
        for name in rows.column_names:
            if pa.types.is_integer(rows.schema.field(name).type):
                found = rows.column(name).to_pylist()
                stats["minValues"][names.get(name, name)] = min(found)
                stats["maxValues"][names.get(name, name)] = max(found)
                stats["nullCount"][names.get(name, name)] = 0
        facts = {"path": f"{number}.parquet", "partitionValues": values, "size": len(content), "modificationTime": 1}
        actions.append({"add": {**facts, "dataChange": True, "stats": json.dumps(stats)}})
    lines = "".join(json.dumps(one) + "\n" for one in actions)
    storage.write(log_path(table, entry_name(0)), lines.encode())
