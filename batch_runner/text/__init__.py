"""Texts and names: picture addresses, file names, what a message shows of a cell."""
