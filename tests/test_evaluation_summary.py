"""Tables from rows whose answers are known."""

import math

import numpy as np
import pytest
from evaluation_samples import document, entry, image_row

from wsisr.evaluation.entries import baseline
from wsisr.evaluation.groups import group_entries
from wsisr.evaluation.summary import sample_words, summarise_results
from wsisr.evaluation.tables import latex, markdown, overview

SLIDES = [f"s{i}" for i in range(8)]


def _rows(run: str, offset: float, noise: float = 0.0, seed: int = 0, slides=SLIDES):
    rng = np.random.default_rng(seed)
    return [
        image_row(run, slide, row, 25.0 + i + offset + noise * rng.normal(), seed=seed)
        for i, slide in enumerate(slides)
        for row in range(2)
    ]


def test_means_are_over_slides_and_ranks_follow() -> None:
    rows = [*_rows("bicubic", 0.0), *_rows("net", 1.0)]
    rows.append(image_row("net", "s0", 9, math.inf))
    rows += [image_row("net", "s0", i, 26.0) for i in range(10, 60)]  # many patches, one slide
    results = summarise_results(document([baseline(), entry()]), rows)
    cells = {g.label: c[4.0] for g, c in results.tables[0].lines}
    assert cells["bicubic"].summary.mean == pytest.approx(28.5)
    assert cells["net"].summary.mean == pytest.approx(29.5)
    assert cells["net"].summary.infinite == 1 and cells["net"].summary.slides == 8
    assert (cells["net"].rank, cells["bicubic"].rank) == (1, 2)
    assert cells["net"].seed_sd is None and cells["bicubic"].marks == ""
    pair = results.pairs[0]
    assert (pair.first, pair.second, pair.verdict) == ("net", "bicubic", "better")
    assert pair.comparison.difference == pytest.approx(1.0)
    assert pair.adjusted == pytest.approx(2 / 2**8)


def test_below_six_slides_there_is_no_p_value() -> None:
    rows = [*_rows("bicubic", 0.0, slides=SLIDES[:5]), *_rows("net", 1.0, slides=SLIDES[:5])]
    results = summarise_results(document([baseline(), entry()]), rows)
    assert results.pairs[0].adjusted is None
    assert "no p-values below 6 slides" in sample_words(results.tables[0])
    assert "n/a (5 slides)" in markdown(results)


def test_differences_inside_the_slides_interval_are_not_distinguishable() -> None:
    rows = [*_rows("bicubic", 0.0), *_rows("net", 0.05, noise=1.0)]
    results = summarise_results(document([baseline(), entry()]), rows)
    assert results.pairs[0].verdict == "not distinguishable"
    marks = [c[4.0].marks for _, c in results.tables[0].lines]
    assert sorted(marks) == ["", "≈"]
    assert "≈ not distinguishable from the best" in markdown(results)


def test_seeds_become_one_line_with_their_deviation() -> None:
    entries = [entry(f"net-s{i}", seed=i, recipe="same") for i in range(3)]
    rows = _rows("bicubic", 0.0)
    for i, offset in enumerate((0.2, 0.6, 1.0)):
        rows += _rows(f"net-s{i}", offset, seed=i)
    results = summarise_results(document([baseline(), *entries]), rows)
    labels = [g.label for g in results.groups]
    assert labels == ["bicubic", "net-s0 (3 seeds)"]
    cell = results.tables[0].lines[1][1][4.0]
    assert cell.summary.mean == pytest.approx(29.1) and cell.seed_sd == pytest.approx(0.4)
    assert "±0.400" in markdown(results) and results.pairs[0].verdict == "better"


def test_a_gain_smaller_than_the_seeds_deviation_is_not_distinguishable() -> None:
    entries = [entry(f"net-s{i}", seed=i, recipe="same") for i in range(2)]
    rows = [*_rows("bicubic", 0.0), *_rows("net-s0", -0.9, seed=0), *_rows("net-s1", 1.1, seed=1)]
    results = summarise_results(document([baseline(), *entries]), rows)
    pair = results.pairs[0]
    assert pair.comparison.distinguishable and pair.seed_sd > 1.0
    assert pair.verdict == "not distinguishable"


def test_equal_seeds_are_no_sample_of_seeds() -> None:
    groups = group_entries([entry(n, seed=3, recipe="same").record() for n in ("x", "y")])
    assert [g.label for g in groups] == ["x", "y"]


