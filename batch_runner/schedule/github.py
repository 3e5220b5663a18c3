"""A GitHub Actions workflow for a run every night.

Hides that GitHub's clock knows UTC alone, and where a ledger is kept between two of its machines.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from batch_runner.errors import UsageError
from batch_runner.schedule.cron import cron_days
from batch_runner.schedule.timer import (
    MARK,
    TOKEN_VARIABLE,
    File,
    Timer,
    in_ranges,
    require_writable_as_text,
)


@dataclass(frozen=True, kw_only=True)
class Repository:
    """Where a workflow runs: the repository's folder, the output folder in it, pip's argument."""

    folder: Path
    output_dir: Path
    source: str


def workflow_file(timer: Timer, repository: Repository, year: int) -> File:
    """Return the workflow; raises UsageError for what GitHub cannot know or keep."""
    if timer.timezone is None:
        raise UsageError(
            "GitHub's clock is UTC: the time zone must be named",
            hint="add --timezone Europe/Madrid, or UTC",
        )
    manifest = _inside(timer.manifest, repository.folder, "the manifest")
    output_dir = _inside(repository.output_dir, repository.folder, "output.dir")
    name = f"{timer.name}.yml"
    text = _WORKFLOW % {
        "file": name,
        "mark": MARK,
        "name": timer.name,
        "schedule": "\n".join(f"    {line}" for line in _workflow_schedule(timer, year)),
        "zone": json.dumps(timer.timezone),
        "source": _without_expressions(shlex.quote(repository.source)),
        "manifest": _without_expressions(shlex.quote(manifest)),
        "output_dir": _without_expressions(json.dumps(output_dir, ensure_ascii=False)),
        "ledger": _without_expressions(shlex.quote(f"{output_dir}/ledger.jsonl")),
        "token": TOKEN_VARIABLE,
    }
    return File(repository.folder / ".github" / "workflows" / name, text)


def utc_crons(timer: Timer, year: int) -> dict[str, timedelta]:
    """Return the lines of cron that start at the time all year on a clock of UTC.

    One for each offset the zone has, in the months that have it, with that offset. A month in which
    the clock changes is in both, so that no night is left out.
    """
    zone = ZoneInfo(timer.timezone or "UTC")
    found: dict[tuple[time, int, timedelta], set[int]] = {}
    day = datetime(year, 1, 1, tzinfo=UTC).date()
    while day.year == year:
        local = datetime.combine(day, timer.at, zone)
        start = local.astimezone(UTC)
        key = (start.time(), (start.date() - day).days, local.utcoffset() or timedelta())
        found.setdefault(key, set()).add(start.month)
        day += timedelta(days=1)
    crons = {}
    for (at, shift, offset), months in found.items():
        month = "*" if len(months) == 12 else in_ranges(sorted(months), str)
        crons[f"{at.minute} {at.hour} * {month} {cron_days(timer.days, shift)}"] = offset
    return crons


def _workflow_schedule(timer: Timer, year: int) -> Iterator[str]:
    crons = utc_crons(timer, year)
    yield f"# GitHub counts in UTC; this is {timer.at:%H:%M} in {timer.timezone}."
    if len(crons) > 1:
        yield "# Summer and winter differ there: a line for each. In the months in which the clock"
        yield "# changes both start a run, one of them an hour off; nothing is bought twice."
    for cron, offset in crons.items():
        hours, minutes = divmod(abs(offset) // timedelta(minutes=1), 60)
        sign = "-" if offset < timedelta() else "+"
        yield f'- cron: "{cron}" # while it is UTC{sign}{hours:02}:{minutes:02} there'


def _inside(path: Path, folder: Path, what: str) -> str:
    try:
        relative = path.resolve().relative_to(folder.resolve()).as_posix()
    except ValueError as error:
        raise UsageError(
            f"{what} is outside the repository: {path}",
            hint="GitHub keeps only what is inside: move it there",
        ) from error
    require_writable_as_text(relative)
    return f"./{relative}" if relative.startswith("-") else relative


def _without_expressions(text: str) -> str:
    """Keep GitHub from reading a name as one of its expressions."""
    return text.replace("${{", "${{ '${{' }}")


_WORKFLOW = """\
# %(file)s: %(mark)s
name: %(name)s

on:
  schedule:
%(schedule)s
  workflow_dispatch:
    inputs:
      first:
        description: There is no ledger yet, this is the first run
        type: boolean
        default: false

permissions:
  contents: read

# One run at a time: a second one waits.
concurrency:
  group: %(name)s
  cancel-in-progress: false

jobs:
  run:
    runs-on: ubuntu-latest
    timeout-minutes: 355
    env:
      TZ: %(zone)s
    steps:
      - uses: actions/checkout@v4

      - uses: actions/setup-python@v5
        with:
          python-version: "3.12"

      - name: Install
        run: python -m pip install %(source)s

      # The ledger says what was bought. A run without it would buy everything again, so the output
      # folder is kept from run to run: in the cache, and with each run as an artifact. Where GitHub
      # loses a run's cache, the next run buys that run's pictures again: set limits.cost_usd.
      - name: Fetch the output folder with the ledger
        id: kept
        uses: actions/cache/restore@v4
        with:
          path: %(output_dir)s
          key: %(name)s/${{ github.run_id }}-${{ github.run_attempt }}
          restore-keys: %(name)s/

      # GitHub drops a cache after seven days without a run, or when it needs room. Then take the
      # ledger from the last artifact and commit it where it was.
      - name: Refuse to buy everything again
        if: ${{ !inputs.first }}
        run: |
          if [ ! -s %(ledger)s ]; then
            echo "::error::the ledger is gone; commit it from the last artifact, or start the" \\
              "very first run by hand with 'first' ticked"
            exit 1
          fi

      - name: Run, or go on
        env:
          %(token)s: ${{ secrets.%(token)s }}
        run: |
          code=0
          # GitHub ends a job after six hours, and leaves no time to collect what is paid for.
          timeout --preserve-status --kill-after=60s 330m \\
            batch-runner run %(manifest)s --quiet || code=$?
          # 75: stopped early (window, budget, time); the next night goes on.
          if [ "$code" -eq 75 ]; then
            echo "::notice::stopped early, the next run goes on"
            code=0
          fi
          exit "$code"

      # Also after a failure: what was bought must be on record.
      - name: Keep the output folder with the ledger
        if: always()
        uses: actions/cache/save@v4
        with:
          path: %(output_dir)s
          key: ${{ steps.kept.outputs.cache-primary-key }}

      - name: Hand out the pictures
        if: always()
        uses: actions/upload-artifact@v4
        with:
          name: %(name)s-${{ github.run_id }}-${{ github.run_attempt }}
          path: %(output_dir)s
          if-no-files-found: ignore
"""


def github_steps(workflow: Path) -> list[str]:
    """Return what to type for the workflow to run, and to look, and to undo it."""
    name, path = workflow.name, shlex.quote(str(workflow))
    return [
        f"token:  gh secret set {TOKEN_VARIABLE}",
        f"start it:  git add {path}, commit, and push to the default branch",
        f"the first run, by hand:  gh workflow run {name} -f first=true",
        f"look:  gh run list --workflow {name}",
        f"remove:  git rm {path}",
    ]
