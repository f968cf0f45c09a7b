"""Publishers' lists of files: printed for the programs that fetch them; compared with a folder."""

import hashlib
import json
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest
from typer.testing import CliRunner
from wsisr_cli.main import app

from wsisr.building.manifest import manifest_names
from wsisr.checkup.folder_comparison import compare_folder
from wsisr.checkup.published_files import (
    PublishedFile,
    print_as,
    publisher_of,
    read_list,
    unstated,
)
from wsisr.errors import ManifestError

UUID = "22a29915-6712-4f7a-8dba-985ae9a1f005"
GDC = f"id\tfilename\tmd5\tsize\tstate\n{UUID}\tTCGA-1.svs\t{'ab' * 16}\t7\treleased\n"
S3 = "2018-01-01 00:00:00          7 CAMELYON16/images/normal_001.tif\n"


def given(tmp_path: Path, text: str) -> tuple[PublishedFile, ...]:
    (tmp_path / "list.txt").write_text(text)
    return read_list(tmp_path / "list.txt")


def test_what_is_stated_says_where_it_was_read() -> None:
    for name in manifest_names():
        publisher = unstated(name)
        assert bool(publisher.seen) == bool(publisher.page)
    pcam = publisher_of("pcam")
    assert len(pcam.files) == 9 and all(len(f.checksum) == 32 for f in pcam.files)
    assert len({f.checksum for f in pcam.files}) == len({f.url for f in pcam.files}) == 9
    with pytest.raises(ManifestError, match="no public list of its files is known here"):
        publisher_of("consep")


def test_every_form_has_its_lines(tmp_path: Path) -> None:
    pcam, tcga, camelyon = (publisher_of(n) for n in ("pcam", "tcga-lung", "pathimgsr"))
    assert all(u.startswith("https://") for u in print_as("urls", pcam, pcam.files, "F"))
    sums = print_as("checksums", pcam, pcam.files, "F")
    assert given(tmp_path, "\n".join(sums))[0].checksum == pcam.files[0].checksum
    assert "--recursive s3://camelyon-dataset/CAMELYON16/images/ F/images/" in "\n".join(
        print_as("s3", camelyon, (), "F")
    )
    listed = given(tmp_path, S3)
    bucket = "s3://camelyon-dataset/CAMELYON16"
    assert print_as("s3", camelyon, listed, "F") == [
        f"aws s3 cp --no-sign-request '{bucket}/images/normal_001.tif' 'F/images/normal_001.tif'"
    ]
    (query,) = print_as("gdc", tcga, (), "F")
    asked = parse_qs(urlparse(query.split("'")[1]).query)
    filters = json.loads(asked["filters"][0])
    assert filters["content"][0]["content"]["value"] == ["TCGA-LUAD", "TCGA-LUSC"]
    assert asked["return_type"] == ["manifest"]
    assert "\n".join(print_as("gdc", tcga, given(tmp_path, GDC), "F")) + "\n" == GDC
    with pytest.raises(ManifestError, match="no list of the form urls"):
        print_as("urls", tcga, (), "F")


def test_lists_of_publishers_are_read_and_nothing_else(tmp_path: Path) -> None:
    assert given(tmp_path, S3)[0] == PublishedFile(name="CAMELYON16/images/normal_001.tif", size=7)
    for line in (f"{'AB' * 16}  ./a/b.tif", f"{'ab' * 16} *a/b.tif"):
        assert given(tmp_path, line) == (PublishedFile(name="a/b.tif", checksum="ab" * 16),)
    assert len(given(tmp_path, f"{'ab' * 32}  a.tif")[0].checksum) == 64
    for text, words in (
        ("hello", "neither a checksum"),
        ("", "lists no files"),
        (f"{'ab' * 16}  ../../etc/passwd", "leads out of the folder"),
        (f"{'ab' * 16}  /etc/passwd", "leads out of the folder"),
        (GDC.replace("\t7\t", "\tx\t"), "no line of a GDC manifest"),
    ):
        with pytest.raises(ManifestError, match=words):
            given(tmp_path, text)
    with pytest.raises(ManifestError, match="cannot be read"):
        read_list(tmp_path / "none.txt")


def test_a_folder_is_compared_by_name_size_and_content(tmp_path: Path) -> None:
    data = b"1234567"
    files = [
        PublishedFile(
            name=f"CAMELYON16/images/{name}", size=7, checksum=hashlib.md5(data).hexdigest()
        )
        for name in (
            "right.tif",
            "short.tif",
            "long.tif",
            "other.tif",
            "gone.tif",
            "part.tif",
            "got.tif",
        )
    ]
    root = tmp_path / "camelyon16"
    (root / "images").mkdir(parents=True)
    (root / "uuid").mkdir()
    for path, content in {
        "images/right.tif": data,
        "images/short.tif": b"1234",
        "images/long.tif": b"12345678",
        "uuid/other.tif": b"7654321",
        "uuid/part.tif.partial": b"12",
        "uuid/got.tif.aria2": b"12",
        "notes.txt": b"mine",
        ".hidden": b"x",
    }.items():
        (root / path).write_bytes(content)
    found = compare_folder(root, files, read=False)
    assert found.missing == ("CAMELYON16/images/gone.tif",)
    assert found.truncated == tuple(f"CAMELYON16/images/{n}.tif" for n in ("short", "part", "got"))
    assert found.changed == ("CAMELYON16/images/long.tif",) and found.extra == ("notes.txt",)
    assert (found.right, found.complete) == (2, False)
    assert found.compared == "names; sizes of 7; checksums of 0"
    deep = compare_folder(root, files, read=True)
    assert "CAMELYON16/images/other.tif" in deep.changed and deep.right == 1
    assert compare_folder(root, files[:1], read=True).complete
    with pytest.raises(ManifestError, match="nothing to compare"):
        compare_folder(root, (), read=False)


def test_the_command_compares_and_says_so_by_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(S3 + S3.replace("images/normal", "masks/normal"))
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "normal_001.tif").write_bytes(b"1234567")
    words = ["manifests", "files", "histosr", "--list", str(tmp_path / "list.txt")]
    run = CliRunner().invoke(app, [*words, "--only", "*images/*", "--folder", str(folder)])
    assert run.exit_code == 0, run.output
    assert "1 of 1 files are there (names; sizes of 1; checksums of 0)" in run.stdout
    (folder / "normal_001.tif").write_bytes(b"123")
    run = CliRunner().invoke(app, [*words, "--only", "*images/*", "--folder", str(folder)])
    assert run.exit_code == 1 and "truncated CAMELYON16/images/normal_001.tif" in run.stdout
    shown = CliRunner().invoke(app, ["manifests", "files", "pcam"]).stdout
    assert "licence     CC0" in shown and "1571f514728f59376b705fc836ff4b63" in shown
