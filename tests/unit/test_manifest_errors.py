"""Every kind of mistake in a manifest or its table, and the whole of what a person is told."""

# ruff: noqa: E501 - each message stands here as a person sees it

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from batch_runner.errors import PROBLEM_LIMIT, ExitCode, ManifestError
from batch_runner.jobs.expand import expand
from batch_runner.manifest.loading import load_manifest
from batch_runner.models.catalog import offline_models

Write = Callable[..., Path]

PROMPT = "prompts: {white: On white.}\n"
IMAGE = "images: {mug: https://cdn.example.com/mug.png}\n"
URL = "https://cdn.example.com/1.png"

FILES: dict[str, str | bytes] = {
    "ok.csv": f"sku,title,front_url\nHL-1,mug,{URL}\nHL-2,lamp,{URL}\n",
    "empty.csv": "",
    "header.csv": "sku,title,front_url\n",
    "twice.csv": "sku,sku\nHL-1,HL-2\n",
    "ragged.csv": "sku,front_url\nHL-1,a,b\n",
    "quote.csv": 'sku,front_url\nHL-1,"https://cdn\n',
    "latin.csv": b"sku,front_url\nHL-1,caf\xe9\n",
    "umlaut.csv": "sku,front_url\nHL-1,café\n",
    "broken.jsonl": '{"sku":\n',
    "short.jsonl": '{"sku": "a"}\n',
    "sheet.xls": "",
    "no-title.csv": f"sku,title,front_url\nHL-1,,{URL}\n",
    "no-sku.csv": f"sku,title,front_url\n,mug,{URL}\n",
    "no-url.csv": "sku,title,front_url\nHL-1,mug,\n",
    "http.csv": "sku,title,front_url\nHL-1,mug,http://cdn.example.com/1.png\n",
    "local.csv": "sku,title,front_url\nHL-1,mug,photos/1.png\n",
    "long.csv": f"sku,front_url\n{'x' * 201},{URL}\n",
    "slash.csv": f"sku,title,front_url\nHL/1,mug,{URL}\n",
    "same.csv": f"sku,title,front_url\nHL-1,mug,{URL}\nHL-1,lamp,{URL}\n",
    "list.json": "[1]",
}


def table(name: str) -> str:
    return f'images:\n  from: {name}\n  id: "{{{{ sku }}}}"\n  urls: "{{{{ front_url }}}}"\n'


def said_about(path: Path) -> str | None:
    """Return the whole of what is said about a manifest and its jobs, without its folder."""
    try:
        manifest = load_manifest(path)
        models = offline_models(manifest, path.parent)
        for _ in expand(manifest, models, local_pictures=False):
            pass
    except ManifestError as error:
        return error.message.replace(f"{path.parent}/", "")
    return None


