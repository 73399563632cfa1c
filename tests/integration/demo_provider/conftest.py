"""The demo provider on a clock that stands still, and a client that speaks to it by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.demo.provider import DemoProvider
from micromegas_jupyter.demo.provider.scripted_person import sign_in
from tests.fakes.raw_client import RawClient, query_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.fakes.clock import FakeClock


@pytest.fixture
def provider(clock: FakeClock) -> Iterator[DemoProvider]:
    with DemoProvider(clock=clock) as running:
        yield running


@pytest.fixture
def client(provider: DemoProvider) -> RawClient:
    return RawClient(provider.issuer, provider.client_id)


@pytest.fixture
def get_code(client: RawClient) -> Callable[..., str]:
    """Signs a person in and returns the code; changes go into the authorization request."""

    def get(**changes: str | None) -> str:
        return query_of(sign_in(client.authorization_url(**changes), visit_callback=False))["code"]

    return get
