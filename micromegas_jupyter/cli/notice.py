"""What the server says about the credential, beside its answers."""

import sys


def show_notice(text: str) -> None:
    """Print it where it does not get among the results."""
    print(f"note: {text}", file=sys.stderr)
