"""Manifests are strict: what is misspelt or impossible is refused with a way out."""

from pathlib import Path
from typing import Any

import pytest

from wsisr.building.manifest import (
    load_manifest,
    manifest_folder,
    manifest_names,
    parse_manifest,
)
from wsisr.errors import ManifestError


@pytest.mark.parametrize("name", manifest_names())
def test_every_built_in_manifest_is_valid_and_named_like_its_file(name: str) -> None:
    manifest = load_manifest(name)
    assert manifest.name == name
    assert len(manifest.description) > 40
    assert parse_manifest(manifest.to_dict()) == manifest


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"sampling.strde": 2}, "did you mean 'stride'"),
        ({"siz": 3}, "did you mean 'size'"),
        ({"hr": "4y"}, "no magnification"),
        ({"lr": ["80x"]}, "not below hr"),
        ({"size": 1023}, "511.5 px at 20x"),
        ({"quotas.train.lesion": 4}, "no class"),
        ({"quotas.train.any": -4}, "greater than or equal to 0"),
        ({"registration.method": "ncc-integer"}, "crops HR to match one LR"),
        ({"registration": {"method": "subpixel", "region_px": 1025}, "lr": "10x"}, "even margin"),
        ({"sampling.kind": "random"}, "per_slide"),
        ({"sampling.kind": "points"}, "sampling.points"),
        ({"labels.background": "normal"}, "not among the classes"),
        ({"hr.x": 1}, "no group of settings"),
        ({"tissue.min_fraction": 1.5}, "less than or equal to 1"),
    ],
)
def test_a_wrong_setting_is_named_with_its_remedy(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        load_manifest("default", overrides)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ManifestError, match="did you mean 'pathimgsr'"):
        load_manifest("pathimgs")


def test_nothing_in_the_working_folder_hides_a_built_in_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    built_in = load_manifest("images")
    Path("images").mkdir()
    Path("pcam").write_text("name: mine\n")
    assert load_manifest("images") == built_in and load_manifest("pcam").name == "pcam"
    with pytest.raises(ManifestError, match="is a folder; a manifest is"):
        load_manifest("./images")
    Path("images.yaml").write_text("name: mine\n")
    assert load_manifest("images.yaml").name == "mine" and load_manifest("images") == built_in
    with pytest.raises(ManifestError, match="no such manifest file"):
        load_manifest("other.yaml")


def test_a_file_does_not_pass_for_a_built_in_manifest(tmp_path: Path) -> None:
    copy = tmp_path / "mine.yaml"
    text = (manifest_folder() / "tma.yaml").read_text()
    copy.write_text(text)
    assert load_manifest(copy) == load_manifest("tma")
    copy.write_text(text.replace("size: 1024", "size: 512"))
    with pytest.raises(ManifestError, match=r"names itself 'tma'.*another name"):
        load_manifest(copy)
    copy.write_text(text.replace("size: 1024", "size: 512").replace("name: tma", "name: mine"))
    assert load_manifest(copy).size == 512


@pytest.mark.parametrize("text", ["- a\n- b\n", "name: [", "name: !!python/object:os.system {}\n"])
def test_broken_or_hostile_yaml_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ManifestError, match=r"mine\.yaml"):
        load_manifest(file)


def test_identity_ignores_prose_and_follows_every_setting() -> None:
    base = load_manifest("default")
    assert load_manifest("default", {"description": "other words"}).sha256() == base.sha256()
    assert load_manifest("default", {"seed": 1}).sha256() != base.sha256()
    assert load_manifest("default", {"lr": "10x,20x"}).sha256() == base.sha256()


def test_magnifications_are_normalised_finest_first() -> None:
    manifest = load_manifest("default", {"hr": "40", "lr": "5X, 20x", "size": 512})
    assert (manifest.hr, manifest.lr) == ("40x", ("20x", "5x"))


def test_the_paper_margin_is_thirteen_pixels() -> None:
    assert load_manifest("pathimgsr").margin_px == 13
    assert load_manifest("default").margin_px == 0
