"""The access configuration: reads the environment and two files, checks them, and reloads when a file changes.

The configuration file and the key file each keep their last valid version.
"""

import logging
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from micromegas_jupyter.access.api_keys import MAX_KEY_FILE_BYTES, ApiKeyValidator, daily_warnings, key_state
from micromegas_jupyter.access.audit import AccessMetrics, record_event
from micromegas_jupyter.access.jwks import MAX_KEY_SET_BYTES, KeyCaches, KeyFetcher, find_permission_problem
from micromegas_jupyter.access.oidc import OidcValidator, key_policy
from micromegas_jupyter.access.user_keys import MAX_KEY_DAYS, UserKeys, owner_may_have_keys
from micromegas_jupyter.access.validator import BaseValidator, Decision, MultiValidator, Roles
from micromegas_jupyter.config.access import (
    API_KEY_ISSUER,
    AccessSettings,
    ApiKeySetting,
    LegacyApiKeys,
    find_config_file,
    find_key_file,
    parse_access_settings,
    parse_api_keys,
    read_listed_keys,
)
from micromegas_jupyter.config.decoding import parse_count
from micromegas_jupyter.config.issuers import IssuerSetting, OidcServerSettings
from micromegas_jupyter.core.files import FileProblem, FileWatch, NoSuchFile, read_shared_file
from micromegas_jupyter.core.http import ProviderHttp
from micromegas_jupyter.core.protocols import AuthContext
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock, HiddenText, start_thread
from micromegas_jupyter.core.text import JsonError, decode_strict_json
from micromegas_jupyter.errors import ConfigurationError, MicromegasError, ProviderMisbehaved, Unavailable
from micromegas_jupyter.oidc.jwt import parse_key_set

MAX_CONFIG_FILE_BYTES = 4 * 1024 * 1024
# Less than the second within which `FileWatch` does not rely on a mark.
WATCH_INTERVAL_SECONDS = 0.5
RELOAD_TIMEOUT_SECONDS = 20.0

_CONFIG_FILE = "MICROMEGAS_ACCESS_CONFIG"
_KEY_FILE = "MICROMEGAS_API_KEY_FILE"
_MAX_DAYS = "MICROMEGAS_API_KEY_MAX_DAYS"
_REMEDY = "Correct the file or the setting that contains its path."
_PERMISSION_REMEDY = (
    "Make sure that the server's account or root owns the file, and that other users can't write to it (chmod o-w)."
)
_RETRY_REMEDY = "The server reloads the file when it changes, without a restart."
# How often an invalid version is retried even though its files have not changed.
_RETRY_SECONDS = 5.0
_STOP_SECONDS = 10.0
_MAX_LOOKS = 3
_MAX_WARNINGS = 100
_PROVIDER_TIMEOUT_SECONDS = 10.0
_MAX_FETCHES = 16
_FETCH_DEADLINE_SECONDS = 2 * _PROVIDER_TIMEOUT_SECONDS  # an issuer has two documents


@dataclass(frozen=True, slots=True, kw_only=True)
class _ConfigFile:
    """One file, read once: its text, or the problem with it."""

    path: Path
    setting: str
    text: str | None = field(default=None, repr=False)
    status: os.stat_result | None = None
    problem: ConfigurationError | None = None

    def require(self) -> str:
        if self.problem is not None:
            raise self.problem
        return self.text or ""

    def warn(self) -> None:
        """Warn if other users may change the file or read plaintext keys in it."""
        if self.status is None:
            return
        _warn_of_group(self.status, self.setting)
        if self.status.st_mode & stat.S_IROTH and any(key.key is not None for key in self.read_keys()):
            record_event(
                logging.WARNING,
                "API keys in plain text are in a file that every user of this machine can read.",
                setting=self.setting,
            )

    def read_keys(self) -> tuple[ApiKeySetting, ...]:
        """Return the file's keys, even if the rest is invalid; empty if the keys cannot be read."""
        try:
            is_config = self.setting == _CONFIG_FILE
            text = self.require()
            return read_listed_keys(text) if is_config else parse_api_keys(text, self.setting)
        except ConfigurationError:
            return ()


