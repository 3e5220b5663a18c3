"""Budgets when inputs cost more: nothing is bought that a budget may not cover."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from bench import Bench, OpenSandbox
from conftest import FakeClock

from batch_runner.errors import AccessRefusedError, ExitCode, UsageError
from batch_runner.manifest.loading import load_manifest
from batch_runner.models.catalog import model_of
from batch_runner.records import Submitting, utc_now
from batch_runner.report.text import Advice, plan_text, summary_text
from batch_runner.run.batch import Batch, RunOptions
from batch_runner.run.budget import own_limits, unpriced_error
from batch_runner.run.planning import survey_jobs
from batch_runner.run.summary import Summary
from batch_runner.sandbox import Sandbox, api
from batch_runner.sandbox import catalog as sandbox_catalog
from batch_runner.service.call import Service
from batch_runner.shards.shard import Shard

FACTORS = {"0.5K": 1, "1K": 1, "2K": 2, "4K": 3}
COSTS: dict[str, dict[Any, int]] = {"resolution": FACTORS, "enable_web_search": {True: 2, False: 1}}


def price_of(input_: dict[str, Any]) -> Decimal:
    """Return what the service of these tests bills: 4K three times the base price."""
    price = Decimal("0.05") * input_.get("num_images", 1)
    for name, factors in COSTS.items():
        price *= factors.get(input_.get(name), 1)
    return Decimal(price)


@pytest.fixture(autouse=True)
def _dearer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_catalog.Catalog, "price", lambda *words: price_of(words[2]))


@contextmanager
def unreported(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the service report no cost."""

    def without_cost(document: dict[str, Any]) -> Any:
        document.pop("cost", None)
        return build(document)

    build = api.build_json
    with monkeypatch.context() as patched:
        patched.setattr(api, "build_json", without_cost)
        yield


def manifest(jobs: int, budget: str | None, inputs: str, further: str = "") -> str:
    images = "\n".join(f"  p{n}: https://cdn.example.com/p{n}.png" for n in range(jobs))
    limits = "submits: 1000/s, polls: 1000/s" + (f", cost_usd: {budget}" if budget else "")
    text = f"prompts: {{white: white}}\nimages:\n{images}\nlimits: {{{limits}}}\n{further}"
    return text if "inputs" in further else f"{text}inputs: {{{inputs}, output_format: jpeg}}\n"


def billed(sandbox: Sandbox) -> Decimal:
    return sum((price_of(request.input) for request in sandbox.accepted()), Decimal(0))


def stop(summary: Summary) -> str | None:
    return None if summary.stop is None else summary.stop.reason


@pytest.mark.parametrize("inputs", ["resolution: 4K", "resolution: 2K, enable_web_search: true"])
@pytest.mark.parametrize("budget", ["0.80", "0.60", "1.07"])
async def test_a_price_that_was_reported_for_one_job_is_reserved_for_the_others(
    bench: Bench, open_sandbox: OpenSandbox, inputs: str, budget: str
) -> None:
    async with open_sandbox(pictures=False) as sandbox:
        with pytest.raises(UsageError, match="is only the least") as caught:
            await bench.run(manifest(30, budget, inputs), sandbox)
        assert "price_usd:" in str(caught.value.hint)
        assert sandbox.accepted() == []
        await bench.run(manifest(30, None, inputs), sandbox, limit=1)
        for _ in range(3):
            summary = await bench.run(manifest(30, budget, inputs), sandbox)
            assert (summary.exit_code, stop(summary)) == (ExitCode.STOPPED_EARLY, "budget")
        price = price_of(sandbox.accepted()[0].input)
        assert billed(sandbox) == Decimal(budget) // price * price
    reserved = [r.reserved_usd for r in bench.records if isinstance(r, Submitting)]
    assert reserved == [Decimal("0.05"), *[price] * (len(reserved) - 1)]


