"""A PatientID and a name planted in DICOM, path and table stand in no byte that a build writes."""

import gzip
import os
import re
from base64 import b64decode
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from layout_samples import asap, dicom_slide, mask, section, slide, text
from PIL import Image
from typer.testing import CliRunner
from wsisr_cli.main import app

from wsisr import open_pairs
from wsisr.building import BuildRequest, build_pairs, describe_plan, prepare, rebuild_from
from wsisr.errors import BuildError
from wsisr.progress import ProgressEvent
from wsisr.runners import SerialRunner
from wsisr.slides.verdicts import FOLDER_VARIABLE
from wsisr.store import verify_store
from wsisr.testing.image_sets import write_image
from wsisr.testing.two_scans import ScanSpec, make_scans

PLANTED = (r"DOE\^", "Jane", "HOSP-4711", "ACCHOSP-4711", "Kowalska", "PESEL7788", "StAnna")
"""A name and a number in DICOM, a name and a number in paths and the table, a folder above."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DICOM and TIFF slides, an outline, a mask, a picture, a broken slide and a dangling link,
    all below a folder that names a hospital."""
    folder = tmp_path_factory.mktemp("work") / "StAnna" / "slides"
    dicom_slide(folder / "series1", 1, "HOSP-4711", "1.2.3.1")
    slide(folder / "Kowalska_Anna/PESEL7788 HE.svs", 2)
    slide(folder / "other/b.svs", 3)
    asap(folder / "Kowalska_Anna/PESEL7788 HE.xml", "Tumor")
    mask(folder / "Kowalska_Anna/PESEL7788 HE_mask.tif")
    text(folder / "Kowalska_Anna/PESEL7788 scan.svs", "no slide at all")
    (folder / "Kowalska_Anna/PESEL7788 gone.svs").symlink_to("nowhere")
    (folder.parent / "table.csv").write_text(
        "slide,patient,group\nb.svs,DOE Jane 1970,Kowalska block 3\n"
    )
    (folder.parent / "l.yaml").write_text(
        "name: labels\nversion: 1\nhr: 40x\nlr: [10x]\nsize: 128\n"
        "sampling: {kind: grid, stride: 1.0, max_per_slide: 4}\n"
        "labels: {classes: [normal, tumor], background: normal}\n"
    )
    return folder


def request(source: Path, out: Path, **more: Any) -> BuildRequest:
    return BuildRequest(
        source=source,
        output=out / "p.zarr",
        manifest=source.parent / "l.yaml",
        overrides={"patient_from": "folder"},
        mpp_override=source.parent / "table.csv",
        **more,
    )


def beside_pixels(picture: bytes) -> bytes:
    """What a PNG says besides its pixels, in which short words stand by chance."""
    with Image.open(BytesIO(picture)) as opened:
        return repr(opened.info).encode()


