"""Super-resolution networks: one registry, one contract, one file per architecture.

The contract that training, evaluation and upscaling rely on
------------------------------------------------------------
- RGB is float in [0, 1], (N, 3, h, w), any h, w >= 1. Outputs are not clamped.
- ``model.info.kind == "fixed"``: ``model(lr)`` -> (N, 3, s h, s w) with s = ``model.info.scale``.
- ``"arbitrary"``: ``model(lr, scale=2.4)`` or ``model(lr, size=(H, W))`` -> (N, 3, H, W), and for
  training on sampled pixels ``model.query(lr, coord, cell)`` -> (N, Q, 3): `coord` (N, Q, 2) pixel
  centres (row, column) in [-1, 1], `cell` (N, Q or 1, 2) = (2 / H, 2 / W), both float32.
  (`bicubic` has no parameters and no ``query``.)
- ``model.info.takes_reference`` (CWT-Net): ``model(lr, reference=None)``; the default never sees
  anything derived from HR. ``model.training_step_outputs(lr, reference)`` serves its losses.
- ``mihatp`` is the base branch alone. `wsisr.models.contrastive` builds the second branch and the
  contrastive loss, for training only; nothing of them is saved by `save_model`.
- ``masrgan`` is the generator; `wsisr.models.adversarial` has discriminators and losses.
- ``model.set_checkpointing(True)`` recomputes blocks in backward; ``model.info.channels_last``
  says where that memory format pays; ``model.info.dtypes`` lists element types.
"""

from wsisr.models import (  # noqa: F401 - each registers its networks
    bicubic,
    compact,
    cwtnet,
    dcanet,
    edsr,
    hat,
    iste,
    itsrn,
    li2021,
    liif,
    lit,
    lmi,
    lte,
    masrnet,
    mihatp,
    mwcnn,
    rcan,
    rdn,
    srcnn,
    srgan,
    srmfenet,
    swdnet,
    swinir,
)
from wsisr.models.filling import load_foreign, start_from
from wsisr.models.importing import WeightsAnswers, import_weights
from wsisr.models.info import ModelInfo, Traits
from wsisr.models.layers.resample import enlarge
from wsisr.models.registry import (
    NOT_BUILT,
    ModelSpec,
    create_model,
    list_models,
    model_spec,
    register,
)
from wsisr.models.weights import load_model, save_model
from wsisr.models.wrapper import ArbitraryScaleModel, FixedScaleModel, SRModel

__all__ = [
    "NOT_BUILT",
    "ArbitraryScaleModel",
    "FixedScaleModel",
    "ModelInfo",
    "ModelSpec",
    "SRModel",
    "Traits",
    "WeightsAnswers",
    "create_model",
    "enlarge",
    "import_weights",
    "list_models",
    "load_foreign",
    "load_model",
    "model_spec",
    "register",
    "save_model",
    "start_from",
]
