"""The location of a lake: a local folder, or a prefix in an S3 bucket. Reads and replaces small objects.

Errors are `Unavailable`, or `ResourcesExhausted` if a disk is full. Bucket settings come from the usual variables
(`AWS_REGION`, `AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, …) of this process's environment.
"""

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

from filelock import FileLock, Timeout

from micromegas_jupyter.core.files import PRIVATE_FILE_MODE, file_beside, sync_folder
from micromegas_jupyter.errors import MicromegasError, ResourcesExhausted, Unavailable, UsageError

S3_SCHEME: Final = "s3://"
MAX_OBJECT_BYTES: Final = 16 * 1024 * 1024
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(//|[^/\\])")
_BUCKET: Final = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^?#]*)?", re.ASCII)
_DISK_FULL_CODES: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FULL: Final = re.compile("No space left|File too large|Disk quota exceeded")
# Matches error messages from obstore, deltalake, and DataFusion. S3 responds to HEAD requests without an error code.
_REFUSED: Final = re.compile(
    r"401 Unauthorized|403 Forbidden|<Code>(?:ExpiredToken|InvalidToken|TokenRefreshRequired)<"
    r"|performing HEAD [^\n]*400 Bad Request"
)
_LOCK_SECONDS: Final = 5.0
_NO_BUCKET: Final = re.compile("<Code>(?:NoSuchBucket|PermanentRedirect|IllegalLocationConstraintException)<")
# Limits per request; deltalake receives the same values as strings.
_CONNECT_SECONDS: Final = 5
_REQUEST_SECONDS: Final = 30
_MAX_RETRIES: Final = 3
# If there are more objects than this, list them instead: one request lists up to a thousand.
_MAX_HEADS: Final = 32
_RETRY_SECONDS: Final = 20


class Entry(NamedTuple):
    """An object below a prefix: its path in the storage, its size, and when it changed (seconds since 1970 UTC).

    In a bucket, it also has the object's mark.
    """

    path: str
    size_bytes: int
    modified_at: float
    mark: str = ""


class Storage:
    """A folder, or a prefix in a bucket. `uri` is an absolute path or begins with `s3://`, without a trailing slash.

    Paths are relative to it, with slashes. Safe to use from several threads.
    """

    def __init__(self, location: str | Path, *, environ: Mapping[str, str] | None = None) -> None:
        self._environ = os.environ if environ is None else environ
        text = str(location)
        self.is_local = not text.startswith(S3_SCHEME)
        if self.is_local:
            scheme = _SCHEME.match(text)
            if scheme is not None and len(scheme[1]) > 1:  # a single letter is a Windows drive
                raise UsageError(
                    f"Tables cannot be stored in {scheme[1]}: locations.",
                    remedy="Use a folder, or specify a bucket as s3://bucket/prefix.",
                )
            self.uri = os.path.abspath(text)  # noqa: PTH100 - without resolving links
        elif _BUCKET.fullmatch(text) is None:
            raise UsageError("The bucket address is invalid.", remedy="Use the format s3://bucket/prefix.")
        else:
            self.uri = text.rstrip("/")

    @property
    def options(self) -> dict[str, str]:
        """The options that deltalake needs to use this storage."""
        if self.is_local:
            return {}
        return {
            **self._config(),
            "allow_http": str(self._allows_http).lower(),
            "connect_timeout": f"{_CONNECT_SECONDS}s",
            "timeout": f"{_REQUEST_SECONDS}s",
            "max_retries": f"{_MAX_RETRIES}",
            "retry_timeout": f"{_RETRY_SECONDS}s",
        }

    def describe(self) -> str:
        """Return the bucket, region, and prefix for error messages, or nothing for a folder."""
        if self.is_local:
            return ""
        bucket, _, prefix = self.uri.removeprefix(S3_SCHEME).partition("/")
        region = self._config().get("aws_region", "not set")
        return f"bucket {bucket}, region {region}, prefix {prefix or 'none'}"

    def child_uri(self, path: str) -> str:
        """Return the absolute path or URL of an object in this storage."""
        return f"{self.uri}/{path}"

    def list_folders(self, below: str = "") -> list[str]:
        """Return the names of the folders in the storage or in one of its folders; may be empty."""
        with storage_errors("The tables could not be listed.", self):
            if not self.is_local:
                prefix = f"{below}/" if below else None
                found = self._obstore.list_with_delimiter(self._store, prefix=prefix)["common_prefixes"]
                return sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in found)
            try:
                with os.scandir(Path(self.uri) / below) as entries:
                    return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
            except FileNotFoundError:
                return []

    def list(self, prefix: str, *, after: str = "") -> Iterator[Entry]:
        """Yield all objects below a folder in any order; with `after`, only those whose names sort after it."""
        with storage_errors("The files of a table could not be listed.", self):
            first = f"{prefix}/{after}"
            if self.is_local:
                found_files = _walk(Path(self.uri), Path(self.uri) / prefix)
                yield from (entry for entry in found_files if not after or entry.path > first)
                return
            for found in self._obstore.list(self._store, prefix=f"{prefix}/", offset=first if after else None):
                for meta in found:
                    changed_at = meta["last_modified"].timestamp()
                    yield Entry(str(meta["path"]), int(meta["size"]), changed_at, str(meta["e_tag"]))

    def has_all(self, paths: Collection[str]) -> bool:
        """Whether all of these objects exist in a bucket."""
        if not paths:
            return True
        if len(paths) <= _MAX_HEADS:
            with (
                storage_errors("The files of a table could not be found.", self),
                ThreadPoolExecutor(len(paths)) as pool,
            ):
                return all(pool.map(self._has, paths))
        # List objects from the first path on until all are found; buckets list objects in name order.
        folder = "/".join(os.path.commonprefix([path.split("/")[:-1] for path in paths]))  # noqa: RUF071 - of lists
        missing, first = set(paths), min(paths)
        for entry in self.list(folder, after=first.removeprefix(f"{folder}/")[:-1]):
            missing.discard(entry.path)
            if not missing:
                return True
        return False

    def _has(self, path: str) -> bool:
        try:
            self._obstore.head(self._store, path)
        except FileNotFoundError:
            return False
        return True

    def read(self, path: str, *, max_bytes: int = MAX_OBJECT_BYTES) -> tuple[bytes, str] | None:
        """Return a small object and its mark, which changes with its content, or None if the object does not exist."""
        with storage_errors("A file of the lake could not be read.", self):
            if self.is_local:
                try:
                    with (Path(self.uri) / path).open("rb") as stream:
                        # Python allocates the requested size in advance, even if the file is small.
                        content = stream.read(min(os.fstat(stream.fileno()).st_size, max_bytes) + 1)
                except (FileNotFoundError, NotADirectoryError):
                    return None
                mark = hashlib.sha256(content).hexdigest()
            else:
                try:
                    found = self._obstore.get(self._store, path)
                except FileNotFoundError:
                    return None
                if found.meta["size"] > max_bytes:
                    raise Unavailable("A file in the lake is too large.")
                content, mark = bytes(found.bytes()), str(found.meta["e_tag"])
        if len(content) > max_bytes:
            raise Unavailable("A file in the lake is too large.")
        return content, mark

    def read_parts(self, path: str, offsets: Sequence[int], sizes: Sequence[int]) -> Sequence[bytes] | None:
        """Return parts of an object, truncated at its end, or None if it does not exist."""
        with storage_errors("A file of the lake could not be read."):
            try:
                if not self.is_local:
                    end = int(self._obstore.head(self._store, path)["size"])
                    lengths = [max(0, min(size, end - offset)) for offset, size in zip(offsets, sizes, strict=True)]
                    if not all(lengths):
                        return [b""] * len(lengths)
                    found = self._obstore.get_ranges(self._store, path, starts=offsets, lengths=lengths)
                    return [bytes(one) for one in found]
                with (Path(self.uri) / path).open("rb") as stream:
                    return [os.pread(stream.fileno(), size, at) for at, size in zip(offsets, sizes, strict=True)]
            except (FileNotFoundError, NotADirectoryError):
                return None

    def read_end(self, path: str, size: int) -> bytes | None:
        """Return at most `size` bytes from the end of an object in a bucket, or None if it does not exist."""
        with storage_errors("A file of the lake could not be read."):
            try:
                return bytes(self._obstore.get(self._store, path, options={"range": {"suffix": size}}).bytes())
            except FileNotFoundError:
                return None

    def write(self, path: str, content: Any) -> None:
        """Create or replace an object atomically and durably."""
        with storage_errors("A file of the lake could not be written.", self):
            if self.is_local:
                _write_durably(Path(self.uri) / path, content)
            else:
                self._obstore.put(self._store, path, bytes(content))

    def replace(self, path: str, content: bytes, *, mark: str | None) -> bool:
        """Write an object if it still has this `mark` (None if it must not exist); return whether it was written."""
        if self.is_local:
            target = Path(self.uri) / path
            with storage_errors("A file of the lake could not be written.", self):
                make_private_folder(target.parent)
                try:
                    with FileLock(target.with_name(f".{target.name}.lock"), timeout=_LOCK_SECONDS, mode=0o600):
                        found = self.read(path)
                        if (None if found is None else found[1]) != mark:
                            return False
                        _write_durably(target, content)
                        return True
                except Timeout as error:
                    raise Unavailable("A file in the lake is locked by another process.") from error
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with storage_errors("A file of the lake could not be written.", self):
            try:
                self._obstore.put(self._store, path, content, mode="create" if mark is None else {"e_tag": mark})
            except (AlreadyExistsError, PreconditionError):
                return False
            except FileNotFoundError:
                if mark is None:
                    raise  # the bucket does not exist
                return False
        return True

    def create(self, path: str, content: bytes) -> bool:
        """Write an object unless it already exists; return whether it was written."""
        if not self.is_local:
            return self.replace(path, content, mark=None)
        target = Path(self.uri) / path
        with storage_errors("A file of the lake could not be written.", self):
            try:
                _write_durably(target, content, is_exclusive=True)
            except FileExistsError:
                return False
        return True

    def copy(self, source: str, target: str) -> None:
        """Copy an object within its bucket; does nothing if it does not exist."""
        with storage_errors("A file of the lake could not be copied.", self), contextlib.suppress(FileNotFoundError):
            self._obstore.copy(self._store, source, target)

    def delete(self, path: str) -> None:
        """Remove an object if it exists."""
        with storage_errors("A file of the lake could not be removed.", self):
            if self.is_local:
                (Path(self.uri) / path).unlink(missing_ok=True)
            else:
                with contextlib.suppress(FileNotFoundError):
                    self._obstore.delete(self._store, path)

    def sync_folder(self, path: str) -> None:
        """Sync a folder's entries to disk; does nothing for a bucket."""
        if self.is_local:
            with storage_errors("A folder of the lake could not be written.", self):
                sync_folder(Path(self.uri) / path)

    def sync_file(self, path: str) -> bool:
        """Sync a file's content to disk; return False if it does not exist. Does nothing for a bucket."""
        if not self.is_local:
            return False
        with storage_errors("A file of the lake could not be written.", self):
            try:
                descriptor = os.open(Path(self.uri) / path, os.O_RDONLY)
            except FileNotFoundError:
                return False
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        return True

    @property
    def _allows_http(self) -> bool:
        return self._config().get("aws_endpoint_url", "").startswith("http://")

    def _config(self) -> dict[str, str]:
        """Return the AWS variables that are set, under their object store names; the last of two aliases wins."""
        names = {
            "AWS_DEFAULT_REGION": "aws_region",
            "AWS_REGION": "aws_region",
            "AWS_ENDPOINT_URL": "aws_endpoint_url",
            "AWS_ENDPOINT_URL_S3": "aws_endpoint_url",
            "AWS_ACCESS_KEY_ID": "aws_access_key_id",
            "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key",
            "AWS_SESSION_TOKEN": "aws_session_token",
        }
        return {key: value for name, key in names.items() if (value := self._environ.get(name))}

    @cached_property
    def _obstore(self) -> Any:
        import obstore

        return obstore

    @cached_property
    def _store(self) -> Any:
        from obstore.store import S3Store

        return S3Store.from_url(
            self.uri,
            config=self._config(),  # type: ignore[arg-type]
            client_options={
                "allow_http": self._allows_http,
                "connect_timeout": f"{_CONNECT_SECONDS}s",
                "timeout": f"{_REQUEST_SECONDS}s",
            },
            retry_config={"max_retries": _MAX_RETRIES, "retry_timeout": timedelta(seconds=_RETRY_SECONDS)},
        )


