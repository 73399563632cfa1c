"""The magics: what each takes and shows."""
