"""No dictionary is left in a flat schema."""

from __future__ import annotations

import pyarrow as pa

from micromegas_jupyter.engine.schemas import flat_schema

WORD = pa.dictionary(pa.int32(), pa.string())


def test_a_dictionary_becomes_its_values_wherever_it_is() -> None:
    schema = pa.schema(
        [
            pa.field("a", WORD, nullable=False, metadata={"k": "v"}),
            pa.field("b", pa.list_(pa.field("item", WORD))),
            pa.field("c", pa.large_list(WORD)),
            pa.field("d", pa.list_(WORD, 2)),
            pa.field("e", pa.struct([pa.field("x", WORD)])),
            pa.field("f", pa.map_(pa.string(), WORD)),
            pa.field("g", pa.timestamp("us")),
        ]
    )

    flat = flat_schema(schema)

    assert "dictionary" not in str(flat)
    assert flat.field("a") == pa.field("a", pa.string(), nullable=False, metadata={"k": "v"})
    assert flat.field("d").type == pa.list_(pa.string(), 2)
    assert flat.field("f").type == pa.map_(pa.string(), pa.string())
    assert flat.field("g") == schema.field("g")
