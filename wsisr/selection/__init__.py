"""Where the patches come from: tissue, annotations, candidates, rules and splits."""

from wsisr.selection.annotations import (
    Annotations,
    Region,
    load_annotations,
    load_label_mask,
    save_geojson,
)
from wsisr.selection.candidates import (
    boxes_of,
    grid_candidates,
    point_candidates,
    random_candidates,
    rank_keys,
    ranked_order,
    weighted_candidates,
)
from wsisr.selection.mask_files import import_tissue, write_tissue_files
from wsisr.selection.points import load_points
from wsisr.selection.preview import contact_sheet, overlay_picture, save_png
from wsisr.selection.quality import nuclei_map, texture_map, tile_quality
from wsisr.selection.rules import (
    CandidateTable,
    Funnel,
    SelectionRules,
    apply_rules,
    cap_per_key,
    describe_candidates,
)
from wsisr.selection.splits import (
    SplitPlan,
    assign_splits,
    overlap_share,
    patch_draws,
    plan_splits,
    random_patch_splits,
)
from wsisr.selection.tissue import TissueSettings, segment, tissue_of
from wsisr.selection.tissue_map import TissueHealth, TissueMap

__all__ = [
    "Annotations",
    "CandidateTable",
    "Funnel",
    "Region",
    "SelectionRules",
    "SplitPlan",
    "TissueHealth",
    "TissueMap",
    "TissueSettings",
    "apply_rules",
    "assign_splits",
    "boxes_of",
    "cap_per_key",
    "contact_sheet",
    "describe_candidates",
    "grid_candidates",
    "import_tissue",
    "load_annotations",
    "load_label_mask",
    "load_points",
    "nuclei_map",
    "overlap_share",
    "overlay_picture",
    "patch_draws",
    "plan_splits",
    "point_candidates",
    "random_candidates",
    "random_patch_splits",
    "rank_keys",
    "ranked_order",
    "save_geojson",
    "save_png",
    "segment",
    "texture_map",
    "tile_quality",
    "tissue_of",
    "weighted_candidates",
    "write_tissue_files",
]
