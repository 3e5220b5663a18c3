"""What people look at: progress, plan, summary, status, page, table, live view, notifications.

Reads records and figures; never changes the ledger, never asks the service.
"""