MISTAKES: list[tuple[str, str, str, str | None]] = [
    (
        "unknown key",
        PROMPT + IMAGE + "ouput: {}\n",
        "batch.yaml:5: unknown key 'ouput'",
        "did you mean 'output'?",
    ),
    (
        "a table on the web",
        PROMPT
        + 'images: {from: "https://sheets.example/1.csv", id: "{{ sku }}", urls: "{{ u }}"}\n',
        "batch.yaml:4: 'from' cannot be \"https://sheets.example/1.csv\"",
        "write a table or folder of this machine; download it (a Google sheet: File, Download, CSV); pictures of a bucket go into a table, as s3://bucket/key",
    ),
    (
        "unknown key, nothing close",
        PROMPT + IMAGE + "output:\n  colour: x\n",
        "batch.yaml:6: unknown key 'colour'",
        "known here: dir, hosts, ledger, path",
    ),
    (
        "uploads to no bucket",
        PROMPT + IMAGE + "uploads: s3://x/y\n",
        'batch.yaml:5: "s3://x/y" is not s3://bucket/key, gs://bucket/key or az://container/key',
        "as in s3://bucket/prefix; gs:// and az:// work too",
    ),
    (
        "pictures from a bucket",
        PROMPT + "images:\n  from: s3://shop/photos/\n  id: '{{ stem }}'\n",
        "batch.yaml:5: 'from' cannot be \"s3://shop/photos/\"",
        "write a table or folder of this machine; download it (a Google sheet: File, Download, CSV); pictures of a bucket go into a table, as s3://bucket/key",
    ),
    (
        "uploads to a folder",
        PROMPT + IMAGE + "uploads: photos/\n",
        'batch.yaml:5: "photos/" is not s3://bucket/key, gs://bucket/key or az://container/key',
        "as in s3://bucket/prefix; gs:// and az:// work too",
    ),
    (
        "an output in no bucket",
        PROMPT + IMAGE + "output:\n  dir: s3://shop//edited\n",
        "batch.yaml:6: \"s3://shop//edited\" has an empty, '.' or '..' folder in its key",
        "as in s3://bucket/prefix; gs:// and az:// work too",
    ),
    (
        "a ledger in a bucket",
        PROMPT + IMAGE + "output:\n  dir: s3://shop/edited\n  ledger: s3://shop/ledger\n",
        "batch.yaml:7: 'ledger' cannot be \"s3://shop/ledger\"",
        "write a local folder: buckets do not store a record at once",
    ),
    (
        "no prompts",
        IMAGE,
        "batch.yaml:1: the key 'prompts' is missing",
        "add 'prompts': prompt id: text, or prompt id: {prompt, where, model, inputs}",
    ),
    (
        "prompts as a list",
        "prompts: [a]\n" + IMAGE,
        "batch.yaml:3: 'prompts' is a list, not a mapping (key: value)",
        "prompt id: text, or prompt id: {prompt, where, model, inputs}",
    ),
    (
        "prompts left empty",
        "prompts:\n" + IMAGE,
        "batch.yaml:3: 'prompts' is empty, not a mapping (key: value)",
        "prompt id: text, or prompt id: {prompt, where, model, inputs}",
    ),
    (
        "a prompt that is a number",
        "prompts: {white: 5}\n" + IMAGE,
        "batch.yaml:3: 'white' is 5, not text or a mapping (key: value)",
        'write it in quotes: "5"',
    ),
    (
        "a prompt left empty",
        "prompts: {white: }\n" + IMAGE,
        "batch.yaml:3: 'white' is empty, not text or a mapping (key: value)",
        None,
    ),
    ("an empty prompt", 'prompts: {white: ""}\n' + IMAGE, "batch.yaml:3: 'white' is empty", None),
    (
        "a blank prompt",
        'prompts: {white: " "}\n' + IMAGE,
        "batch.yaml:3: the prompt 'white' is empty",
        "write what to do with the pictures",
    ),
    (
        "a prompt without text",
        "prompts:\n  white: {inputs: {}}\n" + IMAGE,
        "batch.yaml:4: the key 'prompt' is missing",
        "add 'prompt': the text, a Jinja2 template",
    ),
    (
        "a prompt id with a slash",
        "prompts: {a/b: x}\n" + IMAGE,
        'batch.yaml:3: the key "a/b" cannot be used',
        "an id holds no slash, backslash or control character",
    ),
    (
        "inputs as a list",
        "prompts: {white: {prompt: x, inputs: [1]}}\n" + IMAGE,
        "batch.yaml:3: 'inputs' is a list, not a mapping (key: value)",
        None,
    ),
    (
        "images as a list",
        PROMPT + "images:\n  - https://cdn.example.com/a.png\n",
        "batch.yaml:4: 'images' is a list, not a mapping (key: value)",
        "image id: URL or list of URLs; or {from: table, folder or manifest, id, urls, where}",
    ),
    (
        "images as one URL",
        PROMPT + "images: https://cdn.example.com/a.png\n",
        "batch.yaml:4: 'images' is \"https://cdn.example.com/a.png\", not a mapping (key: value)",
        "image id: URL or list of URLs; or {from: table, folder or manifest, id, urls, where}",
    ),
    ("no image in images", PROMPT + "images: {}\n", "batch.yaml:4: 'images' is empty", None),
    (
        "an image that is a number",
        PROMPT + "images: {mug: 5}\n",
        "batch.yaml:4: 'mug' is 5, not text or a list",
        'write it in quotes: "5"',
    ),
    (
        "an image that is a mapping",
        PROMPT + "images: {mug: {front: x}}\n",
        "batch.yaml:4: 'mug' is a mapping (key: value), not text or a list",
        "begin each entry with '- '",
    ),
    (
        "one URL of several is none",
        PROMPT + "images: {mug: [https://cdn.example.com/a.png, 5]}\n",
        "batch.yaml:4: entry 2 of 'mug' is 5, not text",
        'write it in quotes: "5"',
    ),
    (
        "a table without id",
        PROMPT + "images: {from: ok.csv, urls: x}\n",
        "batch.yaml:4: the key 'id' is missing",
        "add 'id': the image id, a template over the row's columns, such as \"{{ sku }}\"",
    ),
    (
        "http",
        PROMPT + "images: {mug: http://cdn.example.com/a.png}\n",
        'batch.yaml:4: "http://cdn.example.com/a.png" is http; the service fetches only https URLs',
        "give the https URL of the picture; most hosts have one",
    ),
    (
        "ftp",
        PROMPT + "images: {mug: ftp://cdn.example.com/a.png}\n",
        'batch.yaml:4: "ftp://cdn.example.com/a.png" is ftp; the service fetches only https URLs',
        "give the https URL of the picture; most hosts have one",
    ),
    (
        "a local picture",
        PROMPT + "images:\n  mug:\n    - https://cdn.example.com/a.png\n    - photos/mug.png\n",
        'batch.yaml:7: "photos/mug.png" is not an https URL, and the service cannot read local files',
        "name a bucket with uploads: s3://bucket/prefix, or try the batch with --sandbox",
    ),
    (
        "a blank in a URL",
        PROMPT + "images: {mug: 'https://cdn.example.com/a b.png'}\n",
        'batch.yaml:4: "https://cdn.example.com/a b.png" is not a valid URL',
        "write https://host/path without blanks and invisible characters",
    ),
    (
        "an invisible character inside a URL",
        PROMPT + "images: {mug: 'https://a.example/mu\u200bg.jpg'}\n",
        'batch.yaml:4: "https://a.example/mu\\u200bg.jpg" is not a valid URL',
        "write https://host/path without blanks and invisible characters",
    ),
    (
        "a URL without host",
        PROMPT + "images: {mug: 'https:///a.png'}\n",
        'batch.yaml:4: "https:///a.png" is not a valid URL',
        "write https://host/path without blanks and invisible characters",
    ),
    (
        "21 pictures",
        PROMPT
        + "images:\n  mug:\n    - https://cdn.example.com/0.png\n    - https://cdn.example.com/1.png\n    - https://cdn.example.com/2.png\n    - https://cdn.example.com/3.png\n    - https://cdn.example.com/4.png\n    - https://cdn.example.com/5.png\n    - https://cdn.example.com/6.png\n    - https://cdn.example.com/7.png\n    - https://cdn.example.com/8.png\n    - https://cdn.example.com/9.png\n    - https://cdn.example.com/10.png\n    - https://cdn.example.com/11.png\n    - https://cdn.example.com/12.png\n    - https://cdn.example.com/13.png\n    - https://cdn.example.com/14.png\n    - https://cdn.example.com/15.png\n    - https://cdn.example.com/16.png\n    - https://cdn.example.com/17.png\n    - https://cdn.example.com/18.png\n    - https://cdn.example.com/19.png\n    - https://cdn.example.com/20.png\n",
        "batch.yaml:5: pictures of 'mug': 'image_urls' has 21 values, more than 20",
        "all pictures of an image id go into one job: use several ids, or take fewer",
    ),
    (
        "no images at all",
        PROMPT,
        "batch.yaml:3: the model google/nano-banana-2/edit edits pictures, and there are none",
        "add images, such as images: {mug: https://…/mug.png}",
    ),
    (
        "a value outside the enum",
        PROMPT + IMAGE + "inputs:\n  resolution: 3K\n",
        "batch.yaml:6: 'resolution' is \"3K\", which is not one of its values",
        'one of "0.5K", "1K", "2K", "4K"',
    ),
    (
        "a matrix value outside the enum",
        PROMPT + IMAGE + "matrix:\n  aspect_ratio:\n    - '1:1'\n    - '16:10'\n",
        "batch.yaml:8: 'aspect_ratio' is \"16:10\", which is not one of its values",
        'one of "auto", "21:9", "16:9", "3:2", "4:3", "5:4", "1:1", "4:5", "3:4", "2:3", "9:16"',
    ),
    (
        "a prompt's input outside the enum, beside the matrix",
        "prompts: {white: {prompt: On white., inputs: {aspect_ratio: '16:10'}}}\n"
        + IMAGE
        + "matrix: {aspect_ratio: ['1:1']}\n",
        "batch.yaml:3: 'aspect_ratio' is \"16:10\", which is not one of its values",
        'one of "auto", "21:9", "16:9", "3:2", "4:3", "5:4", "1:1", "4:5", "3:4", "2:3", "9:16"',
    ),
    (
        "a value outside the range",
        PROMPT + IMAGE + "inputs: {num_images: 9}\n",
        "batch.yaml:5: 'num_images' is 9, more than 4",
        "from 1 to 4",
    ),
    (
        "text for a number",
        PROMPT + IMAGE + "inputs: {seed: '7'}\n",
        "batch.yaml:5: 'seed' is \"7\", not a whole number",
        "write it without quotes: 7",
    ),
    (
        "an unknown input",
        PROMPT + IMAGE + "inputs: {resolutoin: 1K}\n",
        "batch.yaml:5: unknown key 'resolutoin'",
        "did you mean 'resolution'?",
    ),
    (
        "an unknown input in the matrix",
        PROMPT + IMAGE + "matrix: {sed: [1]}\n",
        "batch.yaml:5: unknown key 'sed'",
        "did you mean 'seed'?",
    ),
    (
        "a prompt's own input",
        "prompts:\n  white:\n    prompt: x\n    inputs:\n      resolution: 9K\n" + IMAGE,
        "batch.yaml:7: 'resolution' is \"9K\", which is not one of its values",
        'one of "0.5K", "1K", "2K", "4K"',
    ),
    (
        "16:9 unquoted",
        PROMPT + IMAGE + "inputs: {aspect_ratio: 16:9}\n",
        "batch.yaml:5: 16:9 is read as another number by YAML",
        'write it in quotes: "16:9"',
    ),
    (
        "NO",
        PROMPT + IMAGE + "inputs: {output_format: NO}\n",
        "batch.yaml:5: NO is read as false by YAML",
        'write it in quotes: "NO"',
    ),
    (
        "a matrix axis that is no list",
        PROMPT + IMAGE + "matrix: {seed: 1}\n",
        "batch.yaml:5: 'seed' is 1, not a list",
        "write the values as a list, such as [1, 2]",
    ),
    (
        "a matrix axis without values",
        PROMPT + IMAGE + "matrix: {seed: []}\n",
        "batch.yaml:5: 'seed' is empty",
        None,
    ),
    (
        "a matrix value twice",
        PROMPT + IMAGE + "matrix: {seed: [1, 2, 1]}\n",
        "batch.yaml:5: 'seed' lists 1 twice",
        "remove one; repeat: 2 makes two generations of every job",
    ),
    (
        "a matrix value left empty",
        PROMPT + IMAGE + "matrix: {seed: [1, ~]}\n",
        "batch.yaml:5: entry 2 of 'seed' is empty, not text, a number or true/false",
        None,
    ),
    (
        "prompt as an axis",
        PROMPT + IMAGE + "matrix: {prompt: [white]}\n",
        'batch.yaml:5: the key "prompt" cannot be used',
        "prompts and images are combined with every point of the matrix anyway",
    ),
    (
        "exclude names nothing",
        PROMPT + IMAGE + "exclude: [{promt: white}]\n",
        "batch.yaml:5: exclude names the unknown 'promt'",
        "did you mean 'prompt'?",
    ),
    (
        "exclude never matches",
        PROMPT + IMAGE + "exclude: [{prompt: wite}]\n",
        'batch.yaml:5: exclude: no job has prompt: "wite"',
        "correct it, or remove it; globs such as A-* work",
    ),
    (
        "exclude with a glob that no image matches",
        PROMPT + table("ok.csv") + "exclude: [{image: 'HX-*'}]\n",
        'batch.yaml:8: exclude: no job has image: "HX-*"',
        "correct it, or remove it; globs such as A-* work",
    ),
    (
        "exclude with a column that is not there",
        PROMPT + table("ok.csv") + "exclude: [{titel: mug}]\n",
        "batch.yaml:8: exclude names the unknown 'titel'",
        "did you mean 'title'?",
    ),
    (
        "exclude with a value that a column never has",
        PROMPT + table("ok.csv") + "exclude: [{title: mug}, {title: cup, prompt: white}]\n",
        'batch.yaml:8: exclude: no job has title: "cup", prompt: "white"',
        "correct it, or remove it; globs such as A-* work",
    ),
    (
        "a where of a prompt that asks nothing",
        'prompts: {white: {prompt: On white., where: "true"}}\n' + IMAGE,
        "batch.yaml:3: 'where' is the same for every row: it names no column",
        'write columns in braces, such as "{{ sku }}"',
    ),
    (
        "a where of a prompt with a column that is not there",
        'prompts: {white: {prompt: On white., where: "{{ categori | default(1) }}"}}\n'
        + table("ok.csv"),
        "batch.yaml:3: the variable 'categori' is undefined",
        "known here: front_url, image, model, name, prompt, repeat, sku, title",
    ),
    (
        "exclude as a mapping",
        PROMPT + IMAGE + "exclude: {prompt: white}\n",
        "batch.yaml:5: 'exclude' is a mapping (key: value), not a list",
        "begin each entry with '- '",
    ),
    (
        "repeat 0",
        PROMPT + IMAGE + "repeat: 0\n",
        "batch.yaml:5: 'repeat' is 0, less than 1",
        "from 1 to 1000",
    ),
    (
        "repeat in words",
        PROMPT + IMAGE + "repeat: two\n",
        "batch.yaml:5: 'repeat' is \"two\", not a whole number",
        None,
    ),
    (
        "an absolute path",
        PROMPT + IMAGE + "output: {path: '/tmp/{{ image }}'}\n",
        "batch.yaml:5: 'path' cannot be \"/tmp/{{ image }}\"",
        "write a path inside of output.dir, such as {{ image }}/{{ prompt }}, without a file type: that follows from the content",
    ),
    (
        "a path with a drive",
        PROMPT + IMAGE + "output: {path: 'C:/{{ image }}'}\n",
        "batch.yaml:5: 'path' cannot be \"C:/{{ image }}\"",
        "write a path inside of output.dir, such as {{ image }}/{{ prompt }}, without a file type: that follows from the content",
    ),
    (
        "a path from home",
        PROMPT + IMAGE + "output: {path: '~/{{ image }}'}\n",
        "batch.yaml:5: 'path' cannot be \"~/{{ image }}\"",
        "write a path inside of output.dir, such as {{ image }}/{{ prompt }}, without a file type: that follows from the content",
    ),
    (
        "a path with a file type",
        PROMPT + IMAGE + "output: {path: '{{ image }}.JPG'}\n",
        "batch.yaml:5: 'path' cannot be \"{{ image }}.JPG\"",
        "write a path inside of output.dir, such as {{ image }}/{{ prompt }}, without a file type: that follows from the content",
    ),
    (
        "an escaping path",
        PROMPT + IMAGE + "output: {path: '../{{ image }}'}\n",
        "batch.yaml:5: 'path' cannot be \"../{{ image }}\"",
        "write a path inside of output.dir, such as {{ image }}/{{ prompt }}, without a file type: that follows from the content",
    ),
    (
        "a path that escapes by a value",
        PROMPT + IMAGE + 'output: {path: \'x/{{ prompt | replace("white", "..") }}/y\'}\n',
        "batch.yaml:5: the output path \"x/../y\" of job 'mug/white' leads out of output.dir",
        "write it like {{ image }}/{{ prompt }}",
    ),
    (
        "an empty path",
        PROMPT + IMAGE + 'output: {path: \'{{ image | replace("mug", "") }}\'}\n',
        "batch.yaml:5: the output path \"\" of job 'mug/white' is empty",
        "write it like {{ image }}/{{ prompt }}",
    ),
    (
        "colliding paths",
        "prompts: {white: a, black: b}\nimages: {mug: https://cdn.example.com/mug.png}\noutput: {path: '{{ image }}'}\n",
        "batch.yaml:5: the jobs 'mug/white' and 'mug/black' would both write 'mug'",
        "put {{ prompt }} into output.path",
    ),
    (
        "colliding paths of rows",
        PROMPT + table("ok.csv") + "output: {path: '{{ prompt }}'}\n",
        "batch.yaml:8: the jobs 'HL-1/white' and 'HL-2/white' would both write 'white'",
        "put {{ image }} into output.path",
    ),
    (
        "colliding paths of repeats",
        PROMPT + IMAGE + "repeat: 2\noutput: {path: '{{ prompt }}'}\n",
        "batch.yaml:6: the jobs 'mug/white' and 'mug/white#2' would both write 'white'",
        "put {{ repeat }} into output.path",
    ),
    (
        "colliding paths of matrix points",
        PROMPT + IMAGE + "matrix: {seed: [1, 2]}\noutput: {path: '{{ prompt }}'}\n",
        "batch.yaml:6: the jobs 'mug/white/seed=1' and 'mug/white/seed=2' would both write 'white'",
        "put {{ seed }} into output.path",
    ),
    (
        "a rate in words",
        PROMPT + IMAGE + "limits: {submits: 5 per second}\n",
        "batch.yaml:5: 'submits' cannot be \"5 per second\"",
        "write a rate such as 5/s, 100/min or 2000/h",
    ),
    (
        "nothing in flight",
        PROMPT + IMAGE + "limits: {in_flight: 0}\n",
        "batch.yaml:5: 'in_flight' is 0, less than 1",
        "from 1 to 10000",
    ),
    (
        "a negative budget",
        PROMPT + IMAGE + "limits: {cost_usd: -1}\n",
        "batch.yaml:5: 'cost_usd' is -1, less than 0",
        "write an amount of USD such as 40 for the batch, 3/night for each night, or [40, 3/night] for both",
    ),
    (
        "a budget with a sign",
        PROMPT + IMAGE + "limits: {cost_usd: $40}\n",
        "batch.yaml:5: 'cost_usd' cannot be \"$40\"",
        (
            "write an amount of USD such as 40 for the batch, 3/night for each night,"
            " or [40, 3/night] for both"
        ),
    ),
    (
        "two budgets of one kind",
        PROMPT + IMAGE + "limits: {cost_usd: [2/night, 3/night]}\n",
        "batch.yaml:5: 'cost_usd' has two values of one kind",
        "write an amount of USD such as 40 for the batch, 3/night for each night, or [40, 3/night] for both",
    ),
    (
        "two budgets of the batch",
        PROMPT + IMAGE + "limits: {cost_usd: [2, '3']}\n",
        "batch.yaml:5: 'cost_usd' has two values of one kind",
        "write an amount of USD such as 40 for the batch, 3/night for each night, or [40, 3/night] for both",
    ),
    (
        "failures as a fraction",
        PROMPT + IMAGE + "limits: {failures: 0.2}\n",
        "batch.yaml:5: 'failures' is 0.2, not text or a whole number",
        "write a share such as 20%, or a count such as 10",
    ),
    (
        "an unknown limit",
        PROMPT + IMAGE + "limits: {submit: 5/s}\n",
        "batch.yaml:5: unknown key 'submit'",
        "did you mean 'submits'?",
    ),
    (
        "attempts in words",
        PROMPT + IMAGE + "retry: {attempts: many}\n",
        "batch.yaml:5: 'attempts' is \"many\", not a whole number",
        None,
    ),
    (
        "a duration without unit",
        PROMPT + IMAGE + "retry: {give_up: 15}\n",
        "batch.yaml:5: 'give_up' is 15, not text",
        "write a duration such as 90s, 15min or 2h",
    ),
    (
        "hours that are none",
        PROMPT + IMAGE + "window: {hours: 22-6}\n",
        "batch.yaml:5: 'hours' cannot be \"22-6\"",
        'write two times of day, such as "22:00-06:00"',
    ),
    (
        "an empty window",
        PROMPT + IMAGE + "window: {hours: 22:00-22:00}\n",
        "batch.yaml:5: the window is never open",
        "remove window to submit at any hour",
    ),
    (
        "a time zone with a slip",
        PROMPT + IMAGE + "window: {hours: 22:00-06:00, timezone: Europe/Madird}\n",
        "batch.yaml:5: 'Europe/Madird' is not a known time zone",
        "write an IANA name such as Europe/Madrid",
    ),
    (
        "a time zone that is none",
        PROMPT + IMAGE + "window: {hours: 22:00-06:00, timezone: Mars}\n",
        "batch.yaml:5: 'Mars' is not a known time zone",
        "write an IANA name such as Europe/Madrid",
    ),
    (
        "a host that is a URL",
        PROMPT + IMAGE + "output: {hosts: ['https://x.example']}\n",
        "batch.yaml:5: entry 1 of 'hosts' cannot be \"https://x.example\"",
        "write a host such as cdn.example.com or *.example.com",
    ),
    (
        "a schema that is not there",
        PROMPT + IMAGE + "schema: nope.json\n",
        "batch.yaml:5: cannot read schema 'nope.json': No such file or directory",
        "its path is relative to the manifest",
    ),
    (
        "a schema that is none",
        PROMPT + IMAGE + "schema: list.json\n",
        "batch.yaml:5: schema 'list.json' is not JSON: ",
        'write the schema as JSON: {"properties": {…}}',
    ),
    (
        "an undefined variable",
        "prompts: {white: 'a {{ titel }}'}\n" + table("ok.csv"),
        "batch.yaml:3: the variable 'titel' is undefined",
        "did you mean 'title'?",
    ),
    (
        "an undefined variable without table",
        "prompts: {white: 'a {{ title }}'}\n" + IMAGE,
        "batch.yaml:3: the variable 'title' is undefined",
        "known here: image, model, name, prompt, repeat",
    ),
    (
        "an undefined variable in the path",
        PROMPT + IMAGE + "output: {path: '{{ imag }}'}\n",
        "batch.yaml:5: the variable 'imag' is undefined",
        "did you mean 'image'?",
    ),
    (
        "a template never closed",
        "prompts: {white: 'a {{ title'}\n" + IMAGE,
        "batch.yaml:3: 'white' is not a valid template: unexpected end of template, expected 'end of print statement'",
        'write variables as {{ name }}, and names with blanks as {{ row["Image Src"] }}',
    ),
    (
        "a column with a blank",
        "prompts: {white: 'a {{ Image Src }}'}\n" + IMAGE,
        "batch.yaml:3: 'white' is not a valid template: ",
        'write variables as {{ name }}, and names with blanks as {{ row["Image Src"] }}',
    ),
    (
        "a template that fails",
        "prompts: {white: '{{ image.foo }}'}\n" + IMAGE,
        "batch.yaml:3: the template cannot be rendered: 'str object' has no attribute 'foo'",
        None,
    ),
    (
        "a table that is not there",
        PROMPT + table("nope.csv"),
        "batch.yaml:5: cannot read table 'nope.csv': No such file or directory",
        "its path is relative to the manifest",
    ),
    (
        "a table that is no table",
        PROMPT + table("sheet.xls"),
        "batch.yaml:5: 'sheet.xls' is not a table this program reads",
        "save it as one of .csv, .tsv, .txt, .jsonl, .xlsx",
    ),
    (
        "an empty table",
        PROMPT + table("empty.csv"),
        "batch.yaml:5: the table is empty",
        "row 1 must name the columns; header: says another row",
    ),
    (
        "a table without rows",
        PROMPT + table("header.csv"),
        "batch.yaml:5: table 'header.csv' has no rows",
        "export it again with its rows",
    ),
    (
        "a column twice",
        PROMPT + table("twice.csv"),
        "twice.csv:1: row 1: two columns are called 'sku'",
        "rename one of them; if another row names the columns, say header:",
    ),
    (
        "a row with a cell too many",
        PROMPT + table("ragged.csv"),
        "ragged.csv:2: row 2: has 3 cells, but the header has 2 (separated by ',')",
        'quote a cell that holds the separator: "a, b"; or say delimiter: or header: (the row that names the columns) under images',
    ),
    (
        "a quote never closed",
        PROMPT + table("quote.csv"),
        "quote.csv:2: row 2: has a quote that is not closed where its cell ends (separated by ','), or a cell of more than 1 MB",
        'look for a quote that is not closed; a quote inside a quoted cell is written twice, not as \\"; a cell cannot hold a picture itself, only its address',
    ),
    (
        "a table in Latin-1",
        PROMPT + table("latin.csv"),
        "latin.csv:2: is not utf-8",
        "export the table again as 'CSV UTF-8', or write encoding: cp1252 under images if it comes from an older program for Windows",
    ),
    (
        "an unknown encoding",
        PROMPT + table("ok.csv") + "  encoding: cp-1252x\n",
        "batch.yaml:8: 'cp-1252x' is not a text encoding",
        "such as cp1252 (Windows) or mac_roman",
    ),
    (
        "an encoding that the table does not have",
        PROMPT + table("umlaut.csv") + "  encoding: cp1252\n",
        "batch.yaml:5: 'umlaut.csv' is utf-8, not cp1252",
        "remove encoding:",
    ),
    (
        "a key that images from a table do not have",
        PROMPT + table("ok.csv") + "  seperator: x\n",
        "batch.yaml:8: unknown key 'seperator'",
        "known here: delimiter, each, encoding, from, group, header, id, identity, pictures, sample, sheet, split, urls, where",
    ),
    (
        "a key of an earlier release",
        PROMPT + "limits: {shared: 'redis://10.0.0.5'}\n",
        "batch.yaml:4: 'shared' is no longer a key",
        "remove it: shards keep to their own share of each limit, without a server",
    ),
    (
        "a copy of the ledger in a bucket, as in earlier releases",
        PROMPT + "output: {ledger_copy: 's3://shop/ledgers'}\n",
        "batch.yaml:4: 'ledger_copy' is no longer a key",
        "remove it, and put output.dir (or output.ledger) on a volume that outlives the machine. If the machine is lost, make ledger.jsonl of the segments, in that folder: aws s3 sync s3://BUCKET/PREFIX/segments segments && tail -q -n +2 segments/* > ledger.jsonl",
    ),
    (
        "a delimiter of two characters",
        PROMPT + table("ok.csv") + '  delimiter: "||"\n',
        "batch.yaml:8: 'delimiter' has 2 characters, more than 1",
        'write one character, such as ";" or "\\t"',
    ),
    (
        "a group that names no column",
        PROMPT + table("ok.csv") + "  group: Handle\n",
        "batch.yaml:8: 'group' is the same for every row: it names no column",
        'write columns in braces, such as "{{ sku }}"',
    ),
    (
        "a group by a column that is not there",
        PROMPT + table("ok.csv") + '  group: "{{ skuu }}"\n',
        "batch.yaml:8: the table has no column 'skuu'",
        "did you mean 'sku'?",
    ),
    (
        "each of something else",
        PROMPT + table("ok.csv") + "  each: pictures\n",
        "batch.yaml:8: 'each' is \"pictures\", which is not one of its values",
        'one of "product", "picture"',
    ),
    (
        "a sample of none",
        PROMPT + table("ok.csv") + "  sample: 0\n",
        "batch.yaml:8: 'sample' is 0, less than 1",
        "from 1 to 10000",
    ),
    (
        "a line that is no JSON",
        PROMPT + table("broken.jsonl"),
        "broken.jsonl:1: row 1: is not a JSON object: ",
        'one {"column": value} a line',
    ),
    (
        "a JSON row without a column",
        PROMPT + table("short.jsonl"),
        "short.jsonl:1: row 1: there is no 'front_url'",
        "known here: sku",
    ),
    (
        "a missing column",
        PROMPT + 'images: {from: ok.csv, id: "{{ skuu }}", urls: "{{ front_url }}"}\n',
        "batch.yaml:4: the table has no column 'skuu'",
        "did you mean 'sku'?",
    ),
    (
        "an empty cell in a prompt",
        "prompts: {white: '{{ title }}'}\n" + table("no-title.csv"),
        "no-title.csv:2: row 2: the column 'title' is empty",
        'fill it in, or write {{ title | default("…") }} at batch.yaml:3',
    ),
    (
        "an empty cell in an id",
        PROMPT + table("no-sku.csv"),
        "no-sku.csv:2: row 2: the column 'sku' is empty",
        'fill it in, or write {{ sku | default("…") }} at batch.yaml:6',
    ),
    (
        "no picture in a row",
        PROMPT + table("no-url.csv"),
        "no-url.csv:2: row 2: column 'front_url': no picture for 'HL-1'",
        "fill one in, or leave such rows out with images.where",
    ),
    (
        "http in a row",
        PROMPT + table("http.csv"),
        "http.csv:2: row 2: column 'front_url': \"http://cdn.example.com/1.png\" is http; the service fetches only https URLs",
        "give the https URL of the picture; most hosts have one",
    ),
    (
        "a local picture in a row",
        PROMPT + table("local.csv"),
        "local.csv:2: row 2: column 'front_url': \"photos/1.png\" is not an https URL, and the service cannot read local files",
        "name a bucket with uploads: s3://bucket/prefix, or try the batch with --sandbox",
    ),
    (
        "a slash in an id",
        PROMPT + table("slash.csv"),
        "slash.csv:2: row 2: column 'sku': \"HL/1\" cannot be an image id",
        'an id is a short text without slashes; choose another column for images.id, or write {{ COLUMN | replace("/", "-") }}',
    ),
    (
        "an id that is too long",
        PROMPT + table("long.csv"),
        "long.csv:2: row 2: column 'sku': \"" + 57 * "x" + '…" cannot be an image id',
        'an id is a short text without slashes; choose another column for images.id, or write {{ COLUMN | replace("/", "-") }}',
    ),
    (
        "an id twice",
        PROMPT + table("same.csv"),
        "same.csv: row 3: the id 'HL-1' is that of row 2 too",
        "choose a column whose values are unique for images.id, leave one of the rows out, or put rows of one product together with images.group",
    ),
    (
        "an empty prompt in a row",
        "prompts: {white: '{{ title | default(\"\") }}'}\n" + table("no-title.csv"),
        "no-title.csv:2: row 2: the prompt 'white' is empty",
        "write what to do with the pictures",
    ),
    (
        "a condition without braces",
        PROMPT + table("ok.csv") + "  where: status == 'active'\n",
        "batch.yaml:8: 'where' is the same for every row: it names no column",
        'write columns in braces, such as "{{ sku }}"',
    ),
    (
        "a condition on no column",
        PROMPT + table("ok.csv") + "  where: \"{{ status == 'active' }}\"\n",
        "batch.yaml:8: the table has no column 'status'",
        "known here: front_url, sku, title",
    ),
    (
        "an id without braces",
        PROMPT + 'images: {from: ok.csv, id: sku, urls: "{{ front_url }}"}\n',
        "batch.yaml:4: 'id' is the same for every row: it names no column",
        'write columns in braces, such as "{{ sku }}"',
    ),
    (
        "images_as that starts at 0",
        PROMPT + IMAGE + "images_as: {image_urls: 0}\n",
        "batch.yaml:5: 'image_urls' is 0, less than 1",
        None,
    ),
]


