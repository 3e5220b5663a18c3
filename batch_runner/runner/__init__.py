"""Doing what was planned: a pool of workers, and the life of each job."""
