"""The live page: the progress of a batch in a browser."""

from batch_runner.report.viewer.copies import Copies
from batch_runner.report.viewer.server import Viewer

__all__ = ["Copies", "Viewer"]
