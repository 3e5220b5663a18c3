"""The text of a first manifest: from guesses about a table, for a folder, or a form to fill in.

What always holds: the text is a valid manifest that runs in the sandbox, unless the table itself
has unusable rows.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from batch_runner.commands.columns import Column
from batch_runner.commands.guesses import Draft
from batch_runner.table import TableForm, read_rows

MODEL = "google/nano-banana-2/edit"
SAMPLE = 10


def write_draft(draft: Draft, table: Path, manifest: Path, form: TableForm) -> str:
    """Return the text of a manifest for a table; `manifest` is where it will be written."""
    relative = Path(os.path.relpath(table, manifest.parent)).as_posix()
    what = "product"
    if draft.title is not None:
        default = ' | default("product")' if draft.is_title_missing else ""
        what = f"{{{{ {draft.title.expression}{default} }}}}"
    prompts = [
        f"Put the {what} on a pure white background, soft shadow. Keep its colors exactly.",
        f"Show the {what} in a bright, tidy room, in daylight.",
    ]
    lines = [
        *_head(f"from {table.name}", manifest),
        "# Every prompt is used with every product. {{ }} inserts a column of the table.",
        "prompts:",
        f"  white: {_yaml(prompts[0])}",
        f"  # room: {_yaml(prompts[1])}",
        "",
        "images:",
        f"  from: {_yaml(relative)}",
        *_form_lines(form),
        *_image_lines(draft),
        "",
        "# One job for each value. Keep the quotes: without them, YAML reads 16:9 as a number.",
        "# matrix:",
        '#   aspect_ratio: ["1:1", "4:5"]',
        "",
        *_OUTPUT,
    ]
    return "\n".join(lines) + "\n"


def write_folder_draft(folder: Path, manifest: Path, notes: list[str]) -> tuple[str, int]:
    """Return the text of a manifest for a folder of pictures, and how many there are.

    Raises TableError.
    """
    cells = [row.cells for row in read_rows(folder, TableForm(pattern="**/*"), notes)]
    stems = [one["stem"] for one in cells]
    id_ = "stem" if len(set(stems)) == len(stems) else 'path | replace("/", "-")'
    relative = Path(os.path.relpath(folder, manifest.absolute().parent)).as_posix()
    is_deep = any(one["folder"] for one in cells)
    lines = [
        *_head(f"from the folder {folder.name}", manifest),
        "# What to do with each picture: every prompt is used with every picture.",
        "prompts:",
        "  white: Put the product on a pure white background with a soft shadow.",
        "  # sunset: Put the product on a beach at sunset, in warm light.",
        "",
        "# The sandbox reads files on this machine. The service cannot: name a bucket for it,",
        "# and each picture is uploaded once.",
        "# uploads: s3://my-bucket/pictures",
        "images:",
        f"  from: {_yaml(relative + ('/**' if is_deep else '/'))}",
        f"  id: {_yaml(f'{{{{ {id_} }}}}')} # or use name, path, folder, suffix",
    ]
    if len(cells) > SAMPLE:
        lines += _SAMPLE_LINES
    return "\n".join([*lines, "", *_OUTPUT]) + "\n", len(cells)


def write_quickstart(manifest: Path) -> str:
    """Return the text of a manifest without a table: the form to fill in."""
    return "\n".join(
        [
            *_head("to begin with", manifest),
            "# What to do with each picture. Every prompt is used with every picture.",
            "prompts:",
            "  white: Put the product on a pure white background with a soft shadow.",
            "  sunset: Put the product on a beach at sunset, in warm light.",
            "",
            "# The pictures: public https addresses that the service can fetch. The sandbox draws",
            "# its own pictures instead. For many products: batch-runner init --from TABLE",
            "images:",
            "  mug: https://cdn.example.com/mug.jpg",
            "  lamp:",
            "    - https://cdn.example.com/lamp.jpg",
            "    - https://cdn.example.com/lamp-detail.jpg",
            "",
            *_OUTPUT,
            "",
        ]
    )


_OUTPUT = (
    "# How files are named, in a folder beside this file. To choose the folder, add dir: FOLDER.",
    "output:",
    "  path: '{{ image }}/{{ prompt }}'",
    "",
    "# The budget, in USD: the batch never spends more, restarts included.",
    "# limits:",
    "#   cost_usd: 5",
)


def with_budget(text: str, jobs: int, price_usd: Decimal) -> str:
    """Return the draft with a budget: the price of its jobs, plus 25 %."""
    budget_usd = math.ceil(jobs * price_usd * Decimal("1.25"))
    cost = f"{jobs:,} job{'' if jobs == 1 else 's'} at {price_usd} USD, plus 25 %"
    commented = "\n".join(_OUTPUT[-2:])
    return text.replace(commented, f"limits:\n  cost_usd: {budget_usd} # {cost}")


_SAMPLE_LINES = (
    f"  sample: {SAMPLE} # tries the prompts on {SAMPLE} of them first; then remove this line:",
    "  # finished jobs are not bought again",
)


def _head(what: str, manifest: Path) -> list[str]:
    return [
        f"# Drafted by batch-runner init {what}. Change any line.",
        "#",
        f"#     batch-runner plan {manifest.name} --sandbox    shows what it would do",
        f"#     batch-runner run {manifest.name} --sandbox     rehearses it, for free",
        "version: 1",
        f"model: {MODEL}",
        "",
    ]


def _form_lines(form: TableForm) -> Iterator[str]:
    if form.header != 1:
        yield f"  header: {form.header} # the row with the column names"
    for name in ("encoding", "delimiter", "escape", "sheet"):
        value = getattr(form, name)
        if value is not None:
            yield f"  {name}: {_yaml(value)}"


def _image_lines(draft: Draft) -> Iterator[str]:
    if draft.group is not None:
        group = _yaml(f"{{{{ {draft.group} }}}}")
        yield f"  group: {group} # neighbouring rows with the same value are one product"
    if draft.id is None:
        yield "  id: 'row-{{ row }}' # the row number, because no column names the products"
    else:
        # A slash would create a folder.
        replaced = ' | replace("/", "-")' if draft.id.has_slash else ""
        id_ = _yaml(f"{{{{ {draft.id.expression}{replaced} }}}}")
        yield f"  id: {id_} # names the files, so it must differ for every product"
    urls = [_yaml(_url_template(column)) for column in draft.pictures]
    yield f"  urls: {urls[0] if len(urls) == 1 else '[' + ', '.join(urls) + ']'}"
    if draft.split is not None:
        yield f"  split: {json.dumps(draft.split)} # separates several pictures in one cell"
    if draft.conditions:
        where = _yaml(f"{{{{ {' and '.join(draft.conditions)} }}}}")
        yield f"  where: {where} # leaves other products out"
    if draft.most_pictures > 1:
        yield "  pictures: 1 # the first picture of each product only; without this line, all go"
        yield "  # into one job; with `each: picture` instead, each picture gets its own job"
    if draft.taken > SAMPLE:
        yield from _SAMPLE_LINES


def _url_template(column: Column) -> str:
    if column.plain_http:
        # The service fetches only https, and most hosts with http have https too.
        return f'{{{{ {column.expression} | replace("http://", "https://") }}}}'
    return f"{{{{ {column.expression} }}}}"


def _yaml(text: str) -> str:
    """Return a text in YAML's quotes: the ones that keep it readable.

    Control characters, which the name of a column may contain, need double quotes.
    """
    if not text.isprintable():
        return f'"{"".join(map(_escaped, text))}"'
    if "'" in text and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return "'" + text.replace("'", "''") + "'"


def _escaped(letter: str) -> str:
    if letter in '"\\':
        return f"\\{letter}"
    return letter if letter.isprintable() else f"\\U{ord(letter):08x}"
