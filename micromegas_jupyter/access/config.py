"""The access configuration: read from environment and files, checked, and read again when a file changes."""

import hashlib
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeAlias, TypeVar

from micromegas_jupyter.access.api_keys import MAX_KEY_FILE_BYTES, ApiKeyValidator, key_digest, key_state
from micromegas_jupyter.access.audit import record_event
from micromegas_jupyter.access.jwks import (
    MAX_KEY_SET_BYTES,
    KeySources,
    check_rights,
    mark_of_named_file,
    read_named_file,
    warn_of_group,
)
from micromegas_jupyter.access.metrics import AccessMetrics
from micromegas_jupyter.access.oidc import OidcValidator
from micromegas_jupyter.access.rate_limit import DailyTurns
from micromegas_jupyter.access.roles import Rights, check_admin_entries
from micromegas_jupyter.access.validator import DecidingValidator, Decision, MultiValidator
from micromegas_jupyter.config.access import (
    API_KEY_ISSUER,
    AccessSettings,
    ApiKeySetting,
    IssuerSetting,
    LegacyApiKeys,
    parse_api_keys,
)
from micromegas_jupyter.config.access_config import access_files, parse_access_settings, read_denied, read_listed_keys
from micromegas_jupyter.core.files import FileMark, FileProblem, read_shared_file
from micromegas_jupyter.core.http import ProviderHttp
from micromegas_jupyter.core.json import JsonError, decode_strict_json
from micromegas_jupyter.core.protocols import AuthContext
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.errors import ConfigurationError, MicromegasError, ProviderMisbehaved, Unavailable
from micromegas_jupyter.oidc.keys import parse_key_set

_STOP_SECONDS = 10.0


class Ticker:
    """Calls `tick` every `interval_seconds`; never keeps the process alive, and survives whatever `tick` raises.

    The same kind of failure again and again is told once.
    """

    def __init__(self, tick: Callable[[], None], *, interval_seconds: float, name: str) -> None:
        self._tick = tick
        self._interval_seconds = interval_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin; the first call comes after one interval."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait a bounded time for a call under way; safe to call twice, and from `tick` itself."""
        self._stopping.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        told: str | None = None
        while not self._stopping.wait(self._interval_seconds):
            try:
                self._tick()
                told = None
            except Exception as error:  # noqa: BLE001 - a defect in one round must not end the rounds
                kind = type(error).__name__
                if kind != told:
                    record_event(logging.ERROR, "Looking for changes failed.", kind=kind)
                told = kind


_PROVIDER_TIMEOUT_SECONDS = 10.0
_MAX_DOCUMENT_BYTES = 1_000_000


class ValidatorBuilder:
    """Builds any number of validators that share the issuers' keys, the counters and the memory of warnings.

    Attributes:
        metrics: What all of them count.
    """

    def __init__(self, *, clock: Clock) -> None:
        self.metrics = AccessMetrics()
        self._clock = clock
        self._warnings = DailyTurns(clock)
        self._http = ProviderHttp(timeout_seconds=_PROVIDER_TIMEOUT_SECONDS, max_bytes=_MAX_DOCUMENT_BYTES)
        self._sources = KeySources(http=self._http, clock=clock, metrics=self.metrics)

    def build(self, settings: AccessSettings) -> MultiValidator:
        """Return a validator of the keys and tokens that `settings` accepts; asks API keys first, calls nobody yet.

        Raises:
            ConfigurationError: The settings contradict each other.
        """
        issuers = () if settings.oidc is None else settings.oidc.issuers
        if issuers:
            check_admin_entries(settings.admins, issuers=issuers, place=settings.admins_place)
        rights = Rights(settings.roles, settings.default_roles)
        denied = split_denied(settings.denied, issuers=issuers)
        validators: list[ApiKeyValidator | OidcValidator] = []
        if settings.api_keys:
            validators.append(
                ApiKeyValidator(
                    settings.api_keys,
                    legacy=settings.legacy_api_keys,
                    rights=rights,
                    denied={name for issuer, name in denied if issuer == API_KEY_ISSUER},
                    clock=self._clock,
                    warnings=self._warnings,
                )
            )
        if settings.oidc is not None:
            validators.append(
                OidcValidator(
                    settings.oidc,
                    settings.admins,
                    http=self._http,
                    clock=self._clock,
                    rights=rights,
                    denied=denied,
                    metrics=self.metrics,
                    sources=self._sources,
                )
            )
        return MultiValidator(validators)

    def forget_all_but(self, settings: AccessSettings) -> None:
        """Let go of the keys of issuers that are no longer accepted, and report fetches for those that are."""
        issuers = () if settings.oidc is None else settings.oidc.issuers
        self._sources.retain(issuers)
        for setting in issuers:
            self.metrics.expect_key_fetches(setting.issuer)

    def close(self) -> None:
        """Release what the validators share."""
        self._sources.close()
        self._http.close()


