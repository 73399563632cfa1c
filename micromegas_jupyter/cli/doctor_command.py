"""`micromegas doctor`: everything that a sign-in needs, one check a line, with what to do where one fails."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("--profile", help="a profile of config.json")
    parser.add_argument("--json", action="store_true", help="print one JSON object, for programs")


def run(arguments: argparse.Namespace) -> int:
    """Print what was found; the exit code is that of the first check that failed."""
    from micromegas_jupyter import doctor

    findings = doctor.examine(profile=arguments.profile)
    if arguments.json:
        print(doctor.findings_as_json(findings))
    else:
        print("\n".join(doctor.findings_as_lines(findings)))
    return doctor.exit_code_of(findings)
