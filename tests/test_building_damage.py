"""A slide with damaged tiles gives the pairs of its sound ones, and too many refuse it."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from skimage.data import immunohistochemistry
from slides_samples import write_pyramid
from vendor_files import write_mirax

from wsisr.building import BuildRequest, build_pairs, prepare
from wsisr.errors import SlideError
from wsisr.runners import SerialRunner
from wsisr.slides import open_slide
from wsisr.slides.faults import DamagedTileError
from wsisr.slides.tiles import check_damage
from wsisr.store import open_pairs

SIDE, TILE = 1024, 256


@pytest.fixture(scope="module")
def tissue() -> np.ndarray:
    return np.tile(immunohistochemistry(), (2, 2, 1))[:SIDE, :SIDE]


def damaged_slide(path: Path, tissue: np.ndarray, tiles: list[int]) -> Path:
    path.parent.mkdir(exist_ok=True)
    write_pyramid(path, [tissue], quality=90, photometric="ycbcr", um_per_px=0.25)
    with tifffile.TiffFile(path) as tiff:
        offsets, counts = tiff.pages[0].dataoffsets, tiff.pages[0].databytecounts
    data = bytearray(path.read_bytes())
    for tile in tiles:
        middle = offsets[tile] + counts[tile] // 2
        data[middle : middle + 2] = b"\xff\xd9"  # the stream ends here
    path.write_bytes(data)
    return path


def test_damage_is_an_error_or_counted(tmp_path: Path, tissue: np.ndarray) -> None:
    path = damaged_slide(tmp_path / "a.tif", tissue, [5])
    with open_slide(path, backend="direct") as slide:
        assert (slide.read_level(0, 0, 0, TILE, TILE) != 255).any()
        with pytest.raises(DamagedTileError, match="row 1, column 1 of level 0"):
            slide.read_level(0, TILE, TILE, 10, 10)
        damage = slide.tolerate()
        assert (slide.read_level(0, TILE - 5, TILE, 10, 10)[:, 5:] == 255).all()
        valid = slide.read_validity(0, TILE - 5, TILE, 10, 10)
        assert valid[:, :5].all() and not valid[:, 5:].any()
        assert list(damage.tiles) == [(0, 1, 1)]
        (line,) = check_damage([slide])
        assert "level 0, row 1, column 1" in line
        for column in range(4):
            damage.tiles[0, 2, column] = "broken"
        with pytest.raises(SlideError, match=r"5 of the .* tiles read are damaged"):
            check_damage([slide])


def test_a_build_drops_and_counts_the_patches(tmp_path: Path, tissue: np.ndarray) -> None:
    damaged_slide(tmp_path / "s" / "few.tif", tissue, [5])
    damaged_slide(tmp_path / "s" / "many.tif", tissue, list(range(2, 12)))
    request = BuildRequest(
        source=tmp_path / "s",
        output=tmp_path / "p.zarr",
        overrides={"size": 128, "hr": "40x", "lr": ["10x"]},
    )
    result = build_pairs(prepare(request), runner=SerialRunner())
    assert result is not None
    store = open_pairs(tmp_path / "p.zarr")
    (slide_id,) = store.slides
    assert slide_id.startswith("few")
    table = store.table()
    on_it = (table["x"] // TILE == 1) & (table["y"] // TILE == 1)
    assert table.rows >= 20 and not on_it.any()
    notes = store.slides[slide_id].attributes["notes"]
    assert any("1 tile(s) are damaged" in note for note in notes)
    assert any(f"Damaged tiles on 1 slide(s), {slide_id} first" in text for text in result.warnings)
    failures = (tmp_path / "p.report" / "failures.csv").read_text()
    assert "tiles read are damaged" in failures and "many" in failures


def test_openslide_goes_on_behind_a_damaged_block(tmp_path: Path, tissue: np.ndarray) -> None:
    """A handle of OpenSlide that met a fault refuses every later read; the slide is not lost."""
    source = tmp_path / "s"
    path = write_mirax(source / "a.mrxs", tissue, side=TILE, kind="JPEG")
    file = source / "a" / "Data0000.dat"
    data = bytearray(file.read_bytes())
    start = [at for at in range(len(data)) if data.startswith(b"\xff\xd8\xff\xe0", at)][5]
    data[start + 4000 : start + 4002] = b"\xff\xd9"  # the stream ends within row 1, column 1
    file.write_bytes(data)
    with open_slide(path) as slide:
        with pytest.raises(DamagedTileError, match="OpenSlide cannot read level 0"):
            slide.read_level(0, 0, 0, 10, 10)
        sound = slide.read_level(0, 600, 600, 300, 300).astype(int)
        assert np.abs(sound - tissue[600:900, 600:900]).mean() < 5
    request = BuildRequest(
        source=source,
        output=tmp_path / "p.zarr",
        overrides={"size": 128, "hr": "40x", "lr": ["10x"], "unchecked": "accept"},
    )
    result = build_pairs(prepare(request), runner=SerialRunner())
    assert result is not None
    table = open_pairs(tmp_path / "p.zarr").table()
    assert table.rows >= 30 and not ((table["x"] < 512) & (table["y"] < 512)).any()
    assert any("Damaged tiles on 1 slide(s)" in text for text in result.warnings)
