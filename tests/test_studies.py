"""Studies: every table of the papers can be trained as written, and a run resumes and says all."""

import shutil
from pathlib import Path

import pytest
from evaluation_samples import write_store

from wsisr.building.manifest import manifest_names
from wsisr.errors import ConfigError
from wsisr.evaluation.published import published
from wsisr.evaluation.summary import MARKS, ScoreTable
from wsisr.metrics import get_protocol
from wsisr.models import model_spec
from wsisr.reporting.writing import write_report
from wsisr.studies import load_study, run_study, study_names
from wsisr.studies.definition import BUDGETS, Budget, Study
from wsisr.studies.plan import row_scales, share, trainings, unfit
from wsisr.studies.running import StudyRequest
from wsisr.studies.tables import _legend, _table, study_table
from wsisr.training import resolve_config


@pytest.mark.parametrize("name", study_names())
def test_every_row_resolves_and_every_printed_row_is_there(name: str) -> None:
    study = load_study(name)
    assert study.name == name
    get_protocol(study.protocol)
    assert set(study.data.values()) <= set(manifest_names())
    for row in study.rows:
        if row.model is None or row.model == "bicubic":
            continue
        scales = row_scales(study, row)
        if model_spec(row.model).kind == "arbitrary":
            scales = [None]
        for scale in [s for s in scales if s is None or unfit(row, s) is None]:
            for budget in BUDGETS.values():
                resolve_config(
                    row.model, preset=budget.preset, scale=scale, assignments=list(row.set)
                )
    printed = {
        r.method
        for r in published()
        if (r.paper, r.table) == (study.paper, study.table) and r.dataset in study.data
    }
    assert {row.method for row in study.rows} - {None} == printed


def test_every_printed_table_is_a_study() -> None:
    named = {(study.paper, study.table) for study in map(load_study, study_names())}
    assert {(row.paper, row.table) for row in published()} | {(None, None)} == named


def _study(**changes: object) -> Study:
    content = {
        "name": "small",
        "title": "A small table",
        "paper": "ISTE 2025",
        "table": "1",
        "data": {"TCGA-lung": "tcga-lung"},
        "lr_source": "bicubic",
        "scales": [2, 4],
        "rows": [
            {"id": "bicubic", "label": "Bicubic", "method": "Bicubic", "model": "bicubic"},
            {"id": "edsr", "label": "SRCNN", "method": "EDSR", "model": "srcnn"},
            {"id": "broken", "label": "broken", "model": "srcnn", "set": ["data.crop_lr_px=999"]},
            {
                "id": "swd",
                "label": "SWD-Net",
                "method": "SWD-Net",
                "model": "swdnet",
                "scales": [4],
            },
            {"id": "ldm", "label": "LDM", "why_not": "a diffusion network"},
        ],
    }
    return Study.model_validate(content | changes)


def test_a_study_is_trained_in_parts_evaluated_once_and_says_what_is_missing(
    tmp_path: Path,
) -> None:
    write_store(tmp_path / "pairs.zarr")
    budget = Budget(name="tiny", preset="tiny", steps=1, limit=1)

    def go(**changes: object):  # type: ignore[no-untyped-def]
        fields = {"study": _study(), "budget": budget, "data": tmp_path / "pairs.zarr"}
        return run_study(StudyRequest(**(fields | {"output": tmp_path / "out"} | changes)))

    first = go(part=(1, 2), rows=("bicubic", "edsr"))
    assert (first.trained, first.evaluated, first.failed) == (1, False, {})
    weights = tmp_path / "out/runs/edsr-x2-s0/last/model.safetensors"
    before = weights.stat().st_mtime_ns
    outcome = go()
    assert outcome.evaluated and outcome.trained == 2
    assert weights.stat().st_mtime_ns == before
    assert set(outcome.failed) == {"broken-x2-s0", "broken-x4-s0"}

    psnr, ssim = study_table(tmp_path / "out")
    assert psnr.header == ("", "x2", "x2, printed", "x4", "x4, printed")
    lines = {line[0]: line[1:] for line in psnr.lines}
    found = {(r.method, r.scale): r.printed for r in published() if r.dataset == "TCGA-lung"}
    assert lines["SRCNN"][1] == found["EDSR", 2.0][0] and float(lines["SRCNN"][0][:5]) > 5
    assert float(lines["Bicubic"][2][:5]) > 10 and lines["LDM"] == ("-", "-", "-", "-")
    notes = " ".join(psnr.notes)
    assert "none of the paper's data" in notes and "a diffusion network" in notes
    assert "SWD-Net, x4: defined for x2 alone" in notes
    assert "broken, x2: broken-x2-s0 failed" in notes
    assert "TINY BUDGET (1 steps" in psnr.title and "SSIM" in ssim.title
    assert "TINY BUDGET" in (tmp_path / "out/table.tex").read_text()
    page = write_report(tmp_path / "out").read_text()
    assert page.count("TINY BUDGET") >= 3 and "SRCNN" in page
    assert f"{psnr.score}. TINY BUDGET</h2>" in page and "PSNR" in psnr.score

    assert str(tmp_path) not in (tmp_path / "out/study.json").read_text()
    go(rows=("bicubic",))  # what other rows have is not lost
    again = study_table(tmp_path / "out")[0]
    assert again.lines == psnr.lines and again.notes == psnr.notes

    with pytest.raises(ConfigError, match="another budget"):
        go(budget=BUDGETS["paper"])
    shutil.rmtree(tmp_path / "out/runs")
    (tmp_path / "out/study.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        go()


def test_parts_share_all_trainings_and_a_run_stays_with_its_start() -> None:
    study = load_study("masrgan-table3")
    every = trainings(study, study.rows, BUDGETS["paper"])
    assert len(every) == 4 * 3
    parts = [share(every, (i, 3)) for i in (1, 2, 3)]
    assert sorted(t.name for part in parts for t in part) == sorted(t.name for t in every)
    for part in parts:
        assert len({t.seed for t in part}) == 1 and part[0].row.id == "masrnet"
    assert [row.id for row in study.chosen(["patch"])] == ["masrnet", "patch"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scale": [2]}, "Extra inputs"),
        ({"rows": [{"id": "a", "label": "a"}]}, "give model, or why_not"),
        ({"rows": [{"id": "a/b", "label": "a", "model": "srcnn"}]}, "pattern"),
    ],
)
def test_a_wrong_study_is_refused(changes: dict[str, object], words: str, tmp_path: Path) -> None:
    import yaml

    content = _study().model_dump(mode="json") | changes
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=words):
        load_study(tmp_path / "mine.yaml")
    with pytest.raises(ConfigError, match="did you mean"):
        load_study("familes")


def test_a_study_of_no_paper_has_no_printed_columns_and_explains_its_marks() -> None:
    score = {"name": "psnr_rgb", "title": "PSNR-RGB, dB", "digits": 3}
    study = load_study("families")
    assert study.paper is None
    table = ScoreTable(
        origin="simulated:bicubic",
        score=score,
        scales=(),
        lines=(),
        columns={},
        pairs=(),
        ceilings=(),
    )
    made = _table(study, BUDGETS["tiny"], table, None, "images", {})
    assert made.header == ("", "x2", "x3", "x4", "x6", "x8") and len(made.lines) == 6
    assert all(line[1:] == ("-",) * 5 for line in made.lines)
    assert _legend([("a", "1.0 ‡", "2.0")]) == [f"‡ {MARKS['‡']}."]
