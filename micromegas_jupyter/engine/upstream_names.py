"""What stands here in place of functions and tables that only Micromegas's own server has.

That a name is unknown, `unknown_names` has found; docs/migration.md lists the same for people who move.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_ONLY_THERE: Final = "Micromegas's own server has it; this one does not."
_NO_PARTITIONS: Final = "The server merges and drops the files of its tables by itself; there are no partitions."
_PROPERTY: Final = "Properties are a map here: write properties['key'] or map_keys(properties)."

_FUNCTIONS: Final = (
    ("view_instance", "Query the table itself, for example FROM log_entries WHERE process_id = '…'."),
    ("list_partitions list_view_sets", _NO_PARTITIONS),
    ("retire_partitions retire_partition_by_metadata retire_partition_by_file", _NO_PARTITIONS),
    ("materialize_partitions regenerate_partitions", _NO_PARTITIONS),
    ("property_get properties_length properties_to_jsonb properties_to_dict properties_to_array", _PROPERTY),
    ("process_spans perfetto_trace_chunks parse_block get_payload", _ONLY_THERE),
    ("jsonb_parse jsonb_format_json jsonb_get jsonb_as_string jsonb_as_f64 jsonb_as_i64", _ONLY_THERE),
    ("jsonb_object_keys jsonb_array_length jsonb_array_elements jsonb_each", _ONLY_THERE),
    ("jsonb_path_query jsonb_path_query_first", _ONLY_THERE),
    ("make_histogram sum_histograms quantile_from_histogram variance_from_histogram", _ONLY_THERE),
    ("sum_from_histogram count_from_histogram expand_histogram", _ONLY_THERE),
    ("deny_queries list_query_denials remove_query_denial", "It is for administrators, on a server with a lake."),
)
_TABLES: Final = (
    ("blocks log_stats images net_spans async_events thread_spans otel_spans", _ONLY_THERE),
    ("__blocks__partitions __log_stats__partitions", _ONLY_THERE),
)


def _spread(groups: tuple[tuple[str, str], ...]) -> Iterator[tuple[str, str]]:
    for names, remedy in groups:
        for name in names.split():
            yield name, remedy


# Name to remedy. A name that this server learns leaves this list.
UPSTREAM_FUNCTIONS: Final[Mapping[str, str]] = MappingProxyType(dict(_spread(_FUNCTIONS)))
UPSTREAM_TABLES: Final[Mapping[str, str]] = MappingProxyType(dict(_spread(_TABLES)))


def find_upstream_remedy(what: str, name: str) -> str | None:
    """Return what to do about a name that upstream knows; None for one that it does not.

    Args:
        what: Begins the sentence about the name: `There is no function`.
        name: The name without quotes and dots.
    """
    known = UPSTREAM_FUNCTIONS if what.endswith("function") else UPSTREAM_TABLES if what.endswith("table") else {}
    return known.get(name.lower())
