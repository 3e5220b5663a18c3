"""Signs that money would be spent by mistake: a run buys nothing until a person accepts them.

Pure: figures of a plan in, concerns out. What always holds: each concern has a message, a hint, and
the word that accepts it (`run --accept WORD`). On a terminal the run asks. Elsewhere it collects
what is paid for, buys nothing, and ends with 64, because the same command would end the same way.
"""

from __future__ import annotations

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
    submits, found = survey.counts[Action.SUBMIT], []
    if submits and survey.readdressed:
        found.append(_of_addresses(survey.readdressed, *(survey.address_pair or ("", ""))))
    if submits and survey.strays:
        found.append(
            Concern(
                FILES,
                f"no record names {counted(survey.strays, 'file')} here, and their jobs would be"
                f" bought: is the ledger missing, or an older one? (such as {_cut(survey.stray)})",
                "put the newest ledger.jsonl back beside the pictures; or move the files away; or"
                f" buy the jobs again with --accept {FILES}",
            )
        )
    if submits and batch.options.confirm_cost and not state.jobs and not batch.limits.has_budget:
        least = "at least " if survey.cost_usd is None else "about "
        estimate_usd = survey.least_usd if survey.cost_usd is None else survey.cost_usd
        price = (
            "at a price that is not known" if estimate_usd is None else least + usd(estimate_usd)
        )
        found.append(
            Concern(
                COST,
                f"this run would buy {counted(submits, 'job')}, {price}; there is no budget",
                "set limits: {cost_usd: …} or --max-cost USD, try a few with --limit 3, or add"
                " --yes",
                "buy them?",
            )
        )
    return [concern for concern in found if concern.word not in batch.options.accept]


def _of_addresses(jobs: int, before: str, now: str) -> Concern:
    # One is enough: an address does not show whether it was signed again or names another picture,
    # and an unknown scheme of signatures may change any part of it.
    shown = f"\n  before: {_cut(before)}\n  now:    {_cut(now)}"
    if before == now:
        shown = f"\n  {_cut(now)} (the parts that differ are secret)"
    return Concern(
        NEW_PICTURES,
        f"{counted(jobs, 'job')} that you have paid for would be bought again only because the"
        f" addresses of the pictures changed:{shown}",
        f"same pictures: add --accept {SAME_PICTURES}, and nothing is bought again; other pictures:"
        f" add --accept {NEW_PICTURES}; to avoid the question, name what identifies a picture with"
        " images: {identity: …}",
    )


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
