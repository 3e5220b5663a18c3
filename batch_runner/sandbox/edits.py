"""What a prompt asks for, as far as the sandbox understands it: words in, an Edit out.

Hides the vocabulary. Pure, and no language model: it looks for words it knows, in a few positions
("red background", "background in red", "text 'SALE'"), and ignores the rest.

Always holds: every prompt gives an Edit; one without a known word is not `is_understood`, and the
picture then shows the prompt itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "white": (255, 255, 255),
    "black": (24, 24, 27),
    "grey": (176, 178, 182),
    "gray": (176, 178, 182),
    "silver": (200, 203, 208),
    "red": (206, 50, 52),
    "crimson": (170, 28, 52),
    "burgundy": (120, 24, 48),
    "orange": (240, 140, 56),
    "coral": (250, 128, 108),
    "peach": (255, 206, 178),
    "yellow": (250, 208, 72),
    "gold": (214, 170, 72),
    "golden": (214, 170, 72),
    "beige": (232, 220, 200),
    "cream": (250, 243, 226),
    "brown": (130, 88, 58),
    "green": (72, 152, 92),
    "mint": (186, 230, 208),
    "olive": (128, 132, 70),
    "teal": (32, 132, 136),
    "turquoise": (64, 196, 196),
    "cyan": (72, 198, 222),
    "blue": (52, 108, 196),
    "navy": (28, 44, 92),
    "purple": (124, 78, 168),
    "violet": (142, 92, 196),
    "lavender": (208, 196, 238),
    "lilac": (208, 184, 228),
    "pink": (244, 166, 190),
    "magenta": (206, 60, 148),
}

_SCENE_WORDS: dict[str, str] = {
    "beach": "beach beaches sea seaside ocean shore coast sand sandy tropical",
    "forest": "forest forests woods woodland jungle trees",
    "meadow": "garden meadow grass lawn park field flowers picnic outdoor outdoors nature",
    "mountains": "mountain mountains alps hills peak peaks desert canyon",
    "snow": "snow snowy winter ice icy",
    "city": "city street urban skyline downtown town",
    "wood": "wood wooden table tabletop desk oak rustic walnut",
    "marble": "marble stone granite bathroom concrete",
    "room": "room kitchen living interior home indoor indoors cosy cozy cafe lifestyle shelf",
    "studio": "studio seamless backdrop catalog catalogue",
    "pastel": "pastel gradient podium playful",
}
_TIME_WORDS: dict[str, str] = {
    "sunset": "sunset sunrise dusk dawn evening golden-hour",
    "night": "night midnight starry stars moonlight moon galaxy space",
}
_TONE_WORDS: dict[str, str] = {
    "grayscale": "grayscale greyscale monochrome black-and-white b&w noir",
    "sepia": "sepia",
    "vintage": "vintage retro faded nostalgic old-fashioned film polaroid",
    "sketch": "sketch pencil drawing drawn sketched line-art",
    "painting": "painting painted watercolor watercolour oil impressionist",
    "poster": "poster cartoon comic pop-art posterized posterised",
    "pixelated": "pixelated pixelate pixel pixels 8-bit mosaic",
    "brighter": "brighter brighten bright lighter lighten",
    "darker": "darker darken dark moody",
    "warm": "warm warmer",
    "cool": "cool cooler cold",
    "vivid": "vivid vibrant saturated colourful colorful",
    "muted": "muted desaturated matte",
    "sharp": "sharp sharpen sharper crisp",
    "vignette": "vignette dramatic cinematic",
    "inverted": "negative invert inverted",
}

_READ_CHARACTERS = 4000

_COLOUR = "|".join(COLOURS)
_PLACE = r"(?:background|backdrop|backgrounds|backdrops|wall|surface)"
_COLOUR_THEN_PLACE = re.compile(rf"\b({_COLOUR})\b(?:\W+\w+){{0,2}}?\W+{_PLACE}\b")
_PLACE_THEN_COLOUR = re.compile(
    rf"\b{_PLACE}\b(?:\W+(?:is|be|to|in|into|of|a|an|pure|plain|solid|soft|light|pale|dark|deep|"
    rf"should|with|colou?r|made|turn|turned)\b)*\W+({_COLOUR})\b"
)
_REMOVED = re.compile(rf"\b(?:remove|no|without|transparent|cut out)\b(?:\W+\w+){{0,2}}\W+{_PLACE}")
_BLURRED = re.compile(rf"\bblur\w*(?:\W+\w+){{0,2}}?\W+{_PLACE}|{_PLACE}(?:\W+\w+){{0,2}}?\W+blur")
_FRAME = re.compile(rf"\b(?:({_COLOUR})\W+(?:\w+\W+)?)?(?:border|frame|framed)\b")
_ROTATED = re.compile(r"\brotat\w*(?:\D{0,20}?(\d{1,3}))?")
_ANTICLOCKWISE = re.compile(r"\b(?:counter-?|anti-?)clockwise|\bleft\b")
_MIRRORED = re.compile(r"\b(?:flip|flipped|mirror|mirrored)\b")
_UPSIDE_DOWN = re.compile(r"\b(?:upside.down|flip\w* vertical\w*|vertical\w* flip\w*)\b")
_CLOSE_UP = re.compile(r"\b(?:close-?up|zoom|zoomed|macro|detail)\b")
_ARRANGED = re.compile(r"\b(?:side.by.side|collage|together|next to|grid|in a row)\b")
_QUOTED = re.compile(
    r"\"([^\"]{1,60})\""
    "|\u201c([^\u201d]{1,60})\u201d|\u2018([^\u2019]{1,60})\u2019"
    r"|(?<!\w)'([^']{1,60})'(?!\w)"
)
_SAID = re.compile(
    r"\b(?i:text|words?|label|caption|title|saying|says|reads?|reading)\b:?\s+"
    r"([A-Z0-9][A-Z0-9%!&.+-]+(?: [A-Z0-9][A-Z0-9%!&.+-]*)*)"
)
_TINTED = re.compile(rf"\b(?:in|into|colou?r\w*|paint\w*|dye\w*|make \w+(?: \w+)?)\W+({_COLOUR})\b")


@dataclass(frozen=True, kw_only=True)
class Edit:
    """What to do with the pictures. Nothing set: nothing in the prompt was understood."""

    backdrop: Colour | None = None
    scene: str | None = None
    time_of_day: str | None = None
    tones: tuple[str, ...] = ()
    tint: Colour | None = None
    lettering: str | None = None
    frame: Colour | None = None
    is_blurred: bool = False
    is_background_blurred: bool = False
    is_mirrored: bool = False
    is_upside_down: bool = False
    is_close_up: bool = False
    is_arrangement: bool = False
    rotation_degrees: int = 0

    @property
    def is_understood(self) -> bool:
        """Whether the prompt held any word that is known."""
        return self != Edit()

    @property
    def has_new_background(self) -> bool:
        """Whether the subject moves before another background."""
        return self.backdrop is not None or self.scene is not None or self.time_of_day is not None


def parse_prompt(prompt: str) -> Edit:
    """Read what a prompt asks for, as far as its first few thousand characters go."""
    prompt = prompt[:_READ_CHARACTERS]
    text = prompt.casefold()
    lettering = _find_lettering(prompt)
    if lettering is not None:  # what is to be written is not an instruction
        text = text.replace(lettering.casefold(), " ")
    text = text.replace("black and white", "black-and-white").replace("golden hour", "golden-hour")
    backdrop = _find_backdrop(text)
    words = re.findall(r"[\w&-]+", text)
    blurred_background = _BLURRED.search(text) is not None
    return Edit(
        backdrop=backdrop,
        scene=_find_first(words, _SCENE_WORDS) if backdrop is None else None,
        time_of_day=_find_first(words, _TIME_WORDS) if backdrop is None else None,
        tones=_find_tones(words),
        tint=_find_tint(text, backdrop),
        lettering=lettering,
        frame=_find_frame(text),
        is_blurred="blur" in text and not blurred_background,
        is_background_blurred=blurred_background,
        is_mirrored=_MIRRORED.search(text) is not None and _UPSIDE_DOWN.search(text) is None,
        is_upside_down=_UPSIDE_DOWN.search(text) is not None,
        is_close_up=_CLOSE_UP.search(text) is not None,
        is_arrangement=_ARRANGED.search(text) is not None,
        rotation_degrees=_find_rotation(text),
    )


def _find_first(words: list[str], vocabulary: dict[str, str]) -> str | None:
    """Look up the meaning of the first word that has one."""
    meanings = {word: name for name, line in vocabulary.items() for word in line.split()}
    return next((meanings[word] for word in words if word in meanings), None)


def _find_tones(words: list[str]) -> tuple[str, ...]:
    known = set(words)
    return tuple(name for name, line in _TONE_WORDS.items() if known & set(line.split()))


def _find_backdrop(text: str) -> Colour | None:
    match = _COLOUR_THEN_PLACE.search(text) or _PLACE_THEN_COLOUR.search(text)
    if match is not None:
        return COLOURS[match[1]]
    return COLOURS["white"] if _REMOVED.search(text) else None


def _find_tint(text: str, backdrop: Colour | None) -> Colour | None:
    match = _TINTED.search(text)
    if match is None or COLOURS[match[1]] == backdrop:
        return None
    return COLOURS[match[1]]


def _find_frame(text: str) -> Colour | None:
    match = _FRAME.search(text)
    if match is None:
        return None
    return COLOURS[match[1]] if match[1] else (34, 34, 38)


def _find_rotation(text: str) -> int:
    match = _ROTATED.search(text)
    if match is None:
        return 0
    degrees = int(match[1] or 90) % 360
    return (-degrees) % 360 if _ANTICLOCKWISE.search(text) else degrees


def _find_lettering(prompt: str) -> str | None:
    quoted = _QUOTED.search(prompt)
    if quoted is not None:
        return next(group for group in quoted.groups() if group is not None).strip() or None
    said = _SAID.search(prompt)
    return said[1].strip() if said is not None else None
