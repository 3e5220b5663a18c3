"""What starts runs: the machine's own schedulers, and engines of many machines."""
