"""Stands in until the engine is complete."""
