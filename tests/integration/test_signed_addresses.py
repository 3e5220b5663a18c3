"""Tables that are exported again: what was bought is known whatever its address became."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from batch_runner.commands.cli import main
from batch_runner.errors import ExitCode
from batch_runner.ledger.reading import ledger_path
from batch_runner.manifest.loading import load_manifest
from batch_runner.records import Submitting, former_identity, utc_now
from batch_runner.run.batch import Batch, RunOptions
from batch_runner.shards.shard import Shard

TEXT = """\
version: 1
model: google/nano-banana-2/edit
inputs: {resolution: 0.5K, output_format: jpeg}
prompts: {white: white background}
images: {from: t.csv, id: "{{ sku }}", urls: "{{ image }}"}
output: {dir: out}
limits: {submits: 1000/s, polls: 1000/s, cost_usd: 5}
"""
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJ1cmwiOiJhIn0"
KNOWN = {
    "discord": "https://media.discordapp.net/attachments/1/2/a.png?ex=f{0}aa4106&is=66a8&hm=2{0}",
    "supabase": f"https://s.example/storage/v1/object/sign/p/a.png?token={JWT}.s{{0}}",
    "bunny": "https://x.b-cdn.net/a.png?token=HS256-{0}&expires=409349120{0}",
    "s3": "https://b.s3.amazonaws.com/a.png?X-Amz-Date=2099110{0}T000000Z&X-Amz-Signature=a{0}",
}
UNKNOWN = {
    "bunny-folder": "https://x.b-cdn.net/bcdn_token=H{0}&expires=409349120{0}&token_path=%2F/b.png",
    "qiniu": "https://x.qiniu.example/a.png?e=409349120{0}&token=AK:c2l{0}",
    "akamai": "https://x.akamai.example/a.png?hdnts=exp=409349120{0}~acl=/*~hmac=ab{0}",
    "airtable": "https://v5.airtableusercontent.com/v3/u/3/3/409349120{0}000/a{0}/d/g",
    "own": "https://pics.example/{0}b1/a.png?ticket={0}77",
}
Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("RUNCOMFY")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


class Shop:
    """A manifest and its table, exported as often as one likes."""

    def __init__(self, folder: Path, capsys: Captured) -> None:
        self.folder = folder
        self.manifest = folder / "m.yaml"
        self.ledger = ledger_path(folder / "out-sandbox")
        self.manifest.write_text(TEXT, encoding="utf-8")
        self._capsys = capsys

    def export(self, addresses: dict[str, str], export: int) -> None:
        rows = [f'{sku},"{url.replace("{0}", str(export))}"\n' for sku, url in addresses.items()]
        (self.folder / "t.csv").write_text("sku,image\n" + "".join(rows), encoding="utf-8")

    def run(self) -> tuple[int, str]:
        code = main(["run", str(self.manifest), "--sandbox"])
        return code, self._capsys.readouterr().err

    def plan(self) -> dict[str, str]:
        self._capsys.readouterr()
        assert main(["plan", str(self.manifest), "--sandbox", "--json"]) == ExitCode.DONE
        lines = map(json.loads, self._capsys.readouterr().out.splitlines())
        return {line["job"]: line["action"] for line in lines}

    def bought(self) -> list[dict[str, Any]]:
        lines = map(json.loads, self.ledger.read_text(encoding="utf-8").splitlines())
        return [line for line in lines if line["record"] == "submitting"]


@pytest.fixture
def shop(tmp_path: Path, capsys: Captured) -> Shop:
    return Shop(tmp_path, capsys)


def test_a_table_that_is_signed_again_buys_nothing(shop: Shop) -> None:
    shop.export(KNOWN, 1)
    assert shop.run()[0] == ExitCode.DONE
    shop.export(KNOWN, 2)
    assert set(shop.plan().values()) == {"skip"}
    assert shop.run()[0] == ExitCode.DONE
    assert len(shop.bought()) == len(KNOWN)


def test_what_is_not_recognised_stops_the_run_until_the_manifest_says_what_it_is(
    shop: Shop,
) -> None:
    shop.export(UNKNOWN, 1)
    assert shop.run()[0] == ExitCode.DONE
    shop.export(UNKNOWN, 2)
    assert shop.run()[0] == ExitCode.USAGE
    text = TEXT.replace("urls:", 'identity: "{{ sku }}", urls:')
    shop.manifest.write_text(text, encoding="utf-8")
    assert set(shop.plan().values()) == {"reuse"}
    assert shop.run()[0] == ExitCode.DONE
    shop.export(UNKNOWN, 3)
    assert set(shop.plan().values()) == {"skip"}
    assert len(shop.bought()) == len(UNKNOWN)
    # Another identity is another picture.
    shop.manifest.write_text(text.replace('"{{ sku }}",', '"{{ sku }}-2",'), encoding="utf-8")
    assert set(shop.plan().values()) == {"submit"}


def test_an_identity_may_be_said_in_the_middle_of_a_batch(shop: Shop) -> None:
    shop.export({**KNOWN, **UNKNOWN}, 1)
    assert shop.run()[0] == ExitCode.DONE
    text = TEXT.replace("urls:", 'identity: "{{ sku }}", urls:')
    shop.manifest.write_text(text, encoding="utf-8")
    assert set(shop.plan().values()) == {"skip"}


def test_a_ledger_of_a_release_that_knew_fewer_schemes_is_resumed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.export(KNOWN, 1)
    with monkeypatch.context() as former:
        # That release took an address for the picture, but for what it knew.
        former.setattr("batch_runner.jobs.picture.unsigned_url", former_identity)
        former.setattr("batch_runner.jobs.identity.unsigned_url", former_identity)
        assert shop.run()[0] == ExitCode.DONE
    assert set(shop.plan().values()) == {"skip"}
    assert shop.run()[0] == ExitCode.DONE
    assert len(shop.bought()) == len(KNOWN)


def test_two_pictures_of_one_batch_never_become_one(shop: Shop) -> None:
    render = "https://img.example.com/render?item=1&sv=2022-11-02&sr=b&se=2099-01-01&sig=a&sp="
    shop.export({"FRONT": f"{render}front", "BACK": f"{render}back"}, 1)
    assert set(shop.plan().values()) == {"submit"}
    assert shop.run()[0] == ExitCode.DONE
    assert len(shop.bought()) == 2
    assert set(shop.plan().values()) == {"skip"}


EXPIRED = (
    "https://b.s3.amazonaws.com/a.png"
    "?X-Amz-Date=20260101T000000Z&X-Amz-Expires=60&X-Amz-Signature=a"
)


def test_an_address_that_has_expired_is_no_use_unless_it_was_bought(
    shop: Shop, capsys: Captured
) -> None:
    shop.export({"A": EXPIRED, "B": KNOWN["bunny"]}, 1)
    real = ["plan", str(shop.manifest), "--api-base", "https://127.0.0.2.example"]
    assert main(real) == ExitCode.INVALID
    said = capsys.readouterr().err
    assert "row 2: " in said
    assert "expired on 2026-01-01 at 00:01 UTC\nhint: export the table again" in said
    assert "row 3" not in said
    code, said = shop.run()  # the sandbox draws it
    assert code == ExitCode.DONE
    assert "expired on 2026-01-01 at 00:01 UTC" in said
    code, said = shop.run()
    assert code == ExitCode.DONE
    assert "expired" not in said


def test_a_shard_leaves_what_another_shard_bought_under_a_former_name(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = {f"A{n}": KNOWN["discord"].replace("/a.png", f"/{n}.png") for n in range(8)}
    shop.export(addresses, 1)

    def shards() -> list[Batch]:
        manifest = load_manifest(shop.manifest)
        folder = shop.folder / "out-shards"
        return [
            Batch(
                manifest,
                RunOptions(api_base="http://127.0.0.1:9", output_dir=folder, shard=Shard(index, 2)),
            )
            for index in range(2)
        ]

    with monkeypatch.context() as former:
        former.setattr("batch_runner.jobs.picture.unsigned_url", former_identity)
        former.setattr("batch_runner.jobs.identity.unsigned_url", former_identity)
        before = [list(batch.jobs()) for batch in shards()]
        for batch, jobs in zip(shards(), before, strict=True):
            with batch.ledgers.opened(utc_now()) as ledger:
                for job in jobs:
                    about: dict[str, Any] = {
                        "at": utc_now(),
                        "job": job.key,
                        "fingerprint": job.fingerprint,
                    }
                    ledger.append(
                        Submitting(**about, model=job.model, input={}, path=job.path, attempt=1)
                    )
    now = [list(batch.jobs()) for batch in shards()]
    assert [[job.fingerprint for job in jobs] for jobs in now] == [
        [job.fingerprint for job in jobs] for jobs in before
    ]
