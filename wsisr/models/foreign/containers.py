"""What a file of weights holds, whatever it was wrapped in.

Trainers nest and prefix state dicts in ever new ways: ``params_ema``, ``state_dict``, ``module.``,
``_orig_mod.``, ``netG``, a Lightning attribute's name. Here nesting and prefixes are the same
thing: the file is read as tensors by dotted path, and a *part* is everything behind one prefix.
Which part is a network is for its layout to say; which of several is taken is decided here:
averaged weights before plain ones.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from wsisr.errors import ModelError

_AVERAGED = frozenset({"ema", "averaged", "average", "avg", "swa", "shadow"})
_DEPTH = 8


@dataclass(frozen=True, kw_only=True)
class Part:
    """One network's tensors in a file.

    Attributes
    ----------
    prefix : str
        What stands before each name, with its dot; empty for a bare state dict.
    tensors : dict of str to Tensor
        By name without the prefix.
    averaged : bool
        Whether these are averages over training.
    notes : tuple of str
        What was preferred to what, and what else the file holds.
    """

    prefix: str
    tensors: dict[str, Tensor]
    averaged: bool
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The prefix as a reader would say it; empty for a bare state dict."""
        return self.prefix.rstrip(".")


def read_tensors(path: Path | str) -> dict[str, Tensor]:
    """Every tensor of a file by its dotted path; code in it is never run.

    Reads safetensors, and pickles of torch with ``weights_only=True``.

    Raises
    ------
    ModelError
        No such file, no file of weights, or one without tensors.
    """
    path = Path(path)
    if path.is_dir():
        raise ModelError(f"{path} is a folder; give the file of weights in it")
    if not path.is_file():
        raise ModelError(f"{path}: no such weights file")
    tensors = dict(_walk(_read(path), "", 0))
    if not tensors:
        raise ModelError(f"{path} holds no tensors by name; give a file of network weights")
    return tensors


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file.

    Raises
    ------
    ModelError
        It is none, or damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be read as safetensors: {error}") from error


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    try:
        with torch.serialization.safe_globals(_numbers_and_options()):
            return torch.load(path, map_location="cpu", weights_only=True)
    # Whatever bytes may be in a file that is called .pth.
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ModelError(
            f"{path} is no plain file of weights ({reason}); only tensors are read, never code: "
            "save its state dict alone, best as safetensors"
        ) from error


def _numbers_and_options() -> list[Any]:
    """Plain values that trainers save beside weights: numpy's numbers, options of argparse."""
    from argparse import Namespace

    import numpy as np

    kinds = [np.dtype(kind) for kind in ("f8", "f4", "i8", "i4", "?")]
    scalar = np.float64(0).__reduce__()[0]
    old = (scalar, "numpy.core.multiarray.scalar")
    return [Namespace, np.dtype, scalar, old, *(type(kind) for kind in kinds)]


def _walk(content: Any, path: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        yield path, content
    elif isinstance(content, Mapping | list | tuple) and depth < _DEPTH:
        items = content.items() if isinstance(content, Mapping) else enumerate(content)
        for key, value in items:
            yield from _walk(value, f"{path}.{key}" if path else str(key), depth + 1)


def find_parts(tensors: Iterable[str], anchor: str) -> tuple[str, ...]:
    """Prefixes behind which a tensor of this name stands, sorted."""
    return tuple(
        sorted(
            key.removesuffix(anchor)
            for key in tensors
            if key == anchor or key.endswith("." + anchor)
        )
    )


def outermost(prefixes: Iterable[str]) -> tuple[str, ...]:
    """Without the prefixes that stand inside another one."""
    kept: list[str] = []
    for prefix in sorted(set(prefixes), key=lambda p: (len(p), p)):
        if not any(prefix.startswith(other) for other in kept):
            kept.append(prefix)
    return tuple(kept)


def behind(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors behind a prefix, by the rest of their names."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def choose_part(
    tensors: Mapping[str, Tensor], prefixes: Iterable[str], source: str, wanted: str | None = None
) -> Part:
    """One of the parts that could be meant: the one asked for, else the averaged one.

    Raises
    ------
    ModelError
        Several remain, with different weights; or what was asked for is not there.
    """
    found = list(outermost(prefixes))
    if wanted is not None:
        asked = [p for p in found if p.rstrip(".") == wanted.rstrip(".")]
        if not asked:
            there = ", ".join(p.rstrip(".") or "(bare)" for p in found)
            raise ModelError(f"{source} holds no part {wanted!r}; it holds {there}")
        found = asked
    averaged = [prefix for prefix in found if _is_averaged(prefix, tensors)]
    rest = averaged or found
    first = behind(tensors, rest[0])
    for other in rest[1:]:
        if not _equal(first, behind(tensors, other)):
            names = " and ".join(p.rstrip(".") for p in rest)
            raise ModelError(
                f"{source} holds several networks that could be meant ({names}); name one with "
                "--part"
            )
    notes = []
    if averaged:
        count = tensors.get(_parent(rest[0]) + "n_averaged")
        times = "" if count is None else f" over {int(count)} steps"
        plain = [p.rstrip(".") for p in found if p not in averaged]
        instead = f", not the plain ones of {plain[0]}" if plain else ""
        notes.append(
            f"the averaged weights of {rest[0].rstrip('.')} are taken{times}{instead}"
            if rest[0]
            else "the weights are an average"
        )
    elif wanted is None and any(
        _is_averaged(key, {}) for key in tensors if not key.startswith(rest[0])
    ):
        notes.append(
            "the file holds an average too, not by these names: the plain weights are taken"
        )
    notes += _beside(tensors, rest[0])
    return Part(prefix=rest[0], tensors=first, averaged=bool(averaged), notes=tuple(notes))


def _is_averaged(prefix: str, tensors: Mapping[str, Tensor]) -> bool:
    for component in prefix.lower().split("."):
        words = set(re.split(r"[^a-z]+", component))
        # exp_avg is an optimiser's.
        if words & _AVERAGED and "exp" not in words:
            return True
    return _parent(prefix) + "n_averaged" in tensors


def _parent(prefix: str) -> str:
    """``a.b.`` -> ``a.``"""
    head, dot, _ = prefix.rstrip(".").rpartition(".")
    return head + dot


def _equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def _beside(tensors: Mapping[str, Tensor], prefix: str) -> list[str]:
    """What else the file holds: every tensor is accounted for."""
    groups: dict[str, int] = {}
    for key in tensors:
        if not key.startswith(prefix):
            same = _parent(prefix) if key.startswith(_parent(prefix)) else ""
            name = same + key.removeprefix(same).split(".")[0]
            groups[name] = groups.get(name, 0) + 1
    if not groups:
        return []
    parts = ", ".join(f"{name} ({count})" for name, count in groups.items())
    return [f"not part of this network and left alone: {parts} tensors"]
