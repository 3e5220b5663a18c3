"""The sounds the sandbox makes: a short tone, of a pitch that follows the request.

Always holds: the same input and number give the same bytes; others give another tone.
"""

from __future__ import annotations

import hashlib
import io
import math
import wave
from array import array
from typing import Any

import msgspec

from batch_runner.sandbox.pictures import RenderedFile

_RATE_HZ, _SECONDS = 8000, 1.0


def render_sound(model_input: dict[str, Any], number: int) -> RenderedFile:
    """Make output `number` of a request with this input, as a WAV file."""
    words = msgspec.json.encode([model_input, number], order="sorted")
    share = int.from_bytes(hashlib.sha256(words).digest()[:4], "big") / 2**32
    turn = 2 * math.pi * (220 + 660 * share) / _RATE_HZ
    count = int(_RATE_HZ * _SECONDS)
    samples = array("h", (int(8000 * math.sin(turn * n) * (1 - n / count)) for n in range(count)))
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(_RATE_HZ)
        sound.writeframes(samples.tobytes())
    return RenderedFile(data=file.getvalue(), media_type="audio/wav")
