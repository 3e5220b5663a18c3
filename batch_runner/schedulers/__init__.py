"""What starts runs: this machine's scheduler, or an engine for many machines."""
