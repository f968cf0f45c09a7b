"""Where a network runs: the one reading of ``--device``."""

import torch

from wsisr.errors import ConfigError


def choose_device(name: str | None = None) -> torch.device:
    """A device that is there.

    Parameters
    ----------
    name : str, optional
        ``cpu``, ``cuda`` (the first GPU), ``cuda:1`` or another device of this torch; None and
        ``auto``: a GPU where there is one.

    Raises
    ------
    ConfigError
        No such device; the sentence says what there is.
    """
    if name is None or name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(
            f"--device {name}: no such device; give auto, cpu, cuda or cuda:1"
        ) from None
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not found:
            raise ConfigError(f"--device {name}: torch finds no GPU here; give auto or cpu")
        index = device.index or 0
        if index >= found:
            raise ConfigError(
                f"--device {name}: there is no such GPU; there are {found} here, from cuda:0"
            )
        return torch.device("cuda", index)
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError):
        raise ConfigError(
            f"--device {name}: this torch cannot use it here; give auto, cpu or cuda"
        ) from None
    return device