def test_marks_say_where_a_column_is_not_the_model_s_own() -> None:
    entries = [
        baseline(),
        entry("other", trained_origin="simulated:bicubic"),
        entry("far", kind="arbitrary", scale=None, scale_range=(1.0, 3.0)),
        entry("untold", trained_origin=None),
    ]
    rows = [r for i, e in enumerate(entries) for r in _rows(e.name, float(i))]
    results = summarise_results(document(entries), rows)
    marks = {g.label: c[4.0].marks for g, c in results.tables[0].lines}
    assert marks == {"bicubic": "", "other": "†", "far": "‡", "untold": ""}


def test_rows_that_were_not_asked_for_stay_out() -> None:
    rows = [
        *_rows("bicubic", 0.0),
        image_row("gone", "s0", 0, 99.0),
        image_row("bicubic", "s0", 0, 99.0, scale=2.0),
        image_row("bicubic", "s0", 0, 99.0, origin="rescan"),
        image_row("bicubic", "s0", 0, 99.0, reference="oracle"),
    ]
    results = summarise_results(document([baseline()]), rows)
    assert len(results.rows) == 16 and results.tables[0].lines[0][1][4.0].rank == 0


@pytest.mark.parametrize(("better", "best"), [("low", "net"), ("zero", "bicubic"), ("high", "up")])
def test_every_direction_of_a_score(better: str, best: str) -> None:
    entries = [baseline(), entry("net"), entry("up")]
    values = {"bicubic": 0.1, "net": -0.5, "up": 0.7}
    rows = [image_row(n, s, 0, v + i / 100) for n, v in values.items() for i, s in enumerate("abc")]
    known = document(entries)
    known["scores"][0]["better"] = better
    lines = summarise_results(known, rows).tables[0].lines
    assert [g.label for g, c in lines if c[4.0].rank == 1] == [best]


def test_ceilings_stand_under_the_scores_that_they_limit() -> None:
    known = document([baseline(), entry()])
    known["ceilings"] = {
        "alignment": [
            {"origin": "stored-level", "scale": 4.0, "best_db": "inf", "perfect_db": "inf",
             "rms_px": 0.0, "p95_px": 0.0, "pairs": 3}
        ],
        "jpeg": {"scores": {"psnr_rgb": 35.5}, "words": "Q80 4:2:0"},
    }  # fmt: skip
    results = summarise_results(known, [*_rows("bicubic", 0.0), *_rows("net", 1.0)])
    assert results.tables[0].ceilings == (("ceiling: HR's own JPEG", {4.0: 35.5}),)
    known["scores"][0]["name"] = "psnr_y"
    known["columns"][0]["scores"] = {"psnr_y": "wsisr: psnr_y"}
    rows = [image_row("bicubic", "s", 0, 30.0, scores={"psnr_y": 30.0})]
    table = summarise_results(known, rows).tables[0]
    assert table.ceilings == (("ceiling: alignment", {4.0: math.inf}),)
    assert "no limit" in markdown(summarise_results(known, rows))


def test_latex_is_booktabs_and_escaped() -> None:
    entries = [baseline(), entry("net_x4&co")]
    rows = [*_rows("bicubic", 0.0), *_rows("net_x4&co", 1.0)]
    known = document(entries, stamps=["LEAKY: 100 %"])
    text = latex(summarise_results(known, rows))
    assert r"\toprule" in text and r"\bottomrule" in text
    assert r"net\_x4\&co & \textbf{29.500}" in text and r"\underline{28.500}" in text
    assert r"LEAKY: 100 \%" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2


def test_published_numbers_are_apart_and_marked() -> None:
    results = summarise_results(document([baseline(), entry()]), _rows("bicubic", 0.0))
    text = markdown(results)
    tables, _, reference = text.partition("published, other data")
    assert "PathImgSR" not in tables and "Bicubic: ISTE 2025, HistoSR" in reference
    assert "never for ranking" in reference


def test_the_terminal_gets_plain_text() -> None:
    rows = [*_rows("bicubic", 0.0), *_rows("net", 1.0)]
    text = overview(summarise_results(document([baseline(), entry()]), rows))
    assert "29.500 [" in text and "**" not in text and "better" in text
