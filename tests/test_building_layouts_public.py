"""Twelve public layouts as their publishers have them: ids, patients, outlines, splits, leaks."""

from pathlib import Path

import numpy as np
import pytest
from layout_samples import LAYOUTS, PublicLayout, plant

from wsisr import open_pairs
from wsisr.building import BuildRequest, BuildSummary, Prepared, build_pairs, prepare
from wsisr.runners import SerialRunner
from wsisr.store import PairStore, verify_store

MANIFEST = """name: layouts
version: 1
hr: 40x
lr: [10x]
size: 128
tissue: {min_fraction: 0.3}
sampling: {kind: grid, stride: 1.0, max_per_slide: 8}
labels: {classes: [normal, tumor], background: normal, min_fraction: 0.5}
split: {kind: official, weights: {train: 3, val: 1, test: 1}}
"""


def build(layout: PublicLayout, folder: Path, table: str = "") -> tuple[Prepared, BuildSummary]:
    (folder / "layouts.yaml").write_text(MANIFEST)
    (folder / "table.csv").write_text(f"slide,split\n{table}")
    prepared = prepare(
        BuildRequest(
            source=folder / "data",
            output=folder / "p.zarr",
            manifest=folder / "layouts.yaml",
            overrides={"patient_from": layout.patient_from} if layout.patient_from else {},
            mpp_override=folder / "table.csv",
            patient_key=folder / "key.txt",
        )
    )
    summary = build_pairs(prepared, runner=SerialRunner())
    assert summary is not None
    return prepared, summary


def slides_of(store: PairStore) -> dict[str, str]:
    """Relative path -> id."""
    return {str(view.attributes["source"]): slide_id for slide_id, view in store.slides.items()}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_public_layout_is_understood_and_a_leak_in_it_is_found(name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    layout.make(tmp_path / "data")
    (tmp_path / "key.txt").write_text("a secret of the test, long enough\n")
    prepared, summary = build(layout, tmp_path)

    assert summary.exit_code == 0 and not summary.failures
    assert not any("same tissue" in text for text in summary.warnings)
    assert {item.relative for item in prepared.layout.left_out} == layout.left_out
    store = open_pairs(tmp_path / "p.zarr")
    ids = slides_of(store)
    assert set(ids) == set(layout.patients)
    assert all(slide_id.isascii() and len(slide_id) <= 200 for slide_id in ids.values())
    _check_patients(layout, store, ids)
    _check_outlines(layout, store, ids)
    for slide, split in layout.splits.items():
        assert store.slides[ids[slide]].attributes["split"] == split

    report = verify_store(tmp_path / "p.zarr")
    assumed = [f for f in report.findings if "assumed to be one patient" in f.text]
    assert report.ok and len(report.findings) == len(assumed)
    assert bool(assumed) == (layout.source == "assumed")
    _check_leak(layout, tmp_path, store.slides[ids[layout.leak.of]].attributes["split"])


def _check_patients(layout: PublicLayout, store: PairStore, ids: dict[str, str]) -> None:
    people: dict[str, set[str]] = {}
    sides: dict[str, set[object]] = {}
    for slide, patient in layout.patients.items():
        attributes = store.slides[ids[slide]].attributes
        people.setdefault(patient, set()).add(attributes["patient"])
        sides.setdefault(patient, set()).add(attributes["split"])
        assert attributes["patient_source"] == layout.source, slide
    assert all(len(names) == 1 for names in people.values())
    assert len({next(iter(names)) for names in people.values()}) == len(people)
    assert all(len(splits) == 1 for splits in sides.values())
    if layout.source == "barcode":
        assert {next(iter(names)) for names in people.values()} == set(people)
    if not layout.public:
        assert all(next(iter(names)).startswith("patient-") for names in people.values())


def _check_outlines(layout: PublicLayout, store: PairStore, ids: dict[str, str]) -> None:
    for slide, slide_id in ids.items():
        view = store.slides[slide_id]
        x, label = view.column("x"), view.column("label")
        left = x < 320 - 64
        if slide in layout.outlined:
            np.testing.assert_array_equal(label[left], 1, err_msg=slide)
            np.testing.assert_array_equal(label[x >= 320], 0, err_msg=slide)
        else:
            assert not (label == 1).any(), slide


def _check_leak(layout: PublicLayout, folder: Path, split: object) -> None:
    """The same glass comes in under another patient's name, and lands in another split."""
    plant(layout, folder / "data")
    where = "train" if split == "test" else "test"
    leak = layout.leak.name
    _, summary = build(layout, folder, f'"{leak}",{where}\n')
    report = verify_store(folder / "p.zarr")
    found = [finding for finding in report.findings if finding.severity == "error"]
    ids = slides_of(open_pairs(folder / "p.zarr"))
    (said,) = [text for text in summary.warnings if text.startswith("Leak between splits")]
    assert ids[leak] in said and ids[layout.leak.of] in said and "show the same tissue" in said
    assert said in (summary.report / "summary.md").read_text()
    assert found and not report.ok
    for finding in found:
        assert ids[leak] in finding.text and ids[layout.leak.of] in finding.text
