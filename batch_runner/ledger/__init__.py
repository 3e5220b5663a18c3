"""The append-only file of records: reading it, writing it, and who holds it."""
