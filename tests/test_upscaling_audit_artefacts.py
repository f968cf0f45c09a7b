"""Detail that no input gave, patterns of the scale, borders of tiles: each is found, and alone."""

import json
from fractions import Fraction
from pathlib import Path
from uuid import UUID

import cv2
import numpy as np
import pytest
import shapely
import shapely.geometry
from test_upscaling_audit import PLACES, big_tissue, examine

from wsisr.arrays import UInt8Array
from wsisr.geometry import Box
from wsisr.upscaling.audit import AuditResult
from wsisr.upscaling.audit.artefacts import Pattern, Spectrum, find_seams, split_bands


@pytest.fixture(scope="module")
def hr() -> UInt8Array:
    return big_tissue(PLACES)


def facts(result: AuditResult) -> dict:
    return json.loads((result.folder / "audit.json").read_text())


def test_a_wave_is_on_the_side_of_the_band_where_its_frequency_is() -> None:
    x = np.arange(240, dtype=np.float32)
    wave = {c: np.tile(20 * np.cos(2 * np.pi * c * x), (200, 1)).astype(np.float32) + 120
            for c in (0.1, 0.2, 0.4)}  # fmt: skip
    for cycles, image in wave.items():
        spectrum = Spectrum()
        high = split_bands(image, wave[0.1], 2.0, spectrum)  # the band ends at 0.25
        inside = cycles < 0.25
        assert high.std() == pytest.approx(0 if inside else 20 / 2**0.5, abs=1.5)
        first, plain = spectrum.beyond(2.0)
        assert first == pytest.approx(0 if inside else 1, abs=0.02) and plain < 0.02
        peak = spectrum.cycles[int(spectrum.output.argmax())]
        assert peak == pytest.approx(cycles, abs=0.011)
    assert np.isnan(Spectrum().beyond(2.0)[0])


def test_a_checkerboard_of_one_grey_level_is_a_pattern_and_noise_is_none(hr: UInt8Array) -> None:
    apart = np.random.default_rng(0).normal(0, 8, (400, 400, 3)).astype(np.float32)
    clean, board = Pattern(step=Fraction(4)), Pattern(step=Fraction(4))
    clean.add(apart)
    apart[::4, ::4] += 1.6  # its mean over all phases is 0.1
    board.add(apart)
    assert clean.looked and not clean.wrong and clean.amplitude < 0.5
    assert board.wrong and board.amplitude == pytest.approx(1.5, abs=0.3)
    few = Pattern(step=Fraction(4))
    few.add(apart[:16, :16])  # of 16 px a phase nothing can be said
    assert not few.wrong
    odd = Pattern(step=Fraction(33, 10))
    odd.add(apart)
    assert not odd.looked and not odd.wrong


@pytest.mark.parametrize("step", [2, 4])
def test_a_tile_that_is_brighter_has_two_borders_and_tissue_has_none(
    step: int, hr: UInt8Array
) -> None:
    low = cv2.resize(hr, None, fx=1 / step, fy=1 / step, interpolation=cv2.INTER_AREA)
    plain = cv2.resize(low, (400, 400), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    at = Box(x=1000, y=2000, width=400, height=400)
    assert find_seams(hr.astype(np.float32), plain, Fraction(step), at) == []
    made = hr.astype(np.float32)
    made[:, 150:251] += 5
    found = find_seams(made, plain, Fraction(step), at)
    assert found is not None
    assert [(s.x0, s.y0, s.x1, s.y1) for s in found] == [
        (1150, 2000, 1150, 2400), (1251, 2000, 1251, 2400)
    ]  # fmt: skip
    assert all(seam.step == pytest.approx(5, abs=2) for seam in found)
    turned = find_seams(made.transpose(1, 0, 2), plain.transpose(1, 0, 2), Fraction(step), at)
    assert turned is not None and [s.y0 for s in turned] == [2150, 2251]
    # Of a tile that is smaller than a block, its part of the lines.
    tall = np.concatenate([hr, hr, hr[::-1]]).astype(np.float32)
    under = np.concatenate([plain, plain, plain[::-1]])
    tall[:600, 150:251] += 8
    parts = find_seams(tall, under, Fraction(step), at)
    assert parts is not None
    assert {s.x0 for s in parts if s.x0 == s.x1} == {1150, 1251}
    assert all(s.y0 == 2000 and s.y1 in (2600, 3200) for s in parts if s.x0 == s.x1)
    assert any(s.y1 == 2600 for s in parts)
    assert find_seams(made[:300, :300], plain[:300, :300], Fraction(step), at) is None


def test_an_audit_names_patterns_seams_and_what_was_not_looked_at(
    hr: UInt8Array, tmp_path: Path
) -> None:
    made = hr.astype(np.float32)
    made[::2, ::2] += 3
    made[:, 200:] += 6
    sr = np.clip(made, 0, 255).astype(np.uint8)
    result = examine(tmp_path, sr, hr)
    text = result.text()
    assert "PATTERN: px repeat every 2 px" in text and "SEAMS: along 1 straight lines" in text
    assert "no place is glass" in text
    written = facts(result)
    assert written["pattern"]["wrong"] and written["seams"][0]["x0"] == 200
    assert len(written["spectrum"]["output"]) == 48
    features = json.loads((result.folder / "suspect.geojson").read_text())["features"]
    (line,) = [f for f in features if f["properties"]["classification"]["name"] == "Tile border"]
    assert line["geometry"]["coordinates"] == [[200, 0], [200, 400]]
    assert line["properties"]["objectType"] == "annotation"
    clean = examine(tmp_path, hr, hr)
    assert "No pattern of the scale" in clean.text() and "SEAMS" not in clean.text()
    small = examine(tmp_path, hr[:96, :96], hr[:96, :96])
    assert "Tile borders were not looked for" in small.text()


def test_what_qupath_reads_of_a_feature_is_there(hr: UInt8Array, tmp_path: Path) -> None:
    made = hr.astype(np.float32)
    made[:, 200:] += 8
    sr = np.clip(made, 0, 255).astype(np.uint8)
    result = examine(tmp_path, sr, hr, with_hr=True)
    document = json.loads((result.folder / "suspect.geojson").read_text())
    assert document.keys() == {"type", "features"} and document["type"] == "FeatureCollection"
    kinds = set()
    for item in document["features"]:
        assert item["type"] == "Feature" and str(UUID(item["id"])) == item["id"]
        known = item["properties"]
        assert known["objectType"] == "annotation" and known["isLocked"] is False
        assert isinstance(known["classification"]["name"], str)
        assert [type(v) for v in known["classification"]["color"]] == [int] * 3
        shape = shapely.geometry.shape(item["geometry"])
        assert shape.is_valid and shapely.box(0, 0, 416, 416).contains(shape)
        kinds.add(item["geometry"]["type"])
    assert {"Polygon", "LineString"} <= kinds <= {"Polygon", "LineString", "MultiPoint"}
    assert len({item["id"] for item in document["features"]}) == len(document["features"])
