"""Names, parameters and files of degradations."""

import json
from pathlib import Path

import pytest

from wsisr.degradation import Degradation, names, parse_degradation
from wsisr.degradation.describe import describe, describe_names, record_json
from wsisr.degradation.parameters import STAGES
from wsisr.errors import DegradationError


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
    assert {n.partition(":")[0] for n in names()} == set(STAGES) - {"fitted"}
    assert len(describe_names()) == len(names()) + 1
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
        ("ist", "Did you mean 'iste'"),
        ("", "There are bicubic"),
        ("optics:nna=0.3", "Did you mean 'na'"),
        ("realesrgan2:mildd", "Did you mean 'mild'"),
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