def split_denied(entries: Iterable[str], *, issuers: Iterable[IssuerSetting]) -> frozenset[tuple[str, str]]:
    """Return each entry `issuer|subject` as a pair; API keys have the issuer `api_key`.

    An issuer's own name may hold a bar and a subject often does, so that the one that fits in full decides. An entry
    that fits no issuer, which the settings refuse, denies nobody.
    """
    names = sorted({API_KEY_ISSUER, *(setting.issuer for setting in issuers)}, key=len, reverse=True)
    pairs = set()
    for entry in entries:
        issuer = next((name for name in names if entry.startswith(f"{name}|")), None)
        if issuer is not None:
            pairs.add((issuer, entry.removeprefix(f"{issuer}|")))
    return frozenset(pairs)


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


def check_issuer_files(issuers: Iterable[IssuerSetting]) -> None:
    """Check that key files and certificates are there and can be trusted, and that key files hold keys.

    A file with a token may come later and belong to anybody, as mounted secrets do; nobody else may change it.

    Raises:
        ConfigurationError: One is not so; the error names the setting, not the file.
    """
    checked: set[tuple[str, str]] = set()
    for issuer in issuers:
        for member, path in _files_of(issuer).items():
            if (member, path) in checked:
                continue
            # Keys are held against their issuer, so that each issuer's own look at one file counts.
            if member != "jwks_file":
                checked.add((member, path))
            _check_file(path, setting=f"{issuer.place}.{member}", is_token=member == "bearer_token_file")
            if member == "jwks_file":
                _check_keys(path, issuer)


def warn_of_issuer_files(issuers: Iterable[IssuerSetting]) -> None:
    """Tell the log of files that their group may change."""
    places = {
        path: f"{issuer.place}.{member}" for issuer in issuers for member, path in reversed(_files_of(issuer).items())
    }
    for path, setting in places.items():
        found = _look_at(path)
        if isinstance(found, os.stat_result):
            warn_of_group(found, setting=setting)


def _files_of(issuer: IssuerSetting) -> dict[str, str]:
    """Return the files that an issuer's setting names, by member."""
    named = {
        "jwks_file": issuer.jwks_file,
        "ca_file": issuer.ca_file,
        "bearer_token_file": issuer.bearer_token_file,
    }
    return {member: path for member, path in named.items() if path is not None}


def _check_file(path: str, *, setting: str, is_token: bool) -> None:
    found = _look_at(path)
    if isinstance(found, os.stat_result):
        check_rights(found, setting=setting, any_owner=is_token)
    elif not is_token:
        raise ConfigurationError(
            f"The file that {setting} names cannot be read: {found}.", key=setting, remedy="Correct the path."
        )


def _look_at(path: str) -> os.stat_result | str:
    """Return what the system says of the file, or why it says nothing."""
    try:
        return Path(path).stat()
    except OSError as error:
        return error.strerror or "it cannot be looked at"
    except ValueError:
        return "its name is malformed"


