"""A manifest in: text to values, values to a checked Manifest, and what is wrong with it."""
