"""From slides to a pair store: manifests, scan, plan, extract, finish."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsisr.building.build import build_pairs as build_pairs
    from wsisr.building.build import finish_parts as finish_parts
    from wsisr.building.dryrun import describe_plan as describe_plan
    from wsisr.building.manifest import Manifest as Manifest
    from wsisr.building.manifest import load_manifest as load_manifest
    from wsisr.building.manifest import manifest_names as manifest_names
    from wsisr.building.rebuild import rebuild_from as rebuild_from
    from wsisr.building.state import BuildRequest as BuildRequest
    from wsisr.building.state import Prepared as Prepared
    from wsisr.building.state import prepare as prepare
    from wsisr.building.summary import BuildSummary as BuildSummary
    from wsisr.building.summary import Failure as Failure

_LAZY = {
    "BuildRequest": "state",
    "BuildSummary": "summary",
    "Failure": "summary",
    "Manifest": "manifest",
    "Prepared": "state",
    "build_pairs": "build",
    "describe_plan": "dryrun",
    "finish_parts": "build",
    "load_manifest": "manifest",
    "manifest_names": "manifest",
    "prepare": "state",
    "rebuild_from": "rebuild",
}

__all__ = [
    "BuildRequest",
    "BuildSummary",
    "Failure",
    "Manifest",
    "Prepared",
    "build_pairs",
    "describe_plan",
    "finish_parts",
    "load_manifest",
    "manifest_names",
    "prepare",
    "rebuild_from",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"wsisr.building.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'wsisr.building' has no attribute {name!r}")