@pytest.mark.parametrize(
    ("text", "problem", "hint"),
    [pytest.param(*row, id=kind) for kind, *row in MISTAKES],
)
def test_a_mistake_is_told_with_its_place_and_the_way_out(
    write_manifest: Write, tmp_path: Path, text: str, problem: str, hint: str | None
) -> None:
    for name, content in FILES.items():
        raw = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(raw)
    said, _, hinted = (said_about(write_manifest(text)) or "").partition("\nhint: ")
    assert hinted == (hint or "")
    # What follows a colon at the end is a library's own wording.
    assert said.startswith(problem) if problem.endswith(": ") else said == problem


NEWER = "this program reads version 1; a newer manifest needs a newer program"
MODEL_ID = (
    "a model_id is words joined by slashes, such as google/nano-banana-2/edit;"
    " several go into matrix: {model: [one, other]}"
)


@pytest.mark.parametrize(
    ("head", "problem", "hint"),
    [
        ("version: 99\nmodel: a/b\n", "1: 'version' is 99, not 1", NEWER),
        ("model: a/b\nversion: '1'\n", "2: 'version' is \"1\", not 1", NEWER),
        (
            "model: a/b\n",
            "1: the key 'version' is missing",
            "add 'version': the manifest's format: write 1",
        ),
        (
            "version: 1\n",
            "2: no model is named for the prompt 'white'",
            "write model: MODEL_ID at the top, such as google/nano-banana-2/edit",
        ),
        ("version: 1\nmodel: nano banana\n", "2: 'model' cannot be \"nano banana\"", MODEL_ID),
        ("version: 1\nmodel: [a/b, c/d]\n", "2: 'model' is a list, not text", MODEL_ID),
    ],
)
def test_version_and_model_are_checked(
    write_manifest: Write, head: str, problem: str, hint: str
) -> None:
    said = said_about(write_manifest(PROMPT + IMAGE, head=head))
    assert said == f"batch.yaml:{problem}\nhint: {hint}"