def _read_file(
    path: Path, setting: str, max_bytes: int, *, encoding: str = "utf-8", is_token: bool = False
) -> _ConfigFile:
    """Read a file. A token file may appear later and, like mounted secrets, may have any owner."""
    remedy = _REMEDY
    try:
        content, status = read_shared_file(path, max_bytes=max_bytes)
        problem = find_permission_problem(status, any_owner=is_token)
        if problem is None:
            return _ConfigFile(path=path, setting=setting, text=content.decode(encoding), status=status)
        remedy = _PERMISSION_REMEDY
    except FileProblem as error:
        if is_token and isinstance(error, NoSuchFile):
            return _ConfigFile(path=path, setting=setting)
        problem = str(error.args[0])
    except UnicodeDecodeError:
        problem = "is not UTF-8 text"
    refused = ConfigurationError(f"The file specified by {setting} {problem}.", key=setting, remedy=remedy)
    return _ConfigFile(path=path, setting=setting, problem=refused)


def _warn_of_group(status: os.stat_result, setting: str) -> None:
    if status.st_mode & stat.S_IWGRP:
        record_event(
            logging.WARNING, "A file of the access configuration can be changed by its group.", setting=setting
        )


@dataclass(frozen=True, slots=True)
class _Texts:
    """The contents of both files: the configuration's text, the path of its key file, and that file's text."""

    config: str | None = field(repr=False)
    key_path: Path | None
    keys: str | None = field(repr=False)


class _Reading:
    """A snapshot of the files, each read once, so that all results are consistent.

    Follows symlinks, because mounted configuration files are often symlinks. Also reads the key file of the version in
    force (`last`).
    """

    def __init__(self, environ: Mapping[str, str], *, last: _Texts | None = None) -> None:
        self._environ = environ
        self.files: dict[Path, _ConfigFile] = {}
        named = find_config_file(environ)
        self.config = None if named is None else self._read(_path(named), _CONFIG_FILE, MAX_CONFIG_FILE_BYTES)
        for config_text in (None if self.config is None else self.config.text, None if last is None else last.config):
            with suppress(ConfigurationError):
                self._key_file(config_text)

    def newest(self) -> _Texts:
        """Return the current contents if all files are usable."""
        return self._with_config(None if self.config is None else self.config.require())

    def candidates(self, last: _Texts) -> Iterator[Callable[[], _Texts]]:
        """Yield readers for possibly usable contents: the newest, mixes with one file from `last`, then `last`."""
        yield self.newest
        yield lambda: self._with_config(last.config)
        yield lambda: self._with_keys(last)
        yield lambda: last

    def fingerprint(self) -> tuple[object, ...]:
        """Return a value that is equal if the contents and the problems are the same."""
        return tuple((file.path, HiddenText(file.text or ""), str(file.problem)) for file in self.files.values())

    def _with_config(self, config_text: str | None) -> _Texts:
        file = self._key_file(config_text)
        return _Texts(config_text, None, None) if file is None else _Texts(config_text, file.path, file.require())

    def _with_keys(self, last: _Texts) -> _Texts:
        config_text = None if self.config is None else self.config.require()
        # Never use one file's keys for a different file.
        return replace(last, config=config_text) if self._key_path(config_text) == last.key_path else last

    def _key_file(self, config_text: str | None) -> _ConfigFile | None:
        path = self._key_path(config_text)
        setting = _KEY_FILE if self._environ.get(_KEY_FILE) else f"{_CONFIG_FILE}.api_key_file"
        return None if path is None else self._read(path, setting, MAX_KEY_FILE_BYTES)

    def _key_path(self, config_text: str | None) -> Path | None:
        named = find_key_file(self._environ, config_text=config_text)
        return None if named is None else _path(named)

    def _read(self, path: Path, setting: str, max_bytes: int) -> _ConfigFile:
        if path not in self.files:
            self.files[path] = _read_file(path, setting, max_bytes)
        return self.files[path]


def _path(written: str) -> Path:
    return Path(os.path.abspath(Path(written).expanduser()))  # noqa: PTH100 - resolve() would pin what a link points to


def read_access_settings(environ: Mapping[str, str]) -> AccessSettings:
    """Read the current settings from the environment and the files that it references."""
    texts = _Reading(environ).newest()
    return parse_access_settings(environ, config_text=texts.config, key_file_text=texts.keys)


