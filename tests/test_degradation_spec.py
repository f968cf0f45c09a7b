"""Names, parameters and files of degradations."""

import json
from pathlib import Path

import pytest

from wsisr.degradation import Degradation, names, parse_degradation
from wsisr.degradation.describe import describe, describe_names, record_json
from wsisr.degradation.stage import STAGES
from wsisr.errors import DegradationError

DIGESTS = {
    "bicubic": "261e63c1fb694b7a",
    "area": "aa65c856f3c07f60",
    "bilinear": "dc5def21cb96ee05",
    "nearest": "03bcdbc78531bd0f",
    "iste": "1846e0f92834bdee",
    "iste-paper": "dba0769999281d4c",
    "iste-halfm": "daac74a8a35e9467",
    "li2021": "3f363d08e6e06cd7",
    "ftms": "f4b10ad45038f824",
    "pyramid": "b37854e7db3d3aaf",
    "gaussian": "3789327043185a8b",
    "gaussian:random": "57337f263814f20f",
    "optics": "a320784180bc3111",
    "optics:10x": "15ab4b31ba30a668",
    "optics:20x": "c493e976a96287d5",
    "realesrgan2": "391a67779ead8e21",
    "realesrgan2:mild": "6a84531df9320e34",
    "stain": "a2d9b8389092c02b",
    "stain:light": "353cb9094113c6ec",
    "stain:strong": "8b598381e1314740",
    "chroma": "a75b246940790d88",
    "illumination": "2f1fe499200d950f",
    "colour": "7e5dd6dc0fc2728b",
    "sensor": "2ed9b7ac6e71ffc1",
    "sensor:random": "6e1547359fdbfc5c",
    "stitch": "d4aa9f3a6cffc1e1",
    "jpeg": "ee59a31fb12bfd82",
    "jpeg:random": "4c7f7b9bb12ed5c2",
    "stain+jpeg": "bf0ca66c97c012be",
    "optics:na=0.3,defocus_um=0..2+sensor+jpeg:quality=80": "a34e437857a6af21",
    "gaussian:sigma_px=1..2,aspect=2,angle_deg=0..90": "8a83f2860f8bec9f",
    "sensor:bayer=true": "1d3679786025bb8b",
    "colour:gain=1;0.9;1,gamma=1.2": "8957dd8670dce57e",
    "jpeg:quality=60..90,subsampling=4:4:4": "96531ed5b393a585",
    "chroma+illumination+stitch+area": "2c678c7267aae017",
}
"""Digests that stores, runs and results of earlier versions carry."""


@pytest.mark.parametrize("name", names())
def test_every_name_round_trips_through_its_record(name: str, tmp_path: Path) -> None:
    first = parse_degradation(name)
    text = json.dumps(first.record())
    again = parse_degradation(json.loads(text))
    assert again == first and again.digest == first.digest
    file = tmp_path / "d.json"
    first.write(file)
    assert parse_degradation(file) == first and parse_degradation(str(file)) == first
    assert name in describe(name)


def test_names_are_those_of_the_stages() -> None:
    assert {n.partition(":")[0] for n in names()} == set(STAGES) - {"fitted", "mix"}
    assert len(describe_names()) == len(names()) + 2
    assert json.loads(record_json("iste"))["stages"][0]["kind"] == "iste"


def test_compositions_are_sorted_into_physical_order() -> None:
    mixed = parse_degradation("jpeg:quality=80+sensor+optics:na=0.3+stain+stitch+chroma")
    kinds = [stage.kind for stage in mixed.stages]
    assert kinds == ["stain", "chroma", "optics", "sensor", "stitch", "jpeg"]
    assert [s.kind for s in parse_degradation("sensor").stages] == ["bicubic", "sensor"]


def test_values_ranges_and_presets() -> None:
    stage = parse_degradation("optics:na=0.3,defocus_um=0..2.5,wavelength_nm=640;540;460").stages[0]
    assert stage.model_dump()["na"] == 0.3
    assert stage.model_dump()["defocus_um"] == (0.0, 2.5)
    assert stage.model_dump()["wavelength_nm"] == (640.0, 540.0, 460.0)
    mild = parse_degradation("realesrgan2:mild,noise_1=2").stages[0].model_dump()
    assert mild["noise_1"] == 2.0 and mild["sinc"] == 0.0


