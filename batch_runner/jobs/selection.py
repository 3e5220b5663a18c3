"""The jobs that `--only` chooses: keys, globs over keys, and files of keys.

What always holds: a key is chosen if it is given word for word, whatever characters it has, or if
a glob matches it. What matched nothing is known at the end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from batch_runner.errors import InputMissingError, UsageError

_HINT = "write one key or glob a line, as plan shows them"


class Selection:
    """The keys that some patterns choose, or all of them; `chosen` counts them."""

    def __init__(self, patterns: Sequence[str] | None) -> None:
        self.chosen = 0
        self._is_all = patterns is None
        patterns = patterns or ()
        self._keys = frozenset(patterns)
        self._globs = [pattern for pattern in patterns if re.search(r"[*?\[]", pattern)]
        self._unmatched = dict.fromkeys(patterns)

    def __contains__(self, key: str) -> bool:
        """Tell whether a key is chosen."""
        matching = [glob for glob in self._globs if fnmatchcase(key, glob)]
        matching += [key] if key in self._keys else []
        for pattern in matching:
            self._unmatched.pop(pattern, None)
        is_chosen = self._is_all or bool(matching)
        self.chosen += is_chosen
        return is_chosen

    @property
    def unmatched(self) -> list[str]:
        """Return the patterns that no key matched so far."""
        return list(self._unmatched)


def read_selection(words: Sequence[str]) -> tuple[str, ...] | None:
    """Return the patterns that words name, `@FILE` being a file of them; None if there are none.

    Raises InputMissingError and UsageError.
    """
    patterns: dict[str, None] = {}
    for word in words:
        if not word.startswith("@"):
            patterns[word] = None
            continue
        path = Path(word[1:])
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise InputMissingError(f"--only {word}: {error.strerror}", hint=_HINT) from error
        except UnicodeDecodeError as error:
            raise UsageError(f"--only {word}: is not UTF-8", hint=_HINT) from error
        found = [line.strip() for line in lines if line.strip()]
        if not found:
            raise UsageError(f"--only {word}: the file is empty", hint=_HINT)
        patterns |= dict.fromkeys(found)
    return tuple(patterns) or None