def check_issuer_files(issuers: Iterable[IssuerSetting]) -> None:
    """Check that key files and certificates exist and can be trusted, and that key files contain keys."""
    for issuer, member, path in _issuer_files(issuers):
        setting, is_token = f"{issuer.path}.{member}", member == "bearer_token_file"
        has_keys = member == "jwks_file"
        encoding = "utf-8" if has_keys else "latin-1"  # certificate files may contain comments in any encoding
        text = _read_file(path, setting, MAX_KEY_SET_BYTES, encoding=encoding, is_token=is_token).require()
        if not has_keys:
            continue
        try:
            parse_key_set(decode_strict_json(text), issuer=issuer.issuer, tenant=issuer.tenant)
        except (JsonError, ProviderMisbehaved) as error:
            problem = "is not valid JSON" if isinstance(error, JsonError) else "is not a key set (RFC 7517)"
            raise ConfigurationError(f"The file that {setting} names {problem}.", key=setting, remedy=_REMEDY) from None


def _issuer_files(issuers: Iterable[IssuerSetting]) -> Iterator[tuple[IssuerSetting, str, Path]]:
    for issuer in issuers:
        for member in ("jwks_file", "ca_file", "bearer_token_file"):
            path: str | None = getattr(issuer, member)
            if path is not None:
                yield issuer, member, Path(path)


def split_denied(entries: Iterable[str], *, issuers: Iterable[IssuerSetting]) -> frozenset[tuple[str, str]]:
    """Return each entry `issuer|subject` as a pair; API keys have the issuer `api_key`.

    An issuer's name may contain a bar, and subjects often do, so the issuer that matches completely decides. An entry
    without a matching issuer, which the settings reject, denies nothing.
    """
    names = sorted({API_KEY_ISSUER, *(setting.issuer for setting in issuers)}, key=len, reverse=True)
    pairs = set()
    for entry in entries:
        issuer = next((name for name in names if entry.startswith(f"{name}|")), None)
        if issuer is not None:
            pairs.add((issuer, entry.removeprefix(f"{issuer}|")))
    return frozenset(pairs)


