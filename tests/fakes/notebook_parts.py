"""A sign-in, a server and a browser that do what a test says: the parts that the magics work with."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa

from micromegas_jupyter.errors import LoginFailed, LoginRequired, LoginTimedOut, MicromegasError
from micromegas_jupyter.notebook.parts import Parts
from micromegas_jupyter.settings import ClientSettings
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SETTINGS = ClientSettings(
    uri="grpc+tls://lake.example.com:50051", issuer="https://id.example.com", client_id="lake-notebooks"
)
START_URL = "http://127.0.0.1:41234/start"
SECRET_TOKEN = "secret-token-that-nobody-may-see"
ROWS = pa.table({"n": pa.array([1, 2, None], pa.int64()), "msg": ["a", "<b>", "c"]})


@dataclass(frozen=True, kw_only=True)
class FakeIdentity:
    subject: str = "user-1"
    name: str | None = "Alice Martin"
    email: str | None = "alice@example.com"
    issuer: str = "https://id.example.com"
    expires_at: datetime = datetime(2026, 11, 24, 15, 42, tzinfo=UTC)
    renews: bool = True


@dataclass(frozen=True, kw_only=True)
class FakeServerIdentity:
    subject: str = "user-1"
    name: str | None = "Alice Martin"
    email: str | None = "alice@example.com"
    issuer: str = "https://id.example.com"
    auth_type: str = "oidc"
    is_admin: bool = True
    expires_at: datetime | None = None


class FakePersonalProvider:
    """A person's sign-in; `failure` is raised instead of giving a token."""

    def __init__(self, identity: FakeIdentity | None = None) -> None:
        self.failure: MicromegasError | None = None
        self.is_signed_out = False
        self._identity = identity or FakeIdentity()

    def get_token(self) -> str:
        if self.failure is not None:
            raise self.failure
        return SECRET_TOKEN

    def identity(self) -> FakeIdentity:
        return self._identity

    def logout(self) -> str:
        self.is_signed_out = True
        return "Signed out."


class FakeServiceProvider:
    """A service account: gives a token and knows nothing of a person."""

    def get_token(self) -> str:
        return SECRET_TOKEN


class FakeLogin:
    """Implements `parts.Login`; `succeed` and `fail` play the browser and the provider."""

    def __init__(self, *, expires_at: datetime, start_url: str = START_URL) -> None:
        self.start_url = start_url
        self.expires_at = expires_at
        self.is_cancelled = False
        self.waited_for = Event()
        self._ended = Event()
        self._outcome: Any = None
        self._callbacks: list[Callable[..., None]] = []

    @property
    def done(self) -> bool:
        return self._ended.is_set()

    def result(self, timeout_seconds: float) -> Any:
        self.waited_for.set()
        if not self._ended.wait(timeout_seconds):
            raise LoginTimedOut("Nobody signed in.")
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome

    def on_done(self, callback: Callable[..., None]) -> None:
        self._callbacks.append(callback)

    def cancel(self) -> None:
        self.is_cancelled = True
        self.fail(LoginFailed("The sign-in was cancelled."))

    def succeed(self, provider: Any = None) -> None:
        self._end(FakePersonalProvider() if provider is None else provider)

    def fail(self, error: MicromegasError) -> None:
        self._end(error)

    def interrupt_the_wait(self) -> None:
        self._end(KeyboardInterrupt())

    def _end(self, outcome: Any) -> None:
        if not self.done:
            self._outcome = outcome
            self._ended.set()
            for callback in self._callbacks:
                with suppress(KeyboardInterrupt):
                    callback(self)


class FakeReader:
    """Implements what the magics use of `QueryReader`; an exception among the batches is raised in its place."""

    def __init__(self, script: list[Any], clock: FakeClock, seconds_per_batch: float, query_id: str | None) -> None:
        self._script = script
        self._clock = clock
        self._seconds_per_batch = seconds_per_batch
        self.query_id = query_id
        self.schema = next((part.schema for part in script if isinstance(part, pa.RecordBatch)), ROWS.schema)
        self.rows = 0
        self.bytes_received = 0
        self.is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.is_closed = True

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for part in self._script:
            self._clock.advance(self._seconds_per_batch)
            if callable(part):
                part()
            elif isinstance(part, BaseException):
                raise part
            else:
                self.rows += part.num_rows
                self.bytes_received += 1_000_000
                yield part


class FakeClient:
    """Implements what the magics use of `FlightSQLClient`, and notes what it was asked."""

    def __init__(self, world: FakeWorld, provider: Any) -> None:
        self._world = world
        self.provider = provider
        self.is_closed = False

    def open_query(self, sql: str, begin=None, end=None, params=None, *, limit=None) -> FakeReader:
        self._world.asked.append({"sql": sql, "begin": begin, "end": end, "params": params, "limit": limit})
        if self.provider is not None:
            self.provider.get_token()
        if self._world.open_failure is not None:
            raise self._world.open_failure
        reader = FakeReader(self._world.script, self._world.clock, self._world.seconds_per_batch, self._world.query_id)
        self._world.readers.append(reader)
        return reader

    def whoami(self) -> FakeServerIdentity:
        self._world.clock.advance(0.014)
        try:
            if self._world.whoami_failure is not None:
                raise self._world.whoami_failure
            return self._world.server_identity
        finally:
            self._world.was_asked_whoami.set()

    def close(self) -> None:
        self.is_closed = True


@dataclass(kw_only=True)
class FakeWorld:
    """Everything around the magics; `parts()` gives it to them."""

    clock: FakeClock = field(default_factory=FakeClock)
    settings: ClientSettings = SETTINGS
    stored: Any = None
    script: list[Any] = field(default_factory=lambda: ROWS.to_batches(max_chunksize=2))
    seconds_per_batch: float = 0.5
    query_id: str | None = "7f3a91c2d4e5"
    open_failure: BaseException | None = None
    whoami_failure: MicromegasError | None = None
    server_identity: FakeServerIdentity = field(default_factory=FakeServerIdentity)
    was_asked_whoami: Event = field(default_factory=Event)
    asked: list[dict[str, Any]] = field(default_factory=list)
    readers: list[FakeReader] = field(default_factory=list)
    clients: list[FakeClient] = field(default_factory=list)
    logins: list[FakeLogin] = field(default_factory=list)
    profiles: list[str | None] = field(default_factory=list)
    opened_pages: list[str] = field(default_factory=list)
    on_page_opened: Callable[[FakeLogin], None] = lambda _: None

    def parts(self) -> Parts:
        return Parts(
            load_settings=self._load_settings,
            stored_provider=self._stored_provider,
            begin_login=self._begin_login,
            open_client=self._open_client,
            clock=self.clock,
            browser=self,
        )

    def open(self, url: str) -> bool:
        self.opened_pages.append(url)
        self.on_page_opened(self.logins[-1])
        return True

    def _load_settings(self, profile: str | None) -> ClientSettings:
        self.profiles.append(profile)
        return self.settings

    def _stored_provider(self, settings: ClientSettings) -> Any:
        if settings.issuer is None and settings.api_key_file is None:
            return None
        if self.stored is None:
            raise LoginRequired(f"You are not signed in at {settings.issuer}.")
        return self.stored

    def _begin_login(self, _settings: ClientSettings) -> FakeLogin:
        login = FakeLogin(expires_at=self.clock.now() + timedelta(minutes=10))
        self.logins.append(login)
        return login

    def _open_client(self, _settings: ClientSettings, provider: Any) -> FakeClient:
        client = FakeClient(self, provider)
        self.clients.append(client)
        return client
