from micromegas_jupyter.telemetry.tables import (
    build_constant_dictionary,
    build_constant_properties,
    build_dictionary,
    build_properties,
)


def test_dictionaries_are_indexed_by_32_bits() -> None:
    assert str(build_dictionary(["a", "b", "a"]).type) == "dictionary<values=string, indices=int32, ordered=0>"
    assert build_dictionary(["a", "b", "a"]).to_pylist() == ["a", "b", "a"]


def test_a_constant_dictionary_holds_its_value_once() -> None:
    array = build_constant_dictionary("process", 3)

    assert array.to_pylist() == ["process", "process", "process"]
    assert array.dictionary.to_pylist() == ["process"]


def test_properties_keep_names_and_values() -> None:
    assert build_properties([{"a": "1", "b": "2"}, {}]).to_pylist() == [[("a", "1"), ("b", "2")], []]
    assert build_constant_properties({"a": "1"}, 2).to_pylist() == [[("a", "1")], [("a", "1")]]


def test_no_rows_make_empty_arrays() -> None:
    assert len(build_constant_dictionary("process", 0)) == 0
    assert len(build_constant_properties({"a": "1"}, 0)) == 0
