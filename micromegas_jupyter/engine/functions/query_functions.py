"""Micromegas's own SQL functions, and registration of those that a statement mentions.

DataFusion-Python requires one exact type per argument. A function that accepts several types is registered for the most
likely one, and for the next one if the statement cannot be planned. DataFusion runs table functions during planning,
before there are rows, so they are rewritten as subselects.
"""

import functools
import itertools
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
from datafusion import Accumulator, DataFrame, SessionConfig, SessionContext, udaf, udf

from micromegas_jupyter.core import jsonb
from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.engine.contract import VisibleTable
from micromegas_jupyter.engine.functions import histograms, jsonb_functions, numeric, otel_histograms, properties
from micromegas_jupyter.engine.functions.columns import (
    BYTES,
    DICTIONARY,
    PAIR_DICTIONARY,
    PAIRS,
    TEXT_DICTIONARY,
    PerValue,
    holds_pairs,
    to_jsonb,
)
from micromegas_jupyter.engine.functions.histograms import BINS, HISTOGRAM, MakeHistogram, SumHistograms
from micromegas_jupyter.engine.scanner import (
    Mention,
    Scan,
    Token,
    find_brackets,
    find_calls,
    find_calls_in_from,
    quoted,
    scan,
)
from micromegas_jupyter.engine.schemas import flat_schema, no_rows
from micromegas_jupyter.errors import InvalidStatement, MicromegasError
from micromegas_jupyter.telemetry.histograms import OTEL_HISTOGRAM
from micromegas_jupyter.telemetry.tables import TIMESTAMP

_Call = Callable[..., pa.Array]
_ENTRIES: Final = pa.list_(
    pa.struct([pa.field("key", pa.string(), nullable=False), pa.field("value", pa.binary(), nullable=False)])
)
_MAP: Final = pa.map_(pa.string(), pa.string())
_F64: Final = pa.float64()


@dataclass(frozen=True, slots=True)
class _Function:
    """A scalar function; `make` creates one with an empty cache. With `pairs`, its first argument may be a map."""

    make: Callable[[], _Call]
    arguments: tuple[pa.DataType, ...]
    result: pa.DataType
    pairs: bool = False


def _jsonb(function: Callable[..., object], result: pa.DataType, *more: pa.DataType, pairs: bool = False) -> _Function:
    return _Function(functools.partial(PerValue, function, result), (DICTIONARY, *more), result, pairs)


def _plain(call: _Call, result: pa.DataType, *arguments: pa.DataType) -> _Function:
    return _Function(lambda: call, arguments, result)


_SCALARS: Final = {
    "property_get": _jsonb(properties.get_text, TEXT_DICTIONARY, TEXT_DICTIONARY, pairs=True),
    "properties_length": _jsonb(properties.count, pa.int32(), pairs=True),
    "properties_to_jsonb": _Function(lambda: to_jsonb, (DICTIONARY,), DICTIONARY, pairs=True),
    "properties_to_dict": _Function(properties.ToPairs, (DICTIONARY,), PAIR_DICTIONARY, pairs=True),
    "properties_to_array": _Function(properties.ToArray, (DICTIONARY,), PAIRS, pairs=True),
    "jsonb_parse": _Function(lambda: PerValue(jsonb_functions.parse, DICTIONARY), (pa.string(),), DICTIONARY),
    "jsonb_format_json": _jsonb(jsonb_functions.format_json, TEXT_DICTIONARY),
    "jsonb_get": _jsonb(jsonb.find, DICTIONARY, TEXT_DICTIONARY),
    "jsonb_as_string": _jsonb(jsonb_functions.as_string, TEXT_DICTIONARY),
    "jsonb_as_f64": _jsonb(jsonb_functions.as_f64, _F64),
    "jsonb_as_i64": _jsonb(jsonb_functions.as_i64, pa.int64()),
    "jsonb_object_keys": _jsonb(jsonb_functions.object_keys, pa.dictionary(pa.int32(), pa.list_(pa.string()))),
    "jsonb_array_length": _jsonb(jsonb_functions.array_length, pa.int64()),
    "jsonb_path_query": _jsonb(jsonb_functions.path_query, DICTIONARY, TEXT_DICTIONARY),
    "jsonb_path_query_first": _jsonb(jsonb_functions.path_query_first, DICTIONARY, TEXT_DICTIONARY),
    "jsonb_entries": _jsonb(jsonb_functions.entries, _ENTRIES),
    "jsonb_elements": _jsonb(jsonb_functions.elements, pa.list_(pa.binary())),
    "quantile_from_histogram": _plain(histograms.quantile, _F64, HISTOGRAM, _F64),
    "variance_from_histogram": _plain(histograms.variance, _F64, HISTOGRAM),
    "sum_from_histogram": _plain(histograms.field("sum"), _F64, HISTOGRAM),
    "count_from_histogram": _plain(histograms.field("count"), pa.uint64(), HISTOGRAM),
    "histogram_bins": _plain(histograms.rows, BINS, HISTOGRAM),
    "histogram_quantile": _plain(otel_histograms.quantile, _F64, OTEL_HISTOGRAM, _F64),
    "histogram_increase": _plain(
        otel_histograms.increase, OTEL_HISTOGRAM, OTEL_HISTOGRAM, TIMESTAMP, OTEL_HISTOGRAM, TIMESTAMP
    ),
    "histogram_buckets": _plain(otel_histograms.buckets, otel_histograms.BUCKETS, OTEL_HISTOGRAM),
    "histogram_to_bins": _plain(otel_histograms.to_bins, HISTOGRAM, OTEL_HISTOGRAM, _F64, _F64, pa.int64()),
    "bin_center": _plain(numeric.vectorized(numeric.bin_center), _F64, _F64, _F64),
    "lerp": _plain(numeric.vectorized(numeric.lerp), _F64, _F64, _F64, _F64),
    "unlerp": _plain(numeric.vectorized(numeric.unlerp), _F64, _F64, _F64, _F64),
}


