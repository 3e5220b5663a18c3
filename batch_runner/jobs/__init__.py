"""From a checked manifest to a stream of jobs: image sets, prompts, keys, and the line to blame."""
