"""The direct TIFF reader: stored pixels bit for bit, and honest about what is missing."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import tifffile
from slides_samples import box_level, picture, tiles_of, whole, write_aperio, write_pyramid

from wsisr.errors import SlideError
from wsisr.slides import open_slide

OPENSLIDE_READS = {"jpeg", "lzw", "deflate", "none"}


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return picture(1333, 1111)


@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "derived_cmu_generic_3level.tif"])
def test_real_levels_equal_tifffile(shared_data: Path, name: str) -> None:
    path = shared_data / "slides" / name
    with open_slide(path) as slide, tifffile.TiffFile(path) as tiff:
        assert slide.info.backend == "direct"
        levels = tiff.series[0].levels
        assert len(levels) == len(slide.info.levels)
        for index, level in enumerate(levels):
            np.testing.assert_array_equal(whole(slide, index), level.asarray())


@pytest.mark.parametrize(
    "name", ["CMU-1-Small-Region.svs", "derived_cmu_generic_3level.tif", "test3-DAPI.ndpi"]
)
def test_real_level_0_equals_openslide_at_any_position(shared_data: Path, name: str) -> None:
    path = shared_data / "slides" / name
    rng = np.random.default_rng(1)
    with open_slide(path) as ours, open_slide(path, backend="openslide") as theirs:
        info = ours.info.levels[0]
        for _ in range(6):
            x = int(rng.integers(-40, info.width_px - 200))
            y = int(rng.integers(-40, info.height_px - 200))
            np.testing.assert_array_equal(
                ours.read_level(0, x, y, 321, 277), theirs.read_level(0, x, y, 321, 277)
            )
            np.testing.assert_array_equal(
                ours.read_validity(0, x, y, 321, 277), theirs.read_validity(0, x, y, 321, 277)
            )


def test_real_ndpi_levels_equal_openslide(shared_data: Path) -> None:
    path = shared_data / "slides" / "test3-DAPI.ndpi"
    with open_slide(path) as ours, open_slide(path, backend="openslide") as theirs:
        assert ours.info.backend == "direct"
        for level in ours.info.levels[1:]:
            other = theirs.info.levels[level.index]
            assert other.exact and (other.width_px, other.height_px) == (
                level.width_px,
                level.height_px,
            )
            np.testing.assert_array_equal(whole(ours, level.index), whole(theirs, level.index))


@pytest.mark.parametrize(
    ("compression", "photometric", "subsampling", "predictor"),
    [
        (None, "rgb", None, False),
        ("lzw", "rgb", None, True),
        ("lzw", "rgb", None, False),
        ("deflate", "rgb", None, True),
        ("zstd", "rgb", None, True),
        ("packbits", "rgb", None, False),
        ("webp", "rgb", None, False),
        ("jpeg", "rgb", (1, 1), False),
        ("jpeg", "ycbcr", (1, 1), False),
        ("jpeg", "ycbcr", (2, 1), False),
        ("jpeg", "ycbcr", (2, 2), False),
        ("jpeg2000", "rgb", None, False),
    ],
)
def test_every_codec_equals_tifffile_and_openslide(
    tmp_path: Path, image, compression, photometric, subsampling, predictor
) -> None:
    path = write_pyramid(
        tmp_path / "a.tif",
        [image, box_level(image, 2)],
        compression=compression,
        quality=80 if compression == "jpeg" else None,
        photometric=photometric,
        subsampling=subsampling,
        predictor=predictor,
    )
    with open_slide(path, backend="direct") as slide:
        for level in (0, 1):
            np.testing.assert_array_equal(whole(slide, level), tifffile.imread(path, key=level))
        if (compression or "none") in OPENSLIDE_READS:
            with open_slide(path, backend="openslide") as theirs:
                np.testing.assert_array_equal(whole(slide), whole(theirs))


def test_levels_of_odd_size_are_read_on_their_own_grid(tmp_path: Path) -> None:
    # 4443 -> 2221: the reported ratio is 2.00045, and dividing by it drifts to the far edge.
    image = picture(4443, 300)
    half = box_level(image, 2)
    path = write_pyramid(tmp_path / "odd.tif", [image, half], compression="deflate")
    for backend in ("direct", "tiffslide"):
        with open_slide(path, backend=backend) as slide:
            assert slide.info.levels[1].factor == 2
            assert slide.info.levels[1].exact
            for x in (0, 1, 777, 2221 - 64):
                got = slide.read_level(1, x, 20, 64, 64)
                np.testing.assert_array_equal(got, half[20:84, x : x + 64])
    with open_slide(path, backend="openslide") as slide:
        # OpenSlide interpolates there, and says so.
        assert not slide.info.levels[1].exact
        assert "interpolates" in " ".join(slide.info.quirks)
        assert (slide.read_level(1, 2100, 20, 64, 64) != half[20:84, 2100:2164]).any()


def test_missing_tiles_are_white_and_invalid(tmp_path: Path, image) -> None:
    path = write_pyramid(
        tmp_path / "m.tif",
        [image],
        compression="jpeg",
        quality=90,
        photometric="ycbcr",
        subsampling=(2, 2),
        missing={3, 7},
    )
    with open_slide(path) as slide:
        # Tiles 3 and 7 of 6 across: columns 3 of row 0 and 1 of row 1.
        assert (slide.read_level(0, 768, 0, 256, 256) == 255).all()
        assert not slide.read_validity(0, 768, 0, 256, 256).any()
        edge = slide.read_validity(0, 760, 0, 16, 4)
        assert edge[:, :8].all() and not edge[:, 8:].any()
        assert slide.read_validity(0, 0, 0, 256, 256).all()
        assert "never scanned" in slide.info.quirks[0]
        with open_slide(path, backend="openslide") as theirs:
            np.testing.assert_array_equal(whole(slide), whole(theirs))
            validity = (0, 0, 0, 1333, 1111)
            np.testing.assert_array_equal(
                slide.read_validity(*validity), theirs.read_validity(*validity)
            )


def test_outside_is_white_and_invalid(tmp_path: Path, image) -> None:
    path = write_pyramid(tmp_path / "a.tif", [image], compression="deflate")
    with open_slide(path) as slide:
        got = slide.read_level(0, -10, 1100, 30, 30)
        valid = slide.read_validity(0, -10, 1100, 30, 30)
        np.testing.assert_array_equal(got[:11, 10:], image[1100:, :20])
        assert valid[:11, 10:].all() and valid.sum() == 11 * 20
        assert (got[~valid] == 255).all()
        far = slide.read_level(0, 50_000, 50_000, 8, 8)
        assert (far == 255).all()
        assert not slide.read_validity(0, 50_000, 50_000, 8, 8).any()


@pytest.mark.parametrize("rows", [1, 37, 1111])
def test_stripped_tiff(tmp_path: Path, image, rows: int) -> None:
    path = tmp_path / "s.tif"
    tifffile.imwrite(
        path, image, photometric="rgb", rowsperstrip=rows, compression="lzw", predictor=True
    )
    with open_slide(path) as slide:
        assert slide.info.backend == "direct"
        np.testing.assert_array_equal(whole(slide), image)
        np.testing.assert_array_equal(slide.read_level(0, 5, 30, 9, 40), image[30:70, 5:14])


def test_separate_planes_grey_and_inverted(tmp_path: Path, image) -> None:
    planar = tmp_path / "p.tif"
    tifffile.imwrite(
        planar,
        np.moveaxis(image, 2, 0),
        photometric="rgb",
        planarconfig="separate",
        tile=(256, 256),
        compression="deflate",
        metadata=None,
    )
    with open_slide(planar) as slide:
        np.testing.assert_array_equal(whole(slide), image)
    grey = image[:, :, 0]
    for photometric, expected in (("minisblack", grey), ("miniswhite", 255 - grey)):
        path = tmp_path / f"{photometric}.tif"
        tifffile.imwrite(path, grey, photometric=photometric, tile=(256, 256), metadata=None)
        with open_slide(path) as slide:
            np.testing.assert_array_equal(whole(slide), np.repeat(expected[:, :, None], 3, 2))


def test_alpha_is_composited_on_white_as_openslide_does(tmp_path: Path, image) -> None:
    alpha = np.full(image.shape[:2], 255, np.uint8)
    alpha[:300, :300] = 0
    alpha[300:310, :300] = 100
    path = tmp_path / "rgba.tif"
    tifffile.imwrite(
        path,
        np.dstack([image, alpha]),
        photometric="rgb",
        extrasamples=["unassalpha"],
        tile=(256, 256),
        compression="deflate",
        metadata=None,
    )
    with open_slide(path) as slide:
        got = whole(slide)
        assert (got[:300, :300] == 255).all()
        np.testing.assert_array_equal(got[310:, :], image[310:, :])
        expected = np.rint(image[300:310, :300] * (100 / 255) + 255 * (155 / 255))
        assert np.abs(got[300:310, :300] - expected).max() <= 1
        valid = slide.read_validity(0, 0, 0, 1333, 1111)
        np.testing.assert_array_equal(valid, alpha > 0)


def test_aperio_jpeg2000_equals_openslide(tmp_path: Path, image) -> None:
    for codec in ("APERIO_JP2000_RGB", "APERIO_JP2000_YCBC"):
        path = write_aperio(tmp_path / f"{codec}.svs", [image], codec)
        with (
            open_slide(path) as ours,
            open_slide(path, backend="openslide") as theirs,
        ):
            assert ours.info.backend == "direct" and ours.info.vendor == "aperio"
            np.testing.assert_array_equal(whole(ours), whole(theirs))


def philips_xml(levels: int) -> str:
    def attribute(name: str, text: str) -> str:
        return f'<Attribute Name="{name}" Group="0x0" Element="0x0" PMSVR="X">{text}</Attribute>'

    def level(index: int) -> str:
        spacing = 0.000227273 * 2**index
        return (
            '<DataObject ObjectType="PixelDataRepresentation">'
            + attribute("DICOM_PIXEL_SPACING", f"&quot;{spacing}&quot; &quot;{spacing}&quot;")
            + attribute("PIIM_PIXEL_DATA_REPRESENTATION_NUMBER", str(index))
            + "</DataObject>"
        )

    inner = "".join(level(index) for index in range(levels))
    scanned = (
        '<DataObject ObjectType="DPScannedImage">'
        + attribute("DICOM_PIXEL_SPACING", "&quot;0.000226891&quot; &quot;0.000226907&quot;")
        + attribute("PIM_DP_IMAGE_TYPE", "WSI")
        + attribute("PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE", f"<Array>{inner}</Array>")
        + "</DataObject>"
    )
    return (
        '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">'
        + attribute("DICOM_MANUFACTURER", "PHILIPS")
        + attribute("PIM_DP_SCANNED_IMAGES", f"<Array>{scanned}</Array>")
        + "</DataObject>"
    )


def padded(image: np.ndarray, tile: int) -> np.ndarray:
    height, width = (-(-side // tile) * tile for side in image.shape[:2])
    out = np.full((height, width, 3), 255, np.uint8)
    out[: image.shape[0], : image.shape[1]] = image
    return out


def test_philips_levels_are_padded_to_whole_tiles_in_the_file(tmp_path: Path) -> None:
    image = picture(1536, 1024)
    levels = [image, box_level(image, 2), box_level(image, 4)]
    path = write_pyramid(
        tmp_path / "philips.tiff",
        [padded(level, 512) for level in levels],
        tile=512,
        quality=80,
        photometric="ycbcr",
        subsampling=(2, 2),
        description=philips_xml(3),
        software="Philips DP v1.0",
    )
    with open_slide(path) as ours, open_slide(path, backend="openslide") as theirs:
        assert ours.info.vendor == theirs.info.vendor == "philips"
        assert ours.info.objective_power is None
        assert [level.factor for level in ours.info.levels] == [1, 2, 4]
        assert ours.info.mpp is not None and theirs.info.mpp is not None
        assert ours.info.mpp == theirs.info.mpp
        assert (ours.info.mpp.x, ours.info.mpp.y) == pytest.approx((0.226907, 0.226891))
        for level in range(3):
            np.testing.assert_array_equal(whole(ours, level), whole(theirs, level))


def test_ome_tiff_keeps_its_pyramid_in_subifds(tmp_path: Path, image) -> None:
    path = tmp_path / "a.ome.tif"
    half = box_level(image, 2)
    size = {"axes": "YXS", "PhysicalSizeX": 250.0, "PhysicalSizeXUnit": "nm"}
    size |= {"PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "µm"}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        options = {"photometric": "rgb", "tile": (256, 256), "compression": "deflate"}
        tiff.write(image, subifds=1, metadata=size, **options)
        tiff.write(half, subfiletype=1, **options)
    with open_slide(path) as slide:
        assert slide.info.mpp is not None and slide.info.mpp.value == pytest.approx(0.25)
        assert str(slide.info.mpp.source) == "ome-xml"
        np.testing.assert_array_equal(whole(slide, 1), half)


def test_label_macro_and_thumbnail_are_no_levels(shared_data: Path, tmp_path: Path, image) -> None:
    with open_slide(shared_data / "slides" / "CMU-1-Small-Region.svs") as slide:
        assert len(slide.info.levels) == 1
    path = tmp_path / "extra.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(image, tile=(256, 256), photometric="rgb", metadata=None)
        tiff.write(picture(400, 500), tile=(256, 256), photometric="rgb", metadata=None)
        tiff.write(box_level(image, 4), tile=(256, 256), photometric="rgb", metadata=None)
        tiff.write(picture(200, 100), photometric="rgb", metadata=None)
    with open_slide(path) as slide:
        assert [level.factor for level in slide.info.levels] == [1, 4]


def corrupted(path: Path, image: np.ndarray) -> Path:
    write_pyramid(path, [image], compression="jpeg", quality=80)
    with tifffile.TiffFile(path) as tiff:
        offset, count = tiff.pages[0].dataoffsets[1], tiff.pages[0].databytecounts[1]
    data = bytearray(path.read_bytes())
    data[offset : offset + count] = bytes(count)
    path.write_bytes(data)
    return path


def test_a_broken_tile_is_one_clear_error(tmp_path: Path, image) -> None:
    path = corrupted(tmp_path / "broken.tif", image)
    with open_slide(path) as slide:
        slide.read_level(0, 0, 0, 200, 200)
        with pytest.raises(SlideError, match=r"broken\.tif.*row 0, column 1.*copy it again"):
            slide.read_level(0, 200, 0, 100, 100)


def test_a_tile_that_ends_early_is_not_filled_with_grey(tmp_path: Path, image) -> None:
    path = write_pyramid(
        tmp_path / "early.tif", [image], compression="jpeg", quality=80, photometric="ycbcr"
    )
    with tifffile.TiffFile(path) as tiff:
        tag = tiff.pages[0].tags["TileByteCounts"]
        counts = list(tag.value)
        counts[1] //= 2
        place, code = tag.valueoffset, {3: "<u2", 4: "<u4", 16: "<u8"}[int(tag.dtype)]
    data = bytearray(path.read_bytes())
    raw = np.array(counts, dtype=code).tobytes()
    data[place : place + len(raw)] = raw
    path.write_bytes(data)
    with (
        open_slide(path) as slide,
        pytest.raises(SlideError, match=r"column 1 of level 0.*Premature"),
    ):
        slide.read_level(0, 256, 0, 50, 50)


def test_a_tile_that_states_a_huge_size_is_refused_before_decoding(tmp_path: Path, image) -> None:
    path = write_pyramid(tmp_path / "huge.tif", [image], compression="jpeg", quality=80)
    data = bytearray(path.read_bytes())
    frame = data.find(b"\xff\xc0")
    while frame >= 0:
        data[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
        frame = data.find(b"\xff\xc0", frame + 2)
    path.write_bytes(data)
    with open_slide(path) as slide, pytest.raises(SlideError, match="states 65535 x 65535 px"):
        slide.read_level(0, 0, 0, 50, 50)


def test_16_bit_samples_are_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "deep.tif"
    tifffile.imwrite(path, np.zeros((64, 64, 3), np.uint16), photometric="rgb", tile=(32, 32))
    with pytest.raises(SlideError, match="8-bit"):
        open_slide(path, backend="direct")


def test_slides_with_free_tiles_are_left_to_openslide(tmp_path: Path, image) -> None:
    path = write_pyramid(
        tmp_path / "leica.scn",
        [image],
        description='<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com"></scn>',
    )
    for backend in ("direct", "tiffslide"):
        with pytest.raises(SlideError, match="leica"):
            open_slide(path, backend=backend)


def test_reads_do_not_depend_on_the_cache(tmp_path: Path, image) -> None:
    path = write_pyramid(tmp_path / "a.tif", [image], compression="lzw")
    rng = np.random.default_rng(0)
    with open_slide(path, cache_mib=0.3) as slide:
        for _ in range(20):
            x, y = int(rng.integers(0, 1200)), int(rng.integers(0, 1000))
            np.testing.assert_array_equal(
                slide.read_level(0, x, y, 100, 90), padded_read(image, x, y, 100, 90)
            )


def padded_read(image, x, y, width, height):
    out = np.full((height, width, 3), 255, np.uint8)
    part = image[y : y + height, x : x + width]
    out[: part.shape[0], : part.shape[1]] = part
    return out


def test_sample_writer_makes_what_it_says(image) -> None:
    tiles = list(itertools.islice(tiles_of(image, 256, {2}), 3))
    assert tiles[2] is None and tiles[0] is not None and tiles[0].shape == (256, 256, 3)