def _merge(failures: list[MicromegasError]) -> Callable[[], otel_histograms.Merge]:
    return functools.partial(otel_histograms.Merge, otel_histograms.MergePool(failures))


_Aggregate = tuple[Callable[[list[MicromegasError]], Callable[[], Accumulator]], list[pa.DataType], pa.DataType]
_AGGREGATES: Final[dict[str, _Aggregate]] = {
    "make_histogram": (functools.partial(functools.partial, MakeHistogram), [_F64, _F64, pa.int64(), _F64], HISTOGRAM),
    "sum_histograms": (functools.partial(functools.partial, SumHistograms), [HISTOGRAM], HISTOGRAM),
    "histogram_merge": (_merge, [OTEL_HISTOGRAM], OTEL_HISTOGRAM),
}
_ROWS: Final = {
    "jsonb_each": "SELECT item['key'] AS key, item['value'] AS value "
    "FROM (SELECT unnest(jsonb_entries(given)) AS item FROM {} AS argument(given))",
    "jsonb_array_elements": "SELECT unnest(jsonb_elements(given)) AS value FROM {} AS argument(given)",
    "expand_histogram": "SELECT item['bin_center'] AS bin_center, item['count'] AS \"count\" "
    "FROM (SELECT unnest(histogram_bins(given)) AS item FROM (SELECT * FROM {} LIMIT 1) AS argument(given))",
}
#: Functions of properties and binary JSON, which return null for unreadable values.
CONDITION_FUNCTIONS: Final = frozenset(name for name, one in _SCALARS.items() if one.arguments[0] == DICTIONARY)
#: All function names that SQL may call.
FUNCTION_NAMES: Final = frozenset({*_SCALARS, *_AGGREGATES, *_ROWS})
_ROUTINES: Final = "routines"
#: Tables of `information_schema` that list the functions in a statement's session.
FUNCTION_LISTS: Final = frozenset({_ROUTINES, "parameters"})
_MAX_REWRITES: Final = 32
_NUMBERED: Final = "__call_"
_NO_SIGNATURE: Final = re.compile(r"a call to '(\w+)' function: coercion from")


