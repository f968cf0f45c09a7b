"""The checked door: what a second reader confirms, what it refutes, and what nobody compared."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from slides_samples import box_level, picture, write_dicom, write_pyramid

import wsisr.slides.direct as direct
import wsisr.slides.image as plain
from wsisr import runners
from wsisr.errors import SlideError
from wsisr.slides import find_slides, judge_slide, open_slide, second_readers, selfcheck, verdicts
from wsisr.slides.colour import rgb_to_ycbcr
from wsisr.slides.openslide_backend import OpenSlideStore
from wsisr.slides.tiles import MISSING, Tile


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same slides are judged anew in every test."""
    monkeypatch.setenv("WSISR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    image = picture(600, 500)
    return write_pyramid(
        tmp_path / "a.tif", [image, box_level(image, 2)], compression="jpeg", um_per_px=0.25
    )


def lie(monkeypatch: pytest.MonkeyPatch, store: type, change: Callable[[Tile], Tile]) -> None:
    """Let a reader return changed tiles (OpenSlide: regions)."""
    name = "read" if store is OpenSlideStore else "fetch"
    honest = getattr(store, name)
    monkeypatch.setattr(store, name, lambda self, *place: change(honest(self, *place)))


def rolled(tile: Tile) -> Tile:
    return Tile(np.roll(tile.pixels, 1, axis=1), tile.valid)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_second_reader_paints_no_pixel_that_is_not_compared(
    path, monkeypatch, threads: int
) -> None:
    monkeypatch.setattr(runners, "_threads", threads)
    painted = []
    honest = OpenSlideStore.read

    def read(self, level, x, y, width, height):
        painted.append((width, height))
        return honest(self, level, x, y, width, height)

    monkeypatch.setattr(OpenSlideStore, "read", read)
    verdict = judge_slide(path)
    assert verdict.second == "openslide" and len(painted) == verdict.regions
    assert set(painted) <= {(256, 256), (256, 250)}  # the coarser level is 300 x 250


def test_every_real_slide_agrees_with_its_second_reader(shared_data: Path) -> None:
    seconds = {}
    for source in find_slides(shared_data / "slides"):
        if source.path.name == "broken.svs":
            continue
        verdict = judge_slide(source.path)
        assert verdict.status == "agree", verdict.detail
        assert verdict.regions >= 6 and verdict.max_difference == 0
        seconds[source.path.name] = verdict.second
    assert seconds == {
        "CMU-1-Small-Region.svs": "openslide",
        "camelyon16_lowres_dicom.dcm": "openslide",
        # OpenSlide interpolates some of their levels; the other reader compares those.
        "cmu-1-small-region_dicom": "openslide and pydicom",
        "cmu-1-small-region_dicom_wrongcolour": "openslide and pydicom",
        "derived_cmu_generic_3level.tif": "openslide and tiffslide",
        "kidney-48-5_ihc_flat.tif": "tiffslide",  # OpenSlide does not open flat TIFFs
        "test3-DAPI.ndpi": "openslide",
    }


@pytest.mark.parametrize(
    ("name", "backend", "second"),
    [
        ("CMU-1-Small-Region.svs", "direct", "openslide"),
        ("CMU-1-Small-Region.svs", "tiffslide", "openslide"),
        ("CMU-1-Small-Region.svs", "openslide", "direct"),
        ("cmu-1-small-region_dicom", "dicom", "openslide and pydicom"),
        ("cmu-1-small-region_dicom", "openslide", "dicom"),
        ("kidney-48-5_ihc_flat.tif", "image", "tifffile"),
    ],
)
def test_every_reader_is_the_first_one_of_a_real_slide(
    shared_data: Path, name: str, backend: str, second: str
) -> None:
    path = shared_data / "slides" / name
    verdict = judge_slide(path, backend)
    assert (verdict.status, verdict.reader, verdict.second) == ("agree", backend, second)
    with open_slide(path, backend=backend) as slide:
        assert slide.info.backend == backend and slide.info.verdict is None


def test_a_reader_that_lies_is_replaced_and_the_reason_logged(path, monkeypatch, caplog) -> None:
    lie(monkeypatch, direct.DirectStore, rolled)
    with (
        caplog.at_level(logging.WARNING, logger="wsisr.slides.opening"),
        open_slide(path, mpp=0.3) as slide,
    ):
        verdict = slide.info.verdict
        assert verdict is not None and verdict.status == "differ"
        assert verdict.second == "openslide" and verdict.max_difference > 0
        assert slide.info.backend == verdict.reader == "openslide"
        assert slide.info.mpp is not None and slide.info.mpp.value == 0.3
    assert "READERS DISAGREE: direct and openslide differ" in caplog.text


def test_where_openslide_has_no_say_two_readers_that_differ_are_refused(
    tmp_path, monkeypatch
) -> None:
    flat = tmp_path / "flat.tif"
    tifffile.imwrite(flat, picture(500, 400), rowsperstrip=64)  # OpenSlide opens tiled TIFF only
    assert judge_slide(flat).second == "tiffslide"
    monkeypatch.setattr(verdicts, "reader_versions", lambda: "another")
    lie(monkeypatch, direct.DirectStore, rolled)
    with pytest.raises(SlideError, match=r"direct and tiffslide differ .* nothing tells who"):
        open_slide(flat)


def test_another_size_is_a_disagreement(path, monkeypatch) -> None:
    honest = second_readers.open_with

    def narrow(path, names):
        info, store = honest(path, names)
        base = replace(info.levels[0], width_px=512)
        return replace(info, levels=(base, *info.levels[1:])), store

    monkeypatch.setattr(second_readers, "open_with", narrow)
    verdict = judge_slide(path)
    assert verdict.status == "differ" and verdict.regions == 0
    assert "direct sees 600 x 500 px and openslide 512 x 500 px" in verdict.detail


def test_an_honest_reader_is_kept(path) -> None:
    with open_slide(path) as slide:
        verdict = slide.info.verdict
        assert slide.info.backend == "direct"
        assert verdict is not None and verdict.status == "agree" and verdict.levels == (0, 1)
        assert verdict.line().startswith("direct and openslide agree on every pixel of ")


def test_the_same_seed_looks_at_the_same_places(path) -> None:
    runs = []
    with open_slide(path, backend="direct") as slide:
        level = slide.info.levels[0]
        for seed in (5, 5, 6):
            regions = selfcheck._regions(slide, level, level, seed, 4)
            runs.append([region[:2] for region in regions])
    assert runs[0] == runs[1] != runs[2]


def test_texture_is_compared_before_bare_glass(tmp_path: Path) -> None:
    image = np.full((2048, 2048, 3), 243, np.uint8)
    image[900:1500, 900:1500] = picture(600, 600)
    write_pyramid(tmp_path / "glass.tif", [image], compression="deflate")
    with open_slide(tmp_path / "glass.tif", backend="direct") as slide:
        level = slide.info.levels[0]
        stds = [r[4][..., 1].std() for r in selfcheck._regions(slide, level, level, 0, 6)]
    assert len(stds) == 6 and stds[0] >= selfcheck.MIN_TEXTURE
    assert [s >= selfcheck.MIN_TEXTURE for s in stds] == sorted(
        (s >= selfcheck.MIN_TEXTURE for s in stds), reverse=True
    )


def test_zero_regions_are_no_pass(path, monkeypatch) -> None:
    monkeypatch.setitem(second_readers.SECOND_READERS, "direct", ())
    verdict = judge_slide(path)
    assert verdict.status == "unchecked" and verdict.regions == 0
    assert verdict.line().startswith("UNCHECKED: read by direct alone")


def test_a_slide_on_which_nothing_was_scanned_is_unchecked(path, monkeypatch) -> None:
    lie(monkeypatch, direct.DirectStore, lambda tile: MISSING)
    monkeypatch.setattr(direct.DirectStore, "scanned", lambda *place: False)
    assert judge_slide(path).status == "unchecked"


def test_a_reader_that_believes_the_tag_confirms_the_content_all_the_same(
    shared_data: Path,
) -> None:
    verdict = judge_slide(shared_data / "slides" / "cmu-1-small-region_dicom_wrongcolour")
    assert (verdict.status, verdict.reader) == ("agree", "dicom")
    assert "openslide takes RGB for YCbCr or the reverse" in verdict.detail


def test_false_colours_are_a_difference_where_tag_and_stream_agree(path, monkeypatch) -> None:
    lie(monkeypatch, OpenSlideStore, lambda tile: Tile(rgb_to_ycbcr(tile.pixels), tile.valid))
    assert judge_slide(path).status == "differ"


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_plain_images_are_compared_with_opencv(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(picture(300, 200)).convert(mode)
    image.save(tmp_path / "a.png")
    verdict = judge_slide(tmp_path / "a.png")
    assert (verdict.status, verdict.second) == ("agree", "opencv")


def test_a_plain_image_that_two_decoders_show_differently_is_refused(tmp_path, monkeypatch) -> None:
    Image.fromarray(picture(300, 200)).save(tmp_path / "a.png")
    lie(monkeypatch, plain.ImageStore, rolled)
    with pytest.raises(SlideError, match="image and opencv differ"):
        open_slide(tmp_path / "a.png")


def test_the_verdict_is_kept_for_a_content_and_for_the_versions_of_its_readers(
    path, cache, monkeypatch
) -> None:
    first = judge_slide(path)
    (file,) = cache.rglob("*.json")
    assert path.name not in file.read_text() and str(path.parent) not in file.read_text()

    def never(*arguments, **settings):
        raise AssertionError("judged again")

    monkeypatch.setattr(selfcheck, "judge", never)
    copy = path.with_name("copy.tif")
    copy.write_bytes(path.read_bytes())
    assert judge_slide(copy) == first
    monkeypatch.setattr(verdicts, "reader_versions", lambda: "an upgraded library")
    with pytest.raises(AssertionError, match="judged again"):
        judge_slide(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"status": "agree"}', '{"levels": 3}'])
def test_a_damaged_kept_verdict_is_computed_again(path, cache, text) -> None:
    first = judge_slide(path)
    (file,) = cache.rglob("*.json")
    file.write_text(text)
    assert judge_slide(path) == first
    assert json.loads(file.read_text())["status"] == "agree"


def test_a_kept_verdict_names_no_reader_of_its_own(path, cache) -> None:
    judge_slide(path)
    (file,) = cache.rglob("*.json")
    body = json.loads(file.read_text())
    file.write_text(json.dumps(body | {"reader": "os"}))
    with open_slide(path) as slide:
        assert slide.info.backend == "direct"


def test_a_cache_that_cannot_be_written_is_no_error(path, tmp_path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("WSISR_CACHE", str(tmp_path / "file" / "cache"))
    with open_slide(path) as slide:
        assert slide.info.verdict is not None and slide.info.verdict.status == "agree"


def test_a_damaged_tile_does_not_forbid_the_slide(tmp_path: Path) -> None:
    image = picture(900, 900)
    path = write_pyramid(tmp_path / "a.tif", [image], compression="deflate", um_per_px=0.25)
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages[0].dataoffsets[5]
    data = bytearray(path.read_bytes())
    data[place : place + 40] = b"\0" * 40
    path.write_bytes(data)
    with open_slide(path) as slide:
        assert slide.info.verdict is not None and slide.info.verdict.status == "agree"
        with pytest.raises(SlideError, match="row 1, column 1"):
            slide.read_level(0, 300, 300, 10, 10)


def test_pydicom_checks_what_openslide_does_not_open(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", picture(300, 200))
    verdict = judge_slide(path)
    assert verdict.status == "agree" and verdict.regions > 0
