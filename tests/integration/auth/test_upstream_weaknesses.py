"""Weak points that were verified in another client of this kind; here each is shown not to exist.

The numbers are those of the list that they come from. What other tests show is not repeated.
"""

import json
import stat

import pytest

from micromegas_jupyter.auth import OidcAuthProvider
from micromegas_jupyter.errors import TokenStoreError
from tests.fakes.scripted_browser import ScriptedBrowser
from tests.fakes.scripted_provider import Reply, ScriptedProvider
from tests.fakes.stored_sign_in import StoredSignIn

pytestmark = pytest.mark.integration

LIFETIME_SECONDS = 3600


@pytest.fixture
def idp(clock):
    with ScriptedProvider(clock=clock, lifetime_seconds=LIFETIME_SECONDS) as running:
        yield running


@pytest.fixture
def kept(idp, tmp_path, clock):
    return StoredSignIn(idp, tmp_path / "t.json", clock=clock)


@pytest.fixture
def sign_in(idp, kept, clock):
    def make(**options):
        arguments = {"token_file": kept.path, "clock": clock, "timeout_seconds": 10, **options}
        return OidcAuthProvider.login(idp.issuer, "notebook", browser=ScriptedBrowser(), **arguments)

    return make


@pytest.fixture
def default_file(_own_home):
    """Where a person's sign-in is kept when nothing else is said."""
    path = _own_home / ".micromegas" / "tokens.json"
    path.parent.mkdir()
    return path


def test_c02_a_refresh_answer_without_a_refresh_token_keeps_the_old_one(kept, idp, clock):
    """Where a provider does not rotate, the first refresh threw the refresh token away and the second one failed."""
    kept.write(ends_in_seconds=-10)
    refresh_token = kept.token()["refresh_token"]
    for _ in range(2):
        answer = idp.issue()
        del answer["refresh_token"]
        idp.reply_once("/token", Reply(body=answer))

        assert kept.open().get_token() == answer["id_token"]

        clock.advance(LIFETIME_SECONDS)
    assert [seen.form["refresh_token"] for seen in idp.refreshes()] == [refresh_token] * 2
    assert kept.token()["refresh_token"] == refresh_token


def test_c10_a_reader_of_the_token_file_never_meets_half_of_it(kept):
    """The file was emptied and written in place, so a crash or a reader in between met half a file."""
    kept.write(ends_in_seconds=-10)
    with kept.path.open("rb", buffering=0) as reader:
        beginning = reader.read(50)

        kept.open().get_token()

        old = json.loads(beginning + reader.read())
    assert old["token"]["refresh_token"] != kept.token()["refresh_token"]
    assert sorted(entry.name for entry in kept.path.parent.iterdir()) == ["t.json", "t.json.lock"]


def test_c10_a_token_file_that_others_could_read_is_closed(kept):
    """A file that others could read already stayed so when tokens were written to it."""
    kept.write(ends_in_seconds=-10)
    kept.path.chmod(0o644)

    kept.open().get_token()

    assert stat.S_IMODE(kept.path.stat().st_mode) == 0o600


def test_c10_a_symbolic_link_is_not_followed(kept, sign_in, tmp_path, idp):
    """A link in the file's place was followed, so tokens went to wherever it led."""
    target = tmp_path / "elsewhere"
    target.write_text("precious")
    kept.path.symlink_to(target)

    for use in (sign_in, kept.open().get_token):
        with pytest.raises(TokenStoreError):
            use()

    assert target.read_text() == "precious"
    assert idp.seen("/authorize") == []


def test_c11_a_folder_that_was_there_keeps_its_mode(sign_in, tmp_path):
    """The folder of the file was closed to others, whatever else was in it."""
    tmp_path.chmod(0o755)

    sign_in()

    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_c13_a_refresh_asks_for_the_scope_of_the_sign_in(kept, sign_in, idp, clock):
    """The scope was not kept, so a program that was started later asked for another one and lost the API's."""
    sign_in(scope="openid offline_access api://lake/.default")
    clock.advance(LIFETIME_SECONDS)

    later = OidcAuthProvider.from_file(kept.path, clock=clock)
    later.get_token()

    assert [seen.form["scope"] for seen in idp.refreshes()] == ["openid offline_access api://lake/.default"]
    assert later.scope == "openid offline_access api://lake/.default"


def test_c14_a_sign_in_that_is_not_to_be_kept_is_never_written(kept, sign_in, idp, clock, default_file):
    """A sign-in without a file was not kept at first, but its first refresh was, over the person's own sign-in."""
    kept.path = default_file
    kept.write(ends_in_seconds=3600)
    before = kept.path.read_text()
    passing = sign_in(token_file=None)
    clock.advance(LIFETIME_SECONDS)

    passing.get_token()

    assert len(idp.refreshes()) == 1
    assert kept.path.read_text() == before
    assert [entry.name for entry in kept.path.parent.iterdir()] == ["tokens.json"]


def test_c03_sign_ins_at_the_same_time_listen_on_ports_of_their_own(idp, clock):
    """The port was the same for everybody, so whoever came first on a machine kept all others from signing in."""
    first, second = (OidcAuthProvider.begin_login(idp.issuer, "notebook", clock=clock) for _ in range(2))

    for pending in (first, second):
        ScriptedBrowser().open(str(pending.start_url))

    assert [pending.result(60).identity().subject for pending in (first, second)] == ["alice-1"] * 2
    assert all(pending.wait_closed(60) for pending in (first, second))
