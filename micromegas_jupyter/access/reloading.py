"""A validator whose settings are read again when their files change, without a call noticing.

Reading the files is `configuration`'s job, choosing what of them is used `versions`'s.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

from micromegas_jupyter.access.building import ValidatorBuilder
from micromegas_jupyter.access.configuration import Reading, marks_of
from micromegas_jupyter.access.deciding import DecidingValidator
from micromegas_jupyter.access.decision import Decision
from micromegas_jupyter.access.issuer_files import warn_of_issuer_files
from micromegas_jupyter.access.metrics import AccessMetrics
from micromegas_jupyter.access.reload_events import (
    count_settings,
    record_in_force,
    record_problem,
    warn_of_idle_names,
)
from micromegas_jupyter.access.restraints import Statements, read_statements, restrain
from micromegas_jupyter.access.ticking import Ticker
from micromegas_jupyter.access.versions import Version, Versions
from micromegas_jupyter.config.access import AccessSettings, LegacyApiKeys
from micromegas_jupyter.core.protocols import AuthContext
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.errors import ConfigurationError, MicromegasError, Unavailable

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
