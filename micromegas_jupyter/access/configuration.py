"""Reads the files that the environment names, and tells whether they have changed since.

What the texts mean is `settings`'s rule; what follows from a change is `reloading`'s.
"""

import hashlib
import logging
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from micromegas_jupyter.access.audit import record_event
from micromegas_jupyter.access.file_rights import check_rights, warn_of_group
from micromegas_jupyter.access.key_file import MAX_KEY_FILE_BYTES
from micromegas_jupyter.access.named_files import mark_of_named_file
from micromegas_jupyter.config.access import AccessSettings, parse_api_keys
from micromegas_jupyter.config.access_config import access_files, parse_access_settings, read_listed_keys
from micromegas_jupyter.core.files import FileMark, FileProblem, read_shared_file
from micromegas_jupyter.errors import ConfigurationError

MAX_CONFIG_FILE_BYTES = 4 * 1024 * 1024

_CONFIG_FILE = "MICROMEGAS_ACCESS_CONFIG"
_KEY_FILE = "MICROMEGAS_API_KEY_FILE"
_REMEDY = "Correct the file or the setting that names it."

Marks: TypeAlias = Mapping[Path, FileMark | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationTexts:
    """What the environment and its files said at one moment.

    Attributes:
        environ: The variables.
        config_text: The configuration file's content, None when none is named.
        key_file_text: The key file's content, None when none is named.
        marks: The marks of the files, taken before they were read, so that no later change is overlooked.
    """

    environ: Mapping[str, str] = field(repr=False)
    config_text: str | None = field(default=None, repr=False)
    key_file_text: str | None = field(default=None, repr=False)
    marks: Marks = field(default_factory=dict)

    def parse(self) -> AccessSettings:
        """Return the settings.

        Raises:
            ConfigurationError: A text is malformed.
        """
        return parse_access_settings(self.environ, config_text=self.config_text, key_file_text=self.key_file_text)

    def is_same(self, other: "ConfigurationTexts") -> bool:
        """Whether the files hold the same."""
        return (self.config_text, self.key_file_text) == (other.config_text, other.key_file_text)


class Reading:
    """The files as one attempt finds them, each read once, so that all that is made of them agrees.

    Links are followed, because mounted configuration is often linked. A file that every user of the machine may
    change is not used, nor is one of somebody who is neither this account nor root.

    Attributes:
        marks: The marks of the files, taken before they were read.
        is_complete: Whether every file could be read.

    Args:
        environ: The variables.
        before: What was read earlier; the key file that it names is read too.

    Raises:
        ConfigurationError: A variable that names a file is malformed.
    """

    def __init__(self, environ: Mapping[str, str], *, before: "ConfigurationTexts | None" = None) -> None:
        self._environ = environ
        self._before = before
        self._found: dict[Path, _Found] = {}
        self.marks: dict[Path, FileMark | None] = {}
        named = access_files(environ).config_file
        self._config = None if named is None else self._look(_path(named), _CONFIG_FILE, MAX_CONFIG_FILE_BYTES)
        config_texts = [None if self._config is None else self._config.text]
        if before is not None:
            config_texts.append(before.config_text)
        for config_text in config_texts:
            with suppress(ConfigurationError):
                self._key_file(config_text)
        self.is_complete = all(found.text is not None for found in self._found.values())

    def whole(self) -> ConfigurationTexts:
        """Return what the files say now.

        Raises:
            ConfigurationError: A file is missing or cannot be used, or the configuration file is malformed.
        """
        config_text = None if self._config is None else self._config.require()
        return self._texts(config_text, self._key_file_text(config_text))

    def parts(self) -> Iterator[ConfigurationTexts]:
        """Yield what becomes of it when one of the two files stays as it was before; what cannot be had is left out."""
        if self._before is None:
            return
        with suppress(ConfigurationError):
            yield self._texts(self._before.config_text, self._key_file_text(self._before.config_text))
        with suppress(ConfigurationError):
            config_text = None if self._config is None else self._config.require()
            # Keys of one file are never taken for those of another.
            if self._key_path(config_text) == self._key_path(self._before.config_text):
                yield self._texts(config_text, self._before.key_file_text)

    def readable(self, config_text: str | None) -> tuple[str | None, str | None]:
        """Return both texts as they are now, None for what cannot be read; `config_text` names the key file."""
        key_file_text = None
        with suppress(ConfigurationError):
            key_file_text = self._key_file_text(config_text)
        return None if self._config is None else self._config.text, key_file_text

    def fingerprint(self) -> bytes:
        """Return a digest of what was found; the same contents and the same problems give the same one."""
        parts = [f"{path}\0{found.text!r}\0{found.problem}" for path, found in self._found.items()]
        return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()

    def warn(self) -> None:
        """Tell the log of files that are more open than they should be."""
        for found in self._found.values():
            found.warn()

    def _texts(self, config_text: str | None, key_file_text: str | None) -> ConfigurationTexts:
        return ConfigurationTexts(
            environ=self._environ, config_text=config_text, key_file_text=key_file_text, marks=self.marks
        )

    def _key_file_text(self, config_text: str | None) -> str | None:
        found = self._key_file(config_text)
        return None if found is None else found.require()

    def _key_file(self, config_text: str | None) -> "_Found | None":
        path = self._key_path(config_text)
        setting = _KEY_FILE if self._environ.get(_KEY_FILE) else f"{_CONFIG_FILE}.api_key_file"
        return None if path is None else self._look(path, setting, MAX_KEY_FILE_BYTES)

    def _key_path(self, config_text: str | None) -> Path | None:
        named = access_files(self._environ, config_text=config_text).key_file
        return None if named is None else _path(named)

    def _look(self, path: Path, setting: str, max_bytes: int) -> "_Found":
        if path not in self._found:
            self.marks.update(marks_of([path]))
            self._found[path] = _find(path, setting=setting, max_bytes=max_bytes)
        return self._found[path]


def marks_of(paths: Iterable[Path]) -> Marks:
    """Return the present mark of each file; None for one that is missing or cannot be looked at."""
    return {path: mark_of_named_file(path) for path in paths}


def _path(written: str) -> Path:
    return Path(os.path.abspath(Path(written).expanduser()))  # noqa: PTH100 - resolve() would pin what a link points to


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """One file: its text, or what is wrong with it."""

    setting: str
    text: str | None = field(default=None, repr=False)
    problem: ConfigurationError | None = None
    status: os.stat_result | None = None

    def require(self) -> str:
        """Return the text.

        Raises:
            ConfigurationError: There is none.
        """
        if self.problem is not None:
            raise self.problem
        return self.text or ""

    def warn(self) -> None:
        """Tell the log when others may change the file, or read keys in plain text in it."""
        if self.status is None or self.text is None:
            return
        warn_of_group(self.status, setting=self.setting)
        if self.status.st_mode & stat.S_IROTH and self._holds_plain_keys(self.text):
            record_event(
                logging.WARNING,
                "API keys in plain text stand in a file that every user of this machine can read.",
                setting=self.setting,
            )

    def _holds_plain_keys(self, text: str) -> bool:
        try:
            keys = read_listed_keys(text) if self.setting == _CONFIG_FILE else parse_api_keys(text, self.setting)
        except ConfigurationError:
            return False
        return any(key.key is not None for key in keys)


def _find(path: Path, *, setting: str, max_bytes: int) -> _Found:
    try:
        content, status = read_shared_file(path, max_bytes=max_bytes)
        check_rights(status, setting=setting)
        return _Found(setting=setting, text=content.decode("utf-8"), status=status)
    except FileProblem as problem:
        what = f"The file that {setting} names {problem.args[0]}."
        return _Found(setting=setting, problem=ConfigurationError(what, key=setting, remedy=_REMEDY))
    except UnicodeDecodeError:
        what = f"The file that {setting} names is not UTF-8 text."
        return _Found(setting=setting, problem=ConfigurationError(what, key=setting, remedy=_REMEDY))
    except ConfigurationError as error:
        return _Found(setting=setting, problem=error)