@contextlib.contextmanager
def storage_errors(what: str, storage: Storage | None = None) -> Iterator[None]:
    """Convert file system, bucket, and Delta errors into public errors that include the bucket."""
    where = "" if storage is None else storage.describe()
    try:
        yield
    except MemoryError:
        raise  # also Arrow's
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if (refused := refused_credentials(what, cause, where=where)) is not None:
                raise refused from error
            if where and _NO_BUCKET.search(str(cause)):
                raise Unavailable(
                    f"{what} The bucket does not exist or is in another region: {where}.",
                    remedy="Check --lake, AWS_REGION, and AWS_ENDPOINT_URL.",
                    retryable=False,
                ) from error
            if (isinstance(cause, OSError) and cause.errno in _DISK_FULL_CODES) or _FULL.search(str(cause)):
                raise ResourcesExhausted(
                    f"{what} The server's storage is full.",
                    remedy="Tell the server's administrator, and try again later.",
                    limit="storage",
                ) from error
            cause = cause.__cause__
        library = type(error).__module__.partition(".")[0]
        if isinstance(error, OSError) or library in {"deltalake", "_internal", "obstore", "pyarrow"}:
            checked = (
                f"Check the free space, the access rights and the address of the lake's storage{where and ': '}{where}."
            )
            raise Unavailable(what, remedy=checked) from error
        raise