def written(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file below a folder: its name and its bytes, unzipped where it is a gzip."""
    for path in sorted(folder.rglob("*")):
        yield str(path.relative_to(folder)), str(path.relative_to(folder)).encode()
        if path.is_file():
            data = path.read_bytes()
            if path.suffix == ".png":
                data = beside_pixels(data)
            if path.suffix == ".html":
                data = re.sub(
                    rb"image/png;base64,([A-Za-z0-9+/=]+)",
                    lambda m: beside_pixels(b64decode(m[1])),
                    data,
                )
            yield str(path), gzip.decompress(data) if path.suffix == ".gz" else data


def planted_in(folder: Path, words: tuple[str, ...] = PLANTED) -> set[tuple[str, str]]:
    pattern = re.compile("|".join(words).encode(), re.IGNORECASE)
    return {
        (name, match.group().decode())
        for name, data in written(folder)
        if (match := pattern.search(data))
    }


def test_private_ids_let_no_name_out(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    said: list[str] = []
    prepared = prepare(request(source, out, private_ids=True))
    summary = build_pairs(
        prepared, lambda event: said.append(f"{event.item} {event.message}"), SerialRunner()
    )
    assert summary is not None and summary.slides == 3 and len(summary.failures) == 1
    runner = CliRunner()
    for command in (
        ["report", str(out / "p.zarr"), "-o", str(out / "report.html")],
        ["export", str(out / "p.zarr"), str(out / "export"), "--to", "png"],
        ["inspect", str(out / "p.zarr")],
    ):
        result = runner.invoke(app, command)
        assert result.exit_code == 0, (command, result.output)
        said.append(result.output.replace(str(tmp_path), ""))
    said += [summary.text(), *prepared.about_patients(), str(prepared.layout.left_out)]
    assert not planted_in(out)
    assert not re.search("|".join(PLANTED), " ".join(said), re.IGNORECASE)
    store = open_pairs(out / "p.zarr")
    names = [str(view.attributes["patient"]) for view in store.slides.values()]
    assert all(name.startswith("patient-") for name in names) and len(set(names)) == 3
    assert all(slide_id.startswith("slide-") for slide_id in store.slides)
    (given,) = [
        v.attributes["overridden"] for v in store.slides.values() if "overridden" in v.attributes
    ]
    assert given == ["patient", "group"], "columns, no values; nothing where no row was"
    words = "Overridden by a table (--mpp-override): group of 1 slide(s), patient of 1 slide(s)"
    assert words in (summary.report / "summary.md").read_text()
    page = (out / "report.html").read_text()
    assert "overridden by a table" in page and "patient 1" in page
    labelled = sum(int((view.column("label") == 1).sum()) for view in store.slides.values())
    assert labelled, "the outline is found under a private id too"
    assert verify_store(out / "p.zarr").ok
    with pytest.raises(BuildError, match="begun with --private-ids"):
        build_pairs(prepare(request(source, out)), runner=SerialRunner())


LEVELS = "name: t\nversion: 1\nhr: 40x\nlr: [10x]\nsize: 128\nsampling: {max_per_slide: 4}\n"
IMAGES = (
    "name: t\nversion: 1\nhr: 40x\nlr: [20x]\nsize: 64\ntissue: {method: none}\n"
    "images: {magnification: 40x, stack: STACK}\nlabels: {classes: [normal, tumor]}\n"
)


def write_tiff(path: Path, pixels: np.ndarray, um_per_px: float) -> None:
    density = 1e4 / um_per_px
    tifffile.imwrite(
        path, pixels, tile=(128, 128), photometric="rgb", metadata=None,
        resolution=(density, density), resolutionunit="CENTIMETER",
    )  # fmt: skip


def named_scans(folder: Path) -> None:
    scans = make_scans(ScanSpec(ratio=2, side_px=448, rotation_deg=0.3, seed=8))
    for name, scan, mpp in (("10x", scans.moving, 0.5), ("40x", scans.fixed, 0.25)):
        write_tiff(folder / f"Kowalska PESEL7788_{name}.tif", scan.image, mpp)
    (folder / "pairs.csv").write_text(
        "lr,hr\nKowalska PESEL7788_10x.tif,Kowalska PESEL7788_40x.tif\n"
    )


def named_slides(folder: Path) -> None:
    for seed, name in enumerate(("Kowalska_Anna/PESEL7788 HE.svs", "Kowalska_Jan/b.svs")):
        slide(folder / name, 40 + seed)
    (folder / "Kowalska_Anna/PESEL7788 old.svs").write_bytes(b"no slide at all")


def named_images(folder: Path) -> None:
    for seed, place in enumerate(("Kowalska_Anna/tumor", "Kowalska_Jan/normal")):
        for n in range(2):
            pixels = section(50 + 2 * seed + n)[200:264, 200:264]
            write_image(folder / place / f"PESEL7788 {n}.png", pixels)


KINDS = {
    "levels": (named_slides, LEVELS),
    "scans": (
        named_scans,
        LEVELS.replace("[10x]", "[20x]")
        + "rescan: {}\nregistration: {method: affine}\ntissue: {method: none}\n",
    ),
    "images": (named_images, IMAGES.replace("STACK", "false")),
    "stacks": (named_images, IMAGES.replace("STACK", "true")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_private_record_rebuilds_every_kind_of_source_and_names_nobody(
    kind: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    tree_digest: Callable[[Path], str],
) -> None:
    make, manifest = KINDS[kind]
    source = tmp_path / "StAnna"
    source.mkdir()
    make(source)
    (tmp_path / "m.yaml").write_text(manifest)
    out, again = tmp_path / "out", tmp_path / "again"
    out.mkdir()
    said: list[str] = []

    def report(event: ProgressEvent) -> None:
        said.append(f"{event.item} {event.message}")

    prepared = prepare(
        BuildRequest(
            source=source, output=out / "p.zarr", manifest=tmp_path / "m.yaml", overrides={},
            private_ids=True,
        )
    )  # fmt: skip
    plan = describe_plan(prepared, report, SerialRunner())
    summary = build_pairs(prepared, report, SerialRunner())
    assert summary is not None and sum(summary.pairs.values()) > 0
    (tmp_path / "other.key").write_text("another secret of the test")
    request = BuildRequest(
        source=source, output=again / "p.zarr", overrides={}, patient_key=tmp_path / "other.key"
    )
    rebuilt = rebuild_from(request, out / "p.report/record.json.gz", report, SerialRunner())
    assert tree_digest(again / "p.zarr") == tree_digest(out / "p.zarr")
    store = open_pairs(out / "p.zarr")
    for slide_id, view in store.slides.items():
        assert slide_id.startswith("slide-") and view.attributes["draw_key"] == slide_id
    said += [plan.text, summary.text(), rebuilt.text(), *prepared.about_patients()]
    said += [str(prepared.layout.left_out), *capfd.readouterr()]
    words = (*PLANTED, "Anna", "Jan")
    spoken = " ".join(said).replace(str(tmp_path), "")
    assert not re.search("|".join(words), spoken, re.IGNORECASE)
    for folder in (out, again, Path(os.environ[FOLDER_VARIABLE])):
        assert not planted_in(folder, words)


def test_readable_ids_hold_paths_and_nothing_else_that_names_a_person(
    source: Path, tmp_path: Path
) -> None:
    prepared = prepare(request(source, tmp_path))
    assert any("--private-ids" in line for line in prepared.about_patients())
    summary = build_pairs(prepared, runner=SerialRunner())
    assert summary is not None and summary.slides == 3
    # The path below the source is the id; DICOM, the table and the place of the source are not.
    assert not planted_in(tmp_path, (r"DOE\^", "Jane", "HOSP-4711", "block 3", "StAnna"))
    key = tmp_path / "other.key"
    key.write_text("another secret of the test")
    with pytest.raises(BuildError, match="another key of patient pseudonyms"):
        build_pairs(prepare(request(source, tmp_path, patient_key=key)), runner=SerialRunner())


def test_one_key_finds_a_patient_in_two_stores_and_two_keys_say_that_they_cannot(
    tmp_path: Path,
) -> None:
    for number, place in enumerate(("a", "b", "c")):
        for patient in range(3):
            dicom_slide(
                tmp_path / place / f"{place}{patient}", 10 * number + patient,
                f"HOSP-{patient}", f"1.2.{number}.{patient}",
            )  # fmt: skip
        key = tmp_path / f"{place}.key"
        key.write_text("the second key of the test" if place == "c" else "a secret of the test")
        build_pairs(
            prepare(
                BuildRequest(
                    source=tmp_path / place, output=tmp_path / f"{place}.zarr", patient_key=key,
                    overrides={"hr": "40x", "lr": "10x", "size": 128},
                )
            ),
            runner=SerialRunner(),
        )  # fmt: skip
    same = verify_store(tmp_path / "a.zarr", tmp_path / "b.zarr", deep=False)
    assert sum(f.check == "patients" and "HOSP" not in f.text for f in same.findings) == 3
    other = verify_store(tmp_path / "a.zarr", tmp_path / "c.zarr", deep=False)
    (finding,) = (f for f in other.findings if f.check == "patients")
    assert "different keys" in finding.text and finding.severity == "warning"
