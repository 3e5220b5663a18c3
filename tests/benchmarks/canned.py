"""A service that is never the bottleneck: nginx with canned answers, on a core of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

CORE = 1
"""The core nginx runs on; what is measured runs on core 0."""

PICTURE_BYTES = 100 * 1024
# A whole JPEG as far as anyone can tell without decoding it: start, comments, scan, end.
_COMMENT = b"\xff\xfe\xff\xff" + b"b" * 0xFFFD

# No file of its own for each picture: what is measured is the client, not nginx's open().
CONFIGURATION = """\
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  keepalive_requests 1000000;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  default_type application/json;
  open_file_cache max=10;
  sendfile on;
  tcp_nopush on;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location = /v1/models/google/nano-banana-2/edit {{
      if ($request_method = POST) {{
        return 200 '{submitted}';
      }}
      return 200 '{model}';
    }}
    location ~ ^/v1/requests/([A-Za-z0-9_-]+)/result$ {{
      set $id $1;
      return 200 '{result}';
    }}
    location = /prod/v2/balance {{
      return 200 '{{"balance_usd": 1000000, "currency": "USD"}}';
    }}
    location ~ ^/files/ {{
      default_type image/jpeg;
      alias {folder}/picture.jpg;
    }}
  }}
}}
"""


class Canned:
    """A running nginx: its origin, and how much of its core it has used."""

    def __init__(self, url: str, worker_pid: int) -> None:
        self.url = url
        self._worker_pid = worker_pid

    def cpu_s(self) -> float:
        """Return the CPU seconds that the worker has used."""
        fields = Path(f"/proc/{self._worker_pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def picture(size_bytes: int = PICTURE_BYTES) -> bytes:
    """Return bytes that pass for a whole JPEG of that size."""
    head, tail = b"\xff\xd8", b"\xff\xda\x00\x02" + b"s" * 64 + b"\xff\xd9"
    body = b""
    while len(head + body + tail) + len(_COMMENT) <= size_bytes:
        body += _COMMENT
    rest = size_bytes - len(head + body + tail)
    if rest >= 4:
        body += b"\xff\xfe" + (rest - 2).to_bytes(2, "big") + b"b" * (rest - 4)
    return head + body + tail


@contextlib.contextmanager
def canned_service(folder: Path, size_bytes: int = PICTURE_BYTES) -> Iterator[Canned]:
    """Serve canned answers as long as the block lasts."""
    program = shutil.which("nginx")
    if program is None:
        raise SystemExit("this benchmark needs nginx: apt-get install nginx-light")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    (folder / "picture.jpg").write_bytes(picture(size_bytes))
    port = _free_port()
    (folder / "nginx.conf").write_text(_configuration(folder, port), encoding="utf-8")
    words = [program, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    words = ["taskset", "-c", str(CORE), *words]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(port)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
            yield Canned(f"http://127.0.0.1:{port}", int(children.split()[0]))
        finally:
            process.terminate()


def _configuration(folder: Path, port: int) -> str:
    origin = f"http://127.0.0.1:{port}"
    link = f"{origin}/v1/requests/$request_id"
    submitted = {
        "request_id": "$request_id",
        "status_url": f"{link}/status",
        "result_url": f"{link}/result",
        "cancel_url": f"{link}/cancel",
    }
    result = {
        "request_id": "$id",
        "status": "succeeded",
        "output": {"images": [f"{origin}/files/$id.jpg"]},
        "created_at": "2026-01-01T00:00:00Z",
        "finished_at": "2026-01-01T00:00:00Z",
        "cost": 0.05,
    }
    model = {
        "model_id": "google/nano-banana-2/edit",
        "base_price_usd": 0.05,
        "price_unit": "output",
    }
    return CONFIGURATION.format(
        folder=folder,
        port=port,
        submitted=json.dumps(submitted),
        result=json.dumps(result),
        model=json.dumps(model),
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.01)
    raise SystemExit("nginx did not start")