class ReloadingValidator(BaseValidator):
    """Validates according to its settings, and reloads them when one of their files changes.

    Calls don't lock. A reload builds a new validator and swaps it in, which discards cached decisions immediately;
    calls in progress finish on the old one. One lock serializes reloads, and waits for it are bounded.

    The configuration file and the key file each keep their last valid version. An invalid file is ignored completely.
    It is retried when a file changes, and every few seconds.
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
        self._legacy_api_keys = legacy_api_keys
        self._check = check
        self._resource: str | None = None
        self._clock = clock
        self._watched: tuple[Path, ...] = ()
        self._watch = FileWatch(())
        reading = self._look(None)
        self._texts, self._fingerprint = reading.newest(), reading.fingerprint()
        self.metrics = AccessMetrics()
        max_days = parse_count(environ.get(_MAX_DAYS) or str(MAX_KEY_DAYS), _MAX_DAYS, minimum=1, maximum=36_500)
        #: The API keys that users create.
        self.user_keys = UserKeys(
            settings=lambda: self.settings,
            find_file=lambda: self._texts.key_path,
            on_change=self.look_for_changes,
            max_days=min(max_days, MAX_KEY_DAYS),
            clock=clock,
        )
        self._warnings = daily_warnings(clock)
        self._http = ProviderHttp(timeout_seconds=_PROVIDER_TIMEOUT_SECONDS, max_bytes=MAX_KEY_SET_BYTES)
        self._caches = KeyCaches(http=self._http, clock=clock, metrics=self.metrics)
        try:
            self.settings = self._settings_of(self._texts)
            self._check_settings(self.settings)
            self._current = self._build(self.settings)
        except BaseException:
            self._close_shared()
            raise
        self._lock = threading.Lock()
        self._is_whole, self._retry_at = True, 0.0
        self._logged_problem: object = None
        self._note_in_force()
        self._warn(reading)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        if reading.files:
            self._thread = start_thread(lambda: self._run_watch(watch_interval_seconds), name="micromegas-access")

    def cached_by_digest(self, digest: bytes) -> AuthContext | None:
        """Look up the digest in the current validator."""
        return self._current.cached_by_digest(digest)

    def decide(self, token: str) -> Decision:
        """Check the credential with the current validator."""
        return self._current.decide(token)

    def reload(self) -> None:
        """Reload everything, whether or not it changed, and discard all cached decisions.

        Raises:
            ConfigurationError: The new version cannot be used completely; the log reports what is in force.
            Unavailable: The files could not be read now, or another reload does not finish.
        """
        if not self._lock.acquire(timeout=RELOAD_TIMEOUT_SECONDS):
            raise Unavailable("Another reload of the access configuration is stuck.")
        try:
            error = self._read_again(is_requested=True)
        finally:
            self._lock.release()
        if isinstance(error, MicromegasError):
            raise error
        if error is not None:
            raise Unavailable("The access configuration could not be reloaded.") from error

    def accept_resource(self, resource: str) -> None:
        """Also accept tokens for the server's URL for agents (RFC 8707) from issuers whose tokens have an audience."""
        if not self._lock.acquire(timeout=RELOAD_TIMEOUT_SECONDS):
            raise Unavailable("A reload of the access configuration is stuck.")
        try:
            self._resource = resource
            self.settings = self._settings_of(self._texts)
            self._current = self._build(self.settings)
        finally:
            self._lock.release()

    def look_for_changes(self) -> None:
        """Reload if a file has changed since it was read, or if it is time to retry an invalid version."""
        if not self._lock.acquire(blocking=False):
            return  # a reload is in progress, and the next check is soon
        try:
            if self._watch.has_changed() or (not self._is_whole and self._clock.monotonic() >= self._retry_at):
                self._read_again(is_requested=False)
        finally:
            self._lock.release()

    def issuer_problems(self) -> list[str]:
        """Fetch each issuer's keys, which otherwise happens when the first token arrives; return any problems."""
        issuers = () if self.settings.oidc is None else self.settings.oidc.issuers

        def problem(setting: IssuerSetting) -> str | None:
            try:
                KeyFetcher(setting, http=self._http).fetch(rediscover=True)
            except MicromegasError as error:
                return error.what
            return None

        pool = ThreadPoolExecutor(_MAX_FETCHES)
        fetches = {pool.submit(problem, setting): setting.issuer for setting in issuers}
        done, _ = wait(fetches, timeout=_FETCH_DEADLINE_SECONDS)
        pool.shutdown(wait=False, cancel_futures=True)
        silence = f"did not answer within {_FETCH_DEADLINE_SECONDS:.0f} s."
        problems = [one.result() if one in done else f"{name} {silence}" for one, name in fetches.items()]
        return [found for found in problems if found is not None]

    def close(self) -> None:
        """Stop watching, and release keys and connections; safe to call twice, and from the watch itself."""
        self._stopping.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_STOP_SECONDS)
        self._current.close()
        self._close_shared()

    def _close_shared(self) -> None:
        self._caches.close()
        self._http.close()

    def _run_watch(self, interval_seconds: float) -> None:
        logged: str | None = None
        while not self._stopping.wait(interval_seconds):
            try:
                self.look_for_changes()
                logged = None
            except Exception as error:  # noqa: BLE001 - a defect in one round must not end the rounds
                kind = type(error).__name__
                if kind != logged:
                    record_event(logging.ERROR, "Looking for changes failed.", kind=kind)
                logged = kind

    def _look(self, last: _Texts | None) -> _Reading:
        """Start watching the files, and then read them; repeat if their contents refer to other files."""
        for _ in range(_MAX_LOOKS):
            reading = _Reading(self._environ, last=last)
            if tuple(reading.files) == self._watched:
                break
            self._watched = tuple(reading.files)
            self._watch = FileWatch(self._watched, clock=self._clock, follows_links=True)
        return reading

    def _read_again(self, *, is_requested: bool) -> Exception | None:
        """Apply the current contents, and return the problem if they are not completely usable; the lock is held."""
        reading = self._look(self._texts)
        found = reading.fingerprint()
        if self._is_whole and found == self._fingerprint and not is_requested:
            return None
        self._fingerprint = found
        before, before_texts = self.settings, self._texts
        problem: Exception | None = None
        is_new = False
        for candidate in reading.candidates(self._texts):
            try:
                texts = candidate()
                settings = self._settings_of(texts)
                if texts.config != self._texts.config or (is_requested and problem is None):
                    self._check_settings(settings)
                validator = self._build(settings)
            except Exception as error:  # noqa: BLE001 - whatever it is, the rest of what is new may be usable
                problem = problem or error
                continue
            is_new = (texts, settings) != (self._texts, before) or is_requested or (not problem and not self._is_whole)
            if is_new:
                self._texts, self.settings, self._current = texts, settings, validator
                self._note_in_force()
            break
        self._caches.retain(self._issuers, self._policy)
        self._is_whole, self._retry_at = problem is None, self._clock.monotonic() + _RETRY_SECONDS
        if problem is None:
            self._logged_problem = None
            if is_new:
                self.metrics.count_reload("in_force")
                self._log_in_force(before)
                self._warn(reading)
        else:
            self._log_problem(problem, reading, is_part=self._texts != before_texts, is_requested=is_requested)
        return problem

    def _settings_of(self, texts: _Texts) -> AccessSettings:
        """Return the settings for these contents."""
        settings = parse_access_settings(self._environ, config_text=texts.config, key_file_text=texts.keys)
        if self._legacy_api_keys is not None:
            settings = replace(settings, legacy_api_keys=self._legacy_api_keys)
        if self._resource is not None and settings.oidc is not None:
            settings = replace(settings, oidc=_accepting(settings.oidc, self._resource))
        if not settings.api_keys and settings.oidc is None:
            raise ConfigurationError(
                "Neither API keys nor an OpenID provider is configured, so no user could sign in.",
                key="MICROMEGAS_OIDC_CONFIG",
                remedy="Set MICROMEGAS_OIDC_CONFIG or MICROMEGAS_API_KEYS, or specify a file with issuers or keys "
                "(--access-config), or start the server with --disable-auth.",
            )
        return settings

    def _check_settings(self, settings: AccessSettings) -> None:
        """Check what else a new configuration file depends on; skip this if only keys changed."""
        if self._check is not None:
            self._check(settings)
        check_issuer_files(() if settings.oidc is None else settings.oidc.issuers)

    def _build(self, settings: AccessSettings) -> MultiValidator:
        """Return a validator for API keys, which are checked first, and tokens; it does not contact providers yet."""
        issuers = () if settings.oidc is None else settings.oidc.issuers
        roles = Roles(settings.roles, settings.default_roles)
        denied = split_denied(settings.denied, issuers=issuers)
        validators: list[BaseValidator] = []
        if settings.api_keys:
            api_keys = ApiKeyValidator(
                settings.api_keys,
                legacy=settings.legacy_api_keys,
                roles=roles,
                denied={name for issuer, name in denied if issuer == API_KEY_ISSUER},
                clock=self._clock,
                warnings=self._warnings,
                may_have_keys=partial(owner_may_have_keys, settings),
            )
            validators.append(api_keys)
        if settings.oidc is not None:
            tokens = OidcValidator(
                settings.oidc,
                settings.admins,
                http=self._http,
                clock=self._clock,
                roles=roles,
                denied=denied,
                metrics=self.metrics,
                caches=self._caches,
                admins_key=settings.admins_path,
            )
            validators.append(tokens)
        return MultiValidator(validators)

    def _note_in_force(self) -> None:
        oidc = self.settings.oidc
        self._issuers = () if oidc is None else oidc.issuers
        self._policy = None if oidc is None else key_policy(oidc)
        self._caches.retain(self._issuers, self._policy)
        for issuer in self._issuers:
            self.metrics.count_key_fetch(issuer.issuer, succeeded=None)
        self.metrics.in_force_since = self._clock.now().timestamp()

    def _warn(self, reading: _Reading) -> None:
        """Log risky but permitted settings: files that other users may change, and names that don't match any user."""
        for file in reading.files.values():
            file.warn()
        for issuer, member, path in _issuer_files(self._issuers):
            with suppress(OSError, ValueError):
                _warn_of_group(path.stat(), f"{issuer.path}.{member}")
        settings = self.settings
        if settings.admins and settings.oidc is None:
            record_event(
                logging.WARNING,
                "Administrators are named, but no issuer whose tokens could be theirs; API keys administer nothing.",
                setting=settings.admins_path,
            )
        names = {key.name for key in settings.api_keys}
        denied = sorted(name for issuer, name in split_denied(settings.denied, issuers=()) if issuer == API_KEY_ISSUER)
        for name in [name for name in denied if name not in names][:_MAX_WARNINGS]:
            record_event(logging.WARNING, "An entry of denied doesn't match any API key.", subject=name)

    def _log_in_force(self, before: AccessSettings) -> None:
        """Log the settings in force; warn if no user can sign in or all roles were removed."""
        counts = self._counts()
        has_lost_roles = before.roles is not None and self.settings.roles is None
        is_odd = has_lost_roles or not (counts["issuers"] or counts["api_keys"])
        record_event(
            logging.WARNING if is_odd else logging.INFO,
            "The access configuration was read again and is in force.",
            had_roles=before.roles is not None,
            **counts,
        )

    def _log_problem(self, error: Exception, reading: _Reading, *, is_part: bool, is_requested: bool) -> None:
        """Log why a version is not completely in force, once for each combination of contents and problem."""
        own = error if isinstance(error, MicromegasError) else None
        state = (self._fingerprint, type(error), str(own))
        if state == self._logged_problem and not is_requested:
            return
        self._logged_problem = state
        refused = error if isinstance(error, ConfigurationError) else None
        self.metrics.count_reload("failed" if refused is None else "refused")
        sentence = "A new version of the access configuration cannot be used; the old one stays in force."
        if refused is None:
            sentence = "A new version of the access configuration could not be looked at; it is tried again."
        elif is_part:
            sentence = "A part of a new version of the access configuration cannot be used; the rest is in force."
        remedy = None if own is None else own.remedy
        if refused is not None:
            # The default remedy, a restart, is appropriate only at startup.
            is_usual = remedy == ConfigurationError.default_remedy
            remedy = f"{'Correct what it says.' if is_usual else remedy} {_RETRY_REMEDY}"
        texts = self._texts
        key_file = None if texts.key_path is None else reading.files.get(texts.key_path)
        record_event(
            logging.ERROR,
            sentence,
            kind=type(error).__name__,
            setting=None if refused is None else refused.key,
            # Other libraries' messages may contain anything.
            problem=None if own is None else own.what,
            remedy=remedy,
            configuration_file=_version_name(texts.config, reading.config),
            key_file=_version_name(texts.keys, key_file),
            **self._counts(),
        )

    def _counts(self) -> dict[str, float]:
        """Return how many of each setting are in force; keys count only if they still grant access."""
        settings, now = self.settings, self._clock.now()
        return {
            "issuers": len(self._issuers),
            "api_keys": sum(key_state(key, now=now) == "valid" for key in settings.api_keys),
            "denied": len(settings.denied),
            "roles": len(settings.roles or ()),
            "admins": len(settings.admins),
            "admin_groups": sum(len(issuer.admin_groups) for issuer in self._issuers),
        }