@pytest.mark.parametrize("text", ["- a\n", "hello\n", "16:9\n"])
def test_a_file_without_keys_is_no_manifest(write_manifest: Write, text: str) -> None:
    assert said_about(write_manifest(text, head="")) == (
        "batch.yaml:1: is not a manifest: it has no keys\nhint: begin it with version: 1"
    )


def test_all_problems_are_told_at_once_in_the_order_of_their_lines(write_manifest: Write) -> None:
    text = """prompts:
  white: "{{ broken"
  white: twice
repeat: 0
limits:
  submits: 5 per second
  in_flight: 0
inputs: {aspect_ratio: 16:9}
ouput: {}
"""
    said = said_about(write_manifest(text))
    assert said is not None
    assert [line.split(": ")[:2] for line in said.splitlines() if ".yaml" in line] == [
        ["batch.yaml:5", "duplicate key 'white'"],
        ["batch.yaml:6", "'repeat' is 0, less than 1"],
        ["batch.yaml:8", "'submits' cannot be \"5 per second\""],
        ["batch.yaml:9", "'in_flight' is 0, less than 1"],
        ["batch.yaml:10", "16:9 is read as another number by YAML"],
        ["batch.yaml:11", "unknown key 'ouput'"],
    ]


def test_what_yaml_misread_is_told_once_together_with_what_else_is_wrong(
    write_manifest: Write,
) -> None:
    text = "prompts: {white: NO}\nimages: {mug: !!python/name:os x}\nmatrix: {image: [a]}\n"
    said = said_about(write_manifest(PROMPT.replace("white", "x") + "repeat: NO\n" + IMAGE))
    assert said == 'batch.yaml:4: NO is read as false by YAML\nhint: write it in quotes: "NO"'
    said = said_about(write_manifest(text.replace("!!python/name:os x", "https://x.example/y")))
    assert said is not None
    assert [line.partition(": ")[0] for line in said.splitlines() if ".yaml" in line] == [
        "batch.yaml:3",
        "batch.yaml:5",
    ]


