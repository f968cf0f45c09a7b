"""An output against the slide that its input was made from; and the page that shows both."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from upscaling_samples import slide_file

from wsisr.arrays import UInt8Array
from wsisr.errors import ConfigError, MppError, SlideError
from wsisr.geometry import Box
from wsisr.inference import load
from wsisr.upscaling import UpscaleOptions, UpscaleRequest, upscale, upscale_slide
from wsisr.upscaling.compare import (
    REGION_PX,
    VIEW_PX,
    compare_slides,
    regions_to_score,
    viewed_part,
)
from wsisr.upscaling.viewer_folder import ViewerPicture, write_viewer


def test_metrics_by_region_map_and_viewer(tmp_path: Path) -> None:
    source = slide_file(tmp_path / "s.tiff", 900, 700)
    out = tmp_path / "o.ome.tiff"
    options = UpscaleOptions(scale=2.0, magnification=10.0, compression="zstd")
    request = UpscaleRequest(
        source=source, output=out, model="bicubic", options=options, compare=source
    )
    upscale(request)
    folder = tmp_path / "o.ome.tiff.compare"
    with open(folder / "regions.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(r["x"], r["y"], r["width"]) for r in rows] == [
        ("0", "0", "512"),
        ("512", "0", "388"),
        ("0", "512", "512"),
        ("512", "512", "388"),
    ]
    for row in rows:  # the output is bicubic and lossless, so both columns agree
        assert float(row["psnr_rgb"]) == pytest.approx(float(row["bicubic_psnr_rgb"]), abs=0.01)
        assert 20 < float(row["psnr_rgb"]) < 60 and 0 < float(row["ssim_rgb"]) < 1
    with Image.open(folder / "difference.png") as picture:
        assert picture.width >= 900
    viewer = folder / "viewer"
    images = json.loads(re.sub(r"^const COMPARE = |;\n$", "", (viewer / "images.js").read_text()))
    assert [i["name"] for i in images["images"]] == ["bicubic x2", "real", "input, bicubic"]
    assert {(i["width"], i["height"]) for i in images["images"]} == {(900, 700)}
    real = np.asarray(Image.open(viewer / "image-1" / "0" / "1_1.jpg")).astype(int)
    level0 = _level0(source).astype(int)
    errors = {
        (dx, dy): np.abs(real - level0[256 + dy : 512 + dy, 256 + dx : 512 + dx]).mean()
        for dx in (-1, 0, 1)
        for dy in (-1, 0, 1)
    }
    assert min(errors, key=lambda shift: errors[shift]) == (0, 0)


def test_bare_glass_is_scored_only_where_there_is_nothing_else() -> None:
    roomy, narrow = {"width": 512, "height": 512}, {"width": 512, "height": 20}
    assert regions_to_score([60.0, 1.0, 6.0, 70.0], [roomy, roomy, roomy, narrow]) == [0, 2]
    assert regions_to_score([1.0, 2.0, 60.0], [roomy, roomy, narrow]) == [0, 1]


def _level0(path: Path) -> UInt8Array:
    from wsisr.slides import open_slide

    with open_slide(path) as slide:
        level = slide.info.levels[0]
        return slide.read_level(0, 0, 0, level.width_px, level.height_px)


def test_the_viewer_has_all_tiles_of_all_levels_and_asks_no_network(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 255, (300, 1100, 3), dtype=np.uint8)
    small = rgb[::4, ::4]
    index = write_viewer(
        tmp_path / "v",
        (ViewerPicture(name="a", rgb=rgb), ViewerPicture(name="</script>", rgb=small)),
        title="t",
        note="n",
    )
    levels = sorted((tmp_path / "v" / "image-0").iterdir())
    assert [len(list(level.iterdir())) for level in levels] == [10, 3, 2, 1][: len(levels)]
    assert len(levels) == 4 and len(list((tmp_path / "v" / "image-1").iterdir())) == 2
    with Image.open(tmp_path / "v" / "image-0" / "1" / "2_0.jpg") as tile:
        assert tile.size == (550 - 512, 150)
    page = index.read_text() + (index.parent / "viewer.js").read_text()
    assert not re.findall(r"https?://|//[a-z]+\.|integrity=|fetch\(", page)
    for name in re.findall(r'src="([^"]+)"', index.read_text()):
        assert (index.parent / name).is_file()
    assert "Copyright" in (index.parent / "openseadragon.LICENSE.txt").read_text()
    assert (
        write_viewer(tmp_path / "v", (ViewerPicture(name="a", rgb=small),), title="", note="")
        == index
    )
    assert not (tmp_path / "v" / "image-1").exists()


def test_a_large_output_is_shown_where_it_has_most_texture() -> None:
    width, height = VIEW_PX + 3000, VIEW_PX + 1000
    columns, rows = -(-width // REGION_PX), -(-height // REGION_PX)
    boxes = [
        Box(x=x * REGION_PX, y=y * REGION_PX, width=REGION_PX, height=REGION_PX)
        for y in range(rows)
        for x in range(columns)
    ]
    texture = [float(box.x >= 3000 and box.y >= 512) for box in boxes]
    part = viewed_part(width, height, boxes, texture)
    assert part.x == 3072 and part.y >= 512 and part.right <= width and part.bottom <= height
    assert viewed_part(100, 50, boxes[:1], [1.0]) == Box(x=0, y=0, width=100, height=50)


def test_a_slide_of_another_field_or_too_coarse_is_refused(tmp_path: Path) -> None:
    source = slide_file(tmp_path / "s.tiff", 600, 500)
    out = tmp_path / "o.ome.tiff"
    result = upscale_slide(source, out, load("bicubic"), UpscaleOptions(scale=2.0))

    def against(finer: Path) -> None:
        compare_slides(source, result, finer)

    with pytest.raises(SlideError, match="coarser than the output"):
        against(source)
    with pytest.raises(SlideError, match="not the same field"):
        against(slide_file(tmp_path / "other.tiff", 900, 500, um_per_px=0.25))
    with pytest.raises(MppError, match="--compare needs its resolution"):
        against(slide_file(tmp_path / "none.tiff", 1200, 1000, um_per_px=None))
    request = UpscaleRequest(source=tmp_path, output=tmp_path / "d", model="bicubic", compare=out)
    with pytest.raises(ConfigError, match="one slide"):
        upscale(request)
