"""Where checks run, and how one says that it has failed."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from wsisr.files import remove_tree
from wsisr.models import create_model, model_spec
from wsisr.models.wrapper import SRModel
from wsisr.proof.plan import Form, ProofCheck
from wsisr.proof.scene import make_store
from wsisr.training import TrainRequest, train

STEPS = 6
SAVED_AT = 3
SMALLER: dict[str, tuple[str, ...]] = {
    "cwtnet": ("model.blocks=1",),
    "hat": ("model.groups=1", "model.depth=1"),
    "mihatp": ("model.groups=1", "model.depth=1"),
}
"""Settings of tiny networks where they are compiled without a GPU: each kind of layer once, since
a C++ compiler takes seconds for every loop."""


class CheckError(Exception):
    """A check has failed: `kind` in one word, and the sentence."""

    def __init__(self, kind: str, said: str) -> None:
        super().__init__(said)
        self.kind = kind


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where checks run.

    Attributes
    ----------
    work : Path
        Folder of the store and the runs.
    preset : str
        Of the networks.
    """

    work: Path
    device: torch.device
    preset: str

    @property
    def small(self) -> bool:
        return self.preset == "tiny"

    @property
    def store(self) -> Path:
        return make_store(self.work / "pairs.zarr", 96 if self.small else 256)

    def preset_of(self, name: str) -> str:
        """Networks without the preset take another one."""
        presets = model_spec(name).presets
        return self.preset if self.preset in presets else next(iter(presets))

    def request(self, check: ProofCheck, output: Path | None = None, *more: str) -> TrainRequest:
        """A short run in a check's form."""
        form, own = check.form, list[str]()
        if self.small:
            own.append("data.batch=2")
        if self.small and form.compiled:
            own += SMALLER.get(check.model, ())
        settings = (
            f"train.precision={form.precision}",
            f"train.compile={'default' if form.compiled else 'off'}",
            f"train.checkpointing={str(form.checkpointed).lower()}",
            f"data.cache={form.cache}",
            "train.log_every=1",
            f"train.save_every={SAVED_AT}",
            "val.every=1000000",
            "val.count=2",
            "val.pictures=0",
        )
        spec = model_spec(check.model)
        return TrainRequest(
            model=check.model,
            scale=None if spec.kind == "arbitrary" or spec.scales else 4,
            data=self.store,
            preset=self.preset_of(check.model),
            output=output,
            steps=STEPS,
            device=str(self.device),
            assignments=(*settings, *own, *more),
        )

    def folder(self, check: ProofCheck) -> Path:
        """Run folder of an unbroken run in a check's form."""
        return self.work / "runs" / f"{check.model} {check.form}".replace(" ", "-")

    def plain(self, check: ProofCheck) -> Path:
        """The unbroken run of the same network in the plain form of a check's precision."""
        plain = replace(check, form=Form(precision=check.form.precision))
        if not (self.small and check.form.compiled and check.model in SMALLER):
            return self.run(plain)
        folder = self.folder(plain).with_name(f"{check.model}-{check.form.precision}-smaller")
        return _trained(folder, self.request(plain, folder, *SMALLER[check.model]))

    def run(self, check: ProofCheck) -> Path:
        """The unbroken run of a form, trained now if it is not there."""
        folder = self.folder(check)
        return _trained(folder, self.request(check, folder))

    def model(self, check: ProofCheck) -> SRModel:
        """The network of a check, its start fixed."""
        spec = model_spec(check.model)
        scale = (4 if spec.scales is None else spec.scales[0]) if spec.kind == "fixed" else None
        torch.manual_seed(0)
        return create_model(check.model, scale=scale, preset=self.preset_of(check.model))


def _trained(folder: Path, request: TrainRequest) -> Path:
    if not (folder / "card.md").is_file():
        remove_tree(folder)
        train(request)
    return folder
