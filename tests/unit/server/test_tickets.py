"""Tickets and prepared statements are for the caller who got them, for a while, and for nothing else."""

import pytest

from micromegas_jupyter.errors import ConfigurationError, ResourcesExhausted, UsageError
from micromegas_jupyter.flightsql.commands import parse_ticket
from micromegas_jupyter.server.settings import FlightServerSettings
from micromegas_jupyter.server.tickets import PreparedStatements, Signer, TicketKeyFile, Tickets

ISSUER = "https://id.example"
ALICE, BOB = (ISSUER, "alice"), (ISSUER, "bob")
OTHERS = [BOB, ("https://other.example", "alice"), (ISSUER + "a", "lice"), ("", ISSUER + "alice")]
KEY = bytes(range(32))
ONE = (b"schema", b"one")


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "keys"
    path.touch(mode=0o600)
    return path


def _signer(*keys):
    return Signer(lambda: keys)


def _tickets(clock, key=KEY):
    return Tickets(_signer(key), life_seconds=600, clock=clock)


def _signed(endpoint):
    return parse_ticket(endpoint.ticket.ticket).signed


def _statements(clock, *, key=KEY, **limits):
    settings = FlightServerSettings(**{"max_prepared": 10, "max_prepared_per_caller": 5, **limits})
    return PreparedStatements(_signer(key), settings=settings, clock=clock)


class TestSigner:
    """A signature fits one purpose, one caller, one content and one key."""

    @pytest.mark.parametrize(
        ("purpose", "caller", "data"),
        [
            (b"prepared", ALICE, b"data"),
            *((b"ticket", other, b"data") for other in OTHERS),
            (b"ticket", ALICE, b"date"),
        ],
    )
    def test_a_signature_fits_nothing_else(self, purpose, caller, data):
        signer = _signer(KEY)
        signature = signer.sign(b"ticket", ALICE, b"data")

        assert signer.is_valid(signature, b"ticket", ALICE, b"data")
        assert not signer.is_valid(signature, purpose, caller, data)
        assert not _signer(bytes(32)).is_valid(signature, b"ticket", ALICE, b"data")


class TestTicketKeyFile:
    """Keys are taken from a private file while the server runs."""

    def test_keys_are_rotated_without_a_ticket_lost(self, key_file, clock):
        old, new = "old" * 20, "new" * 20
        key_file.write_text(old)
        files = [TicketKeyFile(key_file) for _ in range(2)]
        replicas = [Tickets(Signer(lambda file=file: file.keys), life_seconds=600, clock=clock) for file in files]
        first = latest = _signed(replicas[0].issue("SELECT 1", ALICE))
        for lines in (f"{old}\n{new}", f"{new}\n{old}\n", f"\n{new}"):
            key_file.write_text(lines)
            for file in files:  # one after the other
                file.look_for_changes()
                issued = [_signed(replica.issue("SELECT 1", ALICE)) for replica in replicas]
                for replica in replicas:
                    assert [replica.read(each, ALICE).sql for each in (latest, *issued)] == ["SELECT 1"] * 3
                latest = issued[0]

        with pytest.raises(UsageError, match="a different key"):
            replicas[0].read(first, ALICE)

    @pytest.mark.parametrize(
        ("text", "mode"),
        [("", 0o600), ("k" * 31, 0o600), (f"{'k' * 40}\nshort", 0o600), ("k" * 1025, 0o600), ("k" * 40, 0o640),
         ("\n".join(["k" * 40] * 3), 0o600)],
    )  # fmt: skip
    def test_what_is_no_private_file_of_one_or_two_keys_is_refused_and_changes_nothing(
        self, key_file, text, mode, caplog
    ):
        key_file.write_text("k" * 50)
        found = TicketKeyFile(key_file)
        key_file.write_text(text)
        key_file.chmod(mode)

        with pytest.raises(ConfigurationError) as caught:
            TicketKeyFile(key_file)
        found.look_for_changes()
        found.look_for_changes()

        assert caught.value.key == "--ticket-key-file"
        assert "kkk" not in str(caught.value)
        assert found.keys == (b"k" * 50,)
        assert len(caplog.records) == 1


class TestTickets:
    def test_a_ticket_is_read_by_another_process_with_the_same_key_only(self, clock):
        signed = _signed(_tickets(clock).issue("SELECT 'é'", ALICE))

        content = _tickets(clock).read(signed, ALICE)

        assert content.sql == "SELECT 'é'"
        with pytest.raises(UsageError, match="restart"):
            _tickets(clock, bytes(32)).read(signed, ALICE)

    def test_a_ticket_expires_and_can_be_renewed_before(self, clock):
        tickets = _tickets(clock)
        first = tickets.issue("SELECT 1", ALICE)
        assert first.expiration_time.seconds == clock.now().timestamp() + 600
        clock.advance(599)
        renewed = tickets.renew(_signed(first), ALICE)
        clock.advance(2)

        expired = tickets.read(_signed(first), ALICE, accepts_expired=True)
        assert tickets.read(_signed(renewed), ALICE).id == expired.id
        assert renewed.expiration_time.seconds - first.expiration_time.seconds == 599
        for use in (tickets.read, tickets.renew):
            with pytest.raises(UsageError, match="has expired"):
                use(_signed(first), ALICE)


