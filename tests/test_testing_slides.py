"""Whole slides: what is planned is what other libraries read."""

from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from scipy import ndimage
from skimage.registration import phase_cross_correlation

from wsisr.errors import ConfigError
from wsisr.testing import slides
from wsisr.testing.levels import LevelShift
from wsisr.testing.slides import render_level, write_slide
from wsisr.testing.spec import SlideSpec, plan_truth, sparse_spec, spec_around
from wsisr.testing.stored import StoredSlide

LOSSLESS = SlideSpec(
    layout="philips",
    seed=2,
    width_px=1400,
    height_px=1000,
    codec="deflate",
    shifts=(LevelShift(factor=2, x_px=1, y_px=-3), LevelShift(factor=4, x_px=2.3, y_px=0.4)),
)


@pytest.mark.parametrize("layout", ["philips", "aperio", "generic"])
def test_levels_on_disk_are_the_rendered_ones(tmp_path: Path, layout: str) -> None:
    shifts = (LevelShift(factor=4, x_px=2.3, y_px=-5.0),)
    spec = SlideSpec(
        layout=layout,  # type: ignore[arg-type]
        seed=2,
        width_px=799,
        height_px=1301,
        codec="deflate",
        shifts=shifts,
    )
    truth = write_slide(tmp_path / "a.tif", spec)
    stored = StoredSlide(tmp_path / "a.tif", truth)
    assert truth.levels[0].width_px == (1024 if layout == "philips" else 799)
    for level in truth.levels:
        whole = (level.index, 0, 0, level.width_px, level.height_px)
        rgb, valid = stored.read(*whole)
        np.testing.assert_array_equal(rgb, render_level(truth, *whole))
        assert valid.all()


@pytest.mark.parametrize(
    ("layout", "vendor"),
    [("philips", "philips"), ("aperio", "aperio"), ("generic", "generic-tiff")],
)
def test_openslide_recognises_the_vendor(tmp_path: Path, layout: str, vendor: str) -> None:
    spec = SlideSpec(layout=layout, seed=3, width_px=1537, height_px=1100)  # type: ignore[arg-type]
    path = tmp_path / ("a.svs" if layout == "aperio" else "a.tif")
    truth = write_slide(path, spec)
    stored = StoredSlide(path, truth)
    with openslide.OpenSlide(path) as slide:
        properties = slide.properties
        assert properties["openslide.vendor"] == vendor
        assert float(properties["openslide.mpp-x"]) == pytest.approx(0.243, rel=1e-3)
        assert ("openslide.objective-power" in properties) == (layout == "aperio")
        sizes = [(level.width_px, level.height_px) for level in truth.levels]
        assert list(slide.level_dimensions) == sizes
        named = {"philips": {"label", "macro"}, "aperio": {"label", "macro", "thumbnail"}}
        assert set(slide.associated_images) == named.get(layout, set())
        region = np.asarray(slide.read_region((700, 500), 0, (300, 260)))[..., :3]
    np.testing.assert_array_equal(region, stored.read(0, 700, 500, 300, 260)[0])


def test_philips_levels_are_padded_to_tiles_and_the_size_ratio_misleads() -> None:
    truth = plan_truth(SlideSpec(layout="philips", width_px=6144, height_px=6144), "a.tif")
    level = truth.levels[3]
    assert (level.factor, level.width_px, level.stored_width_px) == (8, 768, 1024)


def test_same_settings_same_bytes(tmp_path: Path) -> None:
    spec = SlideSpec(layout="generic", seed=4, width_px=700, height_px=500)
    for name in ("a.tif", "b.tif"):
        write_slide(tmp_path / name, spec)
    first, second = ((tmp_path / n).read_bytes() for n in ("a.tif", "b.tif"))
    assert first == second


def test_block_size_does_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_slide(tmp_path / "a.tif", LOSSLESS)
    monkeypatch.setattr("wsisr.testing.slides.BLOCK_PX", 512)
    truth = write_slide(tmp_path / "b.tif", LOSSLESS)
    first, second = (StoredSlide(tmp_path / n, truth) for n in ("a.tif", "b.tif"))
    for level in truth.levels:
        whole = (level.index, 0, 0, level.width_px, level.height_px)
        np.testing.assert_array_equal(first.read(*whole)[0], second.read(*whole)[0])


def test_only_tiles_under_work_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsisr.testing.slides.BLOCK_PX", 256)
    held: list[list[int]] = []
    flush = slides._TileStore.flush

    def watched(store: slides._TileStore, right_px: int, bottom_px: int) -> None:
        flush(store, right_px, bottom_px)
        held.append([len(tiles) for tiles in store._open])

    monkeypatch.setattr(slides._TileStore, "flush", watched)
    spec = SlideSpec(
        layout="generic", width_px=2400, height_px=600, tile_px=64, factors=(1, 4, 16), quality=50
    )
    write_slide(tmp_path / "a.tif", spec)
    most = np.max(held, axis=0)
    assert most[0] == most[1] == 0  # complete with their block
    assert 0 < most[2] <= 3  # one row of tiles of 1,024 level-0 px
    assert held[-1] == [0, 0, 0]


