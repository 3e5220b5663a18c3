"""`models`: the service's catalog, with its prices."""

from __future__ import annotations

import asyncio
import json
import shlex

from batch_runner.answer import Meaning
from batch_runner.arguments import Arguments
from batch_runner.catalog import ListedModel, read_listed
from batch_runner.commands.console import say, show
from batch_runner.commands.opening import opened_service
from batch_runner.errors import AccessRefusedError, ExitCode, ServiceUnavailableError
from batch_runner.report.text import models_text


def execute(arguments: Arguments) -> int:
    """List the service's models."""
    models = asyncio.run(_ask(arguments))
    if arguments.json:
        for model in models:
            print(_line(model))
    elif models:
        show(models_text(models))
    if models:
        say(f"{len(models)} {'model' if len(models) == 1 else 'models'}")
    else:
        words = ["batch-runner", "models", *(["--sandbox"] if arguments.sandbox else [])]
        words += ["--api-base", arguments.api_base] if arguments.api_base else []
        say("the service has no such model")
        say(f"hint: try a shorter part of its name, or see all of them: {shlex.join(words)}")
    return ExitCode.DONE


async def _ask(arguments: Arguments) -> list[ListedModel]:
    async with opened_service(arguments) as service:
        verdict, entries = await service.models(arguments.search, arguments.category)
    if verdict.meaning is Meaning.TOKEN_REFUSED:
        raise AccessRefusedError(
            f"the service refused the token: {verdict.message}",
            hint="set RUNCOMFY_API_TOKEN to a valid token",
        )
    if verdict.meaning is not Meaning.OK:
        raise ServiceUnavailableError(
            f"the service told nothing about its models ({verdict.reason}: {verdict.message})",
            hint="batch-runner schema --list names the models whose schema ships",
        )
    listed = (read_listed(entry) for entry in entries)
    models = [model for model in listed if model is not None]
    # The cheapest first; what has no price comes last.
    return sorted(models, key=lambda one: (one.price_usd is None, one.price_usd or 0, one.model_id))


def _line(model: ListedModel) -> str:
    line = {
        "model_id": model.model_id,
        "display_name": model.display_name,
        "categories": model.categories,
        "price_usd": None if model.price_usd is None else str(model.price_usd),
        "price_unit": model.price_unit,
        "price_is_floor": model.price_is_floor,
        "pricing_note": model.pricing_note,
    }
    return json.dumps(line, ensure_ascii=False)
