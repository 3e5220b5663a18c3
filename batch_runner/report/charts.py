"""Three charts of a batch as SVG files, for light and dark pages: throughput, durations, outcomes.

Hides matplotlib. What always holds: text in a chart is text, set in the reader's own font; the same
figures give the same files; nothing in them comes from prompts or keys but the prompts' ids.
"""

from __future__ import annotations

import bisect
import io
import logging
import math
import statistics
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from batch_runner.disk import replacing
from batch_runner.report.facts import STATES, JobFacts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

FOLDER = "charts"

_WIDTH_IN, _HEIGHT_IN = 5.0, 1.9
_BUCKETS = 48
_NICE_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200)
_DAY_S = 86_400
_UNITS = ((1, "second"), (60, "minute"), (3600, "hour"), (_DAY_S, "day"))
_PROMPTS_SHOWN = 8
_MEASURED_BY = "DejaVu Sans"
"""The font that matplotlib brings, and by which it leaves room."""
_SHOWN_IN = b"Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue'"
"""The page's own fonts, which are the reader's."""
_LABEL_CHARACTERS = 18


class Theme(msgspec.Struct, frozen=True):
    """The colours of one look; those of the states are the page's own."""

    name: str
    text: str
    line: str
    run: str
    queue: str
    states: dict[str, str]


_THEMES = (
    Theme(
        "light",
        text="#5b6170",
        line="#e2e4e9",
        run="#3f5fd0",
        queue="#c58a2b",
        states={
            "done": "#2f9467",
            "failed": "#cf4532",
            "unknown": "#d0902a",
            "in_flight": "#4f83d6",
            "pending": "#c3c8d1",
            "cancelled": "#8a91a0",
        },
    ),
    Theme(
        "dark",
        text="#a3aab8",
        line="#2c313a",
        run="#8fa8ff",
        queue="#e0b060",
        states={
            "done": "#3fae7c",
            "failed": "#f07565",
            "unknown": "#e9ae4e",
            "in_flight": "#6ea6f2",
            "pending": "#454c59",
            "cancelled": "#6b7382",
        },
    ),
)


class Chart(msgspec.Struct, frozen=True):
    """One chart: its two files, relative to the report, and what it shows in words."""

    title: str
    caption: str
    light: str
    dark: str


class Figures:
    """What the charts show, taken in job by job: eight bytes for each time and duration."""

    def __init__(self) -> None:
        self.saved = array("d")
        self.queue_s = array("d")
        self.run_s = array("d")
        self.outcomes: dict[str, Counter[str]] = {}

    def add(self, facts: JobFacts) -> None:
        """Take in one job."""
        if facts.saved_at is not None:
            self.saved.append(facts.saved_at.timestamp())
        if facts.queue_s is not None:
            self.queue_s.append(facts.queue_s)
        if facts.run_s is not None:
            self.run_s.append(facts.run_s)
        prompt = facts.job.prompt_id or facts.job.key
        self.outcomes.setdefault(prompt, Counter())[facts.state] += 1


def draw(figures: Figures, folder: Path) -> list[Chart] | None:
    """Draw what there is to show; None where matplotlib, an extra, is missing."""
    # Whatever it has to say about fonts and caches is nothing to whoever wants a report.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        import matplotlib as mpl  # noqa: PLC0415 - an extra, and slow to import
    except ImportError:
        return None
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    charts = []
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "batch-runner"}):
        for name, plot in _plots(figures):
            files = []
            for theme in _THEMES:
                files.append(f"{FOLDER}/{name}-{theme.name}.svg")
                title, caption = _draw_one(folder / files[-1], plot, theme)
            charts.append(Chart(title, caption, *files))
    return charts


_Plot = Callable[["Axes", Theme], tuple[str, str]]


def _plots(figures: Figures) -> Iterator[tuple[str, _Plot]]:
    if figures.saved:
        yield "throughput", lambda axes, theme: _throughput(axes, theme, figures.saved)
    if figures.run_s:
        yield "durations", lambda axes, theme: _durations(axes, theme, figures)
    if figures.outcomes:
        yield "outcomes", lambda axes, theme: _outcomes(axes, theme, figures.outcomes)


def _draw_one(path: Path, plot: _Plot, theme: Theme) -> tuple[str, str]:
    import matplotlib as mpl  # noqa: PLC0415 - an extra
    from matplotlib.figure import Figure  # noqa: PLC0415

    style: Any = {
        "font.family": ["sans-serif"],
        "font.sans-serif": [_MEASURED_BY],
        "font.size": 9.5,
        "text.color": theme.text,
        "axes.edgecolor": theme.line,
        "axes.labelcolor": theme.text,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "axes.facecolor": "none",
        "grid.color": theme.line,
        "xtick.color": theme.text,
        "ytick.color": theme.text,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "legend.frameon": False,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(_WIDTH_IN, _HEIGHT_IN), layout="constrained", facecolor="none")
        words = plot(figure.add_subplot(), theme)
        drawn = io.BytesIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    with replacing(path) as file:
        file.write(drawn.getvalue().replace(f"'{_MEASURED_BY}'".encode(), _SHOWN_IN))
    return words


