"""Saved pictures: what they are like, and what becomes of them in each channel."""