def _check_keys(path: str, issuer: IssuerSetting) -> None:
    setting = f"{issuer.place}.jwks_file"
    try:
        document = decode_strict_json(read_named_file(path, MAX_KEY_SET_BYTES).decode("utf-8"))
        parse_key_set(document, issuer=issuer.issuer, tenant=issuer.tenant)
    except OSError as error:
        problem = f"cannot be read: {error.strerror or 'it cannot be opened'}"
    except (UnicodeDecodeError, JsonError):
        problem = "is not valid JSON"
    except ProviderMisbehaved:
        problem = "is not a key set (RFC 7517)"
    else:
        return
    raise ConfigurationError(
        f"The file that {setting} names {problem}.", key=setting, remedy="Write the issuer's key set into it."
    )


_MAX_WARNINGS = 100
_TRIED = "It is read again by itself when it has changed; nothing has to be restarted."


def record_in_force(settings: AccessSettings, *, before: AccessSettings, now: datetime) -> None:
    """Tell that settings came into force; a warning where they let in nobody, or roles are not there any more."""
    counts = count_settings(settings, now=now)
    is_odd = (before.roles is not None and settings.roles is None) or not (counts["issuers"] or counts["api_keys"])
    record_event(
        logging.WARNING if is_odd else logging.INFO,
        "The access configuration was read again and is in force.",
        had_roles=before.roles is not None,
        **counts,
    )


def warn_of_idle_names(settings: AccessSettings) -> None:
    """Tell of names that do nothing: of `denied`, those that no API key has; of `admins`, all where nobody signs in."""
    if settings.admins and settings.oidc is None:
        record_event(
            logging.WARNING,
            "Administrators are named, but no issuer whose tokens could be theirs; API keys administer nothing.",
            setting=settings.admins_place,
        )
    names = {key.name for key in settings.api_keys}
    denied = sorted(name for issuer, name in split_denied(settings.denied, issuers=()) if issuer == API_KEY_ISSUER)
    for name in [name for name in denied if name not in names][:_MAX_WARNINGS]:
        record_event(logging.WARNING, "An entry of denied names no API key that there is.", subject=name)


def record_problem(error: Exception, *, is_part: bool, **facts: str | float | None) -> None:
    """Tell why a new version is not in force as a whole.

    Args:
        error: What keeps it from being so.
        is_part: Whether a part of it came into force.
        facts: What is in force.
    """
    if not isinstance(error, ConfigurationError):
        sentence = "A new version of the access configuration could not be looked at; it is tried again."
    elif is_part:
        sentence = "A part of a new version of the access configuration cannot be used; the rest is in force."
    else:
        sentence = "A new version of the access configuration cannot be used; the old one stays in force."
    record_event(
        logging.ERROR,
        sentence,
        kind=type(error).__name__,
        setting=error.key if isinstance(error, ConfigurationError) else None,
        # Sentences of other libraries may hold anything.
        problem=error.what if isinstance(error, MicromegasError) else None,
        remedy=_remedy_of(error),
        **facts,
    )


def _remedy_of(error: Exception) -> str | None:
    """Return what to do while the server goes on: of a setting that it has at its start, restarting is the remedy."""
    if not isinstance(error, ConfigurationError):
        return error.remedy if isinstance(error, MicromegasError) else None
    own = "Correct what it says." if error.remedy == ConfigurationError.default_remedy else error.remedy
    return f"{own} {_TRIED}"


def count_settings(settings: AccessSettings, *, now: datetime) -> dict[str, float]:
    """Return how many of each there are; of keys, those that still let somebody in."""
    issuers = () if settings.oidc is None else settings.oidc.issuers
    return {
        "issuers": len(issuers),
        "api_keys": sum(key_state(key, now=now) == "valid" for key in settings.api_keys),
        "denied": len(settings.denied),
        "roles": len(settings.roles or ()),
        "admins": len(settings.admins),
        "admin_groups": sum(len(issuer.admin_groups) for issuer in issuers),
    }


Part = TypeVar("Part")