def _version_name(text: str | None, file: _ConfigFile | None) -> str | None:
    if text is None:
        return None
    return "newest version" if file is not None and file.text == text else "last good version"


def validator_from_environment(
    environ: Mapping[str, str],
    *,
    legacy_api_keys: LegacyApiKeys | None = None,
    check: Callable[[AccessSettings], None] | None = None,
) -> ReloadingValidator:
    """Build a validator for the API keys and OpenID tokens that `environ` accepts; API keys are checked first.

    Reads the variables `MICROMEGAS_OIDC_CONFIG`, `MICROMEGAS_API_KEYS`, `MICROMEGAS_ADMINS` and
    `MICROMEGAS_LEGACY_API_KEYS`, and the files in `MICROMEGAS_ACCESS_CONFIG` and `MICROMEGAS_API_KEY_FILE`. Changes to
    these files take effect automatically. Does not contact providers yet, so it works during an outage.

    Args:
        environ: The variables; a copy is kept.
        legacy_api_keys: How to handle plain-text API keys, regardless of the configuration.
        check: Checks settings before they take effect, now and after each change; may reject them with a
            `ConfigurationError`.

    Raises:
        ConfigurationError: A variable or a file is malformed or missing, or nothing would ever be accepted.
    """
    return ReloadingValidator(environ, legacy_api_keys=legacy_api_keys, check=check)


def _accepting(settings: OidcServerSettings, audience: str) -> OidcServerSettings:
    """Return settings that also accept tokens for `audience`; issuers without an audience are unchanged."""
    issuers = tuple(
        replace(one, audiences=(*one.audiences, audience)) if one.audiences else one for one in settings.issuers
    )
    return replace(settings, issuers=issuers)
