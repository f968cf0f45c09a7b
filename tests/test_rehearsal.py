"""What a GPU would refuse or wait for, found on tensors without values; no GPU's name elsewhere."""

import ast
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import wsisr
from wsisr.degradation import names
from wsisr.inference.engine import WindowBatch
from wsisr.inference.network import Network
from wsisr.inference.tiles import WHOLE, plan_frame, window_rows
from wsisr.models import create_model, list_models, model_spec
from wsisr.models.srcnn import Srcnn
from wsisr.models.wrapper import SRModel
from wsisr.rehearsal import Fault, rehearsed
from wsisr.training import recipes, resolve_config
from wsisr.training.rehearse import rehearse_step

ROOT = Path(wsisr.__file__).parents[1]
NETWORKS = [name for name in list_models() if name != "bicubic"]
SMALLER: dict[str, dict[str, Any]] = {
    "cwtnet": {"blocks": 1},
    "hat": {"groups": 1, "depth": 1},
    "mihatp": {"groups": 1, "depth": 1},
}
"""Settings of tiny networks that are still many operations."""


def test_no_other_module_knows_a_gpu_by_name() -> None:
    found = []
    for folder in ("wsisr", "cli", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if path == ROOT / "wsisr" / "device.py" or not re.search("cuda|mps", text):
                continue
            for node in ast.walk(ast.parse(text)):
                named = isinstance(node, ast.Attribute) and node.attr in ("cuda", "is_cuda", "mps")
                value = node.value if isinstance(node, ast.Constant) else None
                if named or (isinstance(value, str) and re.fullmatch(r"(cuda|mps)(:\d+)?", value)):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not found, found


def small(name: str) -> SRModel:
    spec = model_spec(name)
    scale = (2 if spec.scales is None else spec.scales[0]) if spec.kind == "fixed" else None
    return create_model(name, scale=scale, preset="tiny", **SMALLER.get(name, {}))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_goes_forth_and_back_and_infers_on_the_device(name: str) -> None:
    with rehearsed() as (device, watch):
        model = small(name).train().to(device)
        lr = torch.zeros(2, 3, 16, 16, device=device)
        watch.counts.clear()
        made = model(lr) if model.info.kind == "fixed" else model(lr, scale=2.0)
        made.float().square().mean().backward()  # type: ignore[no-untyped-call]
        assert all(p.grad is None or p.grad.device == device for p in model.parameters())
        network = Network(model.eval(), device, pool_px=8)
        scale = model.info.scale or 2.0
        frame = plan_frame(16, 16, scale)
        (row,) = window_rows(frame, frame.region, WHOLE)
        with torch.inference_mode():
            black = np.zeros((16, 16, 3), np.uint8)
            out = network.run(WindowBatch(frame=frame, windows=row, lr=[black]))
        assert out.device == device and tuple(out.shape) == (1, 3, *made.shape[-2:])
    assert not watch.faults, [str(fault) for fault in watch.faults]


@pytest.mark.parametrize("name", ["mihatp", "iste", "cwtnet", "masrgan", "masrnet"])
def test_the_whole_step_of_each_recipe_stays_on_the_device_and_never_waits(name: str) -> None:
    more = [f"model.{key}={value}" for key, value in SMALLER.get(name, {}).items()]
    if name == "mihatp":
        more.append("recipe.negatives=5")  # all five kinds
    config = resolve_config(name, preset="tiny", assignments=more).config
    watch = rehearse_step(config)
    assert not watch.faults, [str(fault) for fault in watch.faults]


def faults_of(monkeypatch: pytest.MonkeyPatch, plant: Any) -> tuple[Fault, ...]:
    """What is found where a pixel loss does something else as well."""
    right = recipes.PixelRecipe.step

    def step(self: Any, model: SRModel, batch: Any, backward: Any) -> Any:
        terms = right(self, model, batch, backward)
        plant(terms["loss"], batch.lr)
        return terms

    monkeypatch.setattr(recipes.PixelRecipe, "step", step)
    return rehearse_step(resolve_config("srcnn", preset="tiny").config).faults


@pytest.mark.parametrize(
    ("plant", "kind", "what"),
    [
        (lambda loss, lr: lr + torch.ones(lr.shape[-1]), "stray", "aten.add.Tensor"),
        (lambda loss, lr: lr.flatten(1) @ torch.ones(lr[0].numel(), 2), "stray", "aten.mm.default"),
        (lambda loss, lr: lr[torch.tensor([0])], "stray", "aten.index.Tensor"),
        (lambda loss, lr: loss.item(), "wait", "aten._local_scalar_dense.default"),
        (lambda loss, lr: 1 if loss > 0 else 0, "wait", "aten._local_scalar_dense.default"),
        (lambda loss, lr: loss.cpu(), "wait", "aten._to_copy.default"),
        (lambda loss, lr: torch.ones(3).to(lr.device), "wait", "aten._to_copy.default"),
        (lambda loss, lr: torch.tensor([1.0], device=lr.device), "wait", "torch.tensor"),
        (lambda loss, lr: lr[lr > 0.5], "wait", "aten.index.Tensor"),
        (lambda loss, lr: bool((lr > 0.5).any()), "wait", "aten._local_scalar_dense.default"),
        (lambda loss, lr: lr.nonzero(), "wait", "aten.nonzero.default"),
        (lambda loss, lr: lr.unique(), "wait", "aten._unique2.default"),
        (lambda loss, lr: torch.equal(lr, lr), "wait", "aten.equal.default"),
        (lambda loss, lr: loss.tolist(), "wait", "aten._to_copy.default"),
        (lambda loss, lr: lr.numpy(), "stray", "Tensor.numpy"),
        (lambda loss, lr: np.asarray(lr), "stray", "Tensor.__array__"),
        (lambda loss, lr: torch.randn_like(lr), "draw", "aten.randn_like.default"),
        (lambda loss, lr: torch.rand(3, device=lr.device), "draw", "aten.rand.default"),
        (lambda loss, lr: lr.clone().bernoulli_(0.5), "draw", "aten.bernoulli_.float"),
        (lambda loss, lr: torch.randperm(4), "draw", "aten.randperm.default"),
        (lambda loss, lr: np.random.rand(), "draw", "numpy.random"),  # noqa: NPY002
        (lambda loss, lr: random.random(), "draw", "random"),
        (lambda loss, lr: lr.double(), "double", "aten._to_copy.default"),
    ],
)
def test_a_planted_fault_is_found_and_named(
    monkeypatch: pytest.MonkeyPatch, plant: Any, kind: str, what: str
) -> None:
    found = faults_of(monkeypatch, plant)
    assert [(fault.kind, fault.what) for fault in found] == [(kind, what)]


@pytest.mark.parametrize("spec", names())
def test_no_degradation_waits_or_leaves_the_device(spec: str) -> None:
    if spec == "pyramid":
        pytest.skip("a stored level: nothing is computed")
    more = [f"data.lr_source={spec}"]
    watch = rehearse_step(resolve_config("srcnn", preset="tiny", assignments=more).config)
    assert not watch.faults, [str(fault) for fault in watch.faults]


def test_a_tensor_that_no_module_knows_of_stays_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Srcnn.forward

    def forward(self: Any, lr: Tensor) -> Tensor:
        return right(self, lr) * self.planted

    monkeypatch.setattr(Srcnn, "planted", torch.full((3, 1, 1), 2.0), raising=False)
    monkeypatch.setattr(Srcnn, "forward", forward)
    (fault,) = rehearse_step(resolve_config("srcnn", preset="tiny").config).faults
    assert (fault.kind, fault.what) == ("stray", "aten.mul.Tensor")


def test_what_a_layer_drops_at_random_is_seeded_and_no_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        Srcnn, "forward", lambda self, lr, right=Srcnn.forward: F.dropout(right(self, lr), 0.1)
    )
    assert not rehearse_step(resolve_config("srcnn", preset="tiny").config).faults


def test_numbers_and_free_copies_are_no_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    def plant(loss: Tensor, lr: Tensor) -> None:
        lr.add(torch.tensor(1.0)).mul(2.0)
        torch.ones(3).to(lr.device, non_blocking=True)

    assert not faults_of(monkeypatch, plant)


def test_an_error_without_a_fault_passes() -> None:
    with pytest.raises(RuntimeError, match="planted"), rehearsed():
        raise RuntimeError("planted")
