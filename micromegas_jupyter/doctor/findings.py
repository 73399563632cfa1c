"""What the checks look at, what they find, and how that reads as lines and as JSON."""

import enum
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from micromegas_jupyter import wiring
from micromegas_jupyter.auth.flows.environment import Facts, gather_facts
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.config.client import ClientSettings
from micromegas_jupyter.core.protocols import AuthProvider
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.errors import InternalError, MicromegasError
from micromegas_jupyter.flightsql.error_details import printable_text

FAILED_EXIT_CODE = 1


class Outcome(enum.StrEnum):
    """How a check ended."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"  # it does not apply, or what it needs has failed before


_SIGNS = {Outcome.OK: "✓", Outcome.FAILED: "✗", Outcome.SKIPPED: "-"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check; nothing in it is a secret.

    Attributes:
        check: The check's name, the same in every run.
        outcome: How it ended.
        found: What was found, in a sentence or a few words.
        remedy: What to do, when it failed.
        code: The error's code, when it failed with one.
        exit_code: What a program that stops here exits with.
        details: Further lines.
        facts: The same for programs, by name.
    """

    check: str
    outcome: Outcome
    found: str
    remedy: str = ""
    code: str | None = None
    exit_code: int = 0
    details: tuple[str, ...] = ()
    facts: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


def found(check: str, text: str, *, details: Sequence[str] = (), facts: Mapping[str, object] | None = None) -> Finding:
    """Return the finding of a check that is content."""
    return Finding(check=check, outcome=Outcome.OK, found=text, details=tuple(details), facts=facts or {})


def skipped(check: str, why: str) -> Finding:
    """Return the finding of a check that was not made."""
    return Finding(check=check, outcome=Outcome.SKIPPED, found=why)


def failed(check: str, error: MicromegasError) -> Finding:
    """Return the finding that an error amounts to."""
    return Finding(
        check=check,
        outcome=Outcome.FAILED,
        found=error.what,
        remedy=error.remedy,
        code=error.code,
        exit_code=error.exit_code,
    )


def complaint(check: str, text: str, *, remedy: str, facts: Mapping[str, object] | None = None) -> Finding:
    """Return the finding of a check that is not content and met no error."""
    return Finding(
        check=check,
        outcome=Outcome.FAILED,
        found=text,
        remedy=remedy,
        exit_code=FAILED_EXIT_CODE,
        facts=facts or {},
    )


def guarded(check: str, look: Callable[[], Finding]) -> Finding:
    """Return what `look` finds, or the finding that its error amounts to: one check's end is never the others'."""
    try:
        return look()
    except MicromegasError as error:
        return failed(check, error)
    except Exception as error:  # noqa: BLE001 - a doctor that dies of what it looks at helps nobody
        return failed(check, InternalError(f"The check met a defect of this program ({type(error).__name__})."))


def exit_code_of(findings: Iterable[Finding]) -> int:
    """Return 0 when all is well, else the exit code of the first check that failed."""
    return next((finding.exit_code or FAILED_EXIT_CODE for finding in findings if _has_failed(finding)), 0)


def findings_as_lines(findings: Iterable[Finding]) -> list[str]:
    """Return one line a check, further lines below it, and under each failure what to do."""
    lines = []
    for finding in findings:
        code = f" · {finding.code}" if finding.code else ""
        lines.append(f"{_SIGNS[finding.outcome]} {finding.check}: {finding.found}{code}")
        lines.extend(f"    {detail}" for detail in finding.details)
        if finding.remedy:
            lines.append(f"    → {finding.remedy}")
    return [printable_text(line.replace("\n", " ")) for line in lines]


def findings_as_json(findings: Sequence[Finding]) -> str:
    """Return one JSON object: whether all is well, and each check with what it found."""
    checks = [
        {
            "check": finding.check,
            "outcome": finding.outcome.value,
            "found": finding.found,
            "remedy": finding.remedy,
            "code": finding.code,
            "details": list(finding.details),
            "facts": dict(finding.facts),
        }
        for finding in findings
    ]
    return json.dumps({"ok": not any(map(_has_failed, findings)), "checks": checks}, indent=2, ensure_ascii=False)


def _has_failed(finding: Finding) -> bool:
    return finding.outcome is Outcome.FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One set of settings in one environment.

    Attributes:
        settings: What was read.
        environ: Stands in for the process environment.
        facts: Where the program runs.
        clock: Tells the time.
    """

    settings: ClientSettings
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    facts: Facts = field(default_factory=gather_facts)
    clock: Clock = SYSTEM_CLOCK

    @property
    def is_wrapped(self) -> bool:
        """Whether another module makes the client, so that no setting counts."""
        return wiring.is_wrapped(self.environ)

    @property
    def names_a_provider(self) -> bool:
        """Whether the settings name both a provider and the application there."""
        return self.settings.issuer is not None and self.settings.client_id is not None

    @property
    def has_no_sign_in(self) -> bool:
        """Whether nothing at all says who calls."""
        is_anonymous = self.settings.issuer is None and self.settings.client_id is None
        return is_anonymous and not self.has_credential_of_its_own

    @property
    def has_default_server(self) -> bool:
        """Whether no setting names the server."""
        return self.settings.origin_of("uri") is None

    @property
    def has_credential_of_its_own(self) -> bool:
        """Whether a credential is set that comes before any sign-in of a person."""
        settings = self.settings
        return bool(settings.api_key_file or settings.service_account_file or settings.workload)

    @property
    def program_credential(self) -> str | None:
        """What the program proves itself with in place of a person, in a few words; None when a person signs in."""
        settings = self.settings
        if settings.api_key_file is not None:
            return "an API key is used"
        if settings.service_account_file is not None:
            return "a service account is used"
        if settings.workload is not None:
            return "a workload identity is used"
        has_key = settings.private_key is not None
        has_secret = settings.client_secret is not None or settings.client_secret_file is not None
        if not self.names_a_provider or not (has_key or (has_secret and not settings.secret_is_native)):
            return None
        is_stored = wiring.token_store(settings, self.environ).mark() is not None
        return None if is_stored else "a service account is used"

    def connection(self) -> ProviderConnection | None:
        """Return a connection to the configured provider, None when none is configured; calls nothing yet."""
        settings = self.settings
        if settings.issuer is None:
            return None
        return ProviderConnection(
            settings.issuer,
            settings.client_id or "",
            None,
            http=wiring.provider_http(settings),
            clock=self.clock,
        )

    def provider(self) -> AuthProvider | None:
        """Return what gives the token of each call, None when no sign-in is configured."""
        return wiring.stored_provider(self.settings, self.environ, facts=self.facts)
