"""Several models in one manifest: which job goes where, with what, and what a person is told."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from batch_runner.errors import ManifestError
from batch_runner.jobs.expand import expand
from batch_runner.manifest.loading import load_manifest
from batch_runner.models.catalog import offline_models
from batch_runner.records import Job

Write = Callable[..., Path]

NANO, LITE = "google/nano-banana-2/edit", "google/nano-banana-2-lite/edit"
FLUX, DRAW = "blackforestlabs/flux-1-kontext/pro/edit", "google/nano-banana-2-lite/text-to-image"
URL = "https://cdn.example.com/mug.png"
IMAGE = f"images: {{mug: {URL}}}\n"
WHITE = "prompts: {white: On white.}\n"
BOTH = f"matrix: {{model: [{NANO}, {FLUX}]}}\n"


def expanded(path: Path) -> list[Job]:
    manifest = load_manifest(path)
    models = offline_models(manifest, path.parent)
    return list(expand(manifest, models, local_pictures=False))


def told(path: Path) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        expanded(path)
    return [
        f"{problem.line}: {problem.what}" + (f" | {problem.hint}" if problem.hint else "")
        for problem in caught.value.problems
    ]


def test_every_model_of_the_matrix_gets_the_same_pictures_in_its_own_input(
    write_manifest: Write,
) -> None:
    nano, flux = expanded(write_manifest(WHITE + IMAGE + BOTH, head="version: 1\n"))
    assert (nano.model, flux.model) == (NANO, FLUX)
    assert nano.key == f"mug/white/model={NANO}"
    assert nano.path == "mug/white-google-nano-banana-2-edit"
    assert nano.input == {"prompt": "On white.", "image_urls": [URL]}
    assert flux.input == {"prompt": "On white.", "image_url": URL}
    assert (nano.point, flux.point) == ({"model": NANO}, {"model": FLUX})
    assert nano.fingerprint != flux.fingerprint


def test_what_was_bought_from_one_model_alone_is_known_when_a_second_is_compared(
    write_manifest: Write,
) -> None:
    (alone,) = expanded(write_manifest(WHITE + IMAGE))
    nano, _ = expanded(write_manifest(WHITE + IMAGE + BOTH))
    assert nano.fingerprint == alone.fingerprint
    assert alone.key == "mug/white"


def test_a_prompt_may_name_a_model_of_its_own(write_manifest: Write) -> None:
    text = (
        f"prompts:\n  white: '{{{{ model }}}}'\n"
        f"  draw: {{prompt: '{{{{ model }}}}', model: {FLUX}}}\n" + IMAGE
    )
    jobs = expanded(write_manifest(text))
    assert [(job.key, job.model) for job in jobs] == [
        ("mug/white", NANO),
        ("mug/draw", FLUX),
    ]
    assert [job.input["prompt"] for job in jobs] == [NANO, FLUX]


def test_the_models_name_makes_no_folder_of_its_own_in_a_path(write_manifest: Write) -> None:
    text = WHITE + IMAGE + BOTH + "output: {path: '{{ model }}/{{ image }}'}\n"
    assert [job.path for job in expanded(write_manifest(text))] == [
        "google-nano-banana-2-edit/mug",
        "blackforestlabs-flux-1-kontext-pro-edit/mug",
    ]


def test_paths_that_leave_the_model_out_collide_and_the_hint_names_it(
    write_manifest: Write,
) -> None:
    text = WHITE + IMAGE + BOTH + "output: {path: '{{ image }}'}\n"
    (said,) = told(write_manifest(text))
    assert said.endswith("would both write 'mug' | put {{ model }} into output.path")


def test_inputs_for_one_model_reach_no_other_and_the_nearer_wins(write_manifest: Write) -> None:
    text = (
        f"inputs: {{seed: 1}}\nprompts: {{a: a, b: {{prompt: b, inputs: {{seed: 4}}}}}}\n{IMAGE}"
        f"matrix: {{model: [{NANO}, {FLUX}], aspect_ratio: ['1:1']}}\n"
        f"models:\n  {NANO}: {{inputs: {{seed: 3, resolution: 2K, aspect_ratio: '4:5'}}}}\n"
    )
    sent = {
        (job.model, job.prompt_id): {
            name: value for name, value in job.input.items() if not name.startswith(("pro", "im"))
        }
        for job in expanded(write_manifest(text))
    }
    assert sent == {
        (NANO, "a"): {"seed": 3, "resolution": "2K", "aspect_ratio": "1:1"},
        (NANO, "b"): {"seed": 4, "resolution": "2K", "aspect_ratio": "1:1"},
        (FLUX, "a"): {"seed": 1, "aspect_ratio": "1:1"},
        (FLUX, "b"): {"seed": 4, "aspect_ratio": "1:1"},
    }


def test_a_table_with_two_pictures_for_a_model_that_takes_one_says_what_to_write(
    write_manifest: Write, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text(f"sku,a,b\nA,{URL},\nB,{URL},{URL}\nC,{URL},{URL}\n", "utf-8")
    text = WHITE + "images: {from: t.csv, id: '{{ sku }}', urls: ['{{ a }}', '{{ b }}']}\n"
    (said,) = told(write_manifest(text, head=f"version: 1\nmodel: {FLUX}\n"))
    what, hint = said.split(" | ")
    assert what == "4: 'image_url' takes one picture, here are 2"
    assert "in a table, pictures: 1 takes one" in hint
    one = text.replace("from:", "pictures: 1, from:")
    assert len(expanded(write_manifest(one, head=f"version: 1\nmodel: {FLUX}\n"))) == 3


def test_rows_without_pictures_are_jobs_for_models_that_work_from_words_alone(
    write_manifest: Write, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text("sku,scene\nA,a boat\nB,a city\n", encoding="utf-8")
    text = "prompts: {draw: 'Draw {{ scene }}.'}\n"
    text += 'images: {from: t.csv, id: "{{ sku }}", urls: []}\n'
    jobs = expanded(write_manifest(text, head=f"version: 1\nmodel: {DRAW}\n"))
    assert [(job.key, job.input) for job in jobs] == [
        ("A/draw", {"prompt": "Draw a boat."}),
        ("B/draw", {"prompt": "Draw a city."}),
    ]
    (said,) = told(write_manifest(text))
    assert said.startswith(f"4: the model {NANO} edits pictures, and there are none | add images")


def test_exclude_leaves_out_a_model_by_matrix_or_prompt(write_manifest: Write) -> None:
    text = f"prompts: {{white: a, night: b}}\n{IMAGE}{BOTH}"
    text += f"exclude: [{{prompt: night, model: {FLUX}}}]\n"
    assert [(job.prompt_id, job.model) for job in expanded(write_manifest(text))] == [
        ("white", NANO),
        ("white", FLUX),
        ("night", NANO),
    ]
    text = f"prompts: {{white: a, night: {{prompt: b, model: {FLUX}}}}}\n{IMAGE}"
    text += f"exclude: [{{model: {FLUX}}}]\n"
    assert [job.prompt_id for job in expanded(write_manifest(text))] == ["white"]


def test_notes_at_the_top_are_about_the_top_model_and_others_have_their_own(
    write_manifest: Write,
) -> None:
    text = (
        f"{WHITE}{IMAGE}matrix: {{model: [{NANO}, a/b]}}\nprice_usd: 0.06\n"
        "models:\n  a/b: {price_usd: '0.10', images_as: frames, prompt_as: caption,\n"
        "    schema: {properties: {caption: {}, frames: {type: array}}}}\n"
    )
    path = write_manifest(text)
    manifest = load_manifest(path)
    models = offline_models(manifest, path.parent)
    assert {name: one.estimate_usd({}) for name, one in models.items()} == {
        NANO: Decimal("0.06"),
        "a/b": Decimal("0.10"),
    }
    assert models["a/b"].place("x", [URL]) == {"caption": "x", "frames": [URL]}
    assert (models[NANO].schema_source, models["a/b"].schema_source) == ("shipped", "manifest")


def test_notes_at_the_top_are_about_the_one_model_of_the_matrix(write_manifest: Write) -> None:
    text = f"{WHITE}{IMAGE}matrix: {{model: [{FLUX}]}}\nprice_usd: 0.06\n"
    manifest = load_manifest(write_manifest(text, head="version: 1\n"))
    assert manifest.notes_on(FLUX).price_usd == Decimal("0.06")


HEADLESS = "version: 1\n"
PICTURE = "Address of the picture to edit: public HTTPS, without a login."
KNOWN = "| known here: aspect_ratio, image_url, prompt, seed"
MISSING = f"5: inputs: {FLUX}: the key '{{0}}' is missing | add '{{0}}': {{1}}"
MODEL_ID_HINT = "a model_id is words joined by slashes, such as google/nano-banana-2/edit"


@pytest.mark.parametrize(
    ("head", "text", "said"),
    [
        pytest.param(
            None,
            f"{WHITE}{IMAGE}{BOTH}inputs: {{resolution: 1K}}\n",
            f"6: {FLUX}: unknown key 'resolution' | leave it out here; if need be, write it"
            f" under models: {{{NANO}: …}}",
            id="an input that one model does not know",
        ),
        pytest.param(
            None,
            f"{WHITE}{IMAGE}matrix:\n  model: [{NANO}, {FLUX}]\n  resolution: [1K, 2K]\n",
            f"7: {FLUX}: unknown key 'resolution'"
            f" | leave it out here; if need be, write it under models: {{{NANO}: …}}",
            id="an axis that one model does not know",
        ),
        pytest.param(
            None,
            f"{WHITE}{IMAGE}matrix: {{model: [{NANO}, a/b]}}\ninputs: {{sed: 1}}\n",
            f"6: {NANO}: unknown key 'sed' | did you mean 'seed'?",
            id="a misspelt input beside a model that is not known",
        ),
        pytest.param(
            None,
            f"{WHITE}{IMAGE}{BOTH}models:\n  {FLUX}: {{images_as: {{picture: 1}}}}\n",
            [
                MISSING.format("image_url", PICTURE),
                f"7: {FLUX}: unknown key 'picture' {KNOWN}",
            ],
            id="images_as of one model names no input of it",
        ),
        pytest.param(
            None,
            f"{WHITE}{IMAGE}{BOTH}models:\n  {FLUX}:\n    prompt_as: promt\n",
            [
                MISSING.format("prompt", "What to change in the pictures, in plain words."),
                (
                    f"8: the model {FLUX} has no input 'promt' for the prompt | say which takes it:"
                    " prompt_as: NAME (did you mean 'prompt'?)"
                ),
            ],
            id="prompt_as of one model names no input of it",
        ),
        pytest.param(
            None,
            f"{WHITE}{IMAGE}{BOTH}models:\n  {FLUX}:\n    inputs: {{sed: 1}}\n",
            f"8: {FLUX}: unknown key 'sed' | did you mean 'seed'?",
            id="a misspelt input of one model",
        ),
        pytest.param(
            None,
            f"{WHITE}images: {{mug: ['{URL}', '{URL}']}}\n{BOTH}",
            f"4: {FLUX}: 'image_url' takes one picture, here are 2"
            " | give one URL for each image id; in a table, pictures: 1 takes one, and each:"
            " picture makes a job of each",
            id="two pictures, and one model takes one",
        ),
        pytest.param(
            None,
            f"{WHITE}matrix: {{model: [{DRAW}, {NANO}]}}\n",
            f"3: the model {NANO} edits pictures, and there are none"
            " | add images, such as images: {mug: https://…/mug.png}",
            id="no pictures, and one model needs them",
        ),
        pytest.param(
            None,
            f"{WHITE}{IMAGE}matrix: {{model: [nano banana]}}\n",
            f"5: entry 1 of 'model' cannot be \"nano banana\" | {MODEL_ID_HINT}",
            id="a model that is none",
        ),
        pytest.param(
            None,
            f"prompts: {{white: {{prompt: a, model: {LITE}}}}}\n{IMAGE}{BOTH}",
            "3: the prompt 'white' has a model, and the matrix has models for it too"
            " | remove one of them; exclude leaves single combinations out",
            id="a prompt and the matrix name models",
        ),
        pytest.param(
            None,
            f"{WHITE}{IMAGE}models: {{google/nano-banana-2/edti: {{price_usd: 1}}}}\n",
            f"5: models: no job goes to 'google/nano-banana-2/edti' | did you mean '{NANO}'?",
            id="notes on a model that no job goes to",
        ),
        pytest.param(
            None,
            f"{WHITE}{IMAGE}{BOTH}price_usd: {{{NANO}: 0.05}}\n",
            "6: 'price_usd' is a mapping (key: value), not text or a number"
            " | write an amount of USD such as 0.05; for one of several models:"
            " models: {MODEL_ID: {price_usd: 0.05}}",
            id="prices as a mapping",
        ),
        pytest.param(
            None,
            f"{WHITE}{IMAGE}price_usd: 1\nprice_unit: minute\n",
            "6: 'price_unit' is \"minute\", which is not one of its values"
            ' | one of "output", "image", "second", "job"',
            id="a unit that is none",
        ),
        pytest.param(
            None,
            f"{WHITE}{IMAGE}{BOTH}models: {{{NANO}: {{price: 0.05}}}}\n",
            "6: unknown key 'price' | did you mean 'price_usd'?",
            id="an unknown note on a model",
        ),
        pytest.param(
            HEADLESS,
            f"{WHITE}{IMAGE}{BOTH}price_usd: 0.05\n",
            "5: 'price_usd' does not say which of the 2 models it is about"
            f" | write it for each: models: {{{NANO}: {{price_usd: …}}}}",
            id="a price for nobody knows which model",
        ),
        pytest.param(
            None,
            f"{WHITE}{IMAGE}{BOTH}exclude: [{{model: {LITE}}}]\n",
            f'6: exclude: no job has model: "{LITE}" | correct it, or remove it; globs such as'
            " A-* work",
            id="an excluded model that is not there",
        ),
        pytest.param(
            HEADLESS,
            f"prompts: {{a: a, b: {{prompt: b, model: {LITE}}}}}\n{IMAGE}",
            "2: no model is named for the prompt 'a'"
            " | write model: MODEL_ID at the top, such as google/nano-banana-2/edit",
            id="a prompt without a model",
        ),
    ],
)
def test_a_mistake_about_models_is_told_with_its_place_and_the_way_out(
    write_manifest: Write, head: str | None, text: str, said: str | list[str]
) -> None:
    path = write_manifest(text) if head is None else write_manifest(text, head=head)
    assert told(path) == (said if isinstance(said, list) else [said])
