"""Plots of results over time."""
