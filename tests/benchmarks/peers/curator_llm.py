"""bespokelabs-curator with its cache of requests and responses, the edit as its one API call.

It knows chat models only, so the edit takes the place of the call to one; everything around it
(request files, response files, retries, the resulting dataset) is the library's own.

Usage: curator_llm.py ORIGIN FOLDER TABLE
"""

from __future__ import annotations

import csv
import datetime as dt
import os
import sys
from pathlib import Path
from typing import Any

os.environ.update(TELEMETRY_ENABLED="0", CURATOR_DISABLE_RICH_DISPLAY="1", OPENAI_API_KEY="none")

from bespokelabs import curator  # type: ignore[import-not-found, unused-ignore]
from bespokelabs.curator.request_processor.online import (  # type: ignore[import-not-found, unused-ignore]
    openai_online_request_processor as processor,
)
from bespokelabs.curator.types.generic_response import (  # type: ignore[import-not-found, unused-ignore]
    GenericResponse,
    _TokenUsage,
)
from gather import edit

ORIGIN, FOLDER = sys.argv[1], Path(sys.argv[2])
ROWS: dict[str, dict[str, str]] = {}


class Edits(processor.OpenAIOnlineRequestProcessor):  # type: ignore[misc, unused-ignore]
    """The library's processor, with an edit in place of a chat call."""

    def get_header_based_rate_limits(self) -> tuple[int, int]:
        return 1_000_000, 1_000_000_000

    def get_token_encoding(self) -> None:
        return None

    def estimate_total_tokens(self, messages: list[Any]) -> Any:
        return _TokenUsage(input=1, output=1)

    async def call_single_request(self, request: Any, session: Any, status_tracker: Any) -> Any:
        sku = request.generic_request.original_row["sku"]
        picture = await edit(session, ORIGIN, ROWS[sku])
        (FOLDER / f"{sku}.jpg").write_bytes(picture)
        return GenericResponse(
            response_message=f"{sku}.jpg",
            response_errors=None,
            raw_request=request.api_specific_request,
            raw_response={},
            generic_request=request.generic_request,
            created_at=request.created_at,
            finished_at=dt.datetime.now(dt.UTC).replace(tzinfo=None),
            token_usage=_TokenUsage(input=1, output=1, total=2),
            response_cost=0.0,
            finish_reason="stop",
        )


class Edit(curator.LLM):  # type: ignore[misc, unused-ignore]
    """One row in, the name of its picture out."""

    def prompt(self, input: dict[str, str]) -> str:  # noqa: A002 - the library's own name
        return f"Put the {input['title']} on a pure white background."

    def parse(self, input: dict[str, str], response: str) -> dict[str, str]:  # noqa: A002
        return {"sku": input["sku"], "picture": response}


def main() -> None:
    """Edit every row of the table."""
    FOLDER.mkdir(parents=True)
    with Path(sys.argv[3]).open(encoding="utf-8") as file:
        ROWS.update((row["sku"], row) for row in csv.DictReader(file))
    processor.OpenAIOnlineRequestProcessor = Edits
    limits = {"max_requests_per_minute": 1_000_000, "max_tokens_per_minute": 1_000_000_000}
    llm = Edit(
        model_name="gpt-4o-mini",
        backend="openai",
        backend_params={**limits, "max_concurrent_requests": 64},
    )
    llm(list(ROWS.values()), working_dir=str(FOLDER / "cache"))


if __name__ == "__main__":
    main()
