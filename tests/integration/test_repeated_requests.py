"""A service that answers a submit with the request of another job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest
from bench import Bench, OpenSandbox

from batch_runner.errors import ExitCode
from batch_runner.run.summary import Summary
from batch_runner.service.answer import Verdict
from batch_runner.service.call import Service
from batch_runner.shards.shard import Shard

EIGHT = """\
prompts: {white: white background, sepia: sepia}
images: {PICTURES}
""".replace("PICTURES", ", ".join(f"p{n}: https://cdn.example.com/{n}.png" for n in range(4)))

Choose = Callable[[list[str]], str]


@pytest.fixture
def repeating(monkeypatch: pytest.MonkeyPatch) -> Callable[[Choose], None]:
    """Have the service answer with one of the request ids that it gave before."""
    real = Service.submit
    given: list[str] = []

    def begin(choose: Choose) -> None:
        async def submit(self: Service, model: str, input_: dict[str, object]) -> Verdict:
            verdict = await real(self, model, input_)
            if verdict.request_id is None:
                return verdict
            given.append(verdict.request_id)
            return msgspec.structs.replace(verdict, request_id=choose(given))

        monkeypatch.setattr(Service, "submit", submit)

    return begin


def own(given: list[str]) -> str:
    return given[-1]


def first(given: list[str]) -> str:
    return given[0]


async def test_a_shard_never_takes_the_request_of_another_shards_job(
    bench: Bench, open_sandbox: OpenSandbox, repeating: Callable[[Choose], None]
) -> None:
    async with open_sandbox() as sandbox:
        repeating(own)
        one = await bench.run(EIGHT, sandbox, shard=Shard(1, 3))
        assert one.exit_code == ExitCode.DONE
        repeating(first)
        other = await bench.run(EIGHT, sandbox, shard=Shard(0, 3))
    assert other.jobs > 0
    assert (other.unknown, other.done, other.exit_code) == (other.jobs, 0, ExitCode.SOME_FAILED)
    assert len(bench.files) == one.done


async def test_of_shards_at_work_together_one_job_has_the_request(
    bench: Bench, open_sandbox: OpenSandbox, repeating: Callable[[Choose], None]
) -> None:
    async with open_sandbox() as sandbox:
        repeating(first)
        runs = [bench.run(EIGHT, sandbox, shard=Shard(index, 3)) for index in range(3)]
        summaries: list[Summary] = await asyncio.gather(*runs)
    assert sum(one.done for one in summaries) == 1
    assert sum(one.unknown for one in summaries) == 7


async def test_the_request_of_an_earlier_attempt_is_no_other_jobs(
    bench: Bench, open_sandbox: OpenSandbox, repeating: Callable[[Choose], None]
) -> None:
    two = EIGHT.replace(", sepia: sepia", "").partition(", p1")[0] + "}\n"
    async with open_sandbox(faults="failed") as sandbox:
        repeating(own)
        assert (await bench.run(two, sandbox)).failed == 1
    async with open_sandbox() as sandbox:
        assert (await bench.run(two, sandbox, retry=("failed",))).done == 1
        repeating(first)
        later = await bench.run(EIGHT, sandbox)
    assert (later.done, later.unknown) == (1, 7)
