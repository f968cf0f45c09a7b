"""What is planted into an output is found where it was planted, and nothing else is."""

import json
from fractions import Fraction
from pathlib import Path
from uuid import UUID

import cv2
import numpy as np
import pytest
import shapely
import shapely.geometry
import tifffile
from PIL import Image
from test_metrics_trust import BLUE, tissue
from typer.testing import CliRunner
from upscaling_samples import slide_file
from wsisr_cli.main import app

from wsisr.arrays import UInt8Array
from wsisr.degradation import parse_degradation
from wsisr.errors import ConfigError, DegradationError
from wsisr.geometry import Box
from wsisr.inference import load
from wsisr.reporting import write_report
from wsisr.selection.annotation_formats.geojson import feature
from wsisr.upscaling import UpscaleOptions, upscale_slide
from wsisr.upscaling.audit import AuditRequest, AuditResult, audit
from wsisr.upscaling.audit.findings import read_maps
from wsisr.upscaling.audit.misfit import choose, known_part, outside, step_of

UM = 0.5
STAY = [(87, 62), (137, 87)]
DRAWS = np.random.default_rng(4)
# Off their lattice by up to 5 um: in tissue no edges lie in line, and the edges of tiles do.
PLACES = [
    (y + DRAWS.uniform(-5, 5), x + DRAWS.uniform(-5, 5)) if (y, x) not in STAY else (y, x)
    for y in range(12, 200, 25)
    for x in range(12, 200, 25)
]


def big_tissue(places: list[tuple[float, float]]) -> UInt8Array:
    """400 px of tissue at 0.5 um, of four fields."""
    quarters = [
        tissue([(y - oy, x - ox) for y, x in places if oy <= y < oy + 100 and ox <= x < ox + 100])
        for oy in (0, 100)
        for ox in (0, 100)
    ]
    return np.vstack((np.hstack(quarters[:2]), np.hstack(quarters[2:])))


@pytest.fixture(scope="module")
def hr() -> UInt8Array:
    return big_tissue(PLACES)


