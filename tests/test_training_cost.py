"""What a run will cost: traced memory and arithmetic against known ones, cards, reports."""

import json
import re
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from wsisr.errors import ConfigError
from wsisr.models.cost import model_cost
from wsisr.training import resolve_config
from wsisr.training.config import TrainConfig
from wsisr.training.cost import CARDS, choose_cards, cost_table, step_cost
from wsisr.training.parallel import Processes
from wsisr.training.request import Setting, TrainRequest, opening_lines, resolve


def config_of(name: str, *more: str) -> TrainConfig:
    return resolve_config(name, preset="tiny", assignments=more).config


def test_arithmetic_is_three_forward_passes_of_convolutions() -> None:
    config = config_of("edsr", "data.batch=4")
    forward = model_cost("edsr", scale=4, preset="tiny", lr_px=config.data.crop_lr_px)
    cost = step_cost(config)
    # The first layer's input has no gradient.
    assert 0.95 < cost.tflop / (4 * 3 * 2 * forward.gmac / 1e3) <= 1.0


def test_the_faq_says_what_the_first_line_of_a_training_says() -> None:
    request = TrainRequest(model="mihatp")
    first = opening_lines(
        Setting(
            request=request,
            resolved=resolve(request, gpu=False),
            folder=Path("runs/mihatp-x4"),
            processes=Processes(),
            device=torch.device("cpu"),
            earlier=None,
        )
    )[0]
    said = re.search(r"roughly [\d,]+ times the arithmetic", first)
    assert said and said[0] in (ROOT / "docs/faq.md").read_text(encoding="utf-8")


def test_memory_is_weights_moments_and_what_a_batch_keeps() -> None:
    plain = step_cost(config_of("edsr", "data.batch=2", "train.ema=0"))
    numel = model_cost("edsr", scale=4, preset="tiny", lr_px=16).parameters
    # Weights, gradients and two moments; constants beside them are small.
    assert 16 * numel <= plain.fixed_bytes < 16 * numel + 4096
    averaged = step_cost(config_of("edsr", "data.batch=2", "train.ema=0.9"))
    assert averaged.fixed_bytes - plain.fixed_bytes == pytest.approx(4 * numel, abs=4096)
    assert step_cost(config_of("edsr", "data.batch=4")).batch_bytes == 2 * plain.batch_bytes


def test_recomputed_blocks_and_fused_attention_keep_less() -> None:
    kept = step_cost(config_of("swinir")).batch_bytes
    assert step_cost(config_of("swinir"), fused=False).batch_bytes > kept
    assert step_cost(config_of("swinir", "train.checkpointing=true")).batch_bytes < kept


def test_a_network_that_looks_up_fewer_places_than_it_has_waits_for_no_count() -> None:
    # The distinct places of a batch of one would be a number that only the device knows.
    few = config_of("iste", "data.batch=1", "data.crop_lr_px=32")
    assert step_cost(few).batch_bytes > 0


def test_what_is_said_to_fit_fits() -> None:
    small, large = CARDS["rtx3090-24"], CARDS["a100-80"]
    config = config_of("edsr")
    cost = step_cost(config)
    for card in (small, large):
        most = cost.largest_batch(card, "fp32")
        fits = step_cost(config_of("edsr", f"data.batch={most}"))
        more = step_cost(config_of("edsr", f"data.batch={most + 2}"))
        assert fits.memory_gib(card, "fp32") <= 0.92 * card.memory_gib
        assert more.memory_gib(card, "fp32") > 0.92 * card.memory_gib
    assert cost.largest_batch(small, "bf16") > cost.largest_batch(small, "fp32")
    assert cost.seconds(large, "bf16") < cost.seconds(small, "bf16")


def test_a_report_of_a_card_corrects_its_estimate(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    report = {
        "identity": {"name": "NVIDIA A100-SXM4-80GB", "memory_gib": 79.3},
        "correction": {"time": 2.0, "memory": 1.25},
    }
    path.write_text(json.dumps(report), encoding="utf-8")
    (card,) = choose_cards([str(path)])
    assert card.measured and card.memory_gib == 79.3
    sheet, cost = CARDS["a100-80"], step_cost(config_of("edsr", "data.batch=512"))
    assert cost.seconds(card, "fp32") == pytest.approx(2 * cost.seconds(sheet, "fp32"), rel=0.05)
    assert card.memory == 1.25
    table = cost_table(config_of("edsr"), [card, sheet])
    assert "| NVIDIA A100-SXM4-80GB | fp32 |" in table and "| a100-80 * | bf16 |" in table
    path.write_text(json.dumps({"identity": {}}), encoding="utf-8")
    for wrong in (str(path), "a1000", str(tmp_path)):
        with pytest.raises(ConfigError, match="neither a card"):
            choose_cards([wrong])
