"""A stand-in for the service: a real HTTP server on loopback that behaves as documented.

Users rehearse with it for free, and the tests run against it. The modules, in the order of a call:
`server` (listens; token, limits), `api` (the calls), `requests` (accepted requests and
their states), `catalog` (models, prices), `files` (the outputs), `pictures` (how outputs are made,
and from what), `faults` (what goes wrong on purpose).
"""

from batch_runner.sandbox.faults import FAULTS
from batch_runner.sandbox.requests import Request, SandboxOptions
from batch_runner.sandbox.server import Call, Sandbox

__all__ = ["FAULTS", "Call", "Request", "Sandbox", "SandboxOptions"]
