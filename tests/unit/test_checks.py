"""The checks of saved pictures: what they find, and what they leave open."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import defects
import pytest
from PIL import Image, ImageDraw

from batch_runner.ledger.verdict import Checked, Result
from batch_runner.manifest.form import Checks, manifest_schema
from batch_runner.pictures.judge import Around, Judged, judge, refused_by
from batch_runner.pictures.kept import Measurements, Order, look
from batch_runner.pictures.measure import Measured, measure
from batch_runner.pictures.own_command import ask, known_answer
from batch_runner.pictures.provenance import GENERATED, c2pa_state
from batch_runner.pictures.rules import USUAL, VERSIONS, profile_rules, profiles, rules_for
from batch_runner.records import utc_now


def result_of(check: str, measured: Measured, required: Any, **around: Any) -> Result:
    one = judge(measured, {check: required}, Around(path="a.png", **around))
    return one[0].result


@pytest.fixture(scope="module")
def scores() -> dict[str, defects.Score]:
    return defects.scores([*defects.sound(200), *defects.defects(16)])


@pytest.mark.parametrize("check", VERSIONS)
def test_a_check_finds_its_defects_and_passes_what_looks_alike(
    check: str, scores: dict[str, defects.Score]
) -> None:
    score = scores[check]
    assert score.planted >= 16
    assert score.found >= 0.99 * score.planted, score.missed
    assert score.sound >= 200
    assert score.alarms <= 0.01 * score.sound, score.missed


def test_the_set_has_two_hundred_of_each(scores: dict[str, defects.Score]) -> None:
    assert sum(score.planted for score in scores.values()) >= 200


def test_nothing_passes_that_could_not_be_decoded() -> None:
    measured = measure(b"no picture")
    found = judge(measured, dict.fromkeys(VERSIONS, 1) | {"format": {}}, Around(path="a.png"))
    results = {one.check: one.result for one in found}
    assert results.pop("format") is Result.FAIL
    assert set(results.values()) == {Result.UNMEASURABLE}


def busy() -> Image.Image:
    """Draw a picture without a flat background."""
    picture = Image.new("RGB", (400, 400))
    canvas = ImageDraw.Draw(picture)
    for at in range(0, 400, 20):
        canvas.rectangle((at, 0, at + 10, 400), (at % 256, 255 - at // 2, 90))
        canvas.rectangle((0, at, 400, at + 6), (200, at // 2, 30))
    return picture


def faint(fill: float) -> Image.Image:
    return defects.draw_result("w1", kind="white", shadow="none", fill=fill)


@pytest.mark.parametrize(
    ("check", "picture", "required"),
    [
        ("fill", busy(), 0.8),
        ("cut_off", busy(), True),
        ("fill", faint(0.9), 0.8),
        ("cut_off", faint(1.1), True),
        ("white", Image.new("RGBA", (400, 400), (0, 0, 0, 0)), 0.8),
        ("edited", defects.draw_result("a"), 8),
    ],
)
def test_what_a_check_cannot_see_is_unmeasurable(
    check: str, picture: Image.Image, required: Any
) -> None:
    measured = measure(defects.encode(picture, "png"))
    assert result_of(check, measured, required) is Result.UNMEASURABLE


@pytest.mark.parametrize(
    ("size", "asked", "result"),
    [
        ((1024, 1280), "4:5", Result.PASS),
        ((1024, 1279), "4:5", Result.PASS),
        ((1024, 1024), "4:5", Result.FAIL),
        ((1024, 1536), "1024x1536", Result.PASS),
        ((1280, 1024), "4:5", Result.FAIL),
    ],
)
def test_the_shape_is_the_one_that_was_asked_for(
    size: tuple[int, int], asked: str, result: Result
) -> None:
    measured = Measured(width=size[0], height=size[1])
    assert result_of("aspect", measured, "as requested", ratio=asked) is result


def test_no_shape_is_required_if_none_was_asked_for() -> None:
    assert judge(Measured(), {"aspect": "as requested"}, Around(path="a.png")) == []


def test_a_c2pa_manifest_is_broken_if_its_boxes_cannot_be_read() -> None:
    for form in ("png", "jpeg"):
        content = defects.encode(defects.draw_result("a"), form)
        plain = defects.encode(defects.draw_result("a"), form, c2pa=False)
        assert c2pa_state(plain) == "none"
        assert c2pa_state(content) == "present"
        for label in (b"urn:c2pa:1", b"c2pa.assertions", b"c2pa.hash.data"):
            place = content.index(label) - 25  # the length of the label's own box
            longer = content[:place] + b"\x00\x00\x7f" + content[place + 3 :]
            assert c2pa_state(longer) == "broken"


def test_every_rule_of_a_profile_is_a_check_with_a_level_and_a_source() -> None:
    names = manifest_schema()["$defs"]["checks"]["properties"]["profile"]["anyOf"][0]["enum"]
    assert list(profiles()) == names
    for profile in profiles().values():
        assert profile.source.startswith("https://")
        assert profile.read.startswith("2026-")
        for rule in profile.rules:
            assert rule.check in VERSIONS
            assert rule.level in ("official", "advice")


def test_the_manifest_s_own_requirement_counts_before_a_profile_s() -> None:
    parts = (
        Checks(profiles=("amazon-main",), advice=False),
        Checks(required={"white": False, "size": {"shortest": 700}, "fill": 0.5}),
        Checks(required={"provenance": True}),
    )
    rules = rules_for(parts[:2])
    assert rules["size"] == {"longest": 500, "longest_max": 10000, "shortest": 700}
    assert "white" not in rules
    assert rules["fill"] == 0.5
    assert "provenance" not in rules
    assert rules_for(parts)["provenance"] == "any"
    assert rules_for(()) == dict(USUAL)
    assert profile_rules("amazon-main")["size"]["longest"] == 1600


def test_a_marketplace_refuses_a_file_by_its_official_rules() -> None:
    content = defects.encode(defects.draw_result("a"), "png")
    assert refused_by("amazon-main", content, "a.png") == []
    assert refused_by("google-shopping", content, "a.png") != []
    small = defects.encode(defects.draw_result("a", size=(300, 300)), "png")
    assert any(why.startswith("size") for why in refused_by("amazon-main", small, "a.png"))


def test_a_source_type_counts_as_provenance() -> None:
    data = io.BytesIO()
    xmp = f'<rdf:RDF><rdf:li Iptc4xmpExt:DigitalSourceType="{GENERATED}"/></rdf:RDF>'.encode()
    defects.draw_result("a").save(data, "jpeg", xmp=xmp)
    measured = measure(data.getvalue())
    assert measured.source_type == GENERATED
    assert result_of("provenance", measured, "source-type") is Result.PASS
    assert result_of("provenance", measured, "c2pa") is Result.FAIL


# What is kept


def test_a_picture_is_measured_once_and_a_torn_line_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(defects.encode(defects.draw_result("a"), "png"))
    for name in ("one", "two"):
        with Measurements(tmp_path) as known:
            known.add(look(Order(of=name, original=str(path))))
    with Measurements(tmp_path) as known:
        assert set(known.known) == {"one", "two"}
    whole = known.path.read_bytes()
    known.path.write_bytes(whole[:-20])
    with Measurements(tmp_path) as known:
        assert set(known.known) == {"one"}
        known.add(look(Order(of="three", original=str(path))))
    with Measurements(tmp_path) as known:
        assert set(known.known) == {"one", "three"}


def test_a_file_that_has_changed_or_is_gone_is_not_measured(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(defects.encode(defects.draw_result("a"), "png"))
    for order in (
        Order(of="x", original=str(path), sha256="0" * 64),
        Order(of="x", original=str(tmp_path / "gone.png"), sha256="0" * 64),
    ):
        with Measurements(tmp_path) as known:
            known.add(look(order))
            assert known.known["x"].why_not
    with Measurements(tmp_path) as known:
        assert known.known == {}


# The user's own command


_ANSWERS = {
    "pass": '{"path": P, "result": "pass", "measured": 0.9}\n',
    "fail": '{"path": P, "result": "fail", "why": "another logo"}\n',
    "none": "",
    "half": '{"path": P, "result": "pa',
    "unknown word": '{"path": P, "result": "probably"}\n',
    "contradiction": '{"path": P, "result": "pass"}\n{"path": P, "result": "fail"}\n',
    "pass with a reason": '{"path": P, "result": "pass", "why": "another logo"}\n',
    "another's": '{"path": "/elsewhere.png", "result": "pass"}\n',
    "no result": '{"path": P}\n',
}


@pytest.mark.parametrize("name", _ANSWERS)
@pytest.mark.parametrize("exit_code", [0, 1])
def test_only_a_clear_answer_of_a_command_counts(tmp_path: Path, name: str, exit_code: int) -> None:
    script = tmp_path / "check.py"
    script.write_text(
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    path = line.rstrip('\\n').split('\\t')[0]\n"
        f"    sys.stdout.write({_ANSWERS[name]!r}.replace('P', json.dumps(path)))\n"
        f"sys.exit({exit_code})\n"
    )
    words = [sys.executable, str(script)]
    found = ask(words, [("/out/a.png", ["/in/a.png"])], folder=tmp_path, environment={})
    clear = name in ("pass", "fail") and exit_code == 0
    assert found[0].result == (name if clear else "unmeasurable")


def test_a_command_is_given_the_pictures_in_and_asked_again_only_if_it_changed(
    tmp_path: Path,
) -> None:
    script = tmp_path / "check.py"
    script.write_text(
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    path, *sources = line.rstrip('\\n').split('\\t')\n"
        "    print(json.dumps({'path': path, 'result': 'pass', 'measured': sources}))\n"
    )
    words = [sys.executable, str(script)]
    pictures: list[tuple[str | None, list[str]]] = [("/a.png", ["/s.png", "/t.png"]), (None, [])]
    here, elsewhere = ask(words, pictures, folder=tmp_path, environment={})
    assert here.measured == {"measured": ["/s.png", "/t.png"], "why": ""}
    assert elsewhere.result is Result.UNMEASURABLE
    assert known_answer(recorded(here), words) == here
    assert known_answer(recorded(here), [*words, "--strict"]) is None
    assert known_answer(recorded(elsewhere), words) is None
    missing = ask(["/no/such/command"], pictures[:1], folder=tmp_path, environment={})
    assert missing[0].result is Result.UNMEASURABLE


def recorded(one: Judged) -> Checked:
    measured = json.loads(json.dumps(one.measured))
    return Checked(
        at=utc_now(),
        job="a",
        fingerprint="f",
        sha256="0" * 64,
        check=one.check,
        version=1,
        result=one.result,
        measured=measured,
        required=one.required,
    )
