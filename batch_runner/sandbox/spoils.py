"""What a spoiled picture looks like: rehearsals of looking, rejecting and doing again.

Always holds: the same picture, spoil and input give the same bytes; format and, but for
`wrong-size`, size stay as they were.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from PIL import Image

from batch_runner.sandbox.pictures import RenderedFile
from batch_runner.sandbox.sources import list_source_urls, open_source

_OFF_WHITE = 252
_LEFT_SHARE = 0.62


def spoil(name: str, file: RenderedFile, model_input: Mapping[str, Any]) -> RenderedFile:
    """Return the file with one defect; a film or a sound stays as it is."""
    if not file.media_type.startswith("image/"):
        return file
    with Image.open(io.BytesIO(file.data)) as opened:
        form, picture = opened.format, opened.convert("RGB")
    match name:
        case "blank":
            picture = Image.new("RGB", picture.size)
        case "unedited":
            sent = (open_source(url) for url in list_source_urls(model_input))
            source = next((one for one in sent if one is not None), None)
            if source is not None:
                picture = source.resize(picture.size)
        case "off-white":
            picture = picture.point([min(value, _OFF_WHITE) for value in range(256)] * 3)
        case "cropped":
            right, bottom = round(picture.width * _LEFT_SHARE), round(picture.height * _LEFT_SHARE)
            picture = picture.crop((0, 0, right, bottom)).resize(picture.size)
        case "wrong-size":
            picture = picture.resize((max(1, picture.width * 3 // 4), max(1, picture.height // 2)))
    data = io.BytesIO()
    picture.save(data, form)
    return RenderedFile(data=data.getvalue(), media_type=file.media_type)
