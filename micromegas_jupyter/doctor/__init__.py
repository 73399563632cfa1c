"""Looks at everything that a sign-in needs, one check a line, and says what to do where something is wrong."""

from micromegas_jupyter.doctor.examination import (
    Finding,
    Outcome,
    examine,
    exit_code_of,
    findings_as_json,
    findings_as_lines,
)

__all__ = ["Finding", "Outcome", "examine", "exit_code_of", "findings_as_json", "findings_as_lines"]
