"""Views from somebody else keep their values and lose what stands in the slots of null values."""

import pyarrow as pa
import pytest

from micromegas_jupyter.flightsql.decoding import clean_views, is_view, view_lengths

_TEXTS = ["a", None, "long enough for a buffer"]


@pytest.mark.parametrize("kind", [pa.string_view(), pa.binary_view()])
def test_values_stay(kind: pa.DataType) -> None:
    array = pa.array(_TEXTS, pa.string_view()).cast(kind)

    cleaned = clean_views(array)

    cleaned.validate(full=True)
    assert is_view(kind)
    assert cleaned.equals(array)
    assert clean_views(array.slice(1)).equals(array.slice(1))
    assert view_lengths(array).tolist() == [1, 0, 24]


def test_a_null_value_that_points_far_away_is_emptied() -> None:
    validity, views, text = pa.array(_TEXTS, pa.string_view()).buffers()
    trap = views.to_pybytes()[:16] + (2**31 - 1).to_bytes(4, "little") + b"\xff" * 12 + views.to_pybytes()[32:]
    array = pa.Array.from_buffers(pa.string_view(), 3, [validity, pa.py_buffer(trap), text])

    cleaned = clean_views(array)

    assert view_lengths(array).tolist() == [1, 2**31 - 1, 24]
    assert view_lengths(cleaned).tolist() == [1, 0, 24]
    assert cleaned.cast(pa.string()).to_pylist() == _TEXTS


def test_an_array_without_values_has_no_lengths() -> None:
    assert view_lengths(pa.array([], pa.string_view())).tolist() == []
    assert not is_view(pa.string())
