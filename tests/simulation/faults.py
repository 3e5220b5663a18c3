"""What may go wrong at the service and on the way to it.

A fault of a call gets the call and `answer`, which answers it as it should be answered (and, for a
POST, accepts it), and returns what comes back instead. A fault of a request changes it when it is
accepted. A function is all it takes to add one.
"""

from __future__ import annotations

import random
from email.utils import format_datetime

from simulation.client import Call, Reply
from simulation.service import (
    PRICE_USD,
    Answer,
    Request,
    Service,
    document,
    error,
    of_call,
    of_request,
)

API = ("post", "poll", "model", "balance", "cancel")
ANY = (*API, "file")


# The connection


@of_call(*ANY)
def lost_answer(service: Service, call: Call, answer: Answer) -> Reply:
    answer()
    return Reply(ends="reset")


@of_call(*ANY)
def lost_call(service: Service, call: Call, answer: Answer) -> Reply:
    return Reply(ends="reset")


@of_call(*ANY)
def hung_answer(service: Service, call: Call, answer: Answer) -> Reply:
    answer()
    return Reply(ends="hung")


@of_call(*ANY)
def hung_call(service: Service, call: Call, answer: Answer) -> Reply:
    return Reply(ends="hung")


@of_call(*ANY)
def late_answer(service: Service, call: Call, answer: Answer) -> Reply:
    reply = answer()
    reply.delay_s += service.world.dice.uniform(1, 130)
    return reply


@of_call(*ANY)
def cut_answer(service: Service, call: Call, answer: Answer) -> Reply:
    reply = answer()
    reply.cut = service.world.dice.randrange(len(reply.body) or 1)
    return reply


# Errors


@of_call(*API)
def rate_limited(service: Service, call: Call, answer: Answer) -> Reply:
    later = service.world.clock() + service.world.jumped
    wait = service.world.dice.choice(["0", "1", "20", format_datetime(later), "soon"])
    return error(429, 429001, Retry_After=wait)


@of_call(*API)
def server_error(service: Service, call: Call, answer: Answer) -> Reply:
    return error(service.world.dice.choice([500, 502, 503, 504]), 500001)


@of_call("post")
def server_error_after_accepting(service: Service, call: Call, answer: Answer) -> Reply:
    answer()
    return error(500, 500001)


@of_call(*ANY)
def web_page(service: Service, call: Call, answer: Answer) -> Reply:
    status = service.world.dice.choice([200, 502])
    return Reply(status, b"<html>Bad gateway</html>", {"Content-Type": "text/html"})


@of_call(*API)
def error_inside_200(service: Service, call: Call, answer: Answer) -> Reply:
    codes = [500001, 409001, 429001, 400005] if call.kind == "poll" else [500001, 409001]
    return error(200, service.world.dice.choice(codes))


@of_call("post")
def refusal_inside_200(service: Service, call: Call, answer: Answer) -> Reply:
    return error(200, service.world.dice.choice([422001, 400002, 400001, 429001]))


@of_call("post")
def error_inside_200_after_accepting(service: Service, call: Call, answer: Answer) -> Reply:
    answer()
    return error(200, 500001)


@of_call("post")
def input_refused(service: Service, call: Call, answer: Answer) -> Reply:
    return error(service.world.dice.choice([400, 422]), 422001)


@of_call("post")
def no_balance(service: Service, call: Call, answer: Answer) -> Reply:
    return error(service.world.dice.choice([400, 402]), 400002)


@of_call(*API)
def token_refused(service: Service, call: Call, answer: Answer) -> Reply:
    return error(service.world.dice.choice([400, 401, 403]), 400004)


# Odd answers


@of_call("post")
def no_request_id(service: Service, call: Call, answer: Answer) -> Reply:
    answer()
    return document({"status": "in_queue"})


@of_call("post")
def bad_request_id(service: Service, call: Call, answer: Answer) -> Reply:
    answer()
    return document({"request_id": "../../balance"})


@of_call("post")
def repeated_request_id(service: Service, call: Call, answer: Answer) -> Reply:
    # Nobody could notice the id of a request that was never heard of.
    earlier = [one.request_id for one in service.accepted.values() if one.is_known]
    reply = answer()
    return document({"request_id": service.world.dice.choice(earlier)}) if earlier else reply


@of_call("post")
def accepted_202(service: Service, call: Call, answer: Answer) -> Reply:
    reply = answer()
    reply.status = 202
    return reply


@of_call("poll")
def other_request(service: Service, call: Call, answer: Answer) -> Reply:
    reply = answer()
    own = call.url.path.split("/")[3].encode()
    reply.body = reply.body.replace(own, b"request-of-another")
    return reply


def _doubt(service: Service, call: Call) -> None:
    """Note that a request may be given up, because the service itself said that it was nothing."""
    request = service.accepted.get(call.url.path.split("/")[3])
    if request is not None:
        request.shown["warning"] = "the service has said something else"


@of_call("poll")
def state_out_of_order(service: Service, call: Call, answer: Answer) -> Reply:
    _doubt(service, call)
    states = ["in_queue", "in_progress", "starting", "under_review", "", "completed"]
    request_id = call.url.path.split("/")[3]
    return document({"request_id": request_id, "status": service.world.dice.choice(states)})


@of_call("poll")
def not_ready(service: Service, call: Call, answer: Answer) -> Reply:
    return error(400, 400005)


@of_call("poll")
def forgotten(service: Service, call: Call, answer: Answer) -> Reply:
    _doubt(service, call)
    return error(404, 404001)


@of_call("model")
def no_price(service: Service, call: Call, answer: Answer) -> Reply:
    return document({"model_id": call.url.path[11:]})


@of_call("cancel")
def false_promise(service: Service, call: Call, answer: Answer) -> Reply:
    return document({"outcome": "cancelled"}, 202)


# Files


@of_call("file")
def missing_file(service: Service, call: Call, answer: Answer) -> Reply:
    return error(404, 404001)


@of_call("file")
def truncated_file(service: Service, call: Call, answer: Answer) -> Reply:
    reply = answer()
    reply.body = reply.body[: service.world.dice.randrange(len(reply.body) or 1)]
    reply.headers["Content-Length"] = str(len(reply.body))
    return reply


@of_call("file")
def file_without_length(service: Service, call: Call, answer: Answer) -> Reply:
    reply = answer()
    reply.headers.pop("Content-Length", None)
    return reply


@of_call("file")
def redirect_away(service: Service, call: Call, answer: Answer) -> Reply:
    return Reply(302, b"", {"Location": "https://127.0.0.1/latest/meta-data"})


# Requests


@of_request
def fails(request: Request, dice: random.Random) -> None:
    request.fails = True


@of_request
def never_ends(request: Request, dice: random.Random) -> None:
    request.run_s = 1e9


@of_request
def takes_long(request: Request, dice: random.Random) -> None:
    request.queue_s, request.run_s = dice.uniform(0, 600), dice.uniform(0, 600)


@of_request
def costs_more(request: Request, dice: random.Random) -> None:
    request.cost_usd += PRICE_USD


@of_request
def tells_no_cost(request: Request, dice: random.Random) -> None:
    request.shown["cost"] = None


@of_request
def is_soon_gone(request: Request, dice: random.Random) -> None:
    request.kept_s = dice.uniform(0, 60)


@of_request
def shows_no_output(request: Request, dice: random.Random) -> None:
    request.shown["output"] = None


@of_request
def repeats_its_input(request: Request, dice: random.Random) -> None:
    request.shown["input"] = request.input