@dataclass(frozen=True, slots=True, kw_only=True)
class Statements:
    """What texts say of who may come, as far as each part can be read.

    Attributes:
        denied: The configuration file's `denied`.
        config_keys: The keys that stand in the configuration file itself.
        file_keys: The keys in the key file.
    """

    denied: tuple[str, ...] = ()
    config_keys: tuple[ApiKeySetting, ...] = field(default=(), repr=False)
    file_keys: tuple[ApiKeySetting, ...] = field(default=(), repr=False)


NO_STATEMENTS = Statements()


def read_statements(
    config_text: str | None, key_file_text: str | None, *, otherwise: Statements = NO_STATEMENTS
) -> Statements:
    """Read each part by itself; a part whose text is missing or malformed is that of `otherwise`."""
    return Statements(
        denied=_read(read_denied, config_text, otherwise.denied),
        config_keys=_read(read_listed_keys, config_text, otherwise.config_keys),
        file_keys=_read(lambda text: parse_api_keys(text, "keys"), key_file_text, otherwise.file_keys),
    )


def restrain(settings: AccessSettings, *, before: Statements, now: Statements) -> AccessSettings:
    """Return settings that let in nobody whom the texts of now shut out.

    A key is refused that is now marked as revoked, has ended or is no longer listed, and so is everybody who is now
    denied. Nobody gets anything that they did not have. A list without any key says nothing where keys are the only
    way in: it would shut out everybody, and is never put in force for the same reason.

    Args:
        settings: What is in force.
        before: What the texts of these settings say.
        now: What the texts say now.
    """
    if before == now:
        return settings
    listed = {key_digest(key): key for key in (*now.config_keys, *now.file_keys)}
    watched = {key_digest(key) for key in (*before.config_keys, *before.file_keys)}
    kept = []
    for key in settings.api_keys:
        digest = key_digest(key)
        if digest in listed:
            kept.append(_stricter(key, listed[digest]))
        elif digest not in watched:
            kept.append(key)
    if not kept and settings.oidc is None:
        kept = list(settings.api_keys)
    return replace(settings, api_keys=tuple(kept), denied=tuple(dict.fromkeys((*settings.denied, *now.denied))))


def _read(reader: Callable[[str], Part], text: str | None, otherwise: Part) -> Part:
    if text is None:
        return otherwise
    try:
        return reader(text)
    except ConfigurationError:
        return otherwise