def examine(
    folder: Path, sr: UInt8Array, hr: UInt8Array, with_hr: bool = False, **more: object
) -> AuditResult:
    """Audit a picture as an output of x2 of its area-reduced HR."""
    lr = cv2.resize(hr, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    dpi = 25_400 / UM
    for name, image, density in (("sr", sr, dpi), ("lr", lr, dpi / 2), ("hr", hr, dpi)):
        Image.fromarray(image).save(folder / f"{name}.tif", dpi=(density, density))
    request = AuditRequest(
        output=folder / "sr.tif",
        lr=folder / "lr.tif",
        hr=folder / "hr.tif" if with_hr else None,
        scale=2.0,
        **more,
    )
    return audit(request)


def suspects(result: AuditResult) -> dict[str, list[shapely.Geometry]]:
    """What is found by its class, after a look with QuPath's eyes (its QuPathTypeAdapters)."""
    document = json.loads((result.folder / "suspect.geojson").read_text(encoding="utf-8"))
    assert document["type"] == "FeatureCollection"
    found: dict[str, list[shapely.Geometry]] = {}
    colours, ids = {}, set()
    for item in document["features"]:
        assert item["type"] == "Feature"
        ids.add(UUID(item["id"]))
        properties = item["properties"]
        assert properties["objectType"] == "annotation"
        # It reads a class by name and colour together, or not at all.
        name, colour = (properties["classification"][key] for key in ("name", "color"))
        assert len(colour) == 3 and all(type(c) is int and 0 <= c <= 255 for c in colour)
        colours[name] = tuple(colour)
        geometry = item["geometry"]
        for ring in geometry["coordinates"] if geometry["type"] == "Polygon" else ():
            assert len(ring) >= 4 and ring[0] == ring[-1]
        shape = shapely.geometry.shape(geometry)
        assert shape.is_valid and not shape.is_empty
        found.setdefault(name, []).append(shape)
    assert len(ids) == len(document["features"]) and len(set(colours.values())) == len(colours)
    return found


def planted(sr: UInt8Array, kind: str) -> tuple[UInt8Array, Box]:
    """A fault in a copy of SR, and its place."""
    made = sr.copy()
    box = Box(x=150, y=240, width=40, height=40)
    part = made[box.y : box.bottom, box.x : box.right]
    if kind == "nucleus pasted":
        cv2.circle(part, (20, 20), 8, BLUE, -1, cv2.LINE_AA)
    elif kind == "nucleus removed":
        box = Box(x=114, y=164, width=20, height=20)  # one is at (87, 62) um
        made[box.y : box.bottom, box.x : box.right] = np.median(sr, axis=(0, 1))
    elif kind == "colour cast":
        part[:] = np.clip(part + np.array((8, 0, -8)), 0, 255)
    elif kind == "texture swapped":
        # Not the same nuclei a period further on.
        part[:] = made[30:70, 20:60][::-1]
    elif kind == "shift":
        part[:] = made[box.y + 4 : box.bottom + 4, box.x + 4 : box.right + 4]
    return made, box


KINDS = ["nucleus pasted", "nucleus removed", "colour cast", "texture swapped", "shift"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_fault_is_found_where_it_is_and_nothing_else(
    kind: str, hr: UInt8Array, tmp_path: Path
) -> None:
    sr, box = planted(hr, kind)
    result = examine(tmp_path, sr, hr, degradation="area")
    pieces = suspects(result)["Contradicts the input"]
    place = shapely.box(box.x, box.y, box.right, box.bottom)
    assert shapely.union_all(pieces).intersects(place)
    # A place is 32 output px a side.
    assert all(piece.distance(place) <= 32 for piece in pieces)
    named = json.loads((result.folder / "suspect.geojson").read_text())["features"]
    most = max(float(item["properties"]["name"].removeprefix("misfit ")) for item in named)
    assert most == pytest.approx(read_maps(result.folder)["misfit"].max(), abs=0.01)
    assert 0 < result.inconsistent < 12


def test_a_perfect_output_and_a_blurred_one_contradict_nothing(
    hr: UInt8Array, tmp_path: Path
) -> None:
    result = examine(tmp_path, hr, hr)
    assert result.inconsistent == 0 and result.places == 13 * 13
    assert suspects(result) == {}
    assert "Looked at through area, assumed" in result.text()
    assert "finer slide (--hr)" in result.text() and "WRONG" not in result.text()
    # What all of it has in common is not unlike the rest, and is said all the same.
    tinted = np.clip(hr + np.array((5, 0, 0)), 0, 255).astype(np.uint8)
    assert "WRONG AS A WHOLE" in examine(tmp_path, tinted, hr).text()
    lr = cv2.resize(hr, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    plain = cv2.resize(lr, (400, 400), interpolation=cv2.INTER_CUBIC)
    assert examine(tmp_path, plain, hr).inconsistent == 0


def test_with_a_finer_slide_nuclei_come_and_go_by_name(hr: UInt8Array, tmp_path: Path) -> None:
    sr, box = planted(hr, "nucleus pasted")
    sr, gone = planted(sr, "nucleus removed")
    result = examine(tmp_path, sr, hr, with_hr=True)
    found = suspects(result)
    (appeared,), (vanished,) = found["Nucleus appeared"], found["Nucleus vanished"]
    centre = shapely.Point(box.x + 20.5, box.y + 20.5)
    assert appeared.distance(centre) < 3 and vanished.distance(shapely.Point(125, 175)) < 3
    assert "1 of 64 vanished, 1 of 64 appeared" in result.text()
    with tifffile.TiffFile(result.folder / "map.ome.tiff") as file:
        assert file.is_ome and 'PhysicalSizeX="16"' in (file.ome_metadata or "")
        assert file.series[0].axes == "CYX" and file.series[0].shape == (5, 13, 13)
        values = file.series[0].asarray()[4]
    assert list(read_maps(result.folder)) == [
        "misfit", "beyond", "improvement", "omission", "hallucination"
    ]  # fmt: skip
    row, column = (box.y + 20) // 32, (box.x + 20) // 32
    assert values.shape == (13, 13) and values[row, column] > 0.5
    assert gone.width == 20
    rows = (result.folder / "places.csv").read_text().splitlines()
    assert rows[0].startswith("x,y,width,height,misfit_mean") and len(rows) == 2
    written = json.loads((result.folder / "audit.json").read_text())
    assert written["inconsistent"] == result.inconsistent and written["output"] == "sr.tif"
    assert str(tmp_path) not in (result.folder / "audit.json").read_text()


@pytest.mark.parametrize(
    ("scale", "region"), [(2.0, None), (2.4, None), (3.0, Box(x=210, y=70, width=403, height=300))]
)
def test_an_output_of_upscale_says_itself_how_it_was_made(
    scale: float, region: Box | None, tmp_path: Path
) -> None:
    source = slide_file(tmp_path / "s.tiff", 700, 500)
    out = tmp_path / "o.ome.tiff"
    options = UpscaleOptions(scale=scale, region=region, compression="deflate", threads=1)
    upscale_slide(source, out, load("bicubic"), options)
    result = audit(AuditRequest(output=out, lr=source))
    assert result.inconsistent == 0 and result.places > 100
    assert "as you said" not in result.text()
    # A px further on it would not be what the input shows.
    with tifffile.TiffFile(out) as file:
        moved = np.roll(file.pages.first.asarray(), 3, axis=1)
    Image.fromarray(moved).save(tmp_path / "moved.tif")
    if region is None:
        wrong = audit(AuditRequest(output=tmp_path / "moved.tif", lr=source, scale=scale))
        x, y = json.loads((wrong.folder / "audit.json").read_text())["whole"]["shift_px"]
        assert (x, y) == pytest.approx((3 / scale, 0), abs=0.1) and "WRONG" in wrong.text()
        assert "as you said" in wrong.text()
    other = slide_file(tmp_path / "other.tiff", 700, 500, seed=3)
    with pytest.raises(ConfigError, match=r"was made from s\.tiff"):
        audit(AuditRequest(output=out, lr=other))
    with pytest.raises(ConfigError, match="made from something else"):
        audit(AuditRequest(output=out, lr=source, scale=4.0))
    with pytest.raises(ConfigError, match="give both, or neither"):
        audit(AuditRequest(output=out, lr=source, magnification=10))
    with pytest.raises(ConfigError, match="give --scale"):
        audit(AuditRequest(output=tmp_path / "moved.tif", lr=source))


def test_scales_are_ratios_of_small_numbers() -> None:
    assert [step_of(s) for s in (2, 2.4, 3.3)] == [2, Fraction(12, 5), Fraction(33, 10)]
    for bad in (2.718281828, 0.5):
        with pytest.raises(ConfigError, match="whole numbers"):
            step_of(bad)


def test_only_the_known_part_of_a_degradation_is_used(hr: UInt8Array) -> None:
    noisy = known_part(parse_degradation("area+sensor:random+jpeg:quality=60"))
    assert noisy is not None and [stage.kind for stage in noisy.stages] == ["area"]
    assert known_part(parse_degradation("realesrgan2:mild")) is None
    lr = cv2.resize(hr, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    with pytest.raises(DegradationError, match="anew for every image"):
        choose([(hr, lr)], 2.0, "realesrgan2", "")
    assert choose([(hr, lr)], 2.0, "", "area").why.startswith("what the model was trained on")
    # What the model was trained on is not what this input went through.
    assert choose([(hr, lr)], 2.0, "", "gaussian:sigma_px=3").why.startswith("assumed: area")
    assert choose([(hr, lr)], 2.0, "", "pyramid").degradation.name == "area"


def test_the_threshold_follows_the_slide() -> None:
    cells = np.abs(np.random.default_rng(0).normal(2, 0.5, (40, 40))).astype(np.float32)
    cells[3, 4] = 9
    inside = np.ones(cells.shape, bool)
    assert 3 < outside(cells, inside) <= 4
    assert outside(cells / 100, inside) == 1.5 and outside(cells * 9, inside) == 4.0
    assert outside(cells, ~inside) == outside(cells, inside)


def write_fault(folder: Path) -> ConfigError:
    with pytest.raises(ConfigError) as fault:
        write_report(folder)
    return fault.value


def test_the_command_prints_the_findings_and_writes_them(hr: UInt8Array, tmp_path: Path) -> None:
    sr, _ = planted(hr, "nucleus pasted")
    examine(tmp_path, sr, hr)
    line = ["audit", str(tmp_path / "sr.tif"), "--lr", str(tmp_path / "lr.tif"), "--scale", "2"]
    done = CliRunner().invoke(app, [*line, "-o", str(tmp_path / "found"), "--threshold", "2"])
    assert done.exit_code == 0, done.output
    assert "above 2.00 grey levels (as given)" in done.output
    names = sorted(p.name for p in (tmp_path / "found").iterdir())
    files = ["audit.json", "index.html", "map.ome.tiff", "places.csv", "suspect.geojson"]
    assert names == [*files, "worst"]
    page = (tmp_path / "found/index.html").read_text()
    assert "Where to trust sr.tif" in page and "Misfit" in page and str(tmp_path) not in page
    assert "places contradict the input" in page and 'class="flicker"' in page
    (tmp_path / "found/index.html").unlink()
    again = CliRunner().invoke(app, ["report", str(tmp_path / "found")])
    assert again.exit_code == 0 and (tmp_path / "found/index.html").read_text() == page
    (tmp_path / "found/audit.json").write_text("{}")
    assert "does not describe an audit" in str(write_fault(tmp_path / "found"))
    one = json.loads((tmp_path / "found/suspect.geojson").read_text())["features"][0]
    assert one.keys() == feature(shapely.box(0, 0, 1, 1), "Tissue", "a").keys()