def test_an_unknown_key_is_told_for_each_of_several(write_manifest: Write) -> None:
    said = said_about(write_manifest(PROMPT + IMAGE + "ouput: 1\nlimit: 2\n"))
    assert said == (
        "batch.yaml:5: unknown key 'ouput'\nhint: did you mean 'output'?\n"
        "batch.yaml:6: unknown key 'limit'\nhint: did you mean 'limits'?"
    )


def test_a_manifest_that_is_not_valid_ends_with_exit_code_65(write_manifest: Write) -> None:
    with pytest.raises(ManifestError) as caught:
        load_manifest(write_manifest("ouput: {}\n"))
    assert caught.value.exit_code is ExitCode.INVALID
    assert int(caught.value.exit_code) == 65


def test_at_most_twenty_problems_are_told(write_manifest: Write) -> None:
    prompts = "".join(f"  p{number}: {number}\n" for number in range(50))
    said = said_about(write_manifest("prompts:\n" + prompts + IMAGE))
    assert said is not None
    assert said.count("batch.yaml:") == PROBLEM_LIMIT
    assert said.endswith("(stopped after 20 problems)")


def test_of_a_table_at_most_twenty_rows_are_told_and_no_row_twice(
    write_manifest: Write, tmp_path: Path
) -> None:
    rows = "".join(f"HL-{number},mug,http://x.example/{number}\n" for number in range(50))
    (tmp_path / "t.csv").write_text("sku,title,front_url\n" + rows, encoding="utf-8")
    said = said_about(
        write_manifest("prompts: {a: '{{ title }}', b: '{{ title }}'}\n" + table("t.csv"))
    )
    assert said is not None
    assert said.count("t.csv:") == PROBLEM_LIMIT
    assert len(set(said.splitlines())) == PROBLEM_LIMIT + 2


