"""Tables from rows whose answers are known."""

import math
from dataclasses import replace

import numpy as np
import pytest
from evaluation_samples import document, entry, image_row, record_of
from scipy import stats

from wsisr.evaluation.groups import group_entries
from wsisr.evaluation.papers import paper_tables
from wsisr.evaluation.summary import sample_words, summarise_results
from wsisr.evaluation.tables import latex, markdown, overview
from wsisr.inference.trained import BICUBIC

SLIDES = [f"s{i}" for i in range(8)]
_PAIR = (("bicubic", 65.0), ("net", 66.0))


def _rows(run: str, offset: float, noise: float = 0.0, seed: int = 0, slides=SLIDES):
    rng = np.random.default_rng(seed)
    return [
        image_row(run, slide, row, 25.0 + i + offset + noise * rng.normal(), seed=seed)
        for i, slide in enumerate(slides)
        for row in range(2)
    ]


def test_means_are_over_patients_and_ranks_follow() -> None:
    rows = [*_rows("bicubic", 0.0), *_rows("net", 1.0)]
    for name, offset in (("bicubic", 0.0), ("net", 1.0)):  # many patches, one slide
        rows += [image_row(name, "s0", i, 25.0 + offset) for i in range(10, 60)]
    # A second slide of the first patient, far from all others.
    rows += [image_row(n, "s0b", 0, v, patient="patient-s0") for n, v in _PAIR]
    results = summarise_results(document([BICUBIC, entry()]), rows)
    cells = {g.label: c[4.0] for g, c in results.tables[0].lines}
    assert cells["bicubic"].summary.mean == pytest.approx(28.5 + (65.0 - 25.0) / 2 / 8)
    assert cells["net"].summary.mean == pytest.approx(29.5 + (66.0 - 26.0) / 2 / 8)
    assert cells["net"].summary.units == 8 and results.tables[0].columns[4.0].slides == 9
    assert "67 patches of 9 slides of 8 patients" in sample_words(results.tables[0])
    assert (cells["net"].rank, cells["bicubic"].rank) == (1, 2)
    assert cells["net"].seed_sd is None and cells["bicubic"].marks == ""
    pair = results.pairs[0]
    assert (pair.first, pair.second, pair.verdict) == ("net", "bicubic", "better")
    assert pair.comparison.difference == pytest.approx(1.0)
    assert pair.adjusted == pytest.approx(2 / 2**8)


@pytest.mark.parametrize("named", [False, True])
def test_slides_of_unknown_patients_count_for_themselves(named: bool) -> None:
    """Stores call such a slide its own patient."""
    rows = [
        replace(row, patient=row.slide if named else "")
        for run in ("bicubic", "net")
        for row in _rows(run, run == "net")
    ]
    results = summarise_results(document([BICUBIC, entry()]), rows)
    assert results.pairs[0].verdict == "better" and results.pairs[0].comparison.units == 8
    assert "16 patches of 8 slides" in (words := sample_words(results.tables[0]))
    assert "patient" not in words


def test_scans_of_one_glass_of_an_unknown_patient_are_one_unit() -> None:
    """Five glasses scanned twice are no ten patients: no verdict."""
    rows = [
        replace(row, patient=row.slide, group=f"glass-{int(row.slide[1:]) // 2}")
        for run in ("bicubic", "net")
        for row in _rows(run, run == "net", slides=[f"s{i}" for i in range(10)])
    ]
    results = summarise_results(document([BICUBIC, entry()]), rows)
    assert results.pairs[0].comparison.units == 5
    words = sample_words(results.tables[0])
    assert "20 patches of 10 slides of 5 glasses of unknown patients; too few" in words


def test_below_six_patients_there_is_no_verdict() -> None:
    few = SLIDES[:5]
    rows = [*_rows("bicubic", 0.0, slides=few), *_rows("net", 1.0, slides=few)]
    for slide in few:  # more slides are no more patients
        rows += [image_row(n, f"{slide}b", 0, v, patient=f"patient-{slide}") for n, v in _PAIR]
    results = summarise_results(document([BICUBIC, entry()]), rows)
    pair, cells = results.pairs[0], [c[4.0] for _, c in results.tables[0].lines]
    assert pair.adjusted is None and pair.verdict == "too few slides"
    assert all(c.marks == "" and math.isnan(c.summary.low) for c in cells)
    assert "5 patients; too few slides for a verdict" in sample_words(results.tables[0])
    assert "| net | bicubic | - | - | - (n = 5) | too few slides |" in markdown(results)


