"""Saved models: a network and what it is, on disk.

A saved model is a folder of two files: ``model.safetensors`` (tensors, with the specification in
its header too) and ``config.json`` (the same specification, to be read by people). Neither can
run code. Weights of other programs come in through `wsisr.models.importing`.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from wsisr import __version__
from wsisr.errors import ModelError, damage_is_clear
from wsisr.files import read_document
from wsisr.models.community import PREFIX, community_from
from wsisr.models.foreign.containers import behind, read_safetensors
from wsisr.models.registry import MODELS, build_from_settings, model_spec, settings_dict
from wsisr.models.settings import missing, override
from wsisr.models.wrapper import SRModel
from wsisr.plugins import check_recorded

FORMAT_VERSION = 1
WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"
DIGEST_KEY = "tensors_blake2b"
_CONFIG_TYPES = {"name": str, "preset": str, "settings": dict, "extra": dict}
_MAX_SCALE = 1000
NOT_FOR_DIAGNOSIS = (
    "Not for diagnosis. Super-resolution invents detail that the glass may not have; this model "
    "has not been validated for any clinical use."
)


def model_config(model: SRModel, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The specification that rebuilds a model, as plain values.

    `extra` is the caller's own record (data, degradation, training step, ...), kept as it is.
    """
    info = model.info
    plugin = MODELS.record(info.name)
    return {
        "format": "wsisr-model",
        "format_version": FORMAT_VERSION,
        "created_with": f"wsisr {__version__}",
        "name": info.name,
        "preset": info.preset,
        "scale": info.scale,
        "settings": settings_dict(model.settings),
        "parameters": model.parameter_count,
        "extra": dict(extra or {}),
        **({"plugins": [plugin]} if plugin is not None else {}),
    }