@pytest.mark.parametrize("shift", [(3.0, -2.0), (2.37, -1.61), (-0.25, 0.5)])
def test_planted_shifts_are_found_by_phase_correlation(shift: tuple[float, float]) -> None:
    spec = SlideSpec(
        layout="generic",
        seed=4,
        width_px=2000,
        height_px=1800,
        factors=(1, 4),
        shifts=(LevelShift(factor=4, x_px=shift[0], y_px=shift[1]),),
    )
    truth = plan_truth(spec, "a.tif")
    errors = []
    for x, y in ((500, 500), (800, 700)):
        fine = render_level(truth, 0, x, y, 768, 768).mean(-1)
        coarse = render_level(truth, 1, x // 4, y // 4, 192, 192).mean(-1)
        boxed = fine.reshape(192, 4, 192, 4).mean((1, 3))
        window = np.outer(np.hanning(192), np.hanning(192))
        found, _, _ = phase_cross_correlation(
            ndimage.gaussian_laplace(boxed, 1.0) * window,
            ndimage.gaussian_laplace(coarse, 1.0) * window,
            normalization=None,
            upsample_factor=400,
        )
        errors.append(np.hypot(4 * found[1] - shift[0], 4 * found[0] - shift[1]))
    assert max(errors) < 0.05  # level-0 px


def test_missing_and_shared_background(tmp_path: Path) -> None:
    sizes = {}
    for background in ("encoded", "shared", "missing"):
        spec = SlideSpec(
            layout="generic",
            seed=1,
            width_px=2000,
            height_px=1500,
            tissue=(((900.0, 600.0), (1100.0, 600.0), (1000.0, 760.0)),),
            background=background,  # type: ignore[arg-type]
        )
        path = tmp_path / f"{background}.tif"
        stored = StoredSlide(path, write_slide(path, spec))
        sizes[background] = path.stat().st_size
        rgb, valid = stored.read(0, 0, 0, 200, 200)
        assert valid.all() == (background != "missing") and (rgb > 238).all()
        rgb, valid = stored.read(0, 980, 640, 40, 40)
        assert valid.all() and rgb[..., 1].mean() < 200
    assert sizes["encoded"] > 1.3 * sizes["shared"] and sizes["shared"] >= sizes["missing"]


def test_wrong_and_missing_resolution(tmp_path: Path) -> None:
    for stated in (None, 0.5):
        # OpenSlide opens no Philips file whose levels state no spacing.
        for layout in ("aperio", "generic") if stated is None else ("philips", "aperio", "generic"):
            spec = SlideSpec(
                layout=layout,  # type: ignore[arg-type]
                width_px=600,
                height_px=500,
                stated_um_per_px=stated,
                blank=True,
            )
            path = tmp_path / f"{layout}.tif"
            assert write_slide(path, spec).stated_um_per_px == stated
            with openslide.OpenSlide(path) as slide:
                found = slide.properties.get("openslide.mpp-x")
            assert (None if found is None else round(float(found), 4)) == stated


def test_huge_sparse_slide(tmp_path: Path) -> None:
    spec = sparse_spec(islands=2, island_px=900.0, layout="generic")
    path = tmp_path / "huge.tif"
    truth = write_slide(path, spec)
    assert (truth.width_px, truth.height_px) == (100_000, 100_000)
    assert path.stat().st_size < 25_000_000
    stored = StoredSlide(path, truth)
    for ring in truth.scene.tissue:
        x, y = (int(v) for v in np.mean(ring, axis=0))
        for level in truth.levels[:4]:
            box = (level.index, x // level.factor - 20, y // level.factor - 20, 40, 40)
            rgb, valid = stored.read(*box)
            assert valid.all()
            difference = rgb.astype(int) - render_level(truth, *box)
            assert np.abs(difference).mean() < 8  # JPEG alone
    far = np.max(truth.scene.tissue[0], axis=0)
    assert (far > 99_000).all()  # one island lies where wrong downsamples show most


def test_icc_and_bigtiff(tmp_path: Path) -> None:
    path = tmp_path / "a.svs"
    spec = SlideSpec(
        layout="aperio", width_px=600, height_px=500, icc=b"profile" * 30, big_tiff=True
    )
    truth = write_slide(path, spec)
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff and file.is_svs
        assert len(file.pages[0].tags["InterColorProfile"].value) == truth.icc_bytes == 210
        assert "MPP = 0.2430" in file.pages[0].description


@pytest.mark.parametrize(
    "wrong",
    [
        {"factors": (2, 4)},
        {"factors": (1, 4, 2)},
        {"tile_px": 250},
        {"shifts": (LevelShift(factor=3),)},
    ],
)
def test_contradictory_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        plan_truth(SlideSpec(**wrong), "a.tif")  # type: ignore[arg-type]


def test_slide_around_given_coordinates() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform((40_000, 60_000), (46_000, 63_000), (300, 2))
    ring = ((41_000.0, 60_500.0), (43_000.0, 60_500.0), (43_000.0, 62_000.0))
    spec = spec_around(points, tumour=(ring,))
    truth = plan_truth(spec, "a.tif")
    boxes = np.column_stack([points - 500, np.full((300, 2), 1000)])
    assert truth.tissue_fraction(boxes).min() > 0.999
    assert truth.width_px > points[:, 0].max() + 1000
    assert truth.tissue_area.area < 1.6 * (7_400 * 4_400)
    assert truth.tumour_area.area == pytest.approx(2_000 * 1_500 / 2)
