"""Workarounds for defects of libraries.

Each module names the version that has the defect. Each has a test that fails once the defect is gone; then delete both.
"""
