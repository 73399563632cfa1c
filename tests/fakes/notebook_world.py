"""A sign-in, a server and a browser that do what a test says: the parts that the magics work with."""

import getpass
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Event
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from micromegas_jupyter.auth import Identity
from micromegas_jupyter.client.commands import PreparedStatement, ServerIdentity
from micromegas_jupyter.config.client import ClientSettings, Flow
from micromegas_jupyter.errors import (
    LoginFailed,
    LoginRequired,
    LoginTimedOut,
    MicromegasError,
    QueryCancelled,
    UsageError,
)
from micromegas_jupyter.notebook.login.connections import AUTOMATIC, FlowToUse
from tests.fakes.clock import FakeClock

SETTINGS = ClientSettings(
    uri="grpc+tls://lake.example.com:50051", issuer="https://id.example.com", client_id="lake-notebooks"
)
START_URL = "http://127.0.0.1:41234/start"
SIGN_IN_REMEDY = "Run %micromegas_login, or set MICROMEGAS_OIDC_CLIENT_SECRET for a service account."
USER_CODE = "WDJB-MJHT"
VERIFICATION_URI = "https://id.example.com/device"
SCAN_URI = "https://id.example.com/device?user_code=WDJB-MJHT"
SECRET_STATE = "state-that-nobody-may-keep"
SECRET_CHALLENGE = "challenge-that-nobody-may-keep"
PASTE_URL = f"https://id.example.com/authorize?state={SECRET_STATE}&code_challenge={SECRET_CHALLENGE}"
FITTING_ADDRESS = "http://127.0.0.1:1/callback?code=one-time&state=fitting"
SECONDS_PER_BATCH = 0.5
ROWS = pa.table({"n": pa.array([1, 2, None], pa.int64()), "msg": ["a", "<b>", "c"]})


TABLES = {
    "log_entries": pa.schema(
        [
            pa.field("time", pa.timestamp("ns", "UTC"), nullable=False),
            pa.field("level", pa.int32(), metadata={"ARROW:FLIGHT:SQL:REMARKS": "How severe."}),
            pa.field("msg", pa.string()),
        ],
        metadata={"ARROW:FLIGHT:SQL:REMARKS": "What programs logged."},
    ),
    "measures": pa.schema([("time", pa.timestamp("ns", "UTC")), ("value", pa.float64())]),
}


@dataclass(kw_only=True)
class FakeTables:
    """The tables, or why they cannot be told; `may_answer` holds the answer back."""

    schemas: Mapping[str, pa.Schema] = field(default_factory=lambda: TABLES)
    failure: MicromegasError | None = None
    asked_count: int = 0
    was_asked: Event = field(default_factory=Event)
    may_answer: Event = field(default_factory=Event)

    def __post_init__(self):
        self.may_answer.set()


SECRET_TOKEN = "secret-token-that-nobody-may-see"
ALICE = {"subject": "user-1", "name": "Alice Martin", "email": "alice@example.com", "issuer": "https://id.example.com"}
FakeIdentity = partial(
    Identity,
    **ALICE,
    expires_at=datetime(2026, 11, 24, 15, 42, tzinfo=UTC),
    renews=True,
    groups=("analysts", "lake-admins"),
)


class FakePersonalProvider:
    """A person's sign-in; `failure` is raised instead of giving a token, `renewal_failure` instead of a renewal."""

    def __init__(self, identity=None, *, through=""):
        self.through = through
        self.failure = None
        self.renewal_failure = None
        self.token_count = 0
        self.renewal_count = 0
        self._identity = identity or FakeIdentity()

    def get_token(self):
        self.token_count += 1
        if self.failure is not None:
            raise self.failure
        return SECRET_TOKEN + "-renewed" * self.renewal_count

    def renew(self):
        if self.renewal_failure is not None:
            raise self.renewal_failure
        self.renewal_count += 1

    def identity(self):
        return self._identity


class FakeServiceProvider:
    """A service account: gives a token and knows nothing of a person."""

    def get_token(self):
        return SECRET_TOKEN


class FakeRenewal:
    """Stands in for `BackgroundRenewal`; the test calls `on_change` as the real one would on its thread."""

    def __init__(self, provider, on_change):
        self.provider = provider
        self.on_change = on_change
        self.is_running = False

    def start(self):
        self.is_running = True

    def stop(self):
        self.is_running = False


