"""One call to the API, and what its answer means."""
