"""Checks that measure saved pictures, and judge what they measured."""
