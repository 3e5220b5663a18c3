"""`models`: lists the service's models and prices; prints and keeps their input schemas."""

from __future__ import annotations

import argparse
import asyncio
import json

from batch_runner.commands.arguments import BatchArguments, add_service_options
from batch_runner.commands.console import say
from batch_runner.commands.context import open_service
from batch_runner.commands.output import print_lines
from batch_runner.errors import (
    ExitCode,
    InputMissingError,
    ServiceUnavailableError,
    did_you_mean,
)
from batch_runner.models.catalog import (
    ListedModel,
    read_listed,
    shipped_facts,
    shipped_models,
)
from batch_runner.report.text import models_text
from batch_runner.service.answer import Meaning
from batch_runner.service.network import token_refused
from batch_runner.text.quantity import counted


class Arguments(BatchArguments):
    search: str
    schema_of: str | None


def declare(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List the service's models with their prices, or print a model's input schema."
    )
    parser.add_argument(
        "search", nargs="?", default="", metavar="SEARCH", help="only models that match these words"
    )
    add_service_options(parser)
    parser.add_argument(
        "--schema",
        dest="schema_of",
        metavar="ID",
        help="print the input schema of this model, if the program has one",
    )


def execute(arguments: Arguments) -> int:
    """List the service's models, or print the input schema of one."""
    if arguments.schema_of is not None:
        schema = shipped_facts(arguments.schema_of).get("input_schema")
        if schema is None:
            raise InputMissingError(
                f"no schema of the model '{arguments.schema_of}' is known",
                hint=did_you_mean(arguments.schema_of, shipped_models()),
            )
        print(json.dumps(schema, indent=2, ensure_ascii=False))
        return ExitCode.DONE
    models = asyncio.run(_ask(arguments))
    if arguments.json:
        print_lines(models)
    elif models:
        print(models_text(models))
    if models:
        say(counted(len(models), "model"))
    else:
        say("the service has no such model\nhint: search for a shorter part of its name")
    return ExitCode.DONE


async def _ask(arguments: Arguments) -> list[ListedModel]:
    async with open_service(arguments) as service:
        verdict, entries = await service.models(arguments.search)
    if verdict.meaning is Meaning.TOKEN_REFUSED:
        raise token_refused(verdict.message)
    if verdict.meaning is not Meaning.OK:
        raise ServiceUnavailableError(
            f"the service did not list its models ({verdict.reason}: {verdict.message})",
            hint="try again later; batch-runner models --schema ID needs no service",
        )
    listed = (read_listed(entry) for entry in entries)
    models = [model for model in listed if model is not None]
    # Cheapest first, models without a price last.
    return sorted(models, key=lambda one: (one.price_usd is None, one.price_usd or 0, one.model_id))
