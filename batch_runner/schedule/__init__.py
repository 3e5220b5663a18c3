"""When runs happen: the hours for submits, and the machine's own schedulers."""
