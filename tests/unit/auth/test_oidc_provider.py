from __future__ import annotations

import copy
import json
import os
import pickle
import time
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth import AuthProvider, Identity, OidcAuthProvider
from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.errors import ConfigurationError, LoginRequired, TokenStoreError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.clock import FakeClock
    from tests.fakes.scripted_provider import DirectCalls, ScriptedProvider


def write_file(path: Path, idp: ScriptedProvider, *, ends_in_seconds: float = 3600, **changes: object) -> None:
    token = idp.stored_token(ends_in_seconds=ends_in_seconds)
    path.write_text(json.dumps({"issuer": idp.issuer, "client_id": "notebook", "token": token, **changes}))


def test_upstreams_arguments_stand_in_upstreams_order(idp: ScriptedProvider, clock: FakeClock, tmp_path: Path) -> None:
    token = idp.stored_token(ends_in_seconds=3600)

    provider = OidcAuthProvider(
        idp.issuer, "notebook", "s3same", str(tmp_path / "t.json"), token, "api", "openid api", clock=clock
    )

    assert provider.get_token() == token["id_token"]
    assert (provider.issuer, provider.client_id, provider.audience) == (idp.issuer, "notebook", "api")
    assert (provider.scope, provider.token_file) == ("openid api", tmp_path / "t.json")
    assert isinstance(provider, AuthProvider)
    assert not (tmp_path / "t.json").exists()


def test_the_identity_is_what_the_id_token_says(
    idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock, tmp_path: Path
) -> None:
    write_file(tmp_path / "t.json", idp)

    identity = OidcAuthProvider.from_file(tmp_path / "t.json", http=calls, clock=clock).identity()

    assert identity == Identity(
        subject="alice-1",
        name="Alice Example",
        email="alice@example.com",
        issuer=idp.issuer,
        expires_at=clock.now().replace(hour=13),
        renews=True,
    )
    assert idp.requests == []


def test_audience_and_scope_survive_a_restart(
    idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock, tmp_path: Path
) -> None:
    token = idp.stored_token(ends_in_seconds=3600)
    OidcAuthProvider(
        idp.issuer, "notebook", None, tmp_path / "t.json", token, "api", "openid api", http=calls, clock=clock
    ).save()

    again = OidcAuthProvider.from_file(tmp_path / "t.json", http=calls, clock=clock)

    assert (again.audience, again.scope) == ("api", "openid api")


def test_a_provider_with_a_file_and_no_token_takes_what_the_file_holds(
    idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock, tmp_path: Path
) -> None:
    provider = OidcAuthProvider(idp.issuer, "notebook", token_file=tmp_path / "t.json", http=calls, clock=clock)
    with pytest.raises(LoginRequired):
        provider.get_token()

    write_file(tmp_path / "t.json", idp)

    assert provider.get_token() == json.loads((tmp_path / "t.json").read_text())["token"]["id_token"]


def test_a_provider_in_memory_renews_in_memory(
    idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock, home: Path
) -> None:
    token = idp.stored_token(ends_in_seconds=-1)
    provider = OidcAuthProvider(idp.issuer, "notebook", token=token, http=calls, clock=clock)

    first = provider.get_token()
    clock.advance(3600)
    second = provider.get_token()

    assert len({token["id_token"], first, second}) == 3
    assert list(home.iterdir()) == []


def test_tokens_that_were_handed_in_are_stored_when_they_are_renewed(
    idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock, tmp_path: Path
) -> None:
    token = idp.stored_token(ends_in_seconds=-1)
    provider = OidcAuthProvider(
        idp.issuer, "notebook", token_file=tmp_path / "t.json", token=token, http=calls, clock=clock
    )

    renewed = provider.get_token()

    assert json.loads((tmp_path / "t.json").read_text())["token"]["id_token"] == renewed


def test_saving_without_a_file_uses_upstreams_default(idp: ScriptedProvider, clock: FakeClock, home: Path) -> None:
    provider = OidcAuthProvider(idp.issuer, "notebook", token=idp.stored_token(ends_in_seconds=3600), clock=clock)

    provider.save()

    assert (home / ".micromegas" / "tokens.json").stat().st_mode & 0o777 == 0o600
    assert provider.token_file == home / ".micromegas" / "tokens.json"


def test_nothing_to_save_means_login(idp: ScriptedProvider, clock: FakeClock, tmp_path: Path) -> None:
    provider = OidcAuthProvider(idp.issuer, "notebook", token_file=tmp_path / "t.json", clock=clock)

    with pytest.raises(LoginRequired):
        provider.save()
    assert not (tmp_path / "t.json").exists()


def test_no_secret_is_shown_pickled_or_stored(
    idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock, tmp_path: Path
) -> None:
    token = idp.stored_token(ends_in_seconds=3600)
    provider = OidcAuthProvider(
        idp.issuer, "notebook", Secret("s3same"), tmp_path / "t.json", token, http=calls, clock=clock
    )
    provider.save()

    assert repr(provider) == f"OidcAuthProvider(issuer={idp.issuer!r}, client_id='notebook', token=***)"
    assert "s3same" not in (tmp_path / "t.json").read_text()
    for use in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError):
            use(provider)
    assert not [value for value in vars(provider).values() if isinstance(value, str) and "s3same" in value]


def make_folder(path: Path) -> None:
    path.mkdir()


def make_huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10**10)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: None, LoginRequired),
        (lambda path: path.write_text("{"), LoginRequired),
        (lambda path: path.write_bytes(b"\x00\xff" * 100), LoginRequired),
        (make_huge, LoginRequired),
        (os.mkfifo, TokenStoreError),
        (make_folder, TokenStoreError),
        (lambda path: path.symlink_to("/etc/hostname"), TokenStoreError),
    ],
    ids=["missing", "damaged", "binary", "huge", "pipe", "folder", "link"],
)
def test_a_file_that_holds_no_sign_in_is_known_at_once(make: object, expected: type[Exception], tmp_path: Path) -> None:
    make(tmp_path / "t.json")  # type: ignore[operator]

    started = time.monotonic()
    with pytest.raises(expected) as caught:
        OidcAuthProvider.from_file(tmp_path / "t.json")

    assert type(caught.value) is expected
    assert time.monotonic() - started < 1


def test_a_stored_issuer_over_plain_http_is_refused(idp: ScriptedProvider, tmp_path: Path) -> None:
    write_file(tmp_path / "t.json", idp, issuer="http://id.example.com")

    with pytest.raises(ConfigurationError):
        OidcAuthProvider.from_file(tmp_path / "t.json")


@pytest.mark.parametrize("token", [{}, {"access_token": 1}, {"access_token": "a", "id_token": "opaque"}])
def test_tokens_that_cannot_be_read_mean_login(token: dict[str, object], idp: ScriptedProvider) -> None:
    with pytest.raises(LoginRequired):
        OidcAuthProvider(idp.issuer, "notebook", token=token)


def test_an_unknown_bearer_is_an_error_of_the_caller(idp: ScriptedProvider, clock: FakeClock) -> None:
    provider = OidcAuthProvider(idp.issuer, "notebook", token=idp.stored_token(ends_in_seconds=3600), clock=clock)

    with pytest.raises(ValueError, match="refresh_token"):
        provider.get_token(bearer="refresh_token")  # type: ignore[arg-type]