class TestPreparedStatements:
    def test_a_server_with_the_same_key_accepts_a_handle_and_its_values_for_a_while(self, clock):
        here, there = _statements(clock), _statements(clock)
        handle = here.add("SELECT ?", ALICE)
        bound = here.bind(handle, ONE, ALICE)

        assert there.get(handle, ALICE) == ("SELECT ?", ())
        assert there.get(bound, ALICE)[1] == ONE
        large = here.bind(here.add("SELECT ?", ALICE), (bytes(100_000),), ALICE)  # its values do not travel
        assert here.get(large, ALICE)[1] == (bytes(100_000),)
        with pytest.raises(UsageError, match="restarted"):
            there.get(large, ALICE)
        with pytest.raises(UsageError):
            _statements(clock, key=bytes(32)).get(handle, ALICE)
        clock.advance(599)
        here.get(handle, ALICE)
        clock.advance(2)
        assert here.get(handle, ALICE)[0] == "SELECT ?"
        with pytest.raises(UsageError):
            _statements(clock).get(handle, ALICE)

    def test_no_other_spelling_and_no_other_sql_is_accepted(self, clock):
        statements = _statements(clock)
        handle = statements.add("SELECT 12", ALICE)
        alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/="

        spellings = {handle[:-1] + bytes([last]) for last in alphabet} | {handle.replace(b"1", b"2", 1)}
        for spelt in spellings - {handle}:
            with pytest.raises(UsageError):
                statements.get(spelt, ALICE)

    def test_an_unused_statement_expires_and_a_used_one_does_not(self, clock):
        statements = _statements(clock)
        unused, used = statements.add("SELECT 1", ALICE), statements.add("SELECT 2", ALICE)

        clock.advance(400)
        statements.get(used, ALICE)
        clock.advance(400)

        assert statements.get(used, ALICE)[0] == "SELECT 2"
        with pytest.raises(UsageError):
            statements.get(unused, ALICE)

    def test_a_callers_new_statement_replaces_the_values_of_its_longest_unused(self, clock):
        here, statements = _statements(clock), _statements(clock, max_prepared_per_caller=2)
        first, second = statements.add("SELECT 1", ALICE), statements.add("SELECT ?", ALICE)
        statements.bind(second, ONE, ALICE)
        statements.get(first, ALICE)

        statements.get(here.add("SELECT 3", ALICE), ALICE)  # of another server, counts as well

        assert len(statements) == 2
        assert statements.get(first, ALICE)[0] == "SELECT 1"
        with pytest.raises(UsageError):
            statements.get(second, ALICE)

    def test_one_caller_never_replaces_anothers_values(self, clock):
        statements = _statements(clock, max_prepared=1)
        handle = statements.add("SELECT ?", ALICE)
        statements.bind(handle, ONE, ALICE)

        without_values = statements.add("SELECT ?", BOB)
        with pytest.raises(ResourcesExhausted):
            statements.bind(without_values, ONE, BOB)

        assert statements.get(without_values, BOB) == ("SELECT ?", ())
        assert statements.get(handle, ALICE)[1] == ONE

    def test_statements_that_are_closed_elsewhere_leave_no_room_wanting(self, clock):
        here, there = _statements(clock, max_prepared=3), _statements(clock)
        kept = here.add("SELECT 0", ALICE)
        for number in range(10):
            handle = here.add(f"SELECT {number}", BOB)
            there.close(handle, BOB)
            there.close(handle, BOB)

        assert here.get(kept, ALICE)[0] == "SELECT 0"
        with pytest.raises(UsageError):
            there.get(handle, BOB)

    def test_bound_parameters_are_bounded_in_bytes(self, clock):
        statements = _statements(clock)
        large = (bytes(40 * 1024 * 1024),)
        statements.bind(statements.add("SELECT ?", ALICE), large, ALICE)
        second = statements.add("SELECT ?", ALICE)

        with pytest.raises(ResourcesExhausted):
            statements.bind(second, large, ALICE)

    def test_callers_together_leave_room_for_the_values_of_others(self, clock):
        statements = _statements(clock)
        large = (bytes(60 * 1024 * 1024),)
        for name in ("a", "b", "c"):
            statements.bind(statements.add("SELECT ?", (ISSUER, name)), large, (ISSUER, name))
        refused, other = (statements.add("SELECT ?", caller) for caller in (ALICE, BOB))

        with pytest.raises(ResourcesExhausted):
            statements.bind(refused, large, ALICE)

        values = (bytes(8 * 1024 * 1024),)
        assert statements.get(statements.bind(other, values, BOB), BOB)[1] == values
