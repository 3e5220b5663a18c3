"""Pictures from this machine, outputs into a bucket: the command as a process, a real store, kills.

The store's front (see `weed`) counts what was written, and holds a call so that a kill strikes in
the middle of it. What was bought is told by the service's own book.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import COMMAND, run
from photos import photo
from weed import BUCKET, KEY_ID, SECRET, Store, serving_store

from batch_runner.text.address import unsigned_url

PICTURES = 8
JOBS = 2 * PICTURES

TEXT = """\
version: 1
model: google/nano-banana-2/edit
inputs: {resolution: 0.5K, output_format: jpeg}
prompts: {white: white background, sepia: make it sepia}
images: {from: photos/, id: "{{ stem }}"}
uploads: s3://batch-out/%(name)s/up
output: {dir: "s3://batch-out/%(name)s/out", path: "{{ image }}/{{ prompt }}"}
limits: {submits: 500/s, in_flight: 4, polls: 500/s, downloads: 2}
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with serving_store(tmp_path_factory.mktemp("weed")) as served:
        yield served


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder of photos, one of them lying on its side."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(PICTURES - 1):
        (folder / f"p{number}.jpg").write_bytes(photo(number, side_px=64))
    (folder / "turned.jpg").write_bytes(photo(7))
    return tmp_path


class Shop:
    """One batch of a test's own in the store, and the environment to run it in."""

    def __init__(self, folder: Path, store: Store, sandbox: str, name: str) -> None:
        self.folder = folder
        self.store = store
        self.name = name
        self.manifest = folder / "batch.yaml"
        self.manifest.write_text(TEXT % {"name": name}, encoding="utf-8")
        self.words = [str(self.manifest), "--api-base", sandbox]
        store.asked.clear()
        self.said = ""

    def run(self, command: str, *words: str) -> subprocess.CompletedProcess[str]:
        ended = run(command, *self.words, *words, **self.store.settings)
        self.said += ended.stdout + ended.stderr
        return ended

    def start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*COMMAND, "run", *self.words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **self.store.settings},
        )

    def status(self) -> dict[str, int]:
        status: dict[str, int] = json.loads(self.run("status", "--json").stdout)
        return status

    def bought(self) -> Counter[str]:
        """Count what the service took, by input, signatures left out."""
        book = self.folder / "sandbox" / "requests.jsonl"
        lines = map(json.loads, book.read_text(encoding="utf-8").splitlines())
        inputs = [line["input"] for line in lines if "input" in line]
        for one in inputs:
            assert all(url.startswith(self.store.url) for url in one["image_urls"])
            one["image_urls"] = [unsigned_url(url) for url in one["image_urls"]]
        return Counter(json.dumps(one, sort_keys=True) for one in inputs)


@pytest.fixture
def batch(shop: Path, store: Store, sandbox: str, request: pytest.FixtureRequest) -> Shop:
    name: str = request.node.name
    return Shop(shop, store, sandbox, re.sub(r"\W+", "-", name).strip("-")[-60:])


def test_photos_go_up_once_the_service_gets_signed_urls_and_pictures_come_into_the_bucket(
    batch: Shop,
) -> None:
    planned = batch.run("plan")
    assert planned.returncode == 0, planned.stderr
    assert f"uploads: {PICTURES} pictures" in planned.stdout
    assert f"output: s3://{BUCKET}/{batch.name}/out" in planned.stdout
    assert f"ledger: {batch.folder / 'out' / 'batch'}" in planned.stdout
    assert batch.store.asked == []

    first = batch.run("run")
    assert first.returncode == 0, first.stderr
    assert f"pictures: s3://{BUCKET}/{batch.name}/out" in first.stdout
    bought = batch.bought()
    assert len(bought) == JOBS
    assert set(bought.values()) == {1}
    uploaded = batch.store.puts(f"{batch.name}/up")
    assert len(uploaded) == len(set(uploaded)) == PICTURES
    written = batch.store.puts(f"{batch.name}/out")
    assert len(set(written)) == len(written) == JOBS + 1  # and the mark that the prefix is in use
    assert "p0/white.jpg" in written
    # The service fetched each picture by its signed URL, and nobody else did.
    fetched = [one for one in batch.store.asked if one.method == "GET" and "/up/" in one.path]
    assert len(fetched) >= JOBS
    assert {one.status for one in fetched} == {200}

    again = batch.run("run")
    assert (again.returncode, batch.bought()) == (0, bought)
    assert batch.store.puts(f"{batch.name}/up") == uploaded
    assert batch.store.puts(f"{batch.name}/out") == written
    assert batch.run("check").returncode == 0
    assert f"output: s3://{BUCKET}/{batch.name}/out" in batch.run("status").stdout