def test_many_models_need_more_patients_and_equal_ones_are_not_told_apart() -> None:
    names = [f"net{i}" for i in range(9)]
    rng = np.random.default_rng(0)
    rows = [
        image_row(n, s, 0, 25.0 + float(rng.normal())) for n in ("bicubic", *names) for s in SLIDES
    ]
    results = summarise_results(document([BICUBIC, *map(entry, names)]), rows)
    assert "45 pairs of models need 11 patients" in sample_words(results.tables[0])
    assert {pair.verdict for pair in results.pairs} == {"not distinguishable"}
    # Holm counts all pairs that the best was chosen from, not the 17 that are shown.
    least = min(results.pairs, key=lambda p: p.comparison.p_value)
    assert least.adjusted == pytest.approx(min(1.0, 45 * least.comparison.p_value))


@pytest.mark.parametrize("lost", [math.inf, math.nan])
def test_every_mean_is_over_the_same_images(lost: float) -> None:
    """A model without a score of the hard image must not gain by it."""
    known = document([BICUBIC, entry()])
    known["scores"].append({**known["scores"][0], "name": "task", "protocol": ""})
    known["columns"][0]["scores"]["task"] = "a task"
    rows = [
        replace(row, scores={"psnr_rgb": 30.0, "task": value})
        for run, offset in (("bicubic", 0.0), ("net", -1.0))
        for row in _rows(run, offset)
        for value in [
            lost if (run, row.row) == ("net", 1) else row.scores["psnr_rgb"] + 9 * row.row
        ]
    ]
    table = summarise_results(known, rows).tables[1]
    means = {g.label: c[4.0].summary.mean for g, c in table.lines}
    assert means == {"bicubic": pytest.approx(28.5), "net": pytest.approx(27.5)}
    assert "8 patches of 8 slides of 8 patients (8 patches without a score" in sample_words(table)
    assert next(g.label for g, c in table.lines if c[4.0].rank == 1) == "bicubic"


def test_identical_images_count_as_the_cap_for_every_model() -> None:
    rows = [*_rows("bicubic", 0.0), *_rows("net", 1.0)]
    rows += [image_row(n, "s0", 9, v) for n, v in (("bicubic", 120.0), ("net", math.inf))]
    results = summarise_results(document([BICUBIC, entry()]), rows)
    means = {g.label: c[4.0].summary.mean for g, c in results.tables[0].lines}
    assert means["bicubic"] == pytest.approx(28.5 + (2 * 25 + 100 - 75) / 3 / 8)
    assert means["net"] == pytest.approx(29.5 + (2 * 26 + 100 - 78) / 3 / 8)
    assert "PSNR above 100 dB" in markdown(results)


def test_a_run_with_output_that_is_not_finite_has_no_part_in_anything() -> None:
    """Leaving its images out would measure it, and everybody else, on easier ones."""
    entries = [BICUBIC, entry(), entry("best"), entry("best-s1", seed=1, recipe="best")]
    rows = [r for i, e in enumerate(entries) for r in _rows(e.name, float(i), seed=e.seed or 0)]
    rows[-1] = replace(rows[-1], scores={"psnr_rgb": math.nan})
    known = document(entries, failed={"gone": "its weights cannot be read"})
    results = summarise_results(known, rows)
    assert [g.label for g, _ in results.tables[0].lines] == ["bicubic", "net", "best"]
    assert results.tables[0].columns[4.0].images == 16 and len(results.pairs) == 3
    assert "1 of 16 images, the first s7 row 1 at x4" in results.failed["best-s1"]
    for text in (markdown(results), overview(results), latex(results)):
        assert "best-s1 failed and has no part" in text and "cannot be read" in text
    assert "| best-s1 | failed |" in markdown(results) and "| gone | failed |" in markdown(results)


