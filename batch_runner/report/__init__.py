"""What people look at: the progress bar, the plan, the summary.

Reads records and figures; never changes the ledger, never talks to the service.
"""
