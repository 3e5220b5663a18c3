"""From a checked manifest to a stream of jobs: rows, pictures, image sets, jobs."""
