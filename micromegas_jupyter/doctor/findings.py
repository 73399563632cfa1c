"""What the checks examine, what they find, and how that reads as lines and as JSON."""

import enum
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from micromegas_jupyter import wiring
from micromegas_jupyter.auth.flows.select import Facts, gather_facts
from micromegas_jupyter.config.client import ClientSettings
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.errors import InternalError, MicromegasError
from micromegas_jupyter.flightsql.commands import printable_text

FAILED_EXIT_CODE = 1


class Outcome(enum.StrEnum):
    """How a check ended."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"  # it does not apply, or what it needs has failed before


_SIGNS = {Outcome.OK: "✓", Outcome.FAILED: "✗", Outcome.SKIPPED: "-"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check, with what to do when it failed and the same as `facts` for programs; never a secret."""

    check: str
    outcome: Outcome
    found: str
    remedy: str = ""
    code: str | None = None
    exit_code: int = 0
    details: tuple[str, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict)


def ok(check: str, text: str, *, details: Sequence[str] = (), facts: Mapping[str, object] | None = None) -> Finding:
    """Return the finding of a check that passed."""
    return Finding(check=check, outcome=Outcome.OK, found=text, details=tuple(details), facts=facts or {})


def skipped(check: str, why: str) -> Finding:
    """Return the finding of a check that was not made."""
    return Finding(check=check, outcome=Outcome.SKIPPED, found=why)


def failed(check: str, error: MicromegasError) -> Finding:
    """Return the finding of a check that ended with an error."""
    return Finding(
        check=check,
        outcome=Outcome.FAILED,
        found=error.what,
        remedy=error.remedy,
        code=error.code,
        exit_code=error.exit_code,
    )


def complaint(check: str, text: str, *, remedy: str, facts: Mapping[str, object] | None = None) -> Finding:
    """Return the finding of a check that failed without an error."""
    return Finding(
        check=check, outcome=Outcome.FAILED, found=text, remedy=remedy, exit_code=FAILED_EXIT_CODE, facts=facts or {}
    )


def guarded(check: str, run: Callable[[], Finding]) -> Finding:
    """Run a check; an error in it is its finding, and never the end of the others."""
    try:
        return run()
    except MicromegasError as error:
        return failed(check, error)
    except Exception as error:  # noqa: BLE001 - a doctor that dies of what it looks at helps nobody
        return failed(check, InternalError(f"The check met a defect of this program ({type(error).__name__})."))


def exit_code_of(findings: Iterable[Finding]) -> int:
    """Return 0 when all is well, else the exit code of the first check that failed."""
    return next((finding.exit_code or FAILED_EXIT_CODE for finding in findings if _has_failed(finding)), 0)


def findings_as_lines(findings: Iterable[Finding]) -> list[str]:
    """Return one line per check, its details below it, and what to do under each failure."""
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
    checks = [msgspec.to_builtins(finding) for finding in findings]
    for check in checks:
        del check["exit_code"]
    return json.dumps({"ok": not any(map(_has_failed, findings)), "checks": checks}, indent=2, ensure_ascii=False)


def _has_failed(finding: Finding) -> bool:
    return finding.outcome is Outcome.FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One set of settings in one environment; `facts` says where the program runs."""

    settings: ClientSettings
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    facts: Facts = field(default_factory=gather_facts)
    clock: Clock = SYSTEM_CLOCK

    @property
    def names_a_provider(self) -> bool:
        """Whether the settings name both a provider and the application there."""
        return self.settings.issuer is not None and self.settings.client_id is not None

    @property
    def has_no_sign_in(self) -> bool:
        """Whether nothing at all says who calls."""
        return self.settings.issuer is None and self.settings.client_id is None and not self.has_own_credential

    @property
    def has_own_credential(self) -> bool:
        """Whether a credential is set that comes before any sign-in of a person."""
        settings = self.settings
        return bool(settings.api_key_file or settings.service_account_file or settings.workload)

    @property
    def program_credential(self) -> str | None:
        """What is used in place of a person's sign-in, in a few words; None when a person signs in."""
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
