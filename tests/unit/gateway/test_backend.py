"""What an engine may send: its rows pass through as they are, and whatever is not right is a clear error at once."""

import asyncio
from contextlib import aclosing

import grpc
import pyarrow as pa
import pytest

from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import (
    ConfigurationError,
    DeadlineExceeded,
    InvalidStatement,
    ResourcesExhausted,
    Unavailable,
    UnsupportedStatement,
)
from micromegas_jupyter.flightsql.commands import messages
from micromegas_jupyter.gateway import backend
from micromegas_jupyter.gateway.backend import Engine, EngineAddress, EngineSettings
from tests.fakes import scripted_engine
from tests.fakes.ports import free_port
from tests.fakes.raw_server import RawServer
from tests.fakes.scripted_engine import ROWS, frames_of, info_of

SCHEMA, BATCH = frames_of(ROWS)
OTHER = frames_of(pa.record_batch({"n": ["x"]}))
MIB = 1 << 20


@pytest.fixture
def engine():
    with scripted_engine.running() as found:
        yield found


def _settings(uri, **settings):
    return EngineSettings(address=EngineAddress.parse(uri), dialect="datafusion", **settings)


def _ask(uri, *, most=100, **settings):
    """Return the frames of a statement's rows, and how many rows they announce; at most so many."""

    async def ask():
        asked = Engine(_settings(uri, **settings))
        await asked.open()
        try:
            flight = await asked.plan("SELECT 1")
            frames, count = [], 0
            async with aclosing(asked.read(flight)) as answer:
                async for frame, rows in answer:
                    frames.append(frame)
                    count += rows
                    if len(frames) == most:
                        break
            return frames, count
        finally:
            await asked.close()

    return asyncio.run(asyncio.wait_for(ask(), 60))


def test_frames_pass_through_in_order_and_are_counted(engine):
    engine.info = info_of(ROWS.schema, b"first", b"second")
    with_more = messages.FlightData.FromString(BATCH)
    with_more.app_metadata = b"of the engine"
    only_more = messages.FlightData(app_metadata=b"of the engine").SerializeToString()
    engine.rows = [SCHEMA, BATCH, only_more, with_more.SerializeToString()]

    assert _ask(engine.uri) == ([SCHEMA, *[BATCH] * 4], 12)


def test_an_answer_of_no_parts_is_one_of_no_rows(engine):
    engine.info = info_of(ROWS.schema)

    assert _ask(engine.uri) == ([SCHEMA], 0)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "response was empty"),
        ([BATCH], "without a schema"),
        (OTHER, "don't match the announced schema"),
        ([SCHEMA, SCHEMA], "don't match the announced schema"),
        ([SCHEMA, b"<html>"], "not valid Arrow"),
        ([SCHEMA, BATCH[:-8]], "not valid Arrow"),
        ([SCHEMA, BATCH + BATCH], "not valid Arrow"),
        ([SCHEMA, messages.FlightData(data_header=bytes(9 * MIB)).SerializeToString()], "not valid Arrow"),
    ],
    ids=["nothing", "no schema", "another schema", "two schemas", "html", "cut", "twice", "large header"],
)
def test_rows_that_are_not_what_was_announced_are_an_error(engine, rows, said):
    engine.rows = rows

    with pytest.raises(Unavailable, match=said):
        _ask(engine.uri)


@pytest.mark.parametrize(
    ("info", "said"),
    [
        (b"<html>", "not a FlightInfo"),
        (messages.FlightInfo().SerializeToString(), "return a schema"),
        (messages.FlightInfo(schema=b"\xff" * 100).SerializeToString(), "not valid Arrow|no schema"),
        (info_of(pa.schema([("x" * 2 * MIB, pa.int64())]), b"t"), "doesn't contain a usable schema"),
        (info_of(ROWS.schema, *[b"t"] * 257), "more than 256 endpoints"),
    ],
    ids=["html", "no schema", "garbage", "large schema", "many parts"],
)
def test_a_plan_that_cannot_be_used_is_an_error(engine, info, said):
    engine.info = info

    with pytest.raises(Unavailable, match=said):
        _ask(engine.uri)


