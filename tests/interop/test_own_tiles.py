"""The slide's own tiles of a store, read by zarr-python through imagecodecs' codecs."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wsisr.building import BuildRequest, build_pairs, prepare
from wsisr.runners import SerialRunner
from wsisr.testing import SlideSpec, write_slide

pytest.importorskip("imagecodecs.zarr", reason="needs Python 3.12 and a newer imagecodecs")

READ = """
import sys
import imagecodecs.zarr, numpy, zarr
from xxhash import xxh3_64_intdigest
from zarr.registry import get_codec_class
imagecodecs.zarr.register_codecs({"jpeg", "jpeg2k"})
group = zarr.open_group(sys.argv[1], mode="r")["slides"]
for slide, kind in (("a", "Jpeg"), ("b", "Jpeg2k")):
    codec = getattr(imagecodecs.zarr, kind)
    zarr.config.set({f"codecs.imagecodecs_{kind.lower()}": f"{codec.__module__}.{kind}"})
    assert get_codec_class(f"imagecodecs_{kind.lower()}") is codec
    tiles, digests = group[f"{slide}/20x-tiles"][:], group[f"{slide}/tiles/digest"][:]
    assert len(tiles) and [xxh3_64_intdigest(tile.data) for tile in tiles] == digests.tolist()
"""


def test_tiles_decode_to_their_digests(tmp_path: Path) -> None:
    source = tmp_path / "slides"
    source.mkdir()
    spec: dict[str, Any] = {"layout": "generic", "width_px": 800, "height_px": 700, "factors": (1,)}
    write_slide(source / "a.tif", SlideSpec(seed=3, um_per_px=0.5, **spec))
    spec |= {"codec": "jpeg2000", "ycbcr": False}
    write_slide(source / "b.tif", SlideSpec(seed=4, um_per_px=0.5, **spec))
    request = BuildRequest(
        source=source,
        output=tmp_path / "pairs.zarr",
        overrides={"hr": "20x", "lr": "10x", "size": 128},
        codec="slide",
    )
    build_pairs(prepare(request), runner=SerialRunner())
    subprocess.run([sys.executable, "-c", READ, str(request.output)], check=True)