class FakeLogin:
    """Stands in for a sign-in under way; `succeed` and `fail` play the browser and the provider."""

    def __init__(self, *, expires_at, flow=Flow.BROWSER, start_url=START_URL):
        is_device = flow is Flow.DEVICE
        self.flow = flow
        self.start_url = None if is_device else PASTE_URL if flow is Flow.PASTE else start_url
        self.user_code = USER_CODE if is_device else None
        self.verification_uri = VERIFICATION_URI if is_device else None
        self.verification_uri_complete = SCAN_URI if is_device else None
        self.expires_at = expires_at
        self.is_cancelled = False
        self.waited_for = Event()
        self._ended = Event()
        self._outcome = None
        self._callbacks = []

    def on_started(self, callback):
        self.start = callback

    def submit(self, text):
        if text.reveal() != FITTING_ADDRESS:
            raise UsageError("The pasted text isn't the URL of this sign-in's last page.", remedy="Try again.")
        self.succeed()

    @property
    def done(self):
        return self._ended.is_set()

    def result(self, timeout_seconds=60.0):
        self.waited_for.set()
        if not self._ended.wait(timeout_seconds):
            raise LoginTimedOut("Nobody signed in.")
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome

    def on_done(self, callback):
        if self.done:
            callback(self)
        else:
            self._callbacks.append(callback)

    def cancel(self):
        self.is_cancelled = True
        self.fail(LoginFailed("The sign-in was canceled."))

    def succeed(self, provider=None):
        self._end(FakePersonalProvider() if provider is None else provider)

    def fail(self, error):
        self._end(error)

    def _end(self, outcome):
        if not self.done:
            self._outcome = outcome
            self._ended.set()
            for callback in self._callbacks:
                callback(self)


class FakeReader:
    """Implements what the magics use of `QueryReader`; an exception among the batches is raised in its place."""

    def __init__(self, script, clock, seconds_per_batch, query_id):
        self._script = list(script)
        self._clock = clock
        self._seconds_per_batch = seconds_per_batch
        self.query_id = query_id
        self.schema = next((part.schema for part in script if isinstance(part, pa.RecordBatch)), ROWS.schema)
        self.rows = 0
        self.bytes_received = 0
        self.counts = None
        self.is_closed = False
        self.is_cancelled = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __iter__(self):
        return self

    def __next__(self):
        while not self.is_closed and self._script:
            part = self._script.pop(0)
            self._clock.advance(self._seconds_per_batch)
            if callable(part):
                part()
            elif isinstance(part, BaseException):
                raise part
            else:
                self.rows += part.num_rows
                self.bytes_received += 1_000_000
                return part
        raise StopIteration

    def read_all(self):
        return pa.Table.from_batches(list(self), self.schema)

    def cancel(self):
        self.is_cancelled = True
        self._script = [QueryCancelled("The query was canceled.", query_id=self.query_id)]

    def close(self):
        self.is_closed = True


class FakeClient:
    """Implements what the magics use of `FlightSQLClient`, and notes what it was asked."""

    def __init__(self, world, provider):
        self._world = world
        self.provider = provider
        self.is_closed = False
        self.is_in_use = False

    def on_notice(self, callback):
        """Nothing is ever noticed."""

    def open_query(self, sql, begin=None, end=None, params=None, *, limit=None, timeout_seconds=None):
        self._world.asked.append({"sql": sql, "begin": begin, "end": end, "params": params, "limit": limit})
        if self.provider is not None:
            self.provider.get_token()
        if self._world.open_failure is not None:
            raise self._world.open_failure
        reader = FakeReader(self._world.script, self._world.clock, SECONDS_PER_BATCH, self._world.query_id)
        self._world.readers.append(reader)
        return reader

    def list_tables(self, *, timeout_seconds=None):
        tables = self._world.tables
        tables.asked_count += 1
        tables.was_asked.set()
        assert tables.may_answer.wait(60)
        if tables.failure is not None:
            raise tables.failure
        return dict(tables.schemas)

    def query_progress(self, query_id):
        return self._world.progress

    def prepare_statement(self, sql):
        self._world.prepared.append(sql)
        if self._world.open_failure is not None:
            raise self._world.open_failure
        return PreparedStatement(query=sql, dataset_schema=ROWS.schema)

    def whoami(self):
        self._world.clock.advance(0.014)
        try:
            if self._world.whoami_failure is not None:
                raise self._world.whoami_failure
            return ServerIdentity(**ALICE, auth_type="oidc", is_admin=True)
        finally:
            self._world.was_asked_whoami.set()

    def close(self, *, keeps_readers=False):
        self.is_closed = True