def _stricter(key: ApiKeySetting, now: ApiKeySetting) -> ApiKeySetting:
    ends = [moment for moment in (key.expires_at, now.expires_at) if moment is not None]
    return replace(key, revoked_at=key.revoked_at or now.revoked_at, expires_at=min(ends, default=None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A version that can be used.

    Attributes:
        texts: What it was read from.
        settings: What the texts mean.
        validator: A validator of these settings, not used yet.
    """

    texts: ConfigurationTexts
    settings: AccessSettings
    validator: MultiValidator = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is used from now on.

    Attributes:
        version: The newest version, or what of it can be used, or the one before.
        error: Why it is not the newest version as a whole; None when it is.
        is_final: Whether the same texts would lead here again, so that nobody need try.
    """

    version: Version
    error: Exception | None = None
    is_final: bool = True


class Versions:
    """Makes versions of texts, and chooses among them. For one caller at a time.

    Args:
        builder: Builds the validators.
        legacy_api_keys: What becomes of plain-text keys, whatever the settings say.
        check: Looks at settings before they come into force; may refuse them with a `ConfigurationError`.
    """

    def __init__(
        self,
        builder: ValidatorBuilder,
        *,
        legacy_api_keys: LegacyApiKeys | None,
        check: Callable[[AccessSettings], None] | None,
    ) -> None:
        self._builder = builder
        self._legacy_api_keys = legacy_api_keys
        self._check = check
        self._depends_on_more = False

    def make(self, texts: ConfigurationTexts) -> Version:
        """Return the version that the texts are.

        Raises:
            ConfigurationError: It cannot be used, or nobody could sign in.
        """
        settings = texts.parse()
        if self._legacy_api_keys is not None:
            settings = replace(settings, legacy_api_keys=self._legacy_api_keys)
        if not settings.api_keys and settings.oidc is None:
            raise ConfigurationError(
                "Neither API keys nor an OpenID provider are configured, so nobody could sign in.",
                key="MICROMEGAS_OIDC_CONFIG",
                remedy="Set MICROMEGAS_OIDC_CONFIG or MICROMEGAS_API_KEYS, or name a file that has issuers or keys, "
                "or start the server with --disable-auth.",
            )
        if self._check is not None:
            self._check(settings)
        self._check_files(settings)
        return Version(texts=texts, settings=settings, validator=self._builder.build(settings))

    def choose(self, reading: Reading, *, before: Version) -> Choice:
        """Return the newest version that can be used.

        When it cannot be used as a whole, each file by itself stays as it was, the configuration file first.
        """
        self._depends_on_more = False
        try:
            return Choice(version=self.make(reading.whole()))
        except ConfigurationError as error:
            refusal = error
        except Exception as error:  # noqa: BLE001 - whatever it is, it says nothing about the texts
            return Choice(version=before, error=error, is_final=False)
        for texts in reading.parts():
            if texts.is_same(before.texts):
                continue
            try:
                version = self.make(texts)
            except ConfigurationError:
                continue
            except Exception as error:  # noqa: BLE001 - as above
                return Choice(version=before, error=error, is_final=False)
            return Choice(version=version, error=refusal, is_final=self._is_final(reading))
        return Choice(version=before, error=refusal, is_final=self._is_final(reading))

    def _is_final(self, reading: Reading) -> bool:
        return reading.is_complete and not self._depends_on_more

    def _check_files(self, settings: AccessSettings) -> None:
        try:
            check_issuer_files(() if settings.oidc is None else settings.oidc.issuers)
        except ConfigurationError:
            # The files that issuers name are not watched, and may be right the next time.
            self._depends_on_more = True
            raise


WATCH_INTERVAL_SECONDS = 1.0
RELOAD_WAIT_SECONDS = 20.0

# Two changes within one tick of a file system's clock leave the same mark, so young marks are not relied on.
_YOUNG_MARK = timedelta(seconds=2)


class ReloadingValidator(DecidingValidator):
    """Validates as its settings say, and reads them again when a file that they come from changes.

    Calls take no lock: a reload builds a new validator beside the one in use and then puts it in its place, so
    remembered findings are gone at once and calls that are being checked end on the old one. One lock keeps
    reloads apart; nobody waits for it without an end.

    Of a version that cannot be used as a whole, each file by itself is used where that can be; and whoever it shuts
    out, by revocation or denial, is shut out in any case. A version is done with once it is in force, or refused for
    what its texts say; whatever else keeps it from being used is tried again.

    Attributes:
        metrics: What is counted, over all reloads.

    Args:
        environ: The variables; read once.
        legacy_api_keys: What becomes of plain-text keys, whatever the settings say.
        check: Looks at settings before they come into force; may refuse them with a `ConfigurationError`.
        clock: Tells the time.
        watch_interval_seconds: How often the files are looked at.

    Raises:
        ConfigurationError: The settings cannot be used, or nothing would ever be accepted.
    """

    metrics: AccessMetrics

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        legacy_api_keys: LegacyApiKeys | None = None,
        check: Callable[[AccessSettings], None] | None = None,
        clock: Clock = SYSTEM_CLOCK,
        watch_interval_seconds: float = WATCH_INTERVAL_SECONDS,
    ) -> None:
        self._environ = dict(environ)
        self._clock = clock
        self._lock = threading.Lock()
        reading = Reading(self._environ)
        texts = reading.whole()
        self._builder = ValidatorBuilder(clock=clock)
        self._versions = Versions(self._builder, legacy_api_keys=legacy_api_keys, check=check)
        self.metrics = self._builder.metrics
        try:
            self._version = self._versions.make(texts)
        except BaseException:
            self._builder.close()
            raise
        self._marks = reading.marks
        # What the last attempt found; when it is done with, nothing is done or said about the same twice.
        self._found, self._is_done_with, self._is_whole = reading.fingerprint(), True, True
        self._told: object = None
        # What a version that is not in force as a whole says against credentials.
        self._statements: Statements | None = None
        self._settings, self._current = self._version.settings, self._version.validator
        self._note_in_force()
        self._warn_of_files(reading)
        warn_of_idle_names(self._settings)
        self._watch = Ticker(self.look_for_changes, interval_seconds=watch_interval_seconds, name="micromegas-access")
        if self._marks:
            self._watch.start()

    @property
    def settings(self) -> AccessSettings:
        """The settings in force."""
        return self._settings

    def cached_context(self, token: str) -> AuthContext | None:
        """Return the context when it is known without any I/O or signature work, else None; never raises."""
        return self._current.cached_context(token)

    def decide(self, token: str) -> Decision:
        """Ask the validator that is in force now."""
        return self._current.decide(token)

    def reload(self) -> None:
        """Read everything again, changed or not, and forget all findings.

        Raises:
            ConfigurationError: The new version cannot be used as a whole; the log says what is in force.
            Unavailable: It could not be looked at now, or another reload does not finish.
        """
        with self._alone():
            error = self._read_again(is_asked_for=True)
        if error is None:
            return
        if isinstance(error, MicromegasError):
            raise error
        raise Unavailable("The access configuration could not be read again now.") from error

    def clear_caches(self) -> None:
        """Forget all findings; the settings in force stay.

        Raises:
            Unavailable: A reload does not finish.
        """
        with self._alone():
            self._current = self._builder.build(self._settings)

    def look_for_changes(self) -> None:
        """Reload when a file has changed since it was read, or the last attempt failed for a passing reason."""
        if not self._lock.acquire(blocking=False):
            return  # a reload is under way, and the next look comes soon
        try:
            if self._is_done_with and marks_of(self._marks) == self._marks and not self._has_young_mark():
                return
            self._read_again(is_asked_for=False)
        finally:
            self._lock.release()

    def close(self) -> None:
        """Stop to watch, and release keys and connections; safe to call twice."""
        self._watch.stop()
        self._current.close()
        self._builder.close()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=RELOAD_WAIT_SECONDS):
            raise Unavailable("Another reload of the access configuration does not finish.")
        try:
            yield
        finally:
            self._lock.release()

    def _read_again(self, *, is_asked_for: bool) -> Exception | None:
        """Use what the files say now, and return what keeps it from being used as a whole; with the lock held."""
        reading = Reading(self._environ, before=self._version.texts)
        self._marks = reading.marks
        found = reading.fingerprint()
        if not is_asked_for and self._is_done_with and found == self._found:
            return None
        self._is_done_with = False
        choice = self._versions.choose(reading, before=self._version)
        if choice.error is None:
            self._use_whole(choice.version, reading, is_asked_for=is_asked_for)
        else:
            is_part = choice.version is not self._version
            # What was found before, and led nowhere else, leads to what is in force already.
            if is_part or is_asked_for or self._is_whole or found != self._found:
                self._use_part(choice.version, reading, is_asked_for=is_asked_for)
            self._tell(choice.error, reading, is_part=is_part, is_asked_for=is_asked_for)
        self._found, self._is_done_with = found, choice.is_final
        return choice.error

    def _use_whole(self, version: Version, reading: Reading, *, is_asked_for: bool) -> None:
        if self._is_whole and version.texts.is_same(self._version.texts) and not is_asked_for:
            return
        before = self._settings
        self._put_in_force(version, version.settings)
        self._is_whole, self._statements, self._told = True, None, None
        self.metrics.count_reload("in_force")
        record_in_force(self._settings, before=before, now=self._clock.now())
        self._warn_of_files(reading)
        warn_of_idle_names(self._settings)

    def _use_part(self, version: Version, reading: Reading, *, is_asked_for: bool) -> None:
        """Use what of the newest version can be used, and shut out whom the rest of it shuts out."""
        said = read_statements(version.texts.config_text, version.texts.key_file_text)
        now = read_statements(*reading.readable(version.texts.config_text), otherwise=self._statements or said)
        settings = restrain(version.settings, before=said, now=now)
        if version is not self._version or settings != self._settings or is_asked_for:
            self._put_in_force(version, settings)
        self._is_whole, self._statements = False, now

    def _put_in_force(self, version: Version, settings: AccessSettings) -> None:
        # A validator that was in use remembers findings, which must not come back.
        is_fresh = version is not self._version and settings is version.settings
        self._current = version.validator if is_fresh else self._builder.build(settings)
        self._version, self._settings = version, settings
        self._note_in_force()

    def _note_in_force(self) -> None:
        self._builder.forget_all_but(self._settings)
        self.metrics.note_in_force(self._clock.now())

    def _warn_of_files(self, reading: Reading) -> None:
        reading.warn()
        warn_of_issuer_files(() if self._settings.oidc is None else self._settings.oidc.issuers)

    def _tell(self, error: Exception, reading: Reading, *, is_part: bool, is_asked_for: bool) -> None:
        # While the same texts meet the same problem, it is told once, however often it is tried.
        told = (reading.fingerprint(), type(error), str(error) if isinstance(error, MicromegasError) else None)
        if told == self._told and not is_asked_for:
            return
        self._told = told
        self.metrics.count_reload("refused" if isinstance(error, ConfigurationError) else "failed")
        texts, now = self._version.texts, self._clock.now()
        config_text, key_file_text = reading.readable(texts.config_text)
        counts = count_settings(self._settings, now=now)
        whole = count_settings(self._version.settings, now=now)
        record_problem(
            error,
            is_part=is_part,
            configuration_file=_state_of(texts.config_text, config_text),
            key_file=_state_of(texts.key_file_text, key_file_text),
            keys_shut_out=whole["api_keys"] - counts["api_keys"],
            denied_in_addition=counts["denied"] - whole["denied"],
            **counts,
        )

    def _has_young_mark(self) -> bool:
        oldest_young_ns = (self._clock.now() - _YOUNG_MARK).timestamp() * 1e9
        return any(mark is not None and mark.changed_ns > oldest_young_ns for mark in self._marks.values())