def test_the_papers_per_image_tests_are_a_protocol_and_marked() -> None:
    rows = [*_rows("bicubic", 0.0), *_rows("net", 0.1, noise=0.05)]
    known = document([BICUBIC, entry()])
    assert "PER-IMAGE" not in markdown(summarise_results(known, rows))
    known["scores"][0]["protocol"] = "iste"
    results = summarise_results(known, rows)
    (table,) = paper_tables(results)
    by_run = {n: [r.scores["psnr_rgb"] for r in rows if r.run == n] for n in ("net", "bicubic")}
    expected = stats.ttest_rel(by_run["net"], by_run["bicubic"]).pvalue
    assert table.title.startswith("PER-IMAGE TESTS as iste's paper")
    assert [row[1] for row in table.rows] == ["net", "bicubic"]
    assert table.rows[0][3:] == ("16", "-", "-") and table.rows[1][4] == f"{expected:.3g}"
    assert table.rows[1][2] == f"28.500 ± {np.std(by_run['bicubic'], ddof=1):.3f}"
    for text in (markdown(results), latex(results)):
        assert "not independent" in text and "PER-IMAGE TESTS" in text


def test_the_papers_disjoint_test_sets_are_averaged() -> None:
    rows = [*_rows("bicubic", 0.0), *_rows("net", 1.0)]
    known = document([BICUBIC, entry()])
    sets = [[[s, 0] for s in SLIDES[:2]], [[s, 1] for s in SLIDES[4:6]]]
    known["samples"]["test_sets"] = sets
    (table,) = paper_tables(summarise_results(known, rows))
    middle, between = (25.5 + 29.5) / 2, 4 / 2**0.5
    assert table.rows[0] == ("bicubic", f"{middle:.3f} ± {between:.3f}")
    assert table.rows[1] == ("net", f"{middle + 1:.3f} ± {between:.3f}")
    assert "2 disjoint test sets of 2 images each" in markdown(summarise_results(known, rows))


def test_published_parts_of_a_test_split_stand_apart() -> None:
    rows = [*_rows("bicubic", 0.0), *_rows("net", 1.0)]
    known = document([BICUBIC, entry()])
    known["samples"]["parts"] = {"A": [[s, 0] for s in SLIDES[:2]], "B": [[SLIDES[5], 1]]}
    results = summarise_results(known, rows)
    (table,) = paper_tables(results)
    scores = {(r.run, r.slide, r.row): r.scores["psnr_rgb"] for r in rows}
    for row in table.rows:
        a = np.mean([scores[row[0], s, 0] for s in SLIDES[:2]])
        assert row[1:] == (f"{a:.3f}", f"{scores[row[0], SLIDES[5], 1]:.3f}")
    assert table.header == ("model", "x4, test A", "x4, test B") and len(table.rows) == 2
    assert "images: A 2, B 1" in markdown(results)


def test_differences_inside_the_slides_interval_are_not_distinguishable() -> None:
    rows = [*_rows("bicubic", 0.0), *_rows("net", 0.05, noise=1.0)]
    results = summarise_results(document([BICUBIC, entry()]), rows)
    assert results.pairs[0].verdict == "not distinguishable"
    marks = [c[4.0].marks for _, c in results.tables[0].lines]
    assert sorted(marks) == ["", "≈"]
    assert "≈ not distinguishable from the best" in markdown(results)


def test_seeds_become_one_line_with_their_deviation() -> None:
    entries = [entry(f"net-s{i}", seed=i, recipe="same") for i in range(3)]
    rows = _rows("bicubic", 0.0)
    for i, offset in enumerate((0.2, 0.6, 1.0)):
        rows += _rows(f"net-s{i}", offset, seed=i)
    results = summarise_results(document([BICUBIC, *entries]), rows)
    labels = [g.label for g in results.groups]
    assert labels == ["bicubic", "net-s0 (3 seeds)"]
    cell = results.tables[0].lines[1][1][4.0]
    assert cell.summary.mean == pytest.approx(29.1) and cell.seed_sd == pytest.approx(0.4)
    assert "±0.400" in markdown(results) and results.pairs[0].verdict == "better"


