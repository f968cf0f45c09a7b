"""`wsisr manifests`: list, show, check with and without a store, schema."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner
from wsisr_cli.manifests import app

from wsisr.building.manifest import (
    load_manifest,
    manifest_folder,
    manifest_names,
    manifest_schema,
    parse_manifest,
)
from wsisr.degradation import parse_degradation
from wsisr.errors import ManifestError


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def test_list_names_every_manifest_in_one_line() -> None:
    code, text = run("list")
    assert code == 0
    lines = text.splitlines()
    assert [line.split()[0] for line in lines] == manifest_names()
    assert all(len(line) < 260 and line.endswith(".") for line in lines)


def test_show_fills_in_every_default() -> None:
    code, text = run("show", "tcga-brca")
    body = json.loads(text)
    assert code == 0
    assert body["tissue"]["method"] == "clam"
    assert body["split"]["test_sets"] == 5
    assert parse_manifest(body) == load_manifest("tcga-brca")


def test_check_says_what_a_build_holds(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text((manifest_folder() / "pathimgsr.yaml").read_text())
    code, text = run("check", str(file))
    assert code == 0
    assert "a valid manifest, pathimgsr version 1" in text
    assert "train+val pairs: 10,000 expected" in text
    assert "test pairs (tumor): 1,000 expected" in text


def test_the_shipped_schema_is_the_current_one_and_every_file_names_it() -> None:
    shipped = json.loads((manifest_folder() / "schema.json").read_text())
    assert shipped == manifest_schema()
    code, text = run("schema")
    assert code == 0
    assert json.loads(text) == shipped
    for name in manifest_names():
        first = (manifest_folder() / f"{name}.yaml").read_text().splitlines()[0]
        assert first == "# yaml-language-server: $schema=schema.json"


@pytest.mark.parametrize("name", manifest_names())
def test_every_manifest_names_a_known_degradation_and_says_what_it_reads(name: str) -> None:
    manifest = load_manifest(name)
    parse_degradation(manifest.degradation)
    if name != "default":
        assert manifest.readings
    if name not in ("default", "rescan", "images"):
        assert manifest.paper is not None
        assert manifest.paper.year is not None
    assert manifest.scaled(0.01).name == manifest.name


def test_random_splits_name_their_twin() -> None:
    for name in manifest_names():
        manifest = load_manifest(name)
        if manifest.split.kind == "paper-random":
            assert "LEAKY" in manifest.description
            twins = [n for n in manifest_names() if f"`{n}`" in manifest.description]
            assert len(twins) == 1
            assert load_manifest(twins[0]).split.kind != "paper-random"


def test_other_quotas_make_the_papers_counts_void() -> None:
    assert load_manifest("mlcamsr", {"quotas.test.any": 7}).expect is None


def test_counts_are_scaled_and_never_to_nothing() -> None:
    small = load_manifest("pathimgsr").scaled(0.0001)
    assert small.quotas["train"].counts == {"normal": 1, "tumor": 1}
    assert small.expect is not None
    assert small.expect.pairs == {"train": 2, "test": 2}
    assert load_manifest("histosr").scaled(0.5).sampling.per_slide == 2000
    with pytest.raises(ManifestError, match=r"cannot be scaled by -1"):
        load_manifest("histosr").scaled(-1)


@pytest.mark.parametrize(
    ("name", "overrides", "words"),
    [
        ("default", {"tissue.method": "none"}, "ready-made images"),
        ("pcam", {"sampling.kind": "cover"}, "a stack of images needs"),
        ("glas", {"sampling": {"kind": "texture", "per_slide": 9}}, "no texture sampling"),
        ("glas", {"mpp": 0.5}, "images have one level"),
        ("ftms", {"lr": "8x", "size": 1000}, "does not lead there"),
        ("pathimgsr", {"reduction": "nearest"}, "nobody registers"),
        ("mlcamsr", {"split.official": True}, "belongs to split.kind paper-random"),
        ("mlcamsr", {"expect.pairs.test": 100}, "expect.pairs.test is 100 and quotas.test add"),
        ("tcga-brca", {"tissue.clam.otzu": True}, "did you mean 'otsu'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    name: str, overrides: dict[str, object], words: str
) -> None:
    with pytest.raises(ManifestError, match=words):
        load_manifest(name, overrides)
