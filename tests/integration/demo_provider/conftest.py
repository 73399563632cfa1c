"""The demo provider on a clock that stands still, and a client that speaks to it by hand."""

import pytest

from micromegas_jupyter.demo.provider import DemoProvider
from micromegas_jupyter.demo.provider.scripted_person import sign_in
from tests.fakes.raw_client import RawClient, query_of


@pytest.fixture
def provider(clock):
    with DemoProvider(clock=clock) as running:
        yield running


@pytest.fixture
def client(provider):
    return RawClient(provider.issuer, provider.client_id)


@pytest.fixture
def get_code(client):
    """Signs a person in and returns the code; changes go into the authorization request."""

    def get(**changes):
        return query_of(sign_in(client.authorization_url(**changes), visit_callback=False))["code"]

    return get
