"""Verdicts: what a check or a person says about a saved file."""
