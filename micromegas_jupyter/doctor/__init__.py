"""Looks at everything that a sign-in needs, one check a line, and says what to do where something is wrong.

Nothing is changed, except that a stored sign-in that ends soon is renewed as any use of it would.
"""

from micromegas_jupyter.doctor.examination import examine
from micromegas_jupyter.doctor.findings import Finding, Outcome, exit_code_of, findings_as_json, findings_as_lines

__all__ = ["Finding", "Outcome", "examine", "exit_code_of", "findings_as_json", "findings_as_lines"]
