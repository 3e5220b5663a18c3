"""Pictures and films as files: recognised, fetched, kept, given to the service, verified."""
