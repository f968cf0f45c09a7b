"""Small edits of foreign state dicts."""

from torch import Tensor


def drop_prefixes(state: dict[str, Tensor], *prefixes: str) -> dict[str, Tensor]:
    """Without the entries whose key starts with one of the prefixes."""
    return {k: v for k, v in state.items() if not k.startswith(prefixes)}


def drop_suffixes(state: dict[str, Tensor], *suffixes: str) -> dict[str, Tensor]:
    """Without the entries whose key ends with one of the suffixes."""
    return {k: v for k, v in state.items() if not k.endswith(suffixes)}