class QueryFunctions:
    """Registers the functions that a statement mentions, until `remove`; `sql` is the statement to plan.

    `tables` are those that it mentions; `registered` views may call functions, too. A statement that lists the
    engine's functions gets all of them.

    If a function is called with arguments of several types, each call gets a number and a separate function.
    """

    def __init__(  # noqa: PLR0913 - a statement and what it reads
        self,
        session: SessionContext,
        sql: str,
        *,
        mentions: Mention,
        tables: Sequence[VisibleTable],
        registered: Sequence[VisibleTable],
        failures: list[MicromegasError],
    ) -> None:
        self.sql = sql
        self._session = session
        self._failures = failures
        in_views = _functions_in_views(registered)
        in_conditions = _functions_in_conditions(tables) | in_views & CONDITION_FUNCTIONS
        wanted = (
            FUNCTION_NAMES if mentions.has(_ROUTINES) else mentions.among(FUNCTION_NAMES) | in_conditions | in_views
        )
        self._scalars = [name for name in _SCALARS if name in wanted]
        self._aggregates = [name for name in _AGGREGATES if name in wanted]
        self._untried: dict[str, list[pa.DataType]] = {}
        self._kinds: list[pa.DataType] = []
        overloaded = [name for name in self._scalars if name in CONDITION_FUNCTIONS]
        if overloaded:
            kinds = [kind for table in tables for kind in table.snapshot.schema.types]
            kinds += [kind for table in tables for kind in flat_schema(table.snapshot.schema).types]
            first = [DICTIONARY] if DICTIONARY in kinds and not any(table.needs_barrier for table in tables) else []
            self._kinds = [*dict.fromkeys([*first, BYTES, PAIRS, _MAP, *filter(holds_pairs, kinds)])]
            self._untried = {name: self._kinds_for(name) for name in overloaded}
            self._untried |= {name: [BYTES] for name in in_conditions}  # conditions may be parsed again
        for name in self._scalars:
            self._register(name)
        for name in self._aggregates:
            of_statement, arguments, result = _AGGREGATES[name]
            session.register_udaf(udaf(of_statement(failures), arguments, result, [result], "immutable", name))

    def plan(self, plan: Callable[[str], DataFrame]) -> DataFrame:
        """Return the result of `plan` for the statement, after registering functions for its calls' argument types."""
        first: dict[str, Exception] = {}
        while True:
            try:
                frame = plan(self.sql)
                if self._kinds:
                    frame.optimized_logical_plan()  # types in conditions are checked only here
            except Exception as error:
                found = _NO_SIGNATURE.search(str(error))
                if found is None:
                    raise
                name = found[1]
                first.setdefault(name, error)
                if name in self._untried and (self._register(name) or self._number_calls(name)):
                    continue
                if 'Struct("key"' in str(error):
                    raise InvalidStatement(
                        f"{_base(name)} requires binary JSON, but the argument is a map or a list of pairs.",
                        remedy="Convert the column: properties_to_jsonb(column).",
                    ) from None
                raise type(error)(without_numbers(str(first[name]))) from None
            else:
                return frame

    def remove(self) -> None:
        """Remove the functions from the session."""
        for name in self._scalars:
            self._session.deregister_udf(name)
        for name in self._aggregates:
            self._session.deregister_udaf(name)

    def _kinds_for(self, name: str) -> list[pa.DataType]:
        return [kind for kind in self._kinds if _SCALARS[_base(name)].pairs or not holds_pairs(kind)]

    def _register(self, name: str) -> bool:
        """Register a function for the next untried argument type; return False if none is left."""
        function, arguments = _SCALARS[_base(name)], _SCALARS[_base(name)].arguments
        if name in self._untried:
            if not self._untried[name]:
                return False
            arguments = (self._untried[name].pop(0), *arguments[1:])
        call = self._reporting(function.make())
        self._session.register_udf(udf(call, list(arguments), function.result, "immutable", name))
        return True

    def _number_calls(self, name: str) -> bool:
        """Create a function for each call with different arguments; return False if there is only one."""
        scanned = scan(self.sql)
        tokens = scanned.tokens
        numbers: dict[tuple[str, ...], str] = {}
        changes: list[tuple[Token, str]] = []
        for first, last in find_calls(scanned, {name}, is_certain=False):
            call = tuple(one.text for one in tokens[first:last])
            changes.append((tokens[first], numbers.setdefault(call, f"{name}{_NUMBERED}{len(numbers)}")))
        if _NUMBERED in name or len(numbers) < 2:  # noqa: PLR2004
            return False
        self.sql = scanned.with_replaced(changes)
        for numbered in numbers.values():
            self._scalars.append(numbered)
            self._untried[numbered] = self._kinds_for(numbered)
            self._register(numbered)
        return True

    def _reporting(self, call: _Call) -> _Call:
        def reporting(*columns: pa.Array) -> pa.Array:
            try:
                return call(*columns)
            except MicromegasError as error:
                self._failures.append(error)
                raise

        return reporting