@dataclass(kw_only=True)
class FakeWorld:
    """Everything around the magics; it stands in for `NotebookServices`."""

    clock: FakeClock = field(default_factory=FakeClock)
    settings: ClientSettings = SETTINGS
    stored: Any = None
    script: list[Any] = field(default_factory=lambda: ROWS.to_batches(max_chunksize=2))
    query_id: str | None = "7f3a91c2d4e5"
    tables: FakeTables = field(default_factory=FakeTables)
    open_failure: BaseException | None = None
    progress: Any = None
    whoami_failure: MicromegasError | None = None
    was_asked_whoami: Event = field(default_factory=Event)
    asked: list[dict[str, Any]] = field(default_factory=list)
    prepared: list[str] = field(default_factory=list)
    readers: list[FakeReader] = field(default_factory=list)
    clients: list[FakeClient] = field(default_factory=list)
    opened_for: list[ClientSettings] = field(default_factory=list)
    stored_failure: MicromegasError | None = None
    flow: FlowToUse = field(default_factory=lambda: FlowToUse(flow=Flow.BROWSER))
    remembered: list[Flow | None] = field(default_factory=list)
    logins: list[FakeLogin] = field(default_factory=list)
    logouts: list[tuple[ClientSettings, bool]] = field(default_factory=list)
    renewals: list[FakeRenewal] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    begin_failures: dict[Flow, MicromegasError] = field(default_factory=dict)
    profile_settings: dict[str | None, dict[str, Any]] = field(default_factory=dict)
    has_browser: bool = True

    def dependencies(self):
        return self

    @property
    def browser(self):
        return self

    def is_wrapped(self):
        return False

    def open(self, _url):
        return self.has_browser

    def load_settings(self, *, profile=None, options=MappingProxyType({})):
        configured = replace(self.settings, **self.profile_settings.get(profile, {}))
        return replace(
            configured,
            uri=options.get("MICROMEGAS_ANALYTICS_URI", configured.uri),
            issuer=options.get("MICROMEGAS_OIDC_ISSUER", configured.issuer),
            client_id=options.get("MICROMEGAS_OIDC_CLIENT_ID", self.settings.client_id),
            scope=options.get("MICROMEGAS_OIDC_SCOPE", self.settings.scope),
            audience=options.get("MICROMEGAS_OIDC_AUDIENCE", self.settings.audience),
            profile=profile,
        )

    def choose_flow(self, _settings, _shell, preference, **_options):
        return self.flow if preference in {None, AUTOMATIC} else FlowToUse(flow=Flow(preference))

    def remember_flow(self, _settings, flow):
        self.remembered.append(flow)

    def logout(self, settings, *, end_session):
        self.logouts.append((settings, end_session))
        was_signed_in, self.stored = self.stored is not None, None
        return "Signed out." if was_signed_in else "No user was signed in to id.example.com."

    def renewal(self, provider, on_change):
        if isinstance(provider, FakeServiceProvider):
            return None
        self.renewals.append(FakeRenewal(provider, on_change))
        return self.renewals[-1]

    def prompt(self, prompt):
        if not self.answers:
            return getpass.getpass(prompt)
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer() if callable(answer) else answer

    def stored_provider(self, settings):
        if self.stored_failure is not None:
            raise self.stored_failure
        if settings.issuer is None and settings.api_key_file is None:
            return None
        if self.stored is None:
            raise LoginRequired(f"You are not signed in to {settings.issuer}.", remedy=SIGN_IN_REMEDY)
        return self.stored

    def begin_login(self, _settings, flow):
        if flow in self.begin_failures:
            raise self.begin_failures[flow]
        login = FakeLogin(expires_at=self.clock.now() + timedelta(minutes=10), flow=flow)
        self.logins.append(login)
        return login

    def open_client(self, settings, provider):
        self.opened_for.append(settings)
        client = FakeClient(self, provider)
        self.clients.append(client)
        return client


def shown(session):
    return None if session.state is None else session.state.status