def _state_of(text: str | None, text_now: str | None) -> str | None:
    """Return whether the text of a file that is in force is the file's present one; None when there is no file."""
    if text is None:
        return None
    return "as it is now" if text == text_now else "as it was"


def validator_from_environment(
    environ: Mapping[str, str],
    *,
    legacy_api_keys: LegacyApiKeys | None = None,
    check: Callable[[AccessSettings], None] | None = None,
) -> ReloadingValidator:
    """Build a validator of the API keys and OpenID tokens that `environ` accepts; asks API keys first.

    Reads the variables `MICROMEGAS_OIDC_CONFIG`, `MICROMEGAS_API_KEYS`, `MICROMEGAS_ADMINS` and
    `MICROMEGAS_LEGACY_API_KEYS`, and the files that `MICROMEGAS_ACCESS_CONFIG` and `MICROMEGAS_API_KEY_FILE` name;
    a change of these files takes effect by itself. No provider is called yet, so this works while one is down.

    Args:
        environ: The variables; a copy is kept.
        legacy_api_keys: What becomes of API keys in plain text, whatever the configuration says.
        check: Looks at settings before they come into force, now and after each change; may refuse them with a
            `ConfigurationError`.

    Raises:
        ConfigurationError: A variable or a file is malformed or missing, or nothing would ever be accepted.
    """
    return ReloadingValidator(environ, legacy_api_keys=legacy_api_keys, check=check)
