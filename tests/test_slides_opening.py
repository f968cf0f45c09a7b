"""Opening: which reader is chosen, what a damaged or hostile file says, and copies in processes."""

import multiprocessing
import pickle
import struct
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from slides_samples import box_level, picture, write_dicom, write_pyramid

from wsisr.errors import MppError, SlideError
from wsisr.slides import Slide, open_slide


@pytest.fixture(scope="module")
def tiff(tmp_path_factory) -> Path:
    image = picture(900, 700)
    return write_pyramid(
        tmp_path_factory.mktemp("slides") / "a.tif",
        [image, box_level(image, 2)],
        compression="jpeg",
        quality=85,
        um_per_px=0.25,
    )


def corner(slide: Slide) -> np.ndarray:
    return slide.read_level(1, 100, 50, 200, 150)


def test_best_reader_first(shared_data: Path) -> None:
    slides = shared_data / "slides"
    chosen = {
        "CMU-1-Small-Region.svs": ("direct", "aperio"),
        "derived_cmu_generic_3level.tif": ("direct", "generic-tiff"),
        "test3-DAPI.ndpi": ("direct", "hamamatsu"),
        "kidney-48-5_ihc_flat.tif": ("direct", "generic-tiff"),
        "cmu-1-small-region_dicom": ("dicom", "dicom"),
    }
    for name, expected in chosen.items():
        with open_slide(slides / name) as slide:
            assert (slide.info.backend, slide.info.vendor) == expected
            assert isinstance(slide, Slide)


def test_mpp_of_the_real_files_with_source(shared_data: Path) -> None:
    slides = shared_data / "slides"
    stated = {
        "CMU-1-Small-Region.svs": (0.499, "vendor tag", "stated"),
        "derived_cmu_generic_3level.tif": (0.499, "tiff resolution", "derived"),
        "test3-DAPI.ndpi": (0.228175, "vendor tag", "stated"),
        "camelyon16_lowres_dicom.dcm": (28.9685, "dicom", "stated"),
    }
    for name, (value, source, quality) in stated.items():
        with open_slide(slides / name) as slide:
            mpp = slide.info.mpp
            assert mpp is not None and mpp.value == pytest.approx(value, rel=1e-5)
            assert (str(mpp.source), str(mpp.quality)) == (source, quality)
    with open_slide(slides / "kidney-48-5_ihc_flat.tif") as slide:
        assert slide.info.mpp is None
        assert "--mpp-override" in slide.info.mpp_problem


def test_override_replaces_the_resolution(tiff: Path) -> None:
    with open_slide(tiff, mpp=0.5) as slide:
        assert slide.info.mpp is not None
        assert (slide.info.mpp.value, str(slide.info.mpp.source)) == (0.5, "override")
    with pytest.raises(MppError):
        open_slide(tiff, mpp=500.0)


def test_unknown_words_are_refused(tiff: Path) -> None:
    with pytest.raises(SlideError, match="no reader 'magic'"):
        open_slide(tiff, backend="magic")
    with pytest.raises(SlideError, match="icc"):
        open_slide(tiff, icc="rgb")  # type: ignore[arg-type]


def test_missing_empty_folder_and_text(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="no such file"):
        open_slide(tmp_path / "none.svs")
    with pytest.raises(SlideError, match="no slide"):
        open_slide(tmp_path)
    empty = tmp_path / "empty.svs"
    empty.touch()
    with pytest.raises(SlideError, match="0 bytes"):
        open_slide(empty)
    text = tmp_path / "text.svs"
    text.write_text("hello")
    with pytest.raises(SlideError, match=r"text\.svs.*named \.svs but is no TIFF"):
        open_slide(text)


def test_real_broken_file(shared_data: Path) -> None:
    with pytest.raises(SlideError, match=r"broken\.svs: not a slide"):
        open_slide(shared_data / "slides" / "broken.svs")