def save_model(model: SRModel, folder: Path | str, extra: Mapping[str, Any] | None = None) -> Path:
    """Write a model into a folder (made if missing); returns the folder.

    Each file is written under another name and then moved into place, so that a reader never
    sees half a file; the specification in the weights' header tells a half-replaced pair.
    Training-only branches are not part of the model and are not saved.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        key: value.detach().to("cpu").contiguous().clone()
        for key, value in model.state_dict().items()
    }
    config_text = model_config(model, extra) | {DIGEST_KEY: tensors_digest(tensors)}
    text = json.dumps(config_text, indent=2, sort_keys=True)
    config = folder / (CONFIG_NAME + ".partial")
    config.write_text(text + "\n", encoding="utf-8")
    weights = folder / (WEIGHTS_NAME + ".partial")
    save_file(tensors, weights, metadata={"wsisr": text})
    shutil.copymode(config, weights)  # safetensors writes for the owner alone
    os.replace(weights, folder / WEIGHTS_NAME)
    os.replace(config, folder / CONFIG_NAME)
    return folder


def load_model(path: Path | str, device: torch.device | str = "cpu") -> SRModel:
    """Rebuild a saved model, in eval mode.

    Parameters
    ----------
    path : Path
        The folder, or one of its two files.

    Raises
    ------
    ModelError
        Missing or broken files, an unknown architecture or setting, a file pair that does not
        belong together.
    """
    model, _ = load_model_and_config(path, device)
    return model


def load_model_and_config(
    path: Path | str, device: torch.device | str = "cpu"
) -> tuple[SRModel, dict[str, Any]]:
    """As `load_model`, with the whole config (``extra`` is the saver's own record)."""
    folder = Path(path)
    folder = folder.parent if folder.name in (WEIGHTS_NAME, CONFIG_NAME) else folder
    config = read_config(folder)
    where = folder / CONFIG_NAME
    tensors = read_safetensors(folder / WEIGHTS_NAME)
    model = model_from(config, tensors, where)
    check_digest(config, tensors, folder / WEIGHTS_NAME)
    load_exactly(model, tensors, str(folder / WEIGHTS_NAME))
    return model.to(device).eval(), config


def model_from(config: Mapping[str, Any], tensors: Mapping[str, Tensor], where: Path) -> SRModel:
    """The network of a specification, its weights still fresh.

    Raises
    ------
    ModelError
        An unknown architecture or setting.
    """
    if str(config["name"]).startswith(PREFIX):
        inner = behind(tensors, "net.model.")
        return community_from(inner, str(where.parent), where.parent.name)
    check_recorded(config.get("plugins"), str(where.parent))
    with damage_is_clear(where, ModelError, "copy the folder again from where it was saved"):
        spec = model_spec(config["name"])
        lacking = missing(spec.settings, config["settings"])
        if lacking:
            raise ModelError(
                f"{where} lacks the settings {', '.join(lacking)} of {spec.name}; it "
                f"was written by {config.get('created_with', 'an unknown version')}"
            )
        settings = override(spec.settings(), config["settings"], spec.name)
        # The fresh weights are overwritten: the caller's random state must not notice them.
        with torch.random.fork_rng(devices=[]):
            return build_from_settings(spec, settings, config["scale"], config["preset"])


def check_digest(config: Mapping[str, Any], tensors: Mapping[str, Tensor], where: Path) -> None:
    """Raise `ModelError` if tensors are not those that were saved.

    Models that were saved before there were digests have none.
    """
    if config.get(DIGEST_KEY, found := tensors_digest(tensors)) != found:
        raise ModelError(
            f"{where}: its tensors do not match the digest that was saved with them: the file was "
            "damaged or edited; copy it again"
        )


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """BLAKE2b-256 over names, types, shapes and bytes of tensors, in the order of their names."""
    state = hashlib.blake2b(digest_size=32)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        state.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


def read_config(folder: Path | str) -> dict[str, Any]:
    """The checked specification of a saved model."""
    folder = Path(folder)
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        if not (folder / name).is_file():
            raise ModelError(f"{folder} holds no {name}; give the folder that a training run wrote")
    config = read_document(folder / CONFIG_NAME, "a wsisr model", "wsisr-model", kind=ModelError)
    scale = config.get("scale")
    wrong = [k for k, kind in _CONFIG_TYPES.items() if not isinstance(config.get(k), kind)]
    if not (scale is None or (isinstance(scale, int | float) and 0 < scale < _MAX_SCALE)):
        wrong.append("scale")
    if wrong:
        raise ModelError(
            f"{folder / CONFIG_NAME} is damaged: {', '.join(wrong)} cannot be what it says; copy "
            "the folder again from where it was saved"
        )
    if config.get("format_version") != FORMAT_VERSION:
        raise ModelError(
            f"{folder / CONFIG_NAME} has format version {config.get('format_version')}, this "
            f"program reads {FORMAT_VERSION}; use the version that wrote it "
            f"({config.get('created_with', 'unknown')})"
        )
    header = specification_in(folder / WEIGHTS_NAME)
    with damage_is_clear(folder / WEIGHTS_NAME, ModelError, "copy it again"):
        same = header is not None and json.loads(header) == config
    if not same:
        raise ModelError(
            f"{folder}: {CONFIG_NAME} and the header of {WEIGHTS_NAME} differ; the two files do "
            "not belong together, copy both from one save"
        )
    return config


def specification_in(path: Path) -> str | None:
    """The specification that `save_model` put into the header of a file; None if another wrote it.

    Raises
    ------
    ModelError
        It cannot be read.
    """
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("wsisr")
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be read as safetensors: {error}") from error


def load_exactly(model: SRModel, state: Mapping[str, Tensor], source: str) -> None:
    """Fill a model; every tensor finds its place, every place its tensor, and all are numbers.

    Raises
    ------
    ModelError
        Naming tensors that are missing, left over, of another shape, or not finite.
    """
    own = model.state_dict()
    faults = [
        ("missing", sorted(set(own) - set(state))),
        ("left over", sorted(set(state) - set(own))),
        (
            "of another shape",
            [
                f"{k} {tuple(state[k].shape)} for {tuple(own[k].shape)}"
                for k in sorted(set(own) & set(state))
                if own[k].shape != state[k].shape
            ],
        ),
    ]
    found = [f"{len(keys)} {what} ({', '.join(keys[:3])})" for what, keys in faults if keys]
    if found:
        raise ModelError(
            f"{source} does not fit {model.info.name} ({model.info.preset}, scale "
            f"{model.info.scale}): tensors {'; '.join(found)}"
        )
    check_finite(state, source)
    model.load_state_dict(dict(state))


def check_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Raise `ModelError`, naming a tensor, if weights are not numbers: training has diverged."""
    wrong = [k for k, v in state.items() if v.is_floating_point() and not v.isfinite().all()]
    if wrong:
        more = f" (and {len(wrong) - 1} more tensors)" if wrong[1:] else ""
        raise ModelError(
            f"{source}: {wrong[0]}{more} holds values that are no numbers; its training diverged: "
            "take weights from before that"
        )


def front_matter(model: str, more: Mapping[str, Any] | None = None) -> str:
    """The block at the head of a ``README.md``, with a blank line behind it.

    `license` is ``other``: whose weights they are, and what the licence of the data allows, is not
    known here.
    """
    front: dict[str, Any] = {
        "license": "other",
        "library_name": "wsisr",
        "pipeline_tag": "image-to-image",
        "tags": ["super-resolution", "digital-pathology", "whole-slide-imaging", model],
        **(more or {}),
    }
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n"
