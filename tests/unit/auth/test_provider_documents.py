from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.provider_connection import ProviderDocuments
from micromegas_jupyter.errors import ProviderMisbehaved, ProviderUnavailable
from tests.fakes.scripted_provider import DirectCalls, Reply, ScriptedProvider

if TYPE_CHECKING:
    from tests.fakes.clock import FakeClock


@pytest.fixture
def documents(idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock) -> ProviderDocuments:
    return ProviderDocuments(idp.issuer, http=calls, clock=clock)


def test_documents_are_fetched_once_an_hour(
    documents: ProviderDocuments, idp: ScriptedProvider, clock: FakeClock
) -> None:
    for _ in range(3):
        documents.keys()
    clock.advance(3600)
    documents.keys()

    assert len(idp.seen("/.well-known/openid-configuration")) == 2
    assert len(idp.seen("/keys")) == 2


def test_documents_are_kept_beyond_their_age_while_the_provider_is_down(
    documents: ProviderDocuments, idp: ScriptedProvider, clock: FakeClock
) -> None:
    keys = documents.keys()
    clock.advance(7200)
    idp.is_down = True

    assert documents.keys() == keys
    assert documents.metadata().issuer == idp.issuer


def test_a_provider_that_was_never_reached_is_unavailable(documents: ProviderDocuments, idp: ScriptedProvider) -> None:
    idp.is_down = True

    with pytest.raises(ProviderUnavailable):
        documents.metadata()


def test_keys_that_were_never_fetched_are_unavailable(documents: ProviderDocuments, idp: ScriptedProvider) -> None:
    documents.metadata()
    idp.is_down = True

    with pytest.raises(ProviderUnavailable):
        documents.keys()


def test_a_missing_discovery_document_is_unavailable_with_a_hint_at_the_issuer(
    documents: ProviderDocuments, idp: ScriptedProvider
) -> None:
    idp.reply_once("/.well-known/openid-configuration", Reply(status=404, body={}))

    with pytest.raises(ProviderUnavailable) as caught:
        documents.metadata()

    assert "issuer" in caught.value.remedy


def test_a_discovery_document_of_another_issuer_stops_before_any_other_request(
    documents: ProviderDocuments, idp: ScriptedProvider
) -> None:
    idp.metadata_changes["issuer"] = "https://evil.example"

    with pytest.raises(ProviderMisbehaved):
        documents.keys()

    assert [request.path for request in idp.requests] == ["/.well-known/openid-configuration"]


def test_newly_rotated_keys_are_fetched_at_most_every_ten_seconds(
    documents: ProviderDocuments, idp: ScriptedProvider, clock: FakeClock
) -> None:
    documents.keys()

    for _ in range(5):
        documents.keys_after_rotation()
        clock.advance(5)

    assert len(idp.seen("/keys")) == 4


def test_a_fetch_of_rotated_keys_that_failed_counts_too(
    documents: ProviderDocuments, idp: ScriptedProvider, clock: FakeClock
) -> None:
    kept = documents.keys()
    idp.is_down = True

    with pytest.raises(ProviderUnavailable):
        documents.keys_after_rotation()
    clock.advance(9)

    assert documents.keys_after_rotation() == kept
    assert len(idp.seen("/keys")) == 2