def test_random_tells_whether_samples_differ() -> None:
    fixed = ("bicubic", "iste", "optics:na=0.3", "jpeg:quality=70", "gaussian")
    drawn = ("sensor", "optics:10x", "realesrgan2", "jpeg:random", "stain", "chroma")
    assert not any(parse_degradation(name).random for name in fixed)
    assert all(parse_degradation(name).random for name in drawn)


def test_the_digest_is_of_the_parameters_not_of_the_name() -> None:
    a, b = parse_degradation("jpeg:quality=80+area"), parse_degradation("area+jpeg")
    assert a.digest == b.digest and a.name != b.name
    assert parse_degradation("area+jpeg:quality=81").digest != a.digest


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("ist", "did you mean 'iste'"),
        ("", "known: area"),
        ("optics:nna=0.3", "did you mean 'na'"),
        ("realesrgan2:mildd", "did you mean 'mild'"),
        ("iste:mild", "no preset"),
        ("gaussian:sigma_px=-1", "sigma_px"),
        ("gaussian:sigma_px=3..1", "sigma_px"),
        ("sensor:full_well_e=nan", "full_well_e"),
        ("jpeg:quality=120", "quality"),
        ("jpeg:subsampling=4:1:1", "subsampling"),
        ("optics:na=high", "na"),
        ("bicubic+area", "exactly one"),
        ("sensor+sensor", "at most once"),
        ("cv2-cubic", "aliases"),
        ("fitted", "scanner.json"),
        ("optics:version=2", "no parameter"),
        ("no-such-file.json", "no such degradation file"),
    ],
)
def test_mistakes_are_named(spec: str, says: str) -> None:
    with pytest.raises(DegradationError, match=says):
        parse_degradation(spec)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"name": "x"}',
        '{"name": "x", "stages": [{"kind": "magic"}]}',
        '{"name": "x", "stages": [{"kind": "bicubic", "version": 2}]}',
        '{"name": "x", "stages": [{"kind": "bicubic", "a": 1}]}',
        '{"name": "x", "format": 2, "stages": [{"kind": "bicubic"}]}',
        '{"name": "x", "stages": [{"kind": "jpeg"}, {"kind": "bicubic"}]}',
        '{"name": "x", "stages": [{"kind": "fitted", "scale": 4, "kernel": [[[1]]], "tone": []}]}',
    ],
)
def test_broken_files_are_refused_with_their_name(content: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(DegradationError, match=r"broken\.json"):
        parse_degradation(file)


def test_a_degradation_cannot_be_changed() -> None:
    degradation = parse_degradation("iste")
    assert isinstance(degradation, Degradation)
    with pytest.raises(ValueError, match="frozen"):
        degradation.name = "other"


def test_digests_are_those_of_earlier_versions() -> None:
    assert {spec: parse_degradation(spec).digest for spec in DIGESTS} == DIGESTS
    assert set(names()) <= set(DIGESTS)
    taps, tone = [[[1 / 16] * 4] * 4], [[0.0] * 10] * 3
    stage = {"kind": "fitted", "scale": 2, "kernel": taps, "tone": tone, "shot": 0.1}
    fitted = parse_degradation({"name": "scanner", "stages": [stage]})
    assert fitted.digest == "5b2ca0cc6e704e3b" and fitted.random


def test_records_keep_their_bytes(tmp_path: Path) -> None:
    text = (
        '{"digest": "1e07317a6cd173b0", "name": "area+jpeg", "stages": [{"kind": "area", '
        '"version": 1}, {"kind": "jpeg", "version": 1, "quality": 80.0, "subsampling": "4:2:0"}], '
        '"format": 1}'
    )
    degradation = parse_degradation("area+jpeg")
    assert json.dumps(degradation.record()) == text
    degradation.write(tmp_path / "d.json")
    kept = json.loads(text) | {"digest": None}
    kept.pop("digest")
    assert (tmp_path / "d.json").read_text(encoding="utf-8") == json.dumps(kept, indent=2) + "\n"