def _functions_in_conditions(tables: Sequence[VisibleTable]) -> frozenset[str]:
    """Return the functions used in the tables' row conditions."""
    names = (_names(one) for table in tables for one in table.all_conditions)
    return CONDITION_FUNCTIONS.intersection(itertools.chain.from_iterable(names))


def _functions_in_views(tables: Sequence[VisibleTable]) -> frozenset[str]:
    views = (table.snapshot for table in tables if table.snapshot.source or table.snapshot.materialized)
    queries = [one for view in views for one in (view.merge_sql, view.materialized and view.materialized.extract_sql)]
    return FUNCTION_NAMES.intersection(itertools.chain.from_iterable(_names(one or "") for one in queries))


@functools.lru_cache(maxsize=256)
def _names(sql: str) -> frozenset[str]:
    return scan(sql).names


def register_flat_functions(session: SessionContext, names: Collection[str] = CONDITION_FUNCTIONS) -> None:
    """Register functions that row conditions and views may call, for columns without dictionary encoding."""
    for name in _SCALARS.keys() & names:
        function = _SCALARS[name]
        kinds = [BYTES, *function.arguments[1:]] if name in CONDITION_FUNCTIONS else list(function.arguments)
        session.register_udf(udf(function.make(), kinds, function.result, "immutable", name))
    for name in _AGGREGATES.keys() & names:
        of_statement, arguments, result = _AGGREGATES[name]
        session.register_udaf(udaf(of_statement([]), arguments, result, [result], "immutable", name))


# These return the same value throughout a statement.
_STABLE_FUNCTIONS: Final = frozenset({"now", "today", "current_date", "current_time", "current_timestamp"})


@functools.cache
def changing_functions() -> frozenset[str]:
    """Return the names of functions whose results depend on more than their arguments."""
    context = SessionContext(SessionConfig().with_information_schema(True))
    found = context.sql(
        "SELECT DISTINCT routine_name FROM information_schema.routines WHERE NOT is_deterministic"
    ).to_pylist()
    return frozenset(row["routine_name"] for row in found) - _STABLE_FUNCTIONS


def visible_schema(snapshot: TableSnapshot) -> pa.Schema:
    """Return the columns, after any merge, that a condition on the table may use."""
    if snapshot.materialized is not None:
        return snapshot.schema  # the view's definition may no longer work; if it does, it returns these columns
    return _merged_schema(snapshot.schema, snapshot.merge_sql, snapshot.raw_name)


@functools.lru_cache(maxsize=256)
def _merged_schema(schema: pa.Schema, merge_sql: str | None, raw_name: str | None) -> pa.Schema:
    context = SessionContext()
    rows = no_rows(context, schema)
    if merge_sql is not None and raw_name is not None:
        register_flat_functions(context, _names(merge_sql))
        context.register_table(quoted(raw_name), rows.into_view())
        rows = context.sql(merge_sql)
    return rows.schema()


def without_numbers(text: str) -> str:
    """Return a string, such as a column name, without the numbers that were added to calls."""
    return re.sub(rf"{_NUMBERED}\d+\b", "", text) if _NUMBERED in text else text


def _base(name: str) -> str:
    return name.partition(_NUMBERED)[0]


def with_functions_as_rows(scanned: Scan) -> Scan:
    """Return a statement with table functions, including those in arguments, replaced by subselects."""
    for _ in range(_MAX_REWRITES):
        if scanned.names.isdisjoint(_ROWS):
            break
        changed = _with_last_as_rows(scanned)
        if changed is scanned:
            break
        scanned = changed
    return scanned


def _with_last_as_rows(scanned: Scan) -> Scan:
    """Return a statement with the last innermost call to a table function replaced by a subselect."""
    tokens = scanned.tokens
    for index, end in reversed(find_calls_in_from(scanned, _ROWS)):
        if end == index + 2:
            continue
        call = tokens[index]
        sql, opening, closing = scanned.sql, tokens[index + 1].start, tokens[end].start
        argument = sql[opening : closing + 1]
        if tokens[index + 2].name not in {"select", "with"}:
            inner = find_brackets(scanned).get(index + 2)
            is_select = inner == end - 1 and tokens[index + 3].name in {"select", "with", "("}
            argument = argument[1:-1] if is_select else f"(SELECT {argument[1:-1]})"
        rows = _ROWS[call.name].format(argument)
        return scan(f"{sql[: call.start]}({rows}){sql[closing + 1 :]}")
    return scanned
