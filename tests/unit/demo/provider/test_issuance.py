"""Which audiences tokens are made for."""

import pytest
from authlib.oauth2 import OAuth2Error

from micromegas_jupyter.demo.provider.issuance import TokenPolicy

POLICY = TokenPolicy(
    issuer="http://127.0.0.1:1",
    lake_audience="lake",
    extra_audiences=("more",),
    lifetime_seconds=600,
    algorithm="RS256",
)


@pytest.mark.parametrize(
    ("requested", "audience"), [([], "lake"), (["lake"], "lake"), (["more"], "more"), (["more", "more"], "more")]
)
def test_a_known_audience_or_the_lake_is_given(requested: list[str], audience: str) -> None:
    assert POLICY.resolve_audience(requested) == audience


@pytest.mark.parametrize("requested", [["other"], ["lake", "more"], [""], ["LAKE"]])
def test_an_unknown_audience_or_two_are_refused(requested: list[str]) -> None:
    with pytest.raises(OAuth2Error) as refusal:
        POLICY.resolve_audience(requested)

    assert refusal.value.error == "invalid_target"
