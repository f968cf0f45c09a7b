"""What every model card begins with: the front matter of a Hugging Face folder, and the warning."""

from collections.abc import Mapping
from typing import Any

import yaml

NOT_FOR_DIAGNOSIS = (
    "Not for diagnosis. Super-resolution invents detail that the glass may not have; this model "
    "has not been validated for any clinical use."
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
