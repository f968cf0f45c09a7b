"""Conformance of super-resolution models: what training, evaluation and upscaling rely on.

Subclass `ModelTests`, name a model, and pytest runs every property against its `tiny` preset:

>>> class TestEdsr(ModelTests):
...     name, scale = "edsr", 4
"""

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from wsisr.models import create_model, load_foreign, load_model, save_model
from wsisr.models.wrapper import SRModel

ARBITRARY_SCALE = 2.4
"""Scale at which arbitrary-scale models are called."""


class ModelTests:
    """Properties of one model, at its `tiny` preset unless `settings` say otherwise.

    Attributes
    ----------
    name : str
        Registry name.
    scale : int or None
        Of a fixed-scale model.
    settings : dict
        Changes to the preset.
    sizes : tuple of (int, int)
        LR sizes that are tried.
    unused : tuple of str
        Parts of the names of parameters that a plain forward pass rightly leaves without gradient.
    """

    name: ClassVar[str]
    scale: ClassVar[int | None] = None
    settings: ClassVar[dict[str, Any]] = {}
    sizes: ClassVar[tuple[tuple[int, int], ...]] = ((1, 1), (1, 7), (5, 2), (9, 16), (17, 8))
    unused: ClassVar[tuple[str, ...]] = ()

    def build(self, **changes: Any) -> SRModel:
        """A fresh model from a fixed seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return create_model(
                self.name, scale=self.scale, preset="tiny", **{**self.settings, **changes}
            )

    def run(self, model: SRModel, lr: Tensor) -> Tensor:
        """Call the model by its contract."""
        if model.info.kind == "fixed":
            return model(lr)
        return model(lr, scale=ARBITRARY_SCALE)

    def expected(self, height: int, width: int) -> tuple[int, int]:
        """Output size that the contract promises."""
        scale = self.scale or ARBITRARY_SCALE
        return max(1, round(height * scale)), max(1, round(width * scale))

    @staticmethod
    def lr(height: int, width: int, batch: int = 1, seed: int = 1) -> Tensor:
        """Random RGB in [0, 1]."""
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(batch, 3, height, width, generator=generator)

    def test_info_describes_the_model(self) -> None:
        info = self.build().info
        assert info.name == self.name
        assert info.scale == self.scale
        assert info.kind == ("arbitrary" if self.scale is None else "fixed")
        assert info.halo_px >= 1 and info.multiple_of_px >= 1 and info.tile_px >= 1
        assert info.citation and info.preset == "tiny"
        assert info.scale_range[0] <= info.scale_range[1]

    def test_any_size_from_one_pixel(self) -> None:
        model = self.build().eval()
        for height, width in self.sizes:
            with torch.no_grad():
                out = self.run(model, self.lr(height, width))
            assert tuple(out.shape) == (1, 3, *self.expected(height, width))
            assert torch.isfinite(out).all()

    def test_samples_of_a_batch_do_not_mix(self) -> None:
        model = self.build().double().eval()
        batch = self.lr(9, 10, batch=2).double()
        with torch.no_grad():
            together = self.run(model, batch)
            apart = torch.cat([self.run(model, one) for one in torch.split(batch, 1)])
        torch.testing.assert_close(together, apart, rtol=0, atol=1e-12)

    def test_every_parameter_takes_part(self) -> None:
        model = self.build().train()
        generator = torch.Generator().manual_seed(2)
        idle = {name for name, p in model.named_parameters() if p.requires_grad}
        for draw in range(3):
            with torch.no_grad():
                # Off the start: zero-initialised layers and dead ReLUs hide what feeds them.
                for p in model.parameters():
                    noise = torch.randn(p.shape, generator=generator) * 0.05
                    p.add_(4 * noise.abs() if p.ndim == 1 else noise)
            model.zero_grad()
            lr = self.lr(9, 12, batch=2, seed=draw).requires_grad_()
            torch.autograd.backward(self.run(model, lr).sin().sum())
            moved = (n for n, p in model.named_parameters() if p.grad is not None and p.grad.any())
            idle -= set(moved)
        surprising = {name for name in idle if not any(part in name for part in self.unused)}
        assert not surprising, surprising

    def test_recomputation_changes_no_gradient(self) -> None:
        gradients = []
        for on in (False, True):
            model = self.build().double().eval().set_checkpointing(on)
            lr = self.lr(6, 9).double().requires_grad_()
            torch.autograd.backward(self.run(model, lr).square().sum())
            gradients.append([p.grad for p in (lr, *model.parameters()) if p.grad is not None])
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)

    def test_bfloat16_autocast_is_finite_and_near(self) -> None:
        model = self.build().eval()
        lr = self.lr(8, 12)
        with torch.no_grad():
            exact = self.run(model, lr)
            with torch.autocast("cpu", torch.bfloat16):
                near = self.run(model, lr).float()
        assert torch.isfinite(near).all()
        assert (near - exact).abs().mean() < 0.1

    def test_save_and_load_give_the_same_model(self, tmp_path: Path) -> None:
        model = self.build().eval()
        again = load_model(save_model(model, tmp_path / "m", extra={"step": 3}))
        lr = self.lr(5, 6)
        with torch.no_grad():
            assert torch.equal(self.run(model, lr), self.run(again, lr))
        assert again.info == model.info and again.settings == model.settings

    def test_wrapped_foreign_weights_load(self, tmp_path: Path) -> None:
        model = self.build().eval()
        state = {f"module.{k}": v for k, v in model.net.state_dict().items()}
        if not state:
            return
        torch.save({"params_ema": state, "epoch": 3}, tmp_path / "foreign.pth")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            other = create_model(self.name, scale=self.scale, preset="tiny", **self.settings)
        load_foreign(other, tmp_path / "foreign.pth")
        lr = self.lr(5, 6)
        with torch.no_grad():
            assert torch.equal(self.run(model, lr), self.run(other.eval(), lr))


class FixedScaleTests(ModelTests):
    """`ModelTests`, and export, which a fixed scale makes possible."""

    def test_an_exact_halo_is_exact(self) -> None:
        model = self.build().double().eval()
        info = model.info
        if not info.halo_exact:
            return
        step, scale = info.multiple_of_px, int(info.scale or 1)
        margin, core = 2 * step, 2 * step
        # The tile starts on the network's grid, as tiles do in use.
        halo = -(-info.halo_px // step) * step
        whole = self.lr(*(2 * (margin + halo) + core,) * 2).double()
        own = slice(margin, margin + 2 * halo + core)
        kept = slice((margin + halo) * scale, (margin + halo + core) * scale)
        inner = slice(halo * scale, (halo + core) * scale)
        with torch.no_grad():
            wanted = self.run(model, whole)[..., kept, kept]
            tile = self.run(model, whole[..., own, own])[..., inner, inner]
        torch.testing.assert_close(tile, wanted, rtol=0, atol=1e-12)

    def test_exports(self) -> None:
        model = self.build().eval()
        lr = self.lr(8, 9)
        exported = torch.export.export(model, (lr,))
        with torch.no_grad():
            torch.testing.assert_close(exported.module()(lr), model(lr))


class CompiledTests(FixedScaleTests):
    """`FixedScaleTests`, and torch.compile in one graph (traced only, which takes seconds)."""

    def test_compiles_without_graph_breaks(self) -> None:
        model = self.build().eval()
        lr = self.lr(8, 9)
        torch.compiler.reset()
        compiled = torch.compile(model, fullgraph=True, dynamic=False, backend="eager")
        with torch.no_grad():
            torch.testing.assert_close(compiled(lr), model(lr))
