"""How each family is trained: a recipe turns a batch into gradients.

A recipe holds the modules that are trained beside the model and adds gradients by calling
``backward(loss)``, once or several times; the loop around it reduces, clips and steps. Most
recipes are one loss. MiHATP's goes through its two branches one after the other, MASRGAN's has two
optimisers.
"""

import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsisr.errors import ConfigError
from wsisr.models.adversarial import (
    AdversarialSettings,
    build_discriminator,
    discriminator_loss,
    generator_loss,
)
from wsisr.models.contrastive import ContrastiveBranch, ContrastiveSettings, contrastive_step
from wsisr.models.features import RELU2_2, RELU_X_1, FeatureNet
from wsisr.models.losses import CwtLossSettings, cwt_loss
from wsisr.models.settings import override
from wsisr.models.wrapper import SRModel
from wsisr.plugins import Registry
from wsisr.training.batches import Batch
from wsisr.training.config import RecipeSection, TrainConfig
from wsisr.words import closest

Backward = Callable[[Tensor], None]
Logs = dict[str, Tensor]
MODEL = "model"


@dataclass(frozen=True, kw_only=True)
class FeatureSettings:
    """The feature network of a perceptual or contrastive term.

    Attributes
    ----------
    feature_weights : str or None
        File of VGG19 weights; None: a random trunk of a fixed seed, which the run's record says.
    feature_levels : tuple of str or None
        Layers; None: relu1_1 to relu5_1 (contrastive), relu2_2 (perceptual); empty: no network.
    """

    feature_weights: str | None = None
    feature_seed: int = 0
    feature_levels: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class WaveletSettings:
    """CWT-Net's training.

    Attributes
    ----------
    feed_wr : float
        Probability that a step feeds the branch from WR, as testing does.
    reference : {"finer", "lr"}
        The finer image, or LR enlarged by 2 in its place (table III, I_LR; with ``model.wr=false``
        it is what testing sees, too).
    """

    feed_wr: float = 0.5
    reference: Literal["finer", "lr"] = "finer"


@dataclass(frozen=True, kw_only=True)
class PixelSettings:
    """How pixels are compared.

    Attributes
    ----------
    loss : {"l1", "psnr"}
        Mean absolute error; or the mean over samples of log10 of the mean squared error, minus a
        tenth of PSNR (as Chen et al., HINet, CVPRW 2021). By it, a sharp sample with its large
        error does not count more than a soft one, which a network that sharpens everything ruins.
    """

    loss: Literal["l1", "psnr"] = "l1"

    def __call__(self, made: Tensor, wanted: Tensor) -> Tensor:
        """The loss of outputs in [0, 1], samples along the first axis."""
        if self.loss == "l1":
            return F.l1_loss(made.float(), wanted)
        squared = (made.float() - wanted).square().flatten(1).mean(1)
        return (squared + LEAST_SQUARED_ERROR).log10().mean()


LEAST_SQUARED_ERROR = 1e-6
"""60 dB: rounding HR to 8 bits costs as much."""


class Recipe(ABC):
    """What the loop asks of a recipe; as it stands, one without modules of its own.

    Class attributes
    ----------------
    kind
        Its name, ``recipe.kind``.
    settings_types
        Frozen dataclasses whose fields are its settings; `__init__` takes one object of each.
    trains
        Kind of network: ``"fixed"`` scale, which sees ``batch.hr``, or ``"arbitrary"``, which is
        asked at ``batch.coord`` for ``batch.target``.

    Attributes
    ----------
    features : str or None
        Record of the feature network, for result files.
    modules : dict of str to nn.Module
        Trained beside the model; saved with the trainer state, never with the model.
    """

    kind: ClassVar[str]
    settings_types: ClassVar[tuple[type, ...]] = ()
    trains: ClassVar[Literal["fixed", "arbitrary"]] = "fixed"
    features: str | None = None

    def __init__(self) -> None:
        self.modules: dict[str, nn.Module] = {}

    @classmethod
    def make(cls, settings: Sequence[Any], model: SRModel, crop_hr_px: int) -> "Recipe":
        """One for a network and a crop's side; most need their settings alone."""
        return cls(*settings)

    def parameters(self, model: SRModel) -> dict[str, list[nn.Parameter]]:
        """Parameters of each optimiser."""
        return {MODEL: [p for p in model.parameters() if p.requires_grad]}

    def networks(self, model: SRModel) -> list[SRModel]:
        """The SR networks that a step runs: `model`, and what the recipe has beside it."""
        return [model]

    @abstractmethod
    def step(self, model: SRModel, batch: Batch, backward: Backward) -> Logs:
        """Add the gradients of a batch; returns detached terms, ``loss`` among them."""

    def after_step(self, model: SRModel) -> None:  # noqa: B027 - most add nothing
        """What follows an optimiser step."""

    def to(self, device: torch.device) -> "Recipe":
        """Move all networks of the recipe, trained or not."""
        for module in self.modules.values():
            module.to(device)
        return self


