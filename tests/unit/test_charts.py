"""The charts: the same figures give the same files, and what they say is right."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from batch_runner.report.charts import Figures, draw, nice_bucket_s, words_of_s

pytest.importorskip("matplotlib")


@pytest.fixture
def figures() -> Figures:
    figures = Figures()
    for n in range(100):
        figures.saved.append(1_770_000_000 + 30 * n)
        figures.queue_s.append(2 + n % 3)
        figures.run_s.append(10 + n % 10)
    figures.outcomes["white"] = Counter(done=60, failed=3)
    figures.outcomes["<b>$x_1$ & a rather long name"] = Counter(done=36, unknown=1)
    return figures


def test_three_charts_for_light_and_dark_with_text_as_text(
    figures: Figures, tmp_path: Path
) -> None:
    charts = draw(figures, tmp_path)
    assert charts is not None
    assert [chart.title for chart in charts] == [
        "Jobs saved a minute",
        "Seconds in the queue and at work",
        "Outcome by prompt",
    ]
    for chart in charts:
        for name in (chart.light, chart.dark):
            root = ET.fromstring((tmp_path / name).read_bytes())
            assert [one for one in root.iter() if one.tag.endswith("}text")]
            assert not [one for one in root.iter() if one.tag.endswith(("}script", "}image"))]
    outcomes = (tmp_path / charts[2].light).read_text(encoding="utf-8")
    assert "&lt;b&gt;$x_1$ &amp; a" in outcomes
    assert charts[0].caption == "Peak 2 a minute, at 02 Feb 02:40:00 UTC; 100 jobs in 50 min"
    assert charts[1].caption == "Run: median 14 s; 95 % within 19 s; queue: median 3 s"
    assert charts[2].caption == "96 done, 3 failed, 1 unknown; 2 prompts"


def test_the_same_figures_give_the_same_files(figures: Figures, tmp_path: Path) -> None:
    draw(figures, tmp_path / "one")
    draw(figures, tmp_path / "two")
    for path in (tmp_path / "one" / "charts").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / "charts" / path.name).read_bytes()


def test_many_prompts_become_others_and_one_job_is_enough(tmp_path: Path) -> None:
    figures = Figures()
    figures.saved.append(1_770_000_000)
    figures.run_s.append(0.0)
    for n in range(30):
        figures.outcomes[f"prompt {n}"] = Counter(done=30 - n)
    charts = draw(figures, tmp_path)
    assert charts is not None
    assert "22 others" in (tmp_path / charts[2].light).read_text(encoding="utf-8")
    assert charts[0].caption.endswith("1 job in 0 s")


def test_nothing_to_show_is_no_chart(tmp_path: Path) -> None:
    assert draw(Figures(), tmp_path) == []


@pytest.mark.parametrize(
    ("span_s", "bucket_s"),
    [(0, 1), (3, 1), (100, 5), (3600, 120), (8 * 3600, 600), (7 * 86_400, 21_600), (1e7, 259_200)],
)
def test_buckets_have_lengths_that_people_count_in(span_s: float, bucket_s: int) -> None:
    assert nice_bucket_s(span_s) == bucket_s


def test_durations_are_said_as_people_say_them() -> None:
    told = [words_of_s(seconds) for seconds in (0.714, 12.4, 89, 600, 8000, 300_000)]
    assert told == ["0.71 s", "12 s", "89 s", "10 min", "2.2 h", "3.5 days"]
