"""A call is made with a checked credential or not at all."""

from __future__ import annotations

import pytest

from micromegas_jupyter.client.calls import Credential, CredentialSource, parse_address
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.errors import LoginRequired, MicromegasError, ProviderUnavailable, TokenStoreError, UsageError


class _Provider:
    """Gives one answer after another; an exception is raised."""

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)

    def get_token(self) -> str:
        answer = self._answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


class _RenewingProvider(_Provider):
    """Notes which tokens were said to be refused."""

    def __init__(self, *answers: object) -> None:
        super().__init__(*answers)
        self.invalidated: list[str] = []

    def invalidate(self, token: str) -> None:
        self.invalidated.append(token)


def test_a_token_travels_as_bearer() -> None:
    credential = CredentialSource(_Provider("abc")).fetch()

    assert credential.headers == ((b"authorization", b"Bearer abc"),)
    assert credential.has_authorization


def test_every_call_asks_again() -> None:
    source = CredentialSource(_Provider("one", "two"))

    assert [source.fetch().token, source.fetch().token] == [Secret("one"), Secret("two")]


def test_without_provider_and_headers_there_is_no_credential() -> None:
    source = CredentialSource(None)

    assert source.fetch() == Credential()


@pytest.mark.parametrize("key", [b"authorization", b"x-api-key", b"cookie"])
def test_static_headers_are_a_credential_when_they_hold_one(key: bytes) -> None:
    address = parse_address("grpc://lake.example.com:50051")

    CredentialSource(None, ((b"x-other", b"v"),)).check_plaintext(address)
    with pytest.raises(UsageError):
        CredentialSource(None, ((key, b"k"),)).check_plaintext(address)


def test_a_credential_does_not_show_in_a_repr() -> None:
    credential = CredentialSource(_Provider("hunter2")).fetch()

    assert "hunter2" not in repr(credential)


@pytest.mark.parametrize("token", ["", " ", "a b", "a\n", "é", "a\x00", "x" * 16_384, None, b"abc", 7])
def test_what_is_no_token_is_refused_and_not_repeated(token: object) -> None:
    with pytest.raises(UsageError) as caught:
        CredentialSource(_Provider(token)).fetch()

    assert "xxx" not in str(caught.value)


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (RuntimeError("hunter2"), LoginRequired),
        (ValueError("hunter2"), LoginRequired),
        (ConnectionError("hunter2"), ProviderUnavailable),
        (TimeoutError("hunter2"), ProviderUnavailable),
        (TokenStoreError("Damaged."), TokenStoreError),
    ],
)
def test_a_provider_that_fails_stops_the_call(raised: Exception, kind: type[MicromegasError]) -> None:
    with pytest.raises(MicromegasError) as caught:
        CredentialSource(_Provider(raised)).fetch()

    assert type(caught.value) is kind
    assert "hunter2" not in str(caught.value)


def test_an_interrupt_in_a_provider_stays_an_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt):
        CredentialSource(_Provider(KeyboardInterrupt())).fetch()


def test_a_refused_token_is_given_back_and_a_new_one_fetched() -> None:
    provider = _RenewingProvider("old", "new")
    source = CredentialSource(provider)

    renewed = source.renew(source.fetch())

    assert provider.invalidated == ["old"]
    assert renewed is not None
    assert renewed.token == Secret("new")


def test_the_same_token_again_is_no_renewal() -> None:
    source = CredentialSource(_RenewingProvider("old", "old"))

    assert source.renew(source.fetch()) is None


def test_a_provider_that_cannot_renew_is_not_asked_twice() -> None:
    source = CredentialSource(_Provider("old"))

    assert source.renew(source.fetch()) is None


def test_a_sign_in_that_has_ended_shows_at_the_renewal() -> None:
    source = CredentialSource(_RenewingProvider("old", LoginRequired("Signed out.")))

    with pytest.raises(LoginRequired, match="Signed out"):
        source.renew(source.fetch())


@pytest.mark.parametrize("uri", ["grpc://lake.example.com:50051", "http://10.0.0.1:50051"])
def test_a_credential_goes_over_plain_text_only_where_that_is_allowed(uri: str) -> None:
    address = parse_address(uri)
    source = CredentialSource(_Provider("abc"))

    CredentialSource(None).check_plaintext(address)
    with pytest.raises(UsageError):
        source.check_plaintext(address)


@pytest.mark.parametrize("uri", ["grpc://localhost:50051", "grpc+tls://lake.example.com:50051"])
def test_this_machine_and_tls_need_no_permission(uri: str) -> None:
    CredentialSource(_Provider("abc")).check_plaintext(parse_address(uri))


def test_any_object_with_get_token_is_a_provider() -> None:
    CredentialSource(_Provider())
    with pytest.raises(UsageError):
        CredentialSource("Bearer abc")  # type: ignore[arg-type]