R = TypeVar("R", bound=type[Recipe])
RECIPES: Registry[type[Recipe]] = Registry("recipe", "wsisr.recipes", ConfigError)
"""Every recipe by its kind."""


def register_recipe(recipe: R) -> R:
    """Make a recipe known by its kind (a class decorator); a kind may be taken once.

    Raises
    ------
    ConfigError
        The class does not say what a recipe has to say, or its kind is taken.
    """
    kind = getattr(recipe, "kind", "")
    if not isinstance(kind, str) or not kind or kind == "auto":
        raise ConfigError(f'{recipe.__name__}: give it a name, kind = "mine"')
    if inspect.isabstract(recipe):
        raise ConfigError(f"{recipe.__name__}: it has no step(self, model, batch, backward)")
    for each in recipe.settings_types:
        if not dataclasses.is_dataclass(each):
            raise ConfigError(
                f"{recipe.__name__}: {each.__name__} of settings_types is no dataclass"
            )
    RECIPES.add(kind, recipe)
    return recipe


def recipe_settings(section: RecipeSection) -> list[Any]:
    """The checked settings objects of a recipe.

    Raises
    ------
    ConfigError, ModelError
        For a setting that the recipe has not, or one out of range.
    """
    kinds = RECIPES.get(section.kind).settings_types
    left = dict(section.settings)
    found = []
    for kind in kinds:
        names = {field.name for field in dataclasses.fields(kind)}
        given = {key: left.pop(key) for key in list(left) if key in names}
        found.append(override(kind(), given, f"recipe {section.kind}"))
    if left:
        known = [field.name for kind in kinds for field in dataclasses.fields(kind)]
        key = next(iter(left))
        raise ConfigError(f"recipe {section.kind} has no setting {key!r}; {closest(key, known)}")
    return found


def build_recipe(config: TrainConfig, model: SRModel) -> Recipe:
    """The recipe of a configuration, on the CPU."""
    crop_hr_px = config.data.crop_lr_px * int(config.model.scale or 1)
    settings = recipe_settings(config.recipe)
    return RECIPES.get(config.recipe.kind).make(settings, model, crop_hr_px)


@register_recipe
class PixelRecipe(Recipe):
    """Mean absolute error of whole crops, or their PSNR."""

    kind = "l1"
    settings_types = (PixelSettings,)

    def __init__(self, pixels: PixelSettings) -> None:
        super().__init__()
        self.pixels = pixels

    def step(self, model: SRModel, batch: Batch, backward: Backward) -> Logs:
        assert batch.hr is not None
        loss = self.pixels(model(batch.lr), batch.hr)
        backward(loss)
        return {"loss": loss.detach()}


@register_recipe
class ImplicitRecipe(PixelRecipe):
    """Mean absolute error at sampled HR pixels, or PSNR there, for models of any scale."""

    kind = "implicit"
    trains = "arbitrary"

    def step(self, model: SRModel, batch: Batch, backward: Backward) -> Logs:
        assert batch.coord is not None and batch.cell is not None and batch.target is not None
        made = model.query(batch.lr, batch.coord, batch.cell)  # type: ignore[operator]
        loss = self.pixels(made, batch.target)
        backward(loss)
        return {"loss": loss.detach()}


@register_recipe
class WaveletRecipe(Recipe):
    """CWT-Net: losses of both branches, its reconstruction, and reference dropout."""

    kind = "wavelet"
    settings_types = (WaveletSettings, CwtLossSettings)

    def __init__(self, settings: WaveletSettings, loss: CwtLossSettings) -> None:
        super().__init__()
        self.settings, self.loss = settings, loss

    def step(self, model: SRModel, batch: Batch, backward: Backward) -> Logs:
        assert batch.hr is not None
        finer = batch.reference if self.settings.reference == "finer" else None
        assert (
            finer is not None or self.settings.reference == "lr" or not model.info.takes_reference
        )
        feed = _one_draw(batch, "feed-wr") < self.settings.feed_wr
        outputs = model.training_step_outputs(batch.lr, finer, feed_wr=feed)  # type: ignore[operator]
        loss = cwt_loss(outputs, batch.hr, self.loss)
        backward(loss)
        pixel = F.l1_loss(outputs.sr.detach().float(), batch.hr)
        return {"loss": loss.detach(), "pixel": pixel}


