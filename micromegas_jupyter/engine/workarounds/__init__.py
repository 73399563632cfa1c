"""Workarounds for DataFusion defects, each with a test that fails once the defect is fixed; then delete both."""