def refused_credentials(what: str, error: BaseException | str, *, where: str = "") -> Unavailable | None:
    """Return an error if a bucket has rejected the server's credentials, or None."""
    if isinstance(error, MicromegasError) or _REFUSED.search(str(error)) is None:
        return None
    return Unavailable(
        f"{what} The bucket rejected the server's credentials{where and ': '}{where}.",
        remedy="Tell the server's administrator that the storage credentials have expired or lack a permission. Access "
        "is restored once the credentials are renewed.",
        retryable=False,
    )


def make_private_folder(folder: Path) -> None:
    """Create a folder and its missing parents, accessible only to this account."""
    for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)
        sync_folder(missing.parent)


def _write_durably(target: Path, content: Any, *, is_exclusive: bool = False) -> None:
    make_private_folder(target.parent)
    with file_beside(target, mode=PRIVATE_FILE_MODE, is_synced=True, is_exclusive=is_exclusive) as stream:
        stream.write(content)
    sync_folder(target.parent)


def _walk(root: Path, folder: Path) -> Iterator[Entry]:
    for directory, _, names in os.walk(folder):
        for name in names:
            path = Path(directory) / name
            with contextlib.suppress(FileNotFoundError):
                status = path.lstat()
                yield Entry(path.relative_to(root).as_posix(), status.st_size, status.st_mtime)
