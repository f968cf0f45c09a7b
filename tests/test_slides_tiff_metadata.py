"""Resolution with source and quality, from what vendors write; never a silent default."""

from pathlib import Path

import pytest
from slides_samples import picture, write_pyramid

from wsisr.slides import open_slide
from wsisr.slides.ome import ome_images
from wsisr.slides.tiff_metadata import aperio_fields, aperio_generations, stated_sharpening
from wsisr.slides.tiff_tags import philips_spacings_um


def info_of(tmp_path: Path, **options):
    path = write_pyramid(tmp_path / "a.tif", [picture(64, 64)], compression="lzw", **options)
    with open_slide(path) as slide:
        return slide.info


def test_tiff_resolution_is_a_derived_value(tmp_path: Path) -> None:
    info = info_of(tmp_path, um_per_px=0.25)
    assert info.mpp is not None and info.mpp.value == pytest.approx(0.25)
    assert (str(info.mpp.source), str(info.mpp.quality)) == ("tiff resolution", "derived")


def test_print_resolutions_are_no_microscopes(tmp_path: Path) -> None:
    for dpi in (72, 96, 300, 600, 1200):
        info = info_of(tmp_path, um_per_px=25400 / dpi)
        assert info.mpp is None
        assert f"{dpi} dpi" in info.mpp_problem and "--mpp-override" in info.mpp_problem
        assert "a.tif" in info.mpp_problem


def test_no_resolution_at_all(tmp_path: Path) -> None:
    info = info_of(tmp_path)
    assert info.mpp is None and "does not state" in info.mpp_problem


def test_aperio_tag_wins_and_a_conflict_is_marked(tmp_path: Path) -> None:
    text = "Aperio Image Library v12\r\n64x64 (256x256) JPEG/RGB Q=70|AppMag = 20|MPP = 0.5020"
    info = info_of(tmp_path, description=text, um_per_px=0.5)
    assert info.vendor == "aperio" and info.objective_power == 20.0
    assert info.mpp is not None and info.mpp.value == pytest.approx(0.502)
    assert (str(info.mpp.source), str(info.mpp.quality)) == ("vendor tag", "stated")
    info = info_of(tmp_path, description=text, um_per_px=0.25)
    assert info.mpp is not None and info.mpp.value == pytest.approx(0.502)
    assert str(info.mpp.quality) == "conflict"


def test_implausible_and_uneven_vendor_values_are_refused(tmp_path: Path) -> None:
    text = "Aperio Image Library v12\r\n64x64 (256x256) JPEG/RGB Q=70|AppMag = 20|MPP = {}"
    for value in ("0", "499", "-1", "nan"):
        info = info_of(tmp_path, description=text.format(value))
        assert info.mpp is None, value
        assert "--mpp-override" in info.mpp_problem
    ome = '<Pixels SizeX="9" SizeY="9" PhysicalSizeX="0.25" PhysicalSizeY="0.5"/>'
    (image,) = ome_images(f"<OME><Image>{ome}</Image></OME>")
    assert image.um_per_px == (0.25, 0.5)


def test_aperio_description() -> None:
    text = (
        "Aperio Image Library v11.2.1 \r\n46000x32914 [42673,5576 2220x2967] (240x240) JPEG/RGB "
        "Q=30;Aperio Image Library v10.0.51\r\n46920x33014 [0,100 46000x32914] (256x256) JPEG/RGB "
        "Q=30|AppMag = 20|Filename = CMU-1|MPP = 0.4990"
    )
    assert aperio_fields(text)["MPP"] == "0.4990"
    assert aperio_generations(text) == 2
    assert aperio_generations("Aperio\r\n1x1 J2K/KDU Q=70|A = 1") == 1
    assert aperio_generations("") == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("Aperio|Filter = none", None),
        ("Aperio|Sharpen = 2|MPP = 1", True),
        ("Aperio|Sharpening = 0", False),
        ("Aperio|Sharpness: off", False),
    ],
)
def test_sharpening_is_what_the_vendor_says(text: str, expected: bool | None) -> None:
    assert stated_sharpening(text) is expected


def test_broken_and_hostile_xml_state_nothing() -> None:
    bomb = (
        '<?xml version="1.0"?><!DOCTYPE b [<!ENTITY a "aaaa"><!ENTITY c "&a;&a;&a;">]>'
        "<OME><Pixels>&c;</Pixels></OME>"
    )
    for text in ("", "<OME", "no xml", bomb):
        assert ome_images(text) == ()
        assert philips_spacings_um(text).image is None


def test_ome_units() -> None:
    def um(size: str, unit: str) -> tuple[float, float] | None:
        (image,) = ome_images(
            f'<OME><Image><Pixels SizeX="9" SizeY="9" PhysicalSizeX="{size}" '
            f'PhysicalSizeXUnit="{unit}" PhysicalSizeY="{size}" PhysicalSizeYUnit="{unit}"/>'
            "</Image></OME>"
        )
        return image.um_per_px

    assert um("250", "nm") == pytest.approx((0.25, 0.25))
    assert um("0.00025", "mm") == pytest.approx((0.25, 0.25))
    assert um("1", "pixel") is None
    assert um("0", "nm") is None
