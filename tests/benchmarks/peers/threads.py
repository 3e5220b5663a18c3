"""requests in 64 threads, as thousands of notebooks do it.

Usage: threads.py ORIGIN FOLDER TABLE
"""

from __future__ import annotations

import csv
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests  # type: ignore[import-untyped,import-not-found,unused-ignore]  # one of the peers

MODEL = "google/nano-banana-2/edit"

local = threading.local()


def session() -> requests.Session:
    """Return the thread's own session: they are not to be shared."""
    if not hasattr(local, "session"):
        local.session = requests.Session()
        local.session.headers["Authorization"] = "Bearer token"
    found: requests.Session = local.session
    return found


def edit(origin: str, folder: Path, row: dict[str, str]) -> None:
    """Edit one picture and save it."""
    body = {
        "prompt": f"Put the {row['title']} on a pure white background.",
        "image_urls": [row["url"]],
    }
    answer = session().post(f"{origin}/v1/models/{MODEL}", json=body, timeout=60)
    answer.raise_for_status()
    request_id = answer.json()["request_id"]
    while True:
        result = session().get(f"{origin}/v1/requests/{request_id}/result", timeout=60).json()
        if result["status"] == "succeeded":
            break
        time.sleep(1)
    picture = session().get(result["output"]["images"][0], timeout=60)
    picture.raise_for_status()
    (folder / f"{row['sku']}.jpg").write_bytes(picture.content)


def main() -> None:
    """Edit every row of the table."""
    origin, folder, table = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    folder.mkdir(parents=True)
    with table.open(encoding="utf-8") as file, ThreadPoolExecutor(64) as pool:
        for done in [pool.submit(edit, origin, folder, row) for row in csv.DictReader(file)]:
            done.result()


if __name__ == "__main__":
    main()
