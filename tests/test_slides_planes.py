"""Planes and series: what a file holds beside the slide, and which of it is read or refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from pydicom.dataset import Dataset, FileMetaDataset
from slides_samples import box_level, picture, whole, write_dicom

from wsisr.checkup.inspection import describe_slide
from wsisr.errors import SlideError
from wsisr.inference import load
from wsisr.slides import judge_slide, open_slide
from wsisr.upscaling import UpscaleOptions, upscale_slide

RED, GREEN, BLUE = -16776961, 16711935, 65535
"""OME's signed RGBA of the three colours."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSISR_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return picture(300, 260)


def write_ome(
    path: Path,
    planes: np.ndarray,
    axes: str,
    *,
    channel: dict[str, Any] | None = None,
    compression: str | None = "deflate",
    name: str = "slide",
    photometric: str = "minisblack",
) -> Path:
    """Planes of one image with a level of half the size in SubIFDs, as raw2ometiff writes."""
    with tifffile.TiffWriter(path, ome=True) as tiff:
        add_ome(tiff, planes, axes, channel, compression, name, photometric)
    return path


def add_ome(
    tiff: Any,
    planes: np.ndarray,
    axes: str,
    channel: dict[str, Any] | None = None,
    compression: str | None = "deflate",
    name: str = "slide",
    photometric: str = "minisblack",
) -> None:
    given = {"tile": (128, 128), "compression": compression, "photometric": photometric}
    metadata = {"axes": axes, "Name": name, "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
    if channel is not None:
        metadata["Channel"] = channel
    tiff.write(planes, subifds=1, metadata=metadata, **given)
    slices = [slice(None)] * planes.ndim
    slices[axes.index("Y")] = slices[axes.index("X")] = slice(None, None, 2)
    tiff.write(np.ascontiguousarray(planes[tuple(slices)]), subfiletype=1, **given)


@pytest.mark.parametrize(
    ("channel", "order"),
    [
        ({"Name": ["Red", "Green", "Blue"]}, (0, 1, 2)),
        ({"Name": ["blue", "red", "green"]}, (2, 0, 1)),
        ({"Name": ["c1", "c2", "c3"], "Color": [GREEN, BLUE, RED]}, (1, 2, 0)),
    ],
)
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_red_green_and_blue_in_pages_of_their_own_are_joined_by_what_the_file_calls_them(
    tmp_path, image, channel, order, compression
) -> None:
    planes = np.moveaxis(image, 2, 0)[list(order)]
    path = write_ome(
        tmp_path / "a.ome.tif", planes, "CYX", channel=channel, compression=compression
    )
    with open_slide(path) as slide:
        assert slide.info.backend == "direct" and slide.info.mpp is not None
        assert slide.info.verdict is not None and slide.info.verdict.status == "agree"
        assert slide.info.verdict.second == "tifffile" and slide.info.verdict.levels == (0, 1)
        np.testing.assert_array_equal(whole(slide), image)
        np.testing.assert_array_equal(whole(slide, 1), image[::2, ::2])


@pytest.mark.parametrize(
    ("channels", "names"),
    [
        (2, ["DAPI", "Cy3"]),
        (3, ["DAPI", "FITC", "Cy3"]),
        (3, ["", "", ""]),
        (4, ["Red", "Green", "Blue", "IR"]),
    ],
)
def test_other_channels_are_refused_with_their_names(tmp_path, image, channels, names) -> None:
    planes = np.stack([image[..., i % 3] for i in range(channels)])
    path = write_ome(tmp_path / "a.ome.tif", planes, "CYX", channel={"Name": names})
    with pytest.raises(SlideError, match=f"{channels} channels") as caught:
        open_slide(path)
    assert all(name in str(caught.value) for name in names)


def test_the_slide_is_the_largest_image_that_is_no_label_or_macro(tmp_path, image) -> None:
    path = tmp_path / "a.ome.tif"
    macro, label = picture(900, 700, 3), picture(400, 400, 4)
    with tifffile.TiffWriter(path, ome=True) as tiff:
        add_ome(tiff, macro, "YXS", name="macro image", photometric="rgb")
        add_ome(tiff, label, "YXS", name="label", photometric="rgb")
        add_ome(tiff, picture(200, 100, 5), "YXS", name="region 2", photometric="rgb")
        add_ome(tiff, image, "YXS", name="region 1", photometric="rgb")
    with open_slide(path) as slide:
        np.testing.assert_array_equal(whole(slide), image)
        np.testing.assert_array_equal(whole(slide, 1), image[::2, ::2])
        assert slide.info.verdict is not None and slide.info.verdict.status == "agree"
        (quirk,) = slide.info.quirks
        assert "'region 1' is read" in quirk and "'macro image' 900 x 700 px" in quirk


def test_labels_alone_are_no_slide(tmp_path, image) -> None:
    path = write_ome(tmp_path / "a.ome.tif", image, "YXS", name="label", photometric="rgb")
    with pytest.raises(SlideError, match="labels or overviews only"):
        open_slide(path)


def test_focal_planes_of_an_ome_tiff(tmp_path, image) -> None:
    planes = np.stack([picture(300, 260, 7), image, picture(300, 260, 8)])
    path = write_ome(tmp_path / "a.ome.tif", planes, "ZYXS", photometric="rgb")
    with open_slide(path) as slide:
        np.testing.assert_array_equal(whole(slide), planes[1])
        assert slide.info.focal_plane == 2
        assert "3 focal planes; plane 2 (the middle one) is read" in slide.info.quirks[0]
        assert slide.info.verdict is not None and slide.info.verdict.status == "agree"
    with open_slide(path, focal_plane=3) as slide:
        np.testing.assert_array_equal(whole(slide), planes[2])
    with pytest.raises(SlideError, match="focal plane 4 was asked for and the file has 3"):
        open_slide(path, focal_plane=4)


def test_upscaling_reads_the_plane_that_is_asked_for(tmp_path, image) -> None:
    planes = np.stack([picture(300, 260, 7), image, picture(300, 260, 8)])
    path = write_ome(tmp_path / "a.ome.tif", planes, "ZYXS", photometric="rgb")
    for plane in (2, 3):
        options = UpscaleOptions(scale=1.0, mpp=0.5, focal_plane=plane, compression="deflate")
        upscale_slide(path, tmp_path / f"{plane}.ome.tiff", load("bicubic"), options)
        made = tifffile.imread(tmp_path / f"{plane}.ome.tiff")
        np.testing.assert_array_equal(made, planes[plane - 1])


def test_a_time_series_is_refused(tmp_path, image) -> None:
    planes = np.stack([image, image])
    path = write_ome(tmp_path / "a.ome.tif", planes, "TYXS", photometric="rgb")
    with pytest.raises(SlideError, match="time series"):
        open_slide(path)


def test_a_stack_without_a_word_is_refused_and_one_plane_asked_for_is_none(tmp_path) -> None:
    path = tmp_path / "stack.tif"
    with tifffile.TiffWriter(path) as tiff:
        for seed in range(3):
            tiff.write(picture(300, 200, seed), tile=(128, 128), photometric="rgb", metadata=None)
    with pytest.raises(SlideError, match=r"page\(s\) 2, 3 are as large as the image itself"):
        open_slide(path)
    flat = tmp_path / "flat.tif"
    tifffile.imwrite(flat, picture(300, 200), tile=(128, 128), photometric="rgb")
    with pytest.raises(SlideError, match="focal plane 2 was asked for"):
        open_slide(flat, focal_plane=2)


def test_a_thumbnail_before_the_slide_is_not_the_slide(tmp_path, image) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        for pixels in (box_level(image, 4), image):
            tiff.write(pixels, tile=(128, 128), photometric="rgb", metadata=None)
    with open_slide(path) as slide:
        np.testing.assert_array_equal(whole(slide), image)
        assert slide.info.verdict is not None and slide.info.verdict.second == "tifffile"


def test_overlapping_tiles_go_to_openslide(tmp_path, image) -> None:
    """Trestle lays its tiles one overlap apart (openslide.org/formats/trestle)."""
    size, overlap = 128, 32
    step = size - overlap
    columns, rows = (-(-(side - overlap) // step) for side in (300, 260))
    tiles = np.full((rows * size, columns * size, 3), 240, np.uint8)
    for row in range(rows):
        for column in range(columns):
            part = image[row * step : row * step + size, column * step : column * step + size]
            y, x = row * size, column * size
            tiles[y : y + part.shape[0], x : x + part.shape[1]] = part
    path = tmp_path / "a.tif"
    description = f"Objective Power=40;OverlapsXY= {overlap} {overlap};"
    tifffile.imwrite(
        path,
        tiles,
        tile=(size, size),
        photometric="rgb",
        compression="deflate",
        software="MedScan",
        description=description,
        metadata=None,
    )
    with open_slide(path) as slide:
        info = slide.info
        assert (info.backend, info.vendor) == ("openslide", "trestle")
        assert info.verdict is not None and info.verdict.status == "unchecked"
        np.testing.assert_array_equal(slide.read_level(0, 0, 0, 300, 260), image)
    for reader in ("direct", "tiffslide"):
        with pytest.raises(SlideError):
            open_slide(path, backend=reader)


def several_planes(count: int) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        data.TotalPixelMatrixFocalPlanes = count

    return change


def test_the_middle_focal_plane_of_a_dicom_series_is_read_and_said(tmp_path, image) -> None:
    others = [picture(300, 260, seed) for seed in (5, 6)]
    path = write_dicom(
        tmp_path / "a.dcm", others[0], further=[image, others[1]], change=several_planes(3)
    )
    with open_slide(path) as slide:
        np.testing.assert_array_equal(whole(slide), image)
        assert slide.info.focal_plane == 2
        assert "plane 2 (the middle one) is read" in slide.info.quirks[0]
        verdict = slide.info.verdict
        assert verdict is not None and (verdict.status, verdict.second) == ("agree", "pydicom")
    with open_slide(path, focal_plane=1) as slide:
        np.testing.assert_array_equal(whole(slide), others[0])
    with pytest.raises(SlideError, match="the file has 3"):
        open_slide(path, focal_plane=0)
    told = describe_slide(path, focal_plane=3)
    assert "plane 3 (as asked for) is read" in told and "dicom and pydicom agree" in told


def test_focal_planes_of_sparse_frames_are_told_apart_by_their_height(tmp_path, image) -> None:
    blurred = picture(300, 260, 5)
    order = [*range(9), *range(9, 18)]

    def heights(data: Any) -> None:
        for number, group in enumerate(data.PerFrameFunctionalGroupsSequence):
            # The second image lies lower.
            place = group.PlanePositionSlideSequence[0]
            place.ZOffsetInSlideCoordinateSystem = 4.0 if number < 9 else 1.5

    path = write_dicom(
        tmp_path / "a.dcm", blurred, further=[image], sparse_order=order, change=heights
    )
    with open_slide(path, focal_plane=1) as slide:
        np.testing.assert_array_equal(whole(slide), image)
    with open_slide(path) as slide:
        np.testing.assert_array_equal(whole(slide), blurred)
        assert slide.info.focal_plane == 2


def optical_paths(*kinds: tuple[str, str, str]) -> Callable[[Any], None]:
    """Paths of (identifier, code, meaning)."""

    def change(data: Any) -> None:
        items = []
        for identifier, code, meaning in kinds:
            item, kind = Dataset(), Dataset()
            item.OpticalPathIdentifier = identifier
            kind.CodeValue, kind.CodingSchemeDesignator, kind.CodeMeaning = code, "DCM", meaning
            item.IlluminationTypeCodeSequence = [kind]
            items.append(item)
        data.OpticalPathSequence = items
        data.NumberOfOpticalPaths = len(items)

    return change


FLUORESCENCE = ("F", "111743", "Epifluorescence illumination")
BRIGHTFIELD = ("B", "111744", "Brightfield illumination")


def test_of_several_optical_paths_brightfield_is_read_and_all_are_named(tmp_path, image) -> None:
    dark = picture(300, 260, 9)
    path = write_dicom(
        tmp_path / "a.dcm",
        dark,
        further=[image],
        change=optical_paths(FLUORESCENCE, BRIGHTFIELD),
    )
    with open_slide(path, backend="dicom") as slide:
        np.testing.assert_array_equal(whole(slide), image)
        (quirk,) = slide.info.quirks
        assert "'F' (Epifluorescence illumination)" in quirk
        assert "'B' (Brightfield illumination) is read" in quirk


def test_optical_paths_without_brightfield_are_refused(tmp_path, image) -> None:
    second = ("G", "111743", "Epifluorescence illumination")
    path = write_dicom(
        tmp_path / "a.dcm", image, further=[image], change=optical_paths(FLUORESCENCE, second)
    )
    with pytest.raises(SlideError, match=r"2 optical paths .* none is said to be brightfield"):
        open_slide(path)


def test_a_path_in_a_file_of_its_own_is_left_alone(tmp_path, image) -> None:
    write_dicom(tmp_path / "b.dcm", image, change=optical_paths(BRIGHTFIELD))
    write_dicom(tmp_path / "f.dcm", picture(300, 260, 9), change=optical_paths(FLUORESCENCE))
    with open_slide(tmp_path, backend="dicom") as slide:
        np.testing.assert_array_equal(whole(slide), image)


def test_two_scans_in_one_series_are_refused(tmp_path, image) -> None:
    write_dicom(tmp_path / "a.dcm", image)
    write_dicom(tmp_path / "b.dcm", picture(300, 260, 9))
    with pytest.raises(SlideError, match=r"several frames .* two scans may be mixed"):
        open_slide(tmp_path)


def test_monochrome_is_refused_for_what_it_is(tmp_path, image) -> None:
    def grey(data: Any) -> None:
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"

    path = write_dicom(tmp_path / "a.dcm", image, change=grey)
    with pytest.raises(SlideError, match="MONOCHROME2, a single channel"):
        open_slide(path)


def test_the_index_of_a_medium_is_refused_for_what_it_is(tmp_path) -> None:
    index = Dataset()
    index.file_meta = FileMetaDataset()
    index.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    index.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    index.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    index.save_as(tmp_path / "DICOMDIR", enforce_file_format=True)
    with pytest.raises(SlideError, match="index of a medium"):
        open_slide(tmp_path / "DICOMDIR")


def test_a_missing_part_of_a_concatenation_is_refused(tmp_path, image) -> None:
    write_dicom(tmp_path / "a.dcm", image, part=(0, 4))
    write_dicom(tmp_path / "c.dcm", image, part=(7, 9))
    with pytest.raises(SlideError, match="9 frames but the series holds 6"):
        open_slide(tmp_path)


def test_frames_that_overlap_are_refused(tmp_path, image) -> None:
    def overlap(data: Any) -> None:
        for number, group in enumerate(data.PerFrameFunctionalGroupsSequence):
            place = group.PlanePositionSlideSequence[0]
            place.ColumnPositionInTotalImagePixelMatrix = number % 3 * 100 + 1

    path = write_dicom(tmp_path / "a.dcm", image, sparse_order=list(range(9)), change=overlap)
    with pytest.raises(SlideError, match=r"lies at \(100, 0\), off the grid"):
        open_slide(path)


def origin(x_mm: float, y_mm: float, orientation: list[float] | None) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        place = Dataset()
        place.XOffsetInSlideCoordinateSystem = x_mm
        place.YOffsetInSlideCoordinateSystem = y_mm
        data.TotalPixelMatrixOriginSequence = [place]
        if orientation is not None:
            data.ImageOrientationSlide = orientation

    return change


@pytest.mark.parametrize(
    ("orientation", "x", "y"),
    [([1, 0, 0, 0, 1, 0], 24, 40), ([0, -1, 0, -1, 0, 0], -40, -24), ([0, 1, 0, 1, 0, 0], 40, 24)],
)
def test_a_level_is_moved_to_where_its_header_says_that_it_starts(
    tmp_path, orientation, x, y
) -> None:
    """The level starts 24 px right and 40 px down of level 0, on a slide that lies anyhow."""
    base = picture(512, 384)
    level = box_level(base[40:, 24:], 4)
    um = 0.0005
    write_dicom(tmp_path / "0.dcm", base, change=origin(10.0, 20.0, orientation))
    write_dicom(
        tmp_path / "1.dcm",
        level,
        um_per_px=2.0,
        change=origin(10.0 + x * um, 20.0 + y * um, orientation),
    )
    with open_slide(tmp_path) as slide:
        assert [(v.width_px, v.height_px, v.factor) for v in slide.info.levels] == [
            (512, 384, 1),
            (128, 96, 4),
        ]
        assert slide.info.levels[1].moved_px == (6, 10)
        got, valid = whole(slide, 1), slide.read_validity(1, 0, 0, 128, 96)
        assert valid[10:, 6:].all() and not valid[:10].any() and not valid[:, :6].any()
        np.testing.assert_array_equal(got[valid], box_level(base, 4)[valid])
        assert (got[~valid] == 255).all()
        assert any("6 px right and 10 px down" in quirk for quirk in slide.info.quirks)


def test_an_origin_without_an_orientation_is_no_known_place(tmp_path) -> None:
    base = picture(512, 384)
    write_dicom(tmp_path / "0.dcm", base, change=origin(10.0, 20.0, None))
    write_dicom(
        tmp_path / "1.dcm", box_level(base, 4), um_per_px=2.0, change=origin(10.1, 20.0, None)
    )
    with open_slide(tmp_path) as slide:
        assert slide.info.levels[1].moved_px == (0, 0)
        assert any("its place is not known" in quirk for quirk in slide.info.quirks)
    assert judge_slide(tmp_path).status == "agree"


def test_a_level_that_lies_turned_is_not_used(tmp_path) -> None:
    base = picture(512, 384)
    write_dicom(tmp_path / "0.dcm", base, change=origin(10, 20, [1, 0, 0, 0, 1, 0]))
    write_dicom(
        tmp_path / "1.dcm",
        box_level(base, 4),
        um_per_px=2.0,
        change=origin(10, 20, [0, -1, 0, -1, 0, 0]),
    )
    with open_slide(tmp_path, backend="dicom") as slide:
        assert len(slide.info.levels) == 1
        assert any("turned" in quirk for quirk in slide.info.quirks)