def test_an_endless_answer_ends_at_the_engine_when_nobody_reads_on(engine):
    def rows(_context):
        yield SCHEMA
        while True:
            yield BATCH

    engine.rows = rows

    assert _ask(engine.uri, most=10)[1] == 27
    assert engine.has_ended.wait(60)


def test_a_message_above_the_limit_is_not_taken(engine):
    large = messages.FlightData(data_header=b"x", data_body=bytes(3 * MIB)).SerializeToString()
    engine.rows = [SCHEMA, large]

    with pytest.raises(ResourcesExhausted, match="larger than max"):
        _ask(engine.uri, max_message_bytes=2 * MIB)


def test_an_engine_that_says_nothing_more_is_given_up(engine):
    def rows(context):
        yield SCHEMA
        engine.has_ended.wait(60)

    engine.rows = rows

    with pytest.raises(DeadlineExceeded, match=r"any data for 2 s"):
        _ask(engine.uri, silence_seconds=2)


@pytest.mark.parametrize(
    ("code", "text", "error", "said"),
    [
        ("INVALID_ARGUMENT", "no column x in /data/lake/t/part.parquet", InvalidStatement, "no column x in …"),
        ("INTERNAL", "plan error: cannot read s3://bucket/key at 10.1.2.3:99", InvalidStatement, "cannot read … at …"),
        ("UNKNOWN", "Stream removed", Unavailable, "doesn't respond"),
        ("INTERNAL", "Received RST_STREAM with error code 2", Unavailable, "doesn't respond"),
        ("UNAUTHENTICATED", "token of svc@example.com", Unavailable, "server's credentials"),
        ("PERMISSION_DENIED", "user svc", Unavailable, "server's credentials"),
        ("UNIMPLEMENTED", "no LATERAL", UnsupportedStatement, "no LATERAL"),
        ("RESOURCE_EXHAUSTED", "memory", ResourcesExhausted, "memory"),
        ("DEADLINE_EXCEEDED", "", DeadlineExceeded, "in time"),
        ("ABORTED", "x", Unavailable, "doesn't respond"),
        ("INVALID_ARGUMENT", "long " * 1000, InvalidStatement, "long …"),
    ],
)
def test_an_engines_error_is_told_without_its_places_and_secrets(engine, code, text, error, said):
    engine.info = lambda context: context.abort(grpc.StatusCode[code], text)

    with pytest.raises(error, match=said) as caught:
        _ask(engine.uri)

    assert len(caught.value.what) < 600
    assert not any(word in str(caught.value) for word in ("svc", "lake", "bucket", "10.1."))


def test_an_engine_that_ends_in_its_answer_gives_no_end(engine):
    def rows(_context):
        yield SCHEMA
        yield BATCH
        engine.server.stop(0)
        engine.has_ended.wait(60)

    engine.rows = rows

    with pytest.raises(Unavailable, match="doesn't respond"):
        _ask(engine.uri)


def test_what_is_no_engine_is_unavailable():
    def answer(connection, _server):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>no engine</html>")

    with RawServer(answer) as server:
        for port in (server.port, free_port()):
            with pytest.raises(Unavailable, match="doesn't respond"):
                _ask(f"grpc://127.0.0.1:{port}")


def test_the_servers_credentials_are_shown_to_the_engine(engine):
    _ask(engine.uri)
    _ask(engine.uri, token=Secret("t1"))
    _ask(engine.uri, token=Secret("pass"), user="svc")

    assert list(dict.fromkeys(engine.authorizations)) == ["Bearer t1", "Basic c3ZjOnBhc3M=", "Bearer given"]
    assert set(engine.read_only) == {"true"}


def test_calls_at_once_share_a_handshake(engine):
    async def ask():
        asked = Engine(_settings(engine.uri, token=Secret("pass"), user="svc"))
        await asked.open()
        try:
            await asyncio.gather(*(asked.plan("SELECT 1") for _ in range(8)))
        finally:
            await asked.close()

    asyncio.run(asyncio.wait_for(ask(), 60))

    assert engine.authorizations.count("Basic c3ZjOnBhc3M=") == 1
    assert engine.authorizations.count("Bearer given") == 8


