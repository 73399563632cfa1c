from __future__ import annotations

import pytest

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.oidc.authorization import resource_fields


@pytest.mark.parametrize(
    "resource", ["https://lake.example.com", "https://lake.example.com/a?b=c", "api://lake", "urn:lake:1"]
)
def test_an_absolute_uri_is_asked_for_as_it_is(resource: str) -> None:
    assert resource_fields(resource) == {"resource": resource}


@pytest.mark.parametrize("resource", [None, ""])
def test_without_a_resource_none_is_asked_for(resource: str | None) -> None:
    assert resource_fields(resource) == {}


@pytest.mark.parametrize(
    "resource",
    ["lake", "/lake", "//lake.example.com", "https://lake#part", "https://la ke", "https://lake\n", "x:" + "a" * 2047],
)
def test_what_is_no_absolute_uri_or_has_a_fragment_is_refused(resource: str) -> None:
    with pytest.raises(UsageError):
        resource_fields(resource)
