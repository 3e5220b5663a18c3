"""A batch in parts: which jobs are whose, each part's limits, and dealing them anew."""
