"""Delivery: accepted pictures as each channel takes them."""