def test_rows_that_share_a_problem_are_one_with_their_number(
    write_manifest: Write, tmp_path: Path
) -> None:
    rows = "".join(f"HL-{number},{'mug' * (number % 2)},{URL}\n" for number in range(50))
    (tmp_path / "t.csv").write_text("sku,title,front_url\n" + rows, encoding="utf-8")
    prompts = "prompts: {a: '{{ title }}', b: '{{ title }}'}\n"
    said = said_about(write_manifest(prompts + table("t.csv")))
    assert said is not None
    assert said.splitlines()[0] == (
        "t.csv:2: rows 2, 4, 6, 8, 10 and 20 more: the column 'title' is empty"
    )
    assert len(said.splitlines()) == 2


def test_after_twenty_rows_that_give_no_job_the_table_is_read_no_further(
    write_manifest: Write, tmp_path: Path
) -> None:
    rows = "".join(f"HL-{number},mug,http://x.example/{number}\n" for number in range(50))
    (tmp_path / "t.csv").write_text("sku,title,front_url\n" + rows, encoding="utf-8")
    said = said_about(write_manifest(PROMPT + table("t.csv")))
    assert said is not None
    assert said.count("t.csv:") == PROBLEM_LIMIT
    assert "row 21: " in said
    assert "row 22: " not in said


