"""What a model is: the record that travels with every network."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What an architecture's builder knows of a network.

    Attributes
    ----------
    multiple_of_px : int
        Side multiple (LR px) that inputs are padded to inside; any size may be given.
    halo_px : int
        LR px of real context that a tile needs around it.
    halo_exact : bool
        True if pixels beyond the halo cannot change the output at all (convolutional networks);
        otherwise the halo is a recommendation.
    tile_px : int
        Recommended side (LR px) of an inference tile, halo not included.
    global_context : bool
        True where something sees the whole input (global pooling, global attention, texture
        retrieval): then no halo makes tiles exact, and tiles near the training size are best.
        Where only pools do, `wsisr.inference.local_pool` makes tiles exact at inference.
    dtypes : tuple of str
        Element types that inference and autocast support.
    channels_last : bool
        True where ``memory_format=torch.channels_last`` pays.
    smallest_batch : int
        Samples that a training step needs: 2 where something is normalised over the batch alone.
    takes_reference : bool
        True if ``model(lr, reference=...)`` accepts a finer image of the same field.
    scale_range : tuple of float, or None
        Smallest and largest scale the design covers (training range for arbitrary models;
        larger ones work but are out of distribution); None: its scale alone, 1 to 4 without one.
    """

    multiple_of_px: int = 1
    halo_px: int
    halo_exact: bool = False
    tile_px: int = 64
    global_context: bool = False
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    channels_last: bool = False
    smallest_batch: int = 1
    takes_reference: bool = False
    scale_range: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class ModelInfo(Traits):
    """Immutable description of one built model.

    Attributes
    ----------
    name, family, preset : str
        Registry name, family (``"mihatp"``, ``"baseline"``, ...) and preset it was built from.
    kind : {"fixed", "arbitrary"}
        ``"fixed"``: ``model(lr)``; ``"arbitrary"``: ``model(lr, scale=...)``.
    scale : int or None
        Magnification of a fixed-scale model; None for arbitrary-scale models.
    citation : str
        The paper that defines the network.
    """

    name: str
    family: str
    preset: str
    kind: Literal["fixed", "arbitrary"]
    scale: int | None
    scale_range: tuple[float, float] = field()
    citation: str
