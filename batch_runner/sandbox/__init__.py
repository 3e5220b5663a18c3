"""A stand-in for the service: a real HTTP server on loopback that behaves as its documentation.

People rehearse with it without paying, and the tests run against it. The parts, in the order of a
call: `server` (listens), `gate` (token, limits), `api` (the calls), `requests` and `queueing` (what
was accepted, and its life), `catalog` (models, prices), `files` (the outputs), `pictures` and
`sources` (how they are made, and of what), `faults` (what goes wrong on purpose).
"""

from batch_runner.sandbox.faults import FAULTS
from batch_runner.sandbox.options import SandboxOptions
from batch_runner.sandbox.requests import AcceptedRequest
from batch_runner.sandbox.server import Call, Sandbox

__all__ = ["FAULTS", "AcceptedRequest", "Call", "Sandbox", "SandboxOptions"]
