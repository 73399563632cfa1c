"""Workarounds for defects of DataFusion, each with a test that fails once it is gone; then delete both."""
