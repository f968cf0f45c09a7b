"""A paper's data set, its method and its baselines have one degradation, by construction."""

import pytest

from wsisr.building.manifest import load_manifest
from wsisr.degradation import parse_degradation
from wsisr.evaluation.columns import same_origin
from wsisr.evaluation.published import published
from wsisr.models import model_spec
from wsisr.training.presets import resolve_config

MANIFESTS = {
    "TMA": ("tma",),
    "TCGA-lung": ("tcga-lung", "tcga-lung-random"),
    "HistoSR": ("histosr",),
    "TCGA-COAD": ("tcga-coad",),
    "TCGA-BRCA": ("tcga-brca",),
    "MLCamSR": ("mlcamsr", "mlcamsr-random"),
    "FTMS": ("ftms",),
    "PathImgSR": ("pathimgsr", "pathimgsr-ncrf"),
}
PAPERS = sorted({row.paper for row in published()})


def _models(paper: str) -> list[str]:
    return sorted({r.model for r in published() if r.paper == paper} - {"", "bicubic"})


def _data(paper: str) -> list[str]:
    sets = sorted({row.dataset for row in published() if row.paper == paper})
    return [name for data in sets for name in MANIFESTS[data]]


@pytest.mark.parametrize("paper", PAPERS)
def test_method_baselines_and_data_sets_of_a_paper_have_one_degradation(paper: str) -> None:
    named = {load_manifest(name).degradation for name in _data(paper)}
    assert _models(paper) and named
    for model in _models(paper):
        for preset in model_spec(model).presets:
            source = resolve_config(model, preset=preset).config.data.lr_source
            if preset == "official" and source not in ("auto", "native"):
                # The released code may do other than its paper, and says so.
                warnings = resolve_config(model, preset=preset).warnings
                assert any(f"--lr-source {source}" in text for text in warnings)
                continue
            for manifest in named:
                used = manifest if source == "auto" else source
                assert same_origin(f"simulated:{used}", f"simulated:{manifest}"), (model, preset)


@pytest.mark.parametrize("paper", PAPERS)
def test_models_of_one_scale_and_of_any_train_on_lr_of_one_origin(paper: str) -> None:
    """`auto` takes stored LR for a model of one scale, which one of any scale cannot have."""
    kinds = {model_spec(model).kind for model in _models(paper)}
    if kinds == {"fixed", "arbitrary"}:
        for name in _data(paper):
            manifest = load_manifest(name)
            assert manifest.native == "never" or manifest.images is not None, name


def test_a_papers_data_sets_of_iste_blur_after_the_reduction() -> None:
    for name in ("tma", "tcga-lung", "tcga-lung-random", "histosr"):
        used = parse_degradation(load_manifest(name).degradation)
        assert used.digest == parse_degradation("iste-paper").digest
