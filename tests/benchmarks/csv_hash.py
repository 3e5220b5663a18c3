"""What `plan` of a table is compared with: read its rows, and hash a line of JSON for each."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from pathlib import Path


def main(table: Path) -> None:
    """Read and hash the whole table."""
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
