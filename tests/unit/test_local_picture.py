"""Pictures of this machine: looked at before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest
from photos import photo

from batch_runner.files.bucket import BucketUrl
from batch_runner.files.local_picture import SIZE_LIMIT_BYTES, NotPictureError, examine
from batch_runner.jobs.picture import PictureError, find_picture

UPLOADS = BucketUrl("s3", "shop", "up")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.jpg"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF"])
def test_a_picture_is_known_by_its_content_whatever_its_name(path: Path, kind: str) -> None:
    path.write_bytes(photo(kind=kind))
    found = examine(path)
    assert found.size_bytes == path.stat().st_size
    extensions = {"JPEG": ".jpg", "TIFF": ".tif"}
    assert found.extension == extensions.get(kind, f".{kind.lower()}")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"not a picture at all", "is not a picture"),
        (b"\x00\x00\x00\x18ftypmp42" + bytes(99), "is not a picture"),
        (photo(kind="PNG")[:-20], "is cut off"),
        (photo()[:-20], "is cut off"),
    ],
)
def test_what_is_no_whole_picture_is_refused(path: Path, content: bytes, why: str) -> None:
    path.write_bytes(content)
    with pytest.raises(NotPictureError, match=why):
        examine(path)


def test_what_is_larger_than_the_service_takes_is_refused_unread(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(SIZE_LIMIT_BYTES + 1)
    with pytest.raises(NotPictureError, match=r"is 50\.0 MB; the service accepts at most 50 MB"):
        examine(path)


def test_a_file_that_has_changed_is_looked_at_again(path: Path) -> None:
    path.write_bytes(photo(1))
    first = examine(path)
    assert examine(path) is first
    path.write_bytes(photo(2, side_px=32))
    assert examine(path).sha256 != first.sha256


# As the manifest names it


def test_an_upload_is_called_after_its_content_and_is_the_same_picture_as_before(
    path: Path, tmp_path: Path
) -> None:
    path.write_bytes(photo())
    read_here = find_picture("a.jpg", tmp_path, local_pictures=True)
    uploaded = find_picture("a.jpg", tmp_path, local_pictures=False, uploads=UPLOADS)
    sha256 = examine(path).sha256
    assert uploaded.url == f"s3://shop/up/{sha256}.jpg"
    assert read_here.url == path.as_uri()
    assert uploaded.identity == read_here.identity == f"sha256:{sha256}"
    assert uploaded.file is not None
    assert (uploaded.file.url, uploaded.file.path) == (uploaded.url, str(path))


def test_an_object_is_what_its_url_says(tmp_path: Path) -> None:
    picture = find_picture("s3://shop/a b.png", tmp_path, local_pictures=False)
    assert (picture.url, picture.identity, picture.file) == (
        "s3://shop/a b.png",
        "s3://shop/a b.png",
        None,
    )


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("s3://shop", "names no object"),
        ("s3://shop/photos/", "names no object"),
        ("s3://x/a.png", "is not s3://bucket/key"),
        ("s3://shop/a//b.png", "has an empty"),
    ],
)
def test_what_names_no_object_is_told(tmp_path: Path, written: str, why: str) -> None:
    with pytest.raises(PictureError, match=why):
        find_picture(written, tmp_path, local_pictures=False)
