"""`LogView`, a user's view of a log: a time range with filters, read once or followed by a thread."""

from __future__ import annotations

import contextvars
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from threading import Event, RLock, Thread
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from micromegas_jupyter.core import jsonb
from micromegas_jupyter.core.text import cut, printable
from micromegas_jupyter.errors import CursorExpired, MicromegasError, QueryCancelled, UsageError
from micromegas_jupyter.notebook.logs.lines import LEVELS, MAX_LINES, LogLines, PatternCounts, Volume
from micromegas_jupyter.telemetry.levels import Level
from micromegas_jupyter.telemetry.log_lines import VIEW_COLUMNS, LogFilter, ValueFilter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from micromegas_jupyter.client.follow import Follow
    from micromegas_jupyter.core.system import Clock
    from micromegas_jupyter.notebook.login.connections import Client

TAIL_LINES: Final = 60
_MAX_BLOCK_LINES: Final = 300
_MAX_LINE_CHARACTERS: Final = 400
_MAX_DETAIL_CHARACTERS: Final = 20_000
_MAX_PROPERTIES: Final = 200
_MAX_VALUE_CHARACTERS: Final = 2_000
_MAX_FILTERS: Final = 20
_AROUND: Final = timedelta(minutes=1)
_MICROSECOND: Final = timedelta(microseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_READ_SECONDS: Final = 2.0
_NEWS_SECONDS: Final = 0.25
_QUERY_SECONDS: Final = 60.0
_MAX_RECONNECTS: Final = 100
_JOIN_SECONDS: Final = 70.0  # a read during a follow never takes longer
#: Browsers run timers of background pages only once a minute.
_SILENCE_SECONDS: Final = 150.0
_TRACE_KEYS: Final = ("otel.trace_id", "trace_id")
_TRACE_ID: Final = re.compile(r"(?!0{32})[0-9a-f]{32}", re.IGNORECASE)
_GONE: Final = "These lines are no longer held."


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """The lines in a time range that match a filter; without an end, the range extends to now."""

    begin: datetime
    end: datetime | None
    conditions: LogFilter

    def fetch_lines(
        self,
        client: Client,
        end: datetime,
        *,
        last: int = MAX_LINES,
        timeout_seconds: float | None = _QUERY_SECONDS,
    ) -> pa.Table:
        """Return the newest lines in chronological order."""
        sql, parameters = self.conditions.build_sql(*VIEW_COLUMNS)
        sql = f"{sql} ORDER BY time DESC LIMIT {last}"
        found = self._query(client, sql, end, parameters, timeout_seconds=timeout_seconds)
        return found.take(pa.array(range(found.num_rows - 1, -1, -1), pa.int64()))

    def fetch_volume(self, client: Client, end: datetime) -> Volume:
        """Count all lines on the server."""
        volume = Volume(_nanoseconds(self.begin), _nanoseconds(end))
        sql, parameters = self.conditions.build_sql("time", "level")
        # Without the cast, the integer's unit would be that of the stored column.
        microseconds = "arrow_cast(arrow_cast(time, 'Timestamp(Microsecond, Some(\"UTC\"))'), 'Int64')"
        bar = f"({microseconds} - {volume.begin // 1000}) / {volume.width // 1000}"
        counts = f"SELECT {bar} AS bar, level, count(*) AS lines FROM ({sql}) AS found GROUP BY 1, 2"  # noqa: S608 - numbers
        rows = self._query(client, counts, end, parameters)
        volume.put(zip(*(rows[name].to_pylist() for name in ("bar", "level", "lines")), strict=True))
        return volume

    def fetch_patterns(self, client: Client, end: datetime) -> PatternCounts:
        """Count the patterns of all lines."""
        sql, parameters = self.conditions.build_sql("level", "msg")
        patterns = PatternCounts()
        with client.open_query(sql, self.begin, end, parameters or None, timeout_seconds=_QUERY_SECONDS) as reader:
            for batch in reader:
                table = pa.Table.from_batches([batch])
                patterns.add(table["msg"], table["level"])
        return patterns

    def _query(
        self,
        client: Client,
        sql: str,
        end: datetime,
        parameters: dict[str, object],
        *,
        timeout_seconds: float | None = _QUERY_SECONDS,
    ) -> pa.Table:
        with client.open_query(sql, self.begin, end, parameters or None, timeout_seconds=timeout_seconds) as reader:
            return reader.read_all()


@dataclass(slots=True, kw_only=True, eq=False)
class _Content:
    """The lines of one query."""

    query: LogQuery
    end: datetime
    """The time up to which lines were read."""
    lines: LogLines
    volume: Volume | None = None
    patterns: PatternCounts | None = None
    cursor: str | None = None
    error: str = ""
    lock: RLock = field(default_factory=RLock)


class LogView:
    """The lines of a log that a notebook shows; thread-safe.

    A follow runs in a thread while a page shows the view and `is_following`. It pauses if no page does, and resumes
    with its cursor, so no line is missing or repeated.
    """

    def __init__(  # noqa: PLR0913 - keywords
        self,
        open_client: Callable[[], Client],
        query: LogQuery,
        lines: pa.Table,
        *,
        is_following: bool,
        clock: Clock,
        on_news: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> None:
        self.is_following = is_following
        self.on_news = on_news
        self._open_client = open_client
        self._clock = clock
        self._lock = RLock()
        self._schema = lines.schema
        self._pages: dict[str, float] = {}
        self._thread: Thread | None = None
        self._follow: Follow | None = None
        self._stopped = Event()
        self._context = contextvars.copy_context()
        self._content: _Content | None = self._begin(query)
        if not is_following:
            self._content.lines.add(lines)

    def table(self) -> pa.Table:
        """Return the held lines, oldest first."""
        return self._held.lines.read(0, MAX_LINES)[1]

    def pause(self) -> None:
        """Stop following."""
        self.is_following = False
        self._stop()

    def close(self) -> None:
        """Stop following, and discard the lines."""
        self.pause()
        self._content = None

    def respond(self, message: Mapping[str, Any]) -> dict[str, Any]:  # noqa: C901 - one branch per operation
        """Return the response to a page's request."""
        content = self._held
        match message["op"]:
            case "watch":
                self._pages[str(message["page"])] = time.monotonic()
                self._run_if_watched()
                return {}
            case "leave":
                self._pages.pop(str(message["page"]), None)
                if not self._pages:
                    self._stop()
                return {}
            case "lines":
                return self._block(content, int(message["first"]), min(int(message["count"]), _MAX_BLOCK_LINES))
            case "detail":
                return self._detail(content, int(message["line"]))
            case "patterns":
                return self._rank_patterns(content)
            case "state":
                pass
            case "follow":
                self._switch_follow(content, is_on=bool(message["is_on"]))
            case "around":
                time_of_line = _EPOCH + self._nanoseconds_of(content, int(message["line"])) // 1000 * _MICROSECOND
                self._load(
                    LogQuery(begin=time_of_line - _AROUND, end=time_of_line + _AROUND, conditions=LogFilter()),
                )
            case "range":
                begin, end = (_EPOCH + int(message[name]) * _MICROSECOND for name in ("begin", "end"))
                self._load(replace(content.query, begin=begin, end=max(end, begin + _MICROSECOND)))
            case _:
                conditions = self._changed(content, message)
                self._load(replace(content.query, conditions=conditions), follows=self.is_following)
        return self.state()

    def state(self) -> dict[str, Any]:
        """Return the page's contents with the newest lines, but without the lines that it scrolls to."""
        content = self._held
        with content.lock:
            if content.volume is None:
                client = self._open_client()
                content.volume = content.query.fetch_volume(client, content.end)
            lines, volume, conditions = content.lines, content.volume, content.query.conditions
            after = lines.skipped + lines.held
            # Lines that the query skips aren't numbered.
            skipped = max(volume.total - lines.held, lines.skipped)
            return {
                "begin": volume.begin // 1000,
                "width": volume.width // 1000,
                "bars": volume.bars(_nanoseconds(content.end)),
                "total": max(volume.total, lines.held),
                "skipped": skipped,
                "first": lines.skipped,
                "next": after,
                "is_following": self.is_following,
                "level": int(conditions.level or LEVELS),
                "search": conditions.search or "",
                "filters": [[printable(key), cut(printable(value), 60), out] for key, value, out in conditions.values],
                "error": content.error,
                "tail": self._block(content, after - TAIL_LINES, TAIL_LINES),
            }

    @property
    def _held(self) -> _Content:
        if (content := self._content) is None:
            raise UsageError(_GONE, remedy="Run the cell again.")
        return content

    def _begin(self, query: LogQuery) -> _Content:
        end = query.end or self._clock.now()
        content = _Content(query=query, end=end, lines=LogLines(self._schema))
        if self.is_following:
            content.volume = Volume(_nanoseconds(query.begin), _nanoseconds(end))
            content.patterns = PatternCounts()
        return content

    def _load(self, query: LogQuery, *, follows: bool = False) -> None:
        """Read the lines of a different query; keep the current ones if that fails."""
        with self._lock:
            was_following, self.is_following = self.is_following, follows
            try:
                content = self._begin(query)
                if not follows:
                    client = self._open_client()
                    content.lines.add(query.fetch_lines(client, content.end))
                    content.volume = query.fetch_volume(client, content.end)
            except MicromegasError:
                self.is_following = was_following
                raise
            self._stop()
            self._content = content
        self._run_if_watched()

    def _switch_follow(self, content: _Content, *, is_on: bool) -> None:
        if is_on and (content.cursor is None or content.query.end is not None):
            self._load(replace(content.query, end=None), follows=True)
            return
        if not is_on:
            self.pause()
            return
        self.is_following = True
        content.error = ""
        self._run_if_watched()

    def _changed(self, content: _Content, message: Mapping[str, Any]) -> LogFilter:
        conditions = content.query.conditions
        match message["op"]:
            case "level":
                return replace(conditions, level=Level(min(max(int(message["level"]), 1), LEVELS)))
            case "search":
                return replace(conditions, search=str(message["text"])[:_MAX_VALUE_CHARACTERS] or None)
            case "filter":
                key = str(message["key"])
                value = dict(self._values(content, int(message["line"]))).get(key)
                if value is None or len(value) > _MAX_VALUE_CHARACTERS:
                    raise UsageError("This value is too long for a filter.", remedy="Choose another one.")
                added = ValueFilter(key, value, is_excluded=bool(message["is_excluded"]))
                if len(conditions.values) >= _MAX_FILTERS:
                    raise UsageError(f"A view has at most {_MAX_FILTERS} filters.", remedy="Remove one first.")
                return replace(conditions, values=(*conditions.values, added))
            case "unfilter":
                index = int(message["index"])
                return replace(conditions, values=conditions.values[:index] + conditions.values[index + 1 :])
        raise UsageError("The page and the kernel have different versions.", remedy="Run the cell again.")

    def _line(self, content: _Content, number: int) -> pa.Table:
        first, table = content.lines.read(number, 1)
        if first != number or not table.num_rows:
            raise UsageError("This line is no longer available.", remedy="Choose another one.")
        return table

    def _nanoseconds_of(self, content: _Content, number: int) -> int:
        found = self._line(content, number)["time"].cast(pa.timestamp("ns", "UTC")).cast(pa.int64())
        return int(found[0].as_py())

    def _values(self, content: _Content, number: int) -> list[tuple[str, str]]:
        """Return a line's columns and properties that lines can be filtered by."""
        row = self._line(content, number).select(["exe", "target", "properties"]).to_pylist()[0]
        properties: object = {}
        with suppress(jsonb.MalformedJsonb):
            properties = jsonb.decode(row["properties"] or b"")
        found = properties if isinstance(properties, dict) else {}
        columns = [(name, row[name]) for name in ("exe", "target") if row[name] is not None]
        return [*columns, *((key, jsonb.to_text(found[key])) for key in sorted(found)[:_MAX_PROPERTIES])]

    def _detail(self, content: _Content, number: int) -> dict[str, Any]:
        table = self._line(content, number)
        values = self._values(content, number)
        texts = dict(values)
        trace_id = next((texts[key] for key in _TRACE_KEYS if _TRACE_ID.fullmatch(texts.get(key, ""))), "")
        message = cut(table["msg"][0].as_py() or "", _MAX_DETAIL_CHARACTERS)
        nanoseconds = self._nanoseconds_of(content, number)
        second = _EPOCH + timedelta(seconds=nanoseconds // 10**9)
        return {
            "line": number,
            "time": f"{second:%Y-%m-%dT%H:%M:%S}.{nanoseconds % 10**9:09d}Z",
            "level": table["level"][0].as_py(),
            "message": "\n".join(map(printable, message.split("\n"))),
            "values": [[key, printable(cut(value, _MAX_VALUE_CHARACTERS))] for key, value in values],
            "trace_id": trace_id.lower(),
        }

    def _block(self, content: _Content, first: int, count: int) -> dict[str, Any]:
        number, table = content.lines.read(first, count)
        return {"first": number, "lines": line_texts(table)}

    def _rank_patterns(self, content: _Content) -> dict[str, Any]:
        patterns = content.patterns
        if patterns is None:
            patterns = content.query.fetch_patterns(self._open_client(), content.end)
            content.patterns = patterns
        with content.lock:
            rows, count = patterns.ranked()
        return {"patterns": [[printable(text), lines, level] for text, lines, level in rows], "count": count}

    def _run_if_watched(self) -> None:
        """Start the thread that follows the log unless it is running; it stops when no page shows the view."""
        with self._lock:
            content = self._content
            is_running = self._thread is not None and self._thread.is_alive() and not self._stopped.is_set()
            if content is None or not self.is_following or content.error or is_running or not self._pages:
                return
            self._stopped = Event()
            run = self._context.copy().run
            arguments = (self._run, content, self._stopped, self._thread)
            self._thread = Thread(target=run, args=arguments, name="micromegas-log-follow", daemon=True)
            self._thread.start()

    def _stop(self) -> None:
        with self._lock:
            self._stopped.set()
            if self._follow is not None:
                self._follow.cancel()
                self._follow = None

    def _run(self, content: _Content, stopped: Event, previous: Thread | None) -> None:
        if previous is not None:
            previous.join(_JOIN_SECONDS)  # the cursor is known only after that thread's last read
        try:
            self._read_until(content, stopped)
        except QueryCancelled:
            return
        except MicromegasError as error:
            content.error = f"{error.what} {error.remedy}".strip()
            content.cursor = None if isinstance(error, CursorExpired) else content.cursor
            with self._lock:
                if self._content is content:
                    self.is_following = False
        self._report(content)

    def _read_until(self, content: _Content, stopped: Event) -> None:
        sql, parameters = content.query.conditions.build_sql(*VIEW_COLUMNS)
        follow = self._open_client().follow(
            sql,
            content.query.begin if content.cursor is None else None,
            parameters or None,
            cursor=content.cursor,
            max_reconnects=_MAX_RECONNECTS,
        )
        with follow:
            with self._lock:
                if stopped.is_set():
                    return
                self._follow = follow
            content.cursor = follow.cursor
            reported_at = is_new = 0.0
            while not stopped.is_set() and self._is_watched():
                wait = max(reported_at + _NEWS_SECONDS - time.monotonic(), 0.0) if is_new else _READ_SECONDS
                table = follow.read(wait)
                with content.lock:
                    self._take(content, table)
                    content.cursor = follow.cursor
                is_new = is_new or table.num_rows
                if is_new and time.monotonic() >= reported_at + _NEWS_SECONDS:
                    self._report(content)
                    reported_at, is_new = time.monotonic(), 0.0

    def _take(self, content: _Content, table: pa.Table) -> None:
        content.end = self._clock.now()
        if table.num_rows and content.volume is not None and content.patterns is not None:
            content.lines.add(table)
            content.volume.add(table["time"], table["level"], now=_nanoseconds(content.end))
            content.patterns.add(table["msg"], table["level"])

    def _is_watched(self) -> bool:
        oldest = time.monotonic() - _SILENCE_SECONDS
        for page, seen_at in list(self._pages.items()):
            if seen_at < oldest:
                self._pages.pop(page, None)
        return bool(self._pages)

    def _report(self, content: _Content) -> None:
        if self._content is content:
            self.on_news(self.state())


def line_texts(table: pa.Table) -> list[list[Any]]:
    """Return the lines' times, levels, services, targets, and messages, each shortened to a single line."""
    times = pc.strftime(table["time"].cast(pa.timestamp("ms", "UTC"), safe=False), "%Y-%m-%d %H:%M:%S").to_pylist()
    columns = (table[name].to_pylist() for name in ("level", "exe", "target", "msg"))
    return [
        [at or "", level or 0, *(printable(cut(text or "", _MAX_LINE_CHARACTERS)) for text in texts)]
        for at, level, *texts in zip(times, *columns, strict=True)
    ]


def _nanoseconds(instant: datetime) -> int:
    return (instant - _EPOCH) // _MICROSECOND * 1000
