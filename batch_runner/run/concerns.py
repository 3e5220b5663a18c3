"""Signs that money would be spent by mistake: a run buys nothing until a person accepts them.

Pure: figures of a plan in, concerns out. What always holds: each concern has a message, a hint, and
the word that accepts it (`run --accept WORD`). On a terminal the run asks. Elsewhere it collects
what is paid for, buys nothing, and ends with 64, because the same command would end the same way.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from batch_runner.ledger.state import State
from batch_runner.records import usd
from batch_runner.run.batch import Batch
from batch_runner.run.plan import SAME_PICTURES, Action
from batch_runner.run.survey import Survey
from batch_runner.text.quantity import counted

NEW_PICTURES, FILES, COST = "new-pictures", "files", "cost"

_SHOWN = 160


class Concern(msgspec.Struct, frozen=True):
    """One reason to stop before spending; `word` accepts it, and so does a yes to `question`."""

    word: str
    message: str
    hint: str
    question: str = "buy them again?"


def concerns(batch: Batch, survey: Survey, state: State) -> list[Concern]:
    """Return what a person must accept before anything is bought, and has not accepted yet."""
    if not survey.counts[Action.SUBMIT]:
        return []
    found = []
    if survey.readdressed:
        found.append(_of_addresses(survey))
    if survey.strays:
        found.append(_of_files(survey))
    if batch.options.confirm_cost and not state.jobs and not batch.limits.has_budget:
        found.append(_of_cost(survey.counts[Action.SUBMIT], survey.cost_usd, survey.least_usd))
    return [concern for concern in found if concern.word not in batch.options.accept]


def _of_addresses(survey: Survey) -> Concern:
    # One is enough: an address does not show whether it was signed again or names another picture,
    # and an unknown scheme of signatures may change any part of it.
    before, now = survey.address_pair or ("", "")
    shown = f"\n  before: {_cut(before)}\n  now:    {_cut(now)}"
    if before == now:
        shown = f"\n  {_cut(now)} (the parts that differ are secret)"
    return Concern(
        NEW_PICTURES,
        f"{counted(survey.readdressed, 'job')} that you have paid for would be bought again only"
        f" because the addresses of the pictures changed:{shown}",
        f"same pictures: add --accept {SAME_PICTURES}, and nothing is bought again; other pictures:"
        f" add --accept {NEW_PICTURES}; to avoid the question, name what identifies a picture with"
        " images: {identity: …}",
    )


def _of_files(survey: Survey) -> Concern:
    files = "1 file here is" if survey.strays == 1 else f"{survey.strays:,} files here are"
    return Concern(
        FILES,
        f"{files} in no record, and their jobs would be bought: is the ledger missing, or an older"
        f" one? (such as {_cut(survey.stray)})",
        "put the newest ledger.jsonl back beside the pictures; or move the files away; or buy the"
        f" jobs again with --accept {FILES}",
    )


def _of_cost(submits: int, cost_usd: Decimal | None, least_usd: Decimal | None) -> Concern:
    estimate = f"about {usd(cost_usd)}"
    if cost_usd is None:
        estimate = "at a price that is not known"
        if least_usd is not None:
            estimate = f"at least {usd(least_usd)}"
    return Concern(
        COST,
        f"this run would buy {counted(submits, 'job')}, {estimate}; there is no budget",
        "set limits: {cost_usd: …} or --max-cost USD, try a few with --limit 3, or add --yes",
        "buy them?",
    )


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