class TestExpiredToken:
    """A token that the engine gave at a handshake is renewed once it has expired, whatever call comes first."""

    @staticmethod
    def run(engine, work):
        async def run():
            asked = Engine(_settings(engine.uri, token=Secret("pass"), user="svc"))
            await asked.open()
            try:
                return await work(asked)
            finally:
                await asked.close()

        return asyncio.run(asyncio.wait_for(run(), 60))

    @staticmethod
    async def read(asked, flight):
        async with aclosing(asked.read(flight)) as answer:
            return [rows async for _, rows in answer]

    def test_ping_renews_it(self, engine):
        async def scenario(asked):
            await asked.ping()
            engine.tokens_expired += 1
            await asked.ping()

        self.run(engine, scenario)

        assert engine.authorizations.count("Basic c3ZjOnBhc3M=") == 2

    def test_reading_rows_renews_it(self, engine):
        async def scenario(asked):
            flight = await asked.plan("SELECT 1")
            engine.tokens_expired += 1
            return await self.read(asked, flight)

        assert self.run(engine, scenario) == [0, 3]

    def test_calls_that_find_it_expired_together_share_one_renewal(self, engine):
        async def scenario(asked):
            flights = [await asked.plan("SELECT 1") for _ in range(5)]
            engine.tokens_expired += 1
            engine.authorizations.clear()
            await asyncio.gather(*(self.read(asked, one) for one in flights), *(asked.ping() for _ in range(5)))

        self.run(engine, scenario)

        assert [one for one in engine.authorizations if one.startswith("Basic")] == ["Basic c3ZjOnBhc3M="]

    def test_all_who_wait_for_a_renewal_that_hangs_get_an_error_each_in_time(self, engine, monkeypatch):
        monkeypatch.setattr(backend, "_HANDSHAKE_SECONDS", 0.5)
        engine.may_shake_hands.clear()

        async def scenario(asked):
            found = await asyncio.gather(*(asked.plan("SELECT 1") for _ in range(40)), return_exceptions=True)
            engine.may_shake_hands.set()
            await asked.ping()
            return found

        errors = self.run(engine, scenario)

        assert {type(error) for error in errors} <= {DeadlineExceeded, Unavailable}
        assert len({id(error) for error in errors}) == 40
        assert len([one for one in engine.authorizations if one.startswith("Basic")]) == 2

    def test_a_stream_that_has_begun_is_not_repeated(self, engine):
        def rows(context):
            yield from frames_of(ROWS)
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token has expired")

        engine.rows = rows

        async def scenario(asked):
            with pytest.raises(Unavailable):
                await self.read(asked, await asked.plan("SELECT 1"))

        self.run(engine, scenario)

        assert engine.authorizations.count("Bearer given") == 2  # for the plan and for its rows

    def test_a_new_token_that_is_rejected_as_well_is_an_error_after_one_more_try(self, engine):
        engine.tokens_expired = 1

        async def scenario(asked):
            await asked.ping()
            asked._renew_bearer = lambda _user, _password: _given("Bearer stale")
            engine.tokens_expired = 2
            engine.authorizations.clear()
            with pytest.raises(Unavailable, match="credentials"):
                await asked.ping()

        async def _given(bearer):
            return bearer

        self.run(engine, scenario)

        assert engine.authorizations == ["Bearer given 1", "Bearer stale"]


@pytest.mark.parametrize(
    "text", ["", "embed", "grpc://host", "grpc://host:x", "http://host:1", "grpc://u:p@host:1", "grpc://host:1/path?x"]
)
def test_an_address_that_is_none_is_refused(text):
    with pytest.raises(ConfigurationError) as caught:
        EngineAddress.parse(text)

    assert caught.value.key == "--engine"
    assert EngineAddress.parse("grpc+tls://[::1]:9").target == "[::1]:9"
