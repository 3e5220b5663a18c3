"""Many machines: job files for the engines that people already run."""
