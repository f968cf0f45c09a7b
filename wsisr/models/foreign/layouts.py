"""Whose names a state dict has, and which network they belong to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from wsisr.errors import ModelError
from wsisr.models.foreign.containers import Part, behind, choose_part, find_parts, outermost
from wsisr.models.foreign.edits import State


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a layout made of a state dict.

    Attributes
    ----------
    model : str
        Registry name of the network.
    scale : int or None
        Of a fixed-scale network.
    settings : dict
        What the shapes say, and what is known of the layout's code.
    tensors : dict of str to Tensor
        By the names that our network has.
    dropped : tuple of str
        Constants of the file that are no weights here.
    notes : tuple of str
        What the file does not say and was assumed.
    preset : str
        Whose values the other settings have.
    spans : tuple of int
        Ranges of values that the network may have been trained on, the layout's own first, where
        the file does not say it; they are folded into `first` and `last`.
    sure : bool
        Whether the layout's own range is taken when the weights do not show theirs.
    """

    model: str
    tensors: State
    scale: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    preset: str = "paper"
    spans: tuple[int, ...] = ()
    sure: bool = True
    first: str = ""
    last: str = ""


@dataclass(frozen=True, kw_only=True)
class StateDictLayout:
    """The names of one program's state dicts.

    Attributes
    ----------
    title : str
        Network and repository.
    anchor : str
        A tensor that every such file has.
    needs : tuple of str
        Further tensors, or beginnings of names (ending with a dot), that it has.
    lacks : tuple of str
        Those that it does not have.
    read : callable
        From the state dict (a copy) to `Found`; raises `ModelError` with the reason.
    """

    title: str
    anchor: str
    read: Callable[[State], Found]
    needs: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()

    def fits(self, state: Mapping[str, Tensor]) -> bool:
        """Whether a state dict has these names."""
        return (
            self.anchor in state
            and all(_has(state, name) for name in self.needs)
            and not any(_has(state, name) for name in self.lacks)
        )


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """A part of a file, its layout, and what that made of it."""

    part: Part
    layout: StateDictLayout
    found: Found


def recognise(
    tensors: Mapping[str, Tensor], source: str, wanted: str | None = None
) -> Recognised | None:
    """The network of a file whose names are known; None: no layout has them.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        All tensors of the file, by dotted path.
    source : str
        The file, for messages.

    Raises
    ------
    ModelError
        Several networks could be meant; or the layout is known, and the file is not of a kind
        that is read.
    """
    of_prefix: dict[str, StateDictLayout] = {}
    for layout in _layouts():
        for prefix in find_parts(tensors, layout.anchor):
            if layout.fits(behind(tensors, prefix)):
                of_prefix.setdefault(prefix, layout)
    if not of_prefix:
        return None
    part = choose_part(tensors, outermost(of_prefix), source, wanted)
    layout = of_prefix[part.prefix]
    try:
        found = layout.read(dict(part.tensors))
    except ModelError as error:
        raise ModelError(f"{source} ({layout.title}) cannot be taken over: {error}") from error
    return Recognised(part=part, layout=layout, found=found)


def _has(state: Mapping[str, Tensor], name: str) -> bool:
    return any(key.startswith(name) for key in state) if name.endswith(".") else name in state


def _layouts() -> tuple[StateDictLayout, ...]:
    from wsisr.models.foreign import convolutional, implicit, transformers

    return (*convolutional.LAYOUTS, *transformers.LAYOUTS, *implicit.LAYOUTS)
