"""A recipe: Charbonnier's loss, which is L1 with a rounded corner."""

from dataclasses import dataclass

from wsisr.models import SRModel
from wsisr.training import Batch, Recipe, register_recipe
from wsisr.training.recipes import Backward, Logs


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Each field is a setting: --set recipe.rounding=0.01."""

    rounding: float = 1e-3


@register_recipe
class Charbonnier(Recipe):
    """For networks of one scale (`trains`); --set recipe.kind=charbonnier."""

    kind = "charbonnier"
    settings_types = (Settings,)

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings

    def step(self, model: SRModel, batch: Batch, backward: Backward) -> Logs:
        apart = (model(batch.lr).float() - batch.hr).square() + self.settings.rounding**2
        loss = apart.sqrt().mean()
        backward(loss)
        return {"loss": loss.detach()}
