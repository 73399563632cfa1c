from __future__ import annotations

import pickle

import pytest

from micromegas_jupyter.core.system import SecretObject, secret_object


def test_an_object_can_be_read_and_shows_nothing() -> None:
    found = secret_object({"access_token": "s3same"})

    assert found == {"access_token": "s3same"}
    assert "s3same" not in f"{found} {found!r} {[found]}"


def test_an_object_of_its_own_leaves_the_first_one_alone() -> None:
    first: dict[str, object] = {"a": 1}

    found = secret_object(first)
    assert found is not None
    found["a"] = 2

    assert first == {"a": 1}


@pytest.mark.parametrize("value", [None, [], "text", 1])
def test_anything_else_is_none(value: object) -> None:
    assert secret_object(value) is None


def test_an_object_is_not_pickled() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(SecretObject(a=1))
