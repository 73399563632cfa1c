"""How benchmarks show what they measured."""

import os
import sys

import pytest


@pytest.fixture
def say(capsys):
    def show(text):
        with capsys.disabled():
            print(f"\n{text} (load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)", file=sys.stderr)

    return show
