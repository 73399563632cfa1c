"""The magics: their options and outputs."""
