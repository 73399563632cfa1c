"""Extracts information from DataFusion's plans."""
