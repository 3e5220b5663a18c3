"""The append-only file of records: what it says, how it is kept, and who holds it."""
