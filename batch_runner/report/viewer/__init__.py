"""The live page: how a batch is getting on, in a browser."""

from batch_runner.report.viewer.copies import Copies
from batch_runner.report.viewer.server import Viewer

__all__ = ["Copies", "Viewer"]
