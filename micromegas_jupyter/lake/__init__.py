"""Tables on storage: durable appends, merged files, bounded age and size, and a listing that is cheap.

What the tables are is `telemetry`'s, running queries over them is `engine`'s.
"""

from micromegas_jupyter.lake.lake import CachedListing, Lake, LakeWriter
from micromegas_jupyter.lake.maintenance import LakeLimits, MaintenanceReport
from micromegas_jupyter.lake.parquet_folder import (
    FolderKind,
    ParquetFolder,
    check_servable,
    find_folder_kind,
    make_lake_folder,
)

__all__ = [
    "CachedListing",
    "FolderKind",
    "Lake",
    "LakeLimits",
    "LakeWriter",
    "MaintenanceReport",
    "ParquetFolder",
    "check_servable",
    "find_folder_kind",
    "make_lake_folder",
]