def _throughput(axes: Axes, theme: Theme, saved: array[float]) -> tuple[str, str]:
    import matplotlib.dates  # noqa: PLC0415 - an extra

    first, last = min(saved), max(saved)
    bucket_s = nice_bucket_s(last - first)
    start = math.floor(first / bucket_s) * bucket_s
    counts = Counter(int((moment - start) // bucket_s) for moment in saved)
    unit_s, unit = next((u for u in reversed(_UNITS) if u[0] <= bucket_s), _UNITS[0])
    length = max(counts) + 1
    edges = [datetime.fromtimestamp(start + n * bucket_s, UTC) for n in range(length + 1)]
    rates = [counts[n] * unit_s / bucket_s for n in range(length)]
    axes.stairs(rates, cast("Any", edges), fill=True, color=theme.run, alpha=0.85)
    dates: Any = matplotlib.dates
    locator = dates.AutoDateLocator(minticks=2, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=UTC))
    axes.set_ylim(bottom=0)
    peak = rates.index(max(rates))
    caption = (
        f"Peak {max(rates):,.3g} a {unit}, at {edges[peak]:%d %b %H:%M:%S} UTC;"
        f" {len(saved):,} job{'' if len(saved) == 1 else 's'} in {words_of_s(last - first)}"
    )
    return f"Jobs saved a {unit}", caption


def nice_bucket_s(span_s: float) -> int:
    """Return a length that people count in, of which about fifty fit into the span."""
    wanted_s = span_s / _BUCKETS
    place = bisect.bisect_left(_NICE_S, wanted_s)
    return _NICE_S[place] if place < len(_NICE_S) else math.ceil(wanted_s / _DAY_S) * _DAY_S


def _durations(axes: Axes, theme: Theme, figures: Figures) -> tuple[str, str]:
    longest_s = _quantile(figures.run_s, 0.99)
    if figures.queue_s:
        longest_s = max(longest_s, _quantile(figures.queue_s, 0.99))
    edges = [longest_s * n / 30 if longest_s else n / 30 for n in range(31)]
    for name, values, color in (
        ("queue", figures.queue_s, theme.queue),
        ("run", figures.run_s, theme.run),
    ):
        if values:
            inside = [min(value, edges[-1]) for value in values]
            axes.hist(
                inside, bins=edges, label=name, color=color, alpha=0.75, histtype="stepfilled"
            )
    axes.set_xlim(0, edges[-1])
    axes.set_xlabel("seconds")
    _count_in_integers(axes.yaxis)
    if figures.queue_s:
        axes.legend(loc="upper right")
    parts = [f"Run: median {words_of_s(statistics.median(figures.run_s))}"]
    parts.append(f"95 % within {words_of_s(_quantile(figures.run_s, 0.95))}")
    if figures.queue_s:
        parts.append(f"queue: median {words_of_s(statistics.median(figures.queue_s))}")
    return "Seconds in the queue and at work", "; ".join(parts)


def _outcomes(axes: Axes, theme: Theme, outcomes: dict[str, Counter[str]]) -> tuple[str, str]:
    largest = sorted(outcomes, key=lambda prompt: -outcomes[prompt].total())
    rows = {prompt: outcomes[prompt] for prompt in largest[:_PROMPTS_SHOWN]}
    rest = largest[_PROMPTS_SHOWN:]
    if rest:
        rows[f"{len(rest):,} others"] = sum((outcomes[prompt] for prompt in rest), Counter())
    labels = [_short(prompt) for prompt in rows]
    places = range(len(rows))
    left = [0] * len(rows)
    for state in reversed(STATES):
        counts = [row[state] for row in rows.values()]
        if any(counts):
            label = state.replace("_", " ")
            axes.barh(
                places, counts, left=left, height=0.62, label=label, color=theme.states[state]
            )
            left = [sum(pair) for pair in zip(left, counts, strict=True)]
    axes.set_yticks(places, labels, parse_math=False)
    axes.set_ylim(max(len(rows), 3) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    _count_in_integers(axes.xaxis)
    axes.figure.legend(loc="outside upper left", ncols=6, handlelength=0.9, columnspacing=1.2)
    totals: Counter[str] = sum(outcomes.values(), Counter())
    told = [f"{totals[state]:,} {state.replace('_', ' ')}" for state in reversed(STATES)]
    told = [words for words in told if not words.startswith("0 ")]
    return (
        "Outcome by prompt",
        f"{', '.join(told)}; {len(outcomes):,} prompt{'' if len(outcomes) == 1 else 's'}",
    )


def _count_in_integers(axis: Axis) -> None:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - an extra

    axis.set_major_locator(MaxNLocator(nbins=5, integer=True))


def _quantile(values: array[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def _short(text: str) -> str:
    return text if len(text) <= _LABEL_CHARACTERS else f"{text[: _LABEL_CHARACTERS - 1]}…"


def words_of_s(seconds: float) -> str:
    """Return a duration as people say it."""
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * _DAY_S else f"{seconds / _DAY_S:.1f} days"