def test_a_report_names_what_is_in_the_bucket(
    batch: Shop,
) -> None:
    assert batch.run("run").returncode == 0
    batch.store.asked.clear()
    index = Path(batch.run("report").stdout.strip())
    assert index == batch.folder / "out" / "batch" / "report" / "index.html"

    def data() -> str:
        chunks = (index.parent / "data").glob("jobs-*.js")
        return max(chunks, key=lambda path: path.stat().st_mtime_ns).read_text("utf-8")

    assert [one for one in batch.store.asked if one.method == "GET"] == []
    assert data().count(f'"kind":"link","name":"s3://{BUCKET}/{batch.name}/out/') == JOBS


def test_the_served_page_shows_what_is_in_the_bucket(batch: Shop) -> None:
    assert batch.run("run").returncode == 0
    words = ["view", *batch.words, "--port", "0"]
    process = subprocess.Popen(
        [*COMMAND, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **batch.store.settings},
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()

        def get(name: str) -> str:
            with urllib.request.urlopen(address + name, timeout=120) as found:
                return str(found.read().decode())

        index = get(re.findall(r"data/index-\w+\.js", get(""))[0])
        cards = get(f"data/{re.findall(r'jobs-1-[0-9a-f]+[.]js', index)[0]}")
        picture = re.findall(r"fetched/\w+\.jpg", cards)[0]
        batch.store.asked.clear()
        for _ in range(2):
            with urllib.request.urlopen(f"{address}{picture}", timeout=120) as found:
                assert found.headers["Content-Type"] == "image/jpeg"
                assert found.read().startswith(b"\xff\xd8\xff")
        assert [one.method for one in batch.store.asked] == ["GET"]
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    for secret in (SECRET, KEY_ID, "X-Amz-", "Signature"):
        assert secret not in out + err


def test_a_picture_that_is_gone_from_the_bucket_is_put_back_without_paying(batch: Shop) -> None:
    assert batch.run("run").returncode == 0
    bought = batch.bought()
    import obstore

    root = batch.store.root(batch.name)
    opened = batch.store.unwatched._store(root)
    obstore.delete(opened, f"{batch.name}/out/p1/sepia.jpg")
    obstore.put(opened, f"{batch.name}/out/p2/white.jpg", b"no picture any more")
    found = batch.run("check")
    assert found.returncode == 3
    assert found.stdout.splitlines()[:2] == ["- p1/sepia.jpg", "* p2/white.jpg"]
    fixed = batch.run("check", "--fix")
    assert fixed.returncode == 0, fixed.stderr
    assert batch.run("check").returncode == 0
    assert batch.bought() == bought
    obstore.delete(opened, f"{batch.name}/out/p1/sepia.jpg")
    planned = batch.run("plan")
    assert "file missing or damaged" in planned.stdout
    assert batch.run("run").returncode == 0
    assert batch.bought() == bought


@pytest.mark.parametrize("moment", ["before it is kept", "before its answer"])
@pytest.mark.parametrize("where", ["up", "out"])
def test_a_kill_in_the_middle_of_a_write_to_the_bucket_pays_and_writes_nothing_twice(
    batch: Shop, where: str, moment: str
) -> None:
    prefix = f"/{BUCKET}/{batch.name}/{where}/"
    for done in (0, 3):

        def strikes(method: str, path: str, done: int = done) -> bool:
            is_write = method == "PUT" and path.startswith(prefix) and ".batch" not in path
            return is_write and len(batch.store.puts(f"{batch.name}/{where}")) > done

        batch.store.holds_answers = moment == "before its answer"
        batch.store.hold = strikes
        process = batch.start()
        try:
            assert batch.store.held.wait(60)
        finally:
            process.kill()
            process.wait()
            batch.store.release()
    last = batch.run("run")
    status = batch.status()
    assert last.returncode == (3 if status["unknown"] else 0), last.stderr
    assert status["done"] + status["unknown"] == JOBS
    bought = batch.bought()
    assert set(bought.values()) == {1}, "a job was paid for twice"
    assert status["done"] <= sum(bought.values()) <= JOBS
    for part in ("up", "out"):
        counts = Counter(batch.store.puts(f"{batch.name}/{part}"))
        counts.pop(".batch-runner", None)
        assert set(counts.values()) == {1}, "an object was written twice"
    out = dict(batch.store.unwatched.list_below(batch.store.root(f"{batch.name}/out")))
    assert len([path for path in out if path.endswith(".jpg")]) == status["done"]
    assert not [path for path in out if path.startswith("superseded/")]
    assert batch.run("check").returncode == 0
    assert not list((batch.folder / "out").rglob("*.part"))


@pytest.mark.parametrize("writes", [PICTURES // 2, PICTURES + JOBS // 2])
def test_a_store_that_fails_in_mid_run_ends_it_and_nothing_is_bought_twice_or_lost(
    batch: Shop, writes: int
) -> None:
    batch.store.writes_left = writes
    try:
        failed = batch.run("run")
    finally:
        batch.store.writes_left = None
    assert failed.returncode == 74, failed.stderr
    assert "cannot be written: 500 Internal Server Error, InternalError" in failed.stderr
    assert "once the store is back, run" in failed.stderr
    last = batch.run("run")
    assert last.returncode == 0, last.stderr
    bought = batch.bought()
    assert len(bought) == JOBS
    assert set(bought.values()) == {1}
    assert batch.status()["done"] == JOBS
    assert batch.run("check").returncode == 0


def test_credentials_that_are_refused_are_told_before_anything_is_sent(batch: Shop) -> None:
    wrong = {**batch.store.settings, "AWS_SECRET_ACCESS_KEY": "wrong"}
    ended = run("run", *batch.words, **wrong)
    assert ended.returncode == 77
    assert "may not be written: 403 Forbidden" in ended.stderr
    assert "hint: set AWS_ACCESS_KEY_ID" in ended.stderr
    assert "wrong" not in ended.stdout + ended.stderr
    assert batch.bought() == Counter()


def test_an_object_that_a_table_names_is_signed_and_one_that_is_not_there_costs_nothing(
    batch: Shop,
) -> None:
    root = batch.store.root(batch.name)
    how = {"media_type": "image/jpeg", "sha256": "0"}
    batch.store.unwatched.put(root.join("mine/mug.jpg"), photo(3), **how)
    (batch.folder / "t.csv").write_text(
        f"sku,url\nmug,{root}/mine/mug.jpg\nlamp,{root}/mine/lamp.jpg\n", encoding="utf-8"
    )
    text = batch.manifest.read_text(encoding="utf-8")
    text = text.replace(
        'images: {from: photos/, id: "{{ stem }}"}',
        'images: {from: t.csv, id: "{{ sku }}", urls: "{{ url }}"}',
    )
    batch.manifest.write_text(text, encoding="utf-8")
    checked = run("plan", *batch.words, "--check-urls", **batch.store.settings)
    assert checked.returncode == 65
    assert "row 3: s3://" in checked.stderr
    assert "/lamp.jpg: unreachable (not there)" in checked.stderr
    assert "urls: 2 checked, " in checked.stdout
    ended = batch.run("run")
    assert ended.returncode == 3
    assert f"lamp/white: picture missing: there is no object {root}/mine/lamp.jpg" in ended.stderr
    assert len(batch.bought()) == 2
    status = batch.status()
    assert (status["done"], status["failed"]) == (2, 2)


def test_no_secret_of_the_bucket_is_in_any_file_log_or_message(batch: Shop) -> None:
    ended = batch.run("run", "--json")
    assert ended.returncode == 0, ended.stderr
    for command in ("plan", "status", "check", "report", "export", "resolve"):
        batch.run(command)
    wrong = {**batch.store.settings, "AWS_ACCESS_KEY_ID": KEY_ID + "X"}
    refused = run("run", *batch.words, "--retry", "all", **wrong)
    batch.said += refused.stdout + refused.stderr
    files = [
        path
        for path in batch.folder.rglob("*")
        # The sandbox is the service: it is given signed URLs, and keeps what it is given.
        if path.is_file() and "sandbox" not in path.relative_to(batch.folder).parts
    ]
    assert any(path.name == "ledger.jsonl" for path in files)
    assert any(path.suffix == ".html" for path in files)
    for secret in (SECRET, KEY_ID, "X-Amz-", "Signature"):
        assert secret not in batch.said
        for path in files:
            assert secret.encode() not in path.read_bytes(), path
    # The one who is given signed URLs never sees the key they are signed with.
    book = (batch.folder / "sandbox" / "requests.jsonl").read_text(encoding="utf-8")
    assert "X-Amz-Signature" in book
    assert SECRET not in book