async def test_without_a_reported_cost_the_price_must_be_written(
    bench: Bench, open_sandbox: OpenSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = manifest(30, "0.80", "resolution: 4K")
    async with open_sandbox(pictures=False) as sandbox:
        with unreported(monkeypatch):
            await bench.run(manifest(30, None, "resolution: 4K"), sandbox, limit=1)
            with pytest.raises(UsageError, match="is only the least"):
                await bench.run(text, sandbox)
            assert len(sandbox.accepted()) == 1
            for _ in range(2):
                summary = await bench.run(text + "price_usd: 0.15\n", sandbox)
                assert stop(summary) == "budget"
        assert billed(sandbox) <= Decimal("0.80")
        assert len(sandbox.accepted()) >= 2


async def test_a_price_that_is_given_too_low_is_corrected_by_what_the_service_reports(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    text = manifest(30, "0.80", "resolution: 4K", "price_usd: 0.05\n")
    text = text.replace("submits: 1000/s", "submits: 1000/s, in_flight: 1")
    async with open_sandbox(pictures=False) as sandbox:
        assert stop(await bench.run(text, sandbox)) == "budget"
        assert billed(sandbox) == Decimal("0.75")


@pytest.mark.parametrize("reported", [True, False])
async def test_what_was_bought_without_a_budget_counts_at_the_price_that_is_known_now(
    bench: Bench, open_sandbox: OpenSandbox, monkeypatch: pytest.MonkeyPatch, reported: bool
) -> None:
    async with open_sandbox(pictures=False) as sandbox:
        with unreported(monkeypatch):
            await bench.run(manifest(30, None, "resolution: 4K"), sandbox, limit=4)
        text = manifest(30, "0.80", "resolution: 4K", "price_usd: 0.15\n")
        if reported:
            assert stop(await bench.run(text, sandbox)) == "budget"
        else:
            with unreported(monkeypatch):
                assert stop(await bench.run(text, sandbox)) == "budget"
        assert billed(sandbox) == Decimal("0.75")


async def test_unknown_jobs_that_nothing_was_reserved_for_count_at_the_price_of_now(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox(pictures=False, faults="no-price,lost-answer") as sandbox:
        await bench.run(manifest(30, None, "resolution: 4K"), sandbox, limit=4)
        assert [r.reserved_usd for r in bench.records if isinstance(r, Submitting)] == [None] * 4
    async with open_sandbox(pictures=False) as sandbox:
        text = manifest(30, "0.80", "resolution: 4K", "price_usd: 0.15\n")
        assert stop(await bench.run(text, sandbox)) == "budget"
        assert billed(sandbox) == Decimal("0.75")


async def test_each_kind_of_inputs_learns_its_own_price_and_the_known_one_needs_none(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    further = "matrix: {resolution: [1K, 2K, 4K]}\ninputs: {output_format: jpeg}\n"
    async with open_sandbox(pictures=False) as sandbox:
        await bench.run(manifest(3, None, "", further), sandbox, only=("p0*",))
        summary = await bench.run(manifest(3, "0.90", "", further), sandbox)
        assert (summary.exit_code, summary.done) == (ExitCode.DONE, 9)
        assert billed(sandbox) == Decimal("0.90")
    reserved = sorted(r.reserved_usd or 0 for r in bench.records if isinstance(r, Submitting))
    assert reserved == [Decimal(usd) for usd in ["0.05"] * 5 + ["0.10"] * 2 + ["0.15"] * 2]


async def test_a_nightly_budget_is_kept_each_night_and_the_whole_one_over_all(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    text = manifest(30, "[0.50, 0.20/night]", "resolution: 1K")
    text += 'window: {hours: "22:00-06:00", timezone: UTC}\n'
    bought = []
    async with open_sandbox(pictures=False) as sandbox:
        # Before and after midnight are one night.
        for day, hour in ((2, 22), (3, 1), (3, 23), (4, 23), (5, 23)):
            clock = FakeClock(datetime(2026, 3, day, hour, tzinfo=UTC))
            summary = await bench.run(text, sandbox, clock=clock)
            bought.append((len(sandbox.accepted()), stop(summary)))
    night = "nightly budget"
    assert bought == [(4, night), (4, night), (8, night), (10, "budget"), (10, "budget")]


@pytest.mark.parametrize(
    ("model", "inputs", "relies"),
    [
        ("google/nano-banana-2/edit", "resolution: 4K", True),
        ("google/nano-banana-2/edit", "resolution: 0.5K", False),
        ("acme/unpublished", "resolution: 4K", False),
    ],
)
def test_a_note_says_if_a_budget_relies_on_the_price_in_the_manifest(
    bench: Bench, model: str, inputs: str, relies: bool
) -> None:
    text = f"{manifest(2, '3.00', inputs)}price_usd: 0.081\n"
    path = bench.write(text)
    path.write_text(path.read_text().replace("google/nano-banana-2/edit", model))
    batch = Batch(load_manifest(path), RunOptions(token="t"))
    notes = survey_jobs(batch, batch.replay()).tally.notes
    assert any("relies on price_usd" in note for note in notes) is relies


@pytest.mark.parametrize("faults", ["", "lost-answer"])
async def test_a_stop_at_the_budget_counts_what_it_covered_of_the_jobs_to_buy(
    bench: Bench, open_sandbox: OpenSandbox, faults: str
) -> None:
    text = manifest(6, "0.50", "resolution: 1K")
    async with open_sandbox(pictures=False, faults="lost-answer") as sandbox:
        assert (await bench.run(text, sandbox)).unknown == 6
    async with open_sandbox(pictures=False, faults=faults) as sandbox:
        summary = await bench.run(text, sandbox, retry=("unknown",))
    assert (summary.stop and summary.stop.reason, summary.to_buy) == ("budget", 6)
    advice = Advice(run="RUN", resolve="R", view="V", export="E", is_sandbox=False)
    assert f"it covered {summary.bought} of 6 jobs to buy" in summary_text(summary, advice)
    assert 0 < summary.bought < 6


async def test_the_command_that_a_used_up_budget_advises_covers_all_jobs(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    text = manifest(12, "0.80", "resolution: 4K", "price_usd: 0.15\n")
    async with open_sandbox(pictures=False) as sandbox:
        first = await bench.run(text, sandbox)
        again = "run --max-cost 0.80 m.yaml"
        advice = Advice(run=again, resolve="", view="", export="", is_sandbox=False)
        shown = summary_text(first, advice)
        assert f"used up; it covered {first.done} of 12 jobs" in shown
        assert "  run m.yaml --max-cost 1.80" in shown
        second = await bench.run(text, sandbox, max_cost_usd=first.needed_usd)
        assert (second.exit_code, second.done) == (ExitCode.DONE, 12)


@pytest.mark.parametrize(
    ("balance", "code"), [("-3.25", ExitCode.REFUSED), ("0", ExitCode.REFUSED)]
)
async def test_nothing_is_bought_from_an_account_without_a_balance(
    bench: Bench,
    open_sandbox: OpenSandbox,
    monkeypatch: pytest.MonkeyPatch,
    balance: str,
    code: int,
) -> None:
    async def told(_: Service) -> Decimal:
        return Decimal(balance)

    monkeypatch.setattr(Service, "balance_usd", told)
    async with open_sandbox(pictures=False) as sandbox:
        with pytest.raises(AccessRefusedError) as caught:
            await bench.run(manifest(2, None, "resolution: 1K"), sandbox)
        assert (caught.value.exit_code, sandbox.accepted()) == (code, [])


def test_a_plan_shows_how_many_jobs_a_budget_covers(bench: Bench) -> None:
    batch = bench.batch(manifest(40, "[0.50, 1/night]", "resolution: 1K"), "http://127.0.0.1:9")
    batch.models["google/nano-banana-2/edit"].price_usd = Decimal("0.05")
    state = batch.replay()
    shown = plan_text(batch, survey_jobs(batch, state), state, None, datetime.now(tz=UTC))
    assert "budget: 0.50 USD and 1.00 USD a night, 0.50 USD left" in shown
    assert "the budget covers 10 of 40 jobs to buy" in shown


def test_a_plan_without_a_token_says_that_none_is_set(bench: Bench) -> None:
    batch = bench.batch(manifest(4, "5", "resolution: 1K"), "http://127.0.0.1:9", token=None)
    survey = survey_jobs(batch, batch.replay())
    assert survey.unpriced is not None
    assert "no token is set" in unpriced_error(batch, survey.unpriced).message


def test_a_shard_has_its_share_of_a_night_s_budget(bench: Bench) -> None:
    text = manifest(4, "[40, 3/night]", "resolution: 1K")
    batch = bench.batch(text, "http://127.0.0.1:9", shard=Shard(0, 2))
    assert own_limits(batch, batch.ledgers.header(utc_now())).nightly_usd == Decimal("1.50")


@pytest.mark.parametrize(
    ("inputs", "price"),
    [
        ({}, "0.05"),
        ({"resolution": "1K", "seed": 7, "aspect_ratio": "1:1", "num_images": 2}, "0.10"),
        ({"resolution": "2K"}, None),
        ({"enable_web_search": True}, None),
        ({"quality": "high"}, None),
    ],
)
def test_a_published_price_is_the_whole_price_for_the_inputs_it_is_known_for(
    bench: Bench, inputs: dict[str, Any], price: str | None
) -> None:
    loaded = load_manifest(
        bench.write("prompts: {white: a}\nimages: {p: https://cdn.example.com/p}\n")
    )
    entry = {"base_price_usd": 0.05, "price_unit": "image"}
    model = model_of(loaded, "google/nano-banana-2/edit", entry)
    found = model.estimate_usd({"prompt": "white", "image_urls": ["https://x/1"], **inputs})
    assert found == (None if price is None else Decimal(price))
    # A default that the service changes is another input.
    schema = {"properties": {"prompt": {}, "resolution": {"type": "string", "default": "4K"}}}
    changed = model_of(loaded, "google/nano-banana-2/edit", {**entry, "input_schema": schema})
    assert changed.estimate_usd({"prompt": "white"}) is None
