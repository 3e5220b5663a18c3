"""Pictures of other machines: fetched from named hosts alone, without the token."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest
from command import run
from fabricated import NOBODY, fabricate, picture

PICTURE = picture("a source", (640, 480))


class Host(NamedTuple):
    """A web server with a certificate of its own, and what it was asked: path and Authorization."""

    url: str
    certificate: str
    asked: list[tuple[str, str | None]]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl here to make a certificate with")
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    words = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    words += ["-keyout", key, "-out", certificate, "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(words, check=True, capture_output=True)
    asked: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Authorization")))
            if self.path.startswith("/moved"):
                self.send_response(302)
                self.send_header("Location", "https://elsewhere.example/a.jpg")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = b"<html>log in</html>" if "page" in self.path else PICTURE
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Host(f"https://localhost:{server.server_port}", certificate, asked)
    server.shutdown()
    server.server_close()
    thread.join()


def signed(name: str, signature: str) -> str:
    """Return a path with a whole signature of Amazon's scheme."""
    return (
        f"/{name}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIA/20300101/x/s3/"
        "aws4_request&X-Amz-Date=20300101T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        f"&X-Amz-Signature={signature * 64}"
    )


def test_a_page_from_the_disk_links_to_them_and_a_check_fetches_each_once(
    tmp_path: Path, host: Host
) -> None:
    path = tmp_path / "batch.yaml"

    def write(signature: str) -> None:
        path.write_text(
            "version: 1\nmodel: google/nano-banana-2/edit\nprompts: {w: white, s: sepia}\n"
            f"images:\n  good: {host.url}{signed('good.jpg', signature)}\n"
            f"  page: {host.url}/page.jpg\n  moved: {host.url}/moved.jpg\n"
            "checks: {edited: true}\noutput: {dir: out}\n",
            encoding="utf-8",
        )

    def asked_by(command: str) -> str:
        host.asked.clear()
        environment = {"SSL_CERT_FILE": host.certificate, "RUNCOMFY_API_TOKEN": "secret-token"}
        done = run(command, str(path), "--api-base", NOBODY, **environment)
        assert done.returncode in (0, 3), done.stderr
        return done.stderr

    write("1")
    fabricate(path)
    report = tmp_path / "out" / "report"
    asked_by("report")
    assert host.asked == []
    data = "".join(file.read_text("utf-8") for file in (report / "data").glob("jobs-*.js"))
    assert f"{host.url}/good.jpg" in data
    assert "Signature" not in data
    told = asked_by("check")
    assert sorted(host.asked) == [
        (signed("good.jpg", "1"), None),
        ("/moved.jpg", None),
        ("/page.jpg", None),
    ]
    assert told.count("not fetched: ") == 2
    assert "neither a picture nor a video came" in told
    assert "not a trusted host" in told
    assert [file.read_bytes() for file in (report / "fetched").iterdir()] == [PICTURE]
    write("2")
    asked_by("check")
    assert signed("good.jpg", "2") not in [path for path, _ in host.asked]
