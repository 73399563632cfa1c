"""Runs SQL and returns Arrow batches, with DataFusion over the tables that a caller may see.

Storage provides lists of files (`core.protocols.TableSource`).
"""