def test_problems_of_manifest_and_table_are_told_together_the_manifests_first(
    write_manifest: Write, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text(f"sku,title,front_url\nHL-1,,{URL}\nHL-2,mug,\n", "utf-8")
    prompts = "prompts: {a: '{{ titel }}', b: '{{ title }}', c: x}\ninputs: {resolution: 3K}\n"
    said = said_about(write_manifest(prompts + table("t.csv")))
    assert said is not None
    assert [line.partition(": ")[0] for line in said.splitlines()[::2]] == [
        "batch.yaml:3",
        "batch.yaml:4",
        "t.csv:2",
        "t.csv:3",
    ]


def test_an_error_that_all_rows_share_is_told_once(write_manifest: Write, tmp_path: Path) -> None:
    rows = "".join(f"HL-{number},mug,{URL}\n" for number in range(100))
    (tmp_path / "t.csv").write_text("sku,title,front_url\n" + rows, encoding="utf-8")
    said = said_about(write_manifest("prompts: {a: '{{ titel }}'}\n" + table("t.csv")))
    assert said == ("batch.yaml:3: the variable 'titel' is undefined\nhint: did you mean 'title'?")


def test_an_input_that_is_missing_or_misnamed_points_to_where_it_belongs(
    write_manifest: Write,
) -> None:
    said = said_about(write_manifest(PROMPT + IMAGE + "images_as: image_url\nprompt_as: txt\n"))
    assert said is not None
    assert sorted(line for line in said.splitlines() if ".yaml" in line) == [
        "batch.yaml:2: inputs: the key 'image_urls' is missing",
        "batch.yaml:2: inputs: the key 'prompt' is missing",
        "batch.yaml:5: unknown key 'image_url'",
        "batch.yaml:6: the model google/nano-banana-2/edit has no input 'txt' for the prompt",
    ]
