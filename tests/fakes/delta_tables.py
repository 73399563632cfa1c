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


def _map(part, physical, ids):
    """Give the fields of a schema, at any depth, IDs and other names in the files."""
    for one in part.values() if isinstance(part, dict) else part:
        if isinstance(one, dict | list):
            _map(one, physical, ids)
    if isinstance(part, dict) and "nullable" in part:
        name = physical.get(part["name"], part["name"])
        part["metadata"] = {"delta.columnMapping.id": next(ids), "delta.columnMapping.physicalName": name}


def write_mapped(storage, table, files, *, mode, physical, in_files=None):
    """Make a table of Arrow tables, one for each file, with other names of columns in the files.

    `physical` are the names that the log has, at any depth, and `in_files` those that the files have, by IDs.
    """
    schema = files[0].schema
    fields = json.loads(Schema.from_arrow(schema).to_json())["fields"]
    _map([one["type"] for one in fields if isinstance(one["type"], dict)], physical, itertools.count(100))
    for number, field in enumerate(fields, 1):
        names = {"delta.columnMapping.id": number, "delta.columnMapping.physicalName": physical[field["name"]]}
        field["metadata"] = names
    protocol = {"minReaderVersion": 2, "minWriterVersion": 5}
    metadata = {
        "id": str(uuid.uuid4()),
        "format": {"provider": "parquet", "options": {}},
        "schemaString": json.dumps({"type": "struct", "fields": fields}),
        "partitionColumns": [],
        "configuration": {"delta.columnMapping.mode": mode, "delta.columnMapping.maxColumnId": str(len(fields))},
        "createdTime": 1,
    }
    actions = [{"protocol": protocol}, {"metaData": metadata}]
    for number, rows in enumerate(files):
        names = [(in_files or physical)[name] for name in rows.column_names]
        ids = [{"PARQUET:field_id": str(schema.get_field_index(name) + 1)} for name in rows.column_names]
        stored = [
            pa.field(name, field.type, field.nullable, one if mode == "id" else None)
            for name, field, one in zip(names, rows.schema, ids, strict=True)
        ]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_arrays(rows.columns, schema=pa.schema(stored)), sink)
        content = sink.getvalue().to_pybytes()
        storage.write(f"{table}/{number}.parquet", content)
        stats = {"numRecords": rows.num_rows, "minValues": {}, "maxValues": {}, "nullCount": {}}
        for name in rows.column_names:
            if pa.types.is_integer(rows.schema.field(name).type):
                values = rows.column(name).to_pylist()
                stats["minValues"][physical[name]] = min(values)
                stats["maxValues"][physical[name]] = max(values)
                stats["nullCount"][physical[name]] = 0
        facts = {"path": f"{number}.parquet", "partitionValues": {}, "size": len(content), "modificationTime": 1}
        actions.append({"add": {**facts, "dataChange": True, "stats": json.dumps(stats)}})
    lines = "".join(json.dumps(one) + "\n" for one in actions)
    storage.write(log_path(table, entry_name(0)), lines.encode())
