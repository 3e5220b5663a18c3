"""When a call may start, and when a request is asked about."""