@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "test3-DAPI.ndpi"])
@pytest.mark.parametrize("share", [0.0001, 0.3, 0.98, 0.999])
def test_a_truncated_slide_never_opens(
    shared_data: Path, tmp_path: Path, name: str, share: float
) -> None:
    data = (shared_data / "slides" / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(SlideError, match="copy it again"):
        open_slide(path)


@pytest.mark.parametrize("kind", ["jpeg", "lzw", "dicom"])
def test_damaged_bytes_are_read_or_refused_never_anything_else(tmp_path: Path, kind: str) -> None:
    image = picture(300, 200)
    if kind == "dicom":
        path = write_dicom(tmp_path / "a.dcm", image)
    else:
        path = write_pyramid(tmp_path / "a.tif", [image, box_level(image, 2)], compression=kind)
    sound = path.read_bytes()
    rng = np.random.default_rng(7)
    refused = 0
    for _ in range(40):
        data = bytearray(sound)
        for _ in range(3):
            anywhere = rng.random() < 0.3
            data[int(rng.integers(0, len(data) if anywhere else 500))] = int(rng.integers(256))
        path.write_bytes(data)
        try:
            with open_slide(path, cache_mib=4) as slide:
                level = slide.info.levels[0]
                slide.read_level(0, 0, 0, min(level.width_px, 300), min(level.height_px, 200))
        except SlideError as error:
            refused += 1
            assert path.name in str(error)
    assert refused > 3


def hostile_tiff(path: Path, width: int, height: int, tile: int, count: int) -> Path:
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 2), (277, 3)]
    entries = [(tag, 4, 1, value) for tag, value in tags]
    if tile:
        entries += [(322, 4, 1, tile), (323, 4, 1, tile), (324, 4, count, 8), (325, 4, count, 9)]
    else:
        entries += [(273, 4, count, 8), (278, 4, 1, height), (279, 4, count, 9)]
    data = b"II*\0" + struct.pack("<IH", 8, len(entries))
    data += b"".join(struct.pack("<HHII", *entry) for entry in entries) + struct.pack("<I", 0)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("width", "tile", "count"),
    [(10**9, 256, 1), (10**9, 10**9, 1), (10**9, 256, 4 * 10**9), (10**9, 0, 1), (10**5, 0, 1)],
)
def test_hostile_sizes_are_refused_in_bounded_memory(
    tmp_path: Path, width: int, tile: int, count: int
) -> None:
    path = hostile_tiff(tmp_path / "h.tif", width, width, tile, count)
    before = psutil.Process().memory_info().rss
    with pytest.raises(SlideError, match=r"h\.tif"):
        open_slide(path)
    assert psutil.Process().memory_info().rss - before < 64 << 20


def test_hostile_png_is_refused(tmp_path: Path) -> None:
    import zlib

    path = tmp_path / "h.png"
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    path.write_bytes(data)
    with pytest.raises(SlideError, match=r"h\.png"):
        open_slide(path)


def test_impossible_reads_are_refused(tiff: Path) -> None:
    with open_slide(tiff) as slide:
        for arguments in ((0, 0, 0, 0, 5), (0, 0, 0, 100_000, 100_000), (7, 0, 0, 5, 5)):
            with pytest.raises(SlideError):
                slide.read_level(*arguments)


def test_closing_twice_is_no_error_and_reading_then_is_one(tiff: Path) -> None:
    slide = open_slide(tiff)
    slide.close()
    slide.close()
    with pytest.raises(SlideError, match="closed"):
        slide.read_level(0, 0, 0, 5, 5)


@pytest.mark.parametrize("backend", ["direct", "tiffslide", "openslide"])
def test_a_pickled_slide_opens_itself_again(tiff: Path, backend: str) -> None:
    with open_slide(tiff, backend=backend, mpp=0.3) as slide:
        copy = pickle.loads(pickle.dumps(slide))  # noqa: S301
        with copy:
            assert copy.info == slide.info
            np.testing.assert_array_equal(corner(copy), corner(slide))


def test_a_slide_travels_to_a_spawned_process(tiff: Path) -> None:
    with (
        open_slide(tiff) as slide,
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        there = pool.submit(corner, slide).result()
        np.testing.assert_array_equal(there, corner(slide))


@pytest.mark.parametrize("backend", ["direct", "tiffslide", "openslide"])
def test_threads_share_a_slide(tiff: Path, backend: str) -> None:
    with open_slide(tiff) as reference:
        expected = reference.read_level(0, 0, 0, 900, 700)
    with open_slide(tiff, backend=backend, cache_mib=1) as slide:
        barrier = threading.Barrier(4)

        def work(seed: int) -> bool:
            rng = np.random.default_rng(seed)
            barrier.wait()
            for _ in range(15):
                x, y = int(rng.integers(0, 800)), int(rng.integers(0, 600))
                got = slide.read_level(0, x, y, 100, 100)
                if not np.array_equal(got, expected[y : y + 100, x : x + 100]):
                    return False
            return True

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(work, range(4)))


def test_fingerprint_is_of_the_content_not_of_the_name(tiff: Path, tmp_path: Path) -> None:
    copy = tmp_path / "renamed.tif"
    copy.write_bytes(tiff.read_bytes())
    other = bytearray(tiff.read_bytes())
    other[200] ^= 1
    changed = tmp_path / "changed.tif"
    changed.write_bytes(other)
    with open_slide(tiff) as first, open_slide(copy) as second:
        assert first.info.fingerprint == second.info.fingerprint
        assert first.info.bytes == len(other)
    from wsisr.slides.fingerprint import fingerprint

    assert fingerprint((changed,)) != fingerprint((tiff,))
