"""SQL to Arrow batches: DataFusion over the tables that a caller may see.

Storage provides lists of files (`core.protocols.TableSource`).
"""