def test_a_gain_smaller_than_the_seeds_deviation_is_not_distinguishable() -> None:
    entries = [entry(f"net-s{i}", seed=i, recipe="same") for i in range(2)]
    rows = [*_rows("bicubic", 0.0), *_rows("net-s0", -0.9, seed=0), *_rows("net-s1", 1.1, seed=1)]
    results = summarise_results(document([BICUBIC, *entries]), rows)
    pair = results.pairs[0]
    assert pair.comparison.distinguishable and pair.seed_sd > 1.0
    assert pair.verdict == "not distinguishable"


def test_equal_seeds_are_no_sample_of_seeds() -> None:
    groups = group_entries([record_of(entry(n, seed=3, recipe="same")) for n in ("x", "y")])
    assert [g.label for g in groups] == ["x", "y"]


def test_marks_say_where_a_column_is_not_the_model_s_own() -> None:
    entries = [
        BICUBIC,
        entry("other", trained_origin="simulated:bicubic"),
        entry("far", scale=None, scale_range=(1.0, 3.0)),
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
    results = summarise_results(document([BICUBIC]), rows)
    assert len(results.rows) == 16 and results.tables[0].lines[0][1][4.0].rank == 0


@pytest.mark.parametrize(("better", "best"), [("low", "net"), ("zero", "bicubic"), ("high", "up")])
def test_every_direction_of_a_score(better: str, best: str) -> None:
    entries = [BICUBIC, entry("net"), entry("up")]
    values = {"bicubic": 0.1, "net": -0.5, "up": 0.7}
    rows = [image_row(n, s, 0, v + i / 100) for n, v in values.items() for i, s in enumerate("abc")]
    known = document(entries)
    known["scores"][0]["better"] = better
    lines = summarise_results(known, rows).tables[0].lines
    assert [g.label for g, c in lines if c[4.0].rank == 1] == [best]


def test_ceilings_stand_under_the_scores_that_they_limit() -> None:
    known = document([BICUBIC, entry()])
    known["ceilings"] = {
        "alignment": [
            {"origin": "stored-level", "scale": 4.0, "best_db": "inf", "perfect_db": "inf",
             "rms_px": 0.0, "p95_px": 0.0, "pairs": 3}
        ],
        "jpeg": {"scores": {"psnr_rgb": 35.5}, "words": "Q80 4:2:0"},
    }  # fmt: skip
    results = summarise_results(known, [*_rows("bicubic", 0.0), *_rows("net", 1.0)])
    assert results.tables[0].ceilings == (("yardstick: HR's own JPEG", {4.0: 35.5}),)
    known["scores"][0]["name"] = "psnr_y"
    known["columns"][0]["scores"] = {"psnr_y": "wsisr: psnr_y"}
    rows = [image_row("bicubic", "s", 0, 30.0, scores={"psnr_y": 30.0})]
    table = summarise_results(known, rows).tables[0]
    assert table.ceilings == (("ceiling: alignment", {4.0: math.inf}),)
    assert "no limit" in markdown(summarise_results(known, rows))


def test_latex_is_booktabs_and_escaped() -> None:
    entries = [BICUBIC, entry("net_x4&co")]
    rows = [*_rows("bicubic", 0.0), *_rows("net_x4&co", 1.0)]
    known = document(entries, stamps=["LEAKY: 100 %"])
    text = latex(summarise_results(known, rows))
    assert r"\toprule" in text and r"\bottomrule" in text
    assert r"net\_x4\&co & \textbf{29.500}" in text and r"\underline{28.500}" in text
    assert r"LEAKY: 100 \%" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2


def test_published_numbers_are_apart_and_marked() -> None:
    results = summarise_results(document([BICUBIC, entry()]), _rows("bicubic", 0.0))
    text = markdown(results)
    tables, _, reference = text.partition("published, other data")
    assert "PathImgSR" not in tables and "Bicubic: ISTE 2025, HistoSR" in reference
    assert "never for ranking" in reference


def test_the_terminal_gets_plain_text() -> None:
    rows = [*_rows("bicubic", 0.0), *_rows("net", 1.0)]
    text = overview(summarise_results(document([BICUBIC, entry()]), rows))
    assert "29.500 [" in text and "**" not in text and "better" in text