@register_recipe
class ContrastiveRecipe(Recipe):
    """MiHATP: L1 of both branches and the contrastive term."""

    kind = "contrastive"
    settings_types = (ContrastiveSettings, FeatureSettings)

    @classmethod
    def make(cls, settings: Sequence[Any], model: SRModel, crop_hr_px: int) -> Recipe:
        return cls(model, *settings)

    def __init__(
        self, model: SRModel, settings: ContrastiveSettings, features: FeatureSettings
    ) -> None:
        super().__init__()
        self.settings = settings
        self.branch = ContrastiveBranch(model, settings)
        self.modules["branch"] = self.branch
        self.trunk = _feature_net(features, RELU_X_1)
        if self.trunk is None and not settings.image_space:
            raise ConfigError(
                "recipe: neither image_space nor feature_levels is left for the contrastive term"
            )
        self.features = self.trunk.record if self.trunk is not None else None

    def parameters(self, model: SRModel) -> dict[str, list[nn.Parameter]]:
        found = super().parameters(model)
        found[MODEL] += [p for p in self.branch.parameters() if p.requires_grad]
        return found

    def networks(self, model: SRModel) -> list[SRModel]:
        return [model] if self.branch.own is None else [model, self.branch.own]

    def step(self, model: SRModel, batch: Batch, backward: Backward) -> Logs:
        assert batch.hr is not None
        terms = contrastive_step(
            model,
            self.branch,
            (batch.lr, batch.hr),
            batch.draws.within("contrastive"),
            self.trunk,
            backward,
        )
        loss = terms["base"] + terms["con"] + self.settings.weight * terms["contrastive"]
        return {"loss": loss, **terms}

    def after_step(self, model: SRModel) -> None:
        self.branch.follow(model)

    def to(self, device: torch.device) -> Recipe:
        if self.trunk is not None:
            self.trunk.to(device)
        return super().to(device)


@register_recipe
class AdversarialRecipe(Recipe):
    """MASRGAN: the generator's four terms, then the discriminator on the same images."""

    kind = "adversarial"
    settings_types = (AdversarialSettings, FeatureSettings)

    @classmethod
    def make(cls, settings: Sequence[Any], model: SRModel, crop_hr_px: int) -> Recipe:
        adversarial, features = settings
        return cls(adversarial, features, crop_hr_px)

    def __init__(
        self, settings: AdversarialSettings, features: FeatureSettings, hr_px: int
    ) -> None:
        super().__init__()
        self.settings = settings
        self.discriminator = build_discriminator(settings, hr_px)
        self.modules["discriminator"] = self.discriminator
        trunk = _feature_net(features, RELU2_2)
        if trunk is None:
            raise ConfigError("recipe: the perceptual term needs at least one of feature_levels")
        self.trunk = trunk
        self.features = trunk.record

    def parameters(self, model: SRModel) -> dict[str, list[nn.Parameter]]:
        found = super().parameters(model)
        found["discriminator"] = list(self.discriminator.parameters())
        return found

    def step(self, model: SRModel, batch: Batch, backward: Backward) -> Logs:
        assert batch.hr is not None
        sr = model(batch.lr).float()
        self.discriminator.requires_grad_(False)
        total, terms = generator_loss(
            sr, batch.hr, batch.lr, self.discriminator, self.trunk, self.settings
        )
        backward(total)
        self.discriminator.requires_grad_(True)
        real, fake = self.discriminator(batch.hr), self.discriminator(sr.detach())
        judged = discriminator_loss(real, fake)
        backward(judged)
        return {"loss": total.detach(), **terms, "discriminator": judged.detach()}

    def to(self, device: torch.device) -> Recipe:
        self.trunk.to(device)
        return super().to(device)


def _feature_net(settings: FeatureSettings, levels: tuple[str, ...]) -> FeatureNet | None:
    chosen = levels if settings.feature_levels is None else settings.feature_levels
    if not chosen:
        return None
    weights = Path(settings.feature_weights) if settings.feature_weights else None
    return FeatureNet(chosen, weights, settings.feature_seed)


def _one_draw(batch: Batch, purpose: str) -> float:
    """A number of the step, the same for every process: slot 0 stands for all."""
    slots = torch.zeros(1, dtype=torch.int64)
    return float(dataclasses.replace(batch.draws, slots=slots, ready={}).uniform(purpose)[0])
