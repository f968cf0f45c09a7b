"""Alignment: of LR patches with HR, of the levels of one slide, of two scans of one glass.

Names are loaded at first use, so that importing this package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsisr.registration.calibration import LevelTransform as LevelTransform
    from wsisr.registration.calibration import calibrate_levels as calibrate_levels
    from wsisr.registration.ceiling import Ceiling as Ceiling
    from wsisr.registration.ceiling import luma_power as luma_power
    from wsisr.registration.ceiling import psnr_ceiling as psnr_ceiling
    from wsisr.registration.certificate import ONE_SLIDE as ONE_SLIDE
    from wsisr.registration.certificate import TWO_SCANS as TWO_SCANS
    from wsisr.registration.certificate import Affine as Affine
    from wsisr.registration.certificate import Gate as Gate
    from wsisr.registration.certificate import Method as Method
    from wsisr.registration.certificate import PairCertificate as PairCertificate
    from wsisr.registration.certificate import Reason as Reason
    from wsisr.registration.certificate import Verdict as Verdict
    from wsisr.registration.certificate import translation_affine as translation_affine
    from wsisr.registration.orientation import D4 as D4
    from wsisr.registration.output import HrPatch as HrPatch
    from wsisr.registration.output import take_hr as take_hr
    from wsisr.registration.pair import find_orientation as find_orientation
    from wsisr.registration.pair import register_pair as register_pair
    from wsisr.registration.scans import PATCH_MARGIN_PX as PATCH_MARGIN_PX
    from wsisr.registration.scans import PatchPlan as PatchPlan
    from wsisr.registration.scans import ScanRegistration as ScanRegistration
    from wsisr.registration.scans import register_scans as register_scans

_HOME = {
    "D4": "orientation",
    "ONE_SLIDE": "certificate",
    "TWO_SCANS": "certificate",
    "Affine": "certificate",
    "Ceiling": "ceiling",
    "Gate": "certificate",
    "HrPatch": "output",
    "LevelTransform": "calibration",
    "Method": "certificate",
    "PairCertificate": "certificate",
    "PATCH_MARGIN_PX": "scans",
    "PatchPlan": "scans",
    "Reason": "certificate",
    "ScanRegistration": "scans",
    "Verdict": "certificate",
    "calibrate_levels": "calibration",
    "find_orientation": "pair",
    "luma_power": "ceiling",
    "psnr_ceiling": "ceiling",
    "register_pair": "pair",
    "register_scans": "scans",
    "take_hr": "output",
    "translation_affine": "certificate",
}

__all__ = [
    "D4",
    "ONE_SLIDE",
    "PATCH_MARGIN_PX",
    "TWO_SCANS",
    "Affine",
    "Ceiling",
    "Gate",
    "HrPatch",
    "LevelTransform",
    "Method",
    "PairCertificate",
    "PatchPlan",
    "Reason",
    "ScanRegistration",
    "Verdict",
    "calibrate_levels",
    "find_orientation",
    "luma_power",
    "psnr_ceiling",
    "register_pair",
    "register_scans",
    "take_hr",
    "translation_affine",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"wsisr.registration.{_HOME[name]}"), name)
    raise AttributeError(f"module 'wsisr.registration' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
