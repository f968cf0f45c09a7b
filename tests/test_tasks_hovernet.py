"""HoVer-Net's layers by their authors' names, and the nuclei that its maps are read as."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from wsisr.errors import ConfigError, ModelError
from wsisr.metrics.objects import aji, overlap
from wsisr.tasks import hovernet
from wsisr.tasks.hovernet import HoVerNet, filled, find_nuclei, part_nuclei
from wsisr.tasks.reference import open_reference

CPU = torch.device("cpu")


def authors(model: HoVerNet) -> dict[str, torch.Tensor]:
    """As the authors' program names them, in the dictionary that it saves."""
    made = {"desc.upsample2x.unpool_mat": torch.ones(2, 2)}
    for name, tensor in model.state_dict().items():
        name = name.replace("conv0.conv.", "conv0./.")
        name = re.sub(r"(preact|conv\d)_(bn)", r"\1/\2", name)
        made[f"desc.{name}"] = tensor
    return made


@pytest.mark.parametrize(("fast", "parameters"), [(True, 37_639_561), (False, 54_744_457)])
def test_layers_are_the_authors(fast: bool, parameters: int) -> None:
    """Shapes alone: nothing is computed on tensors without values."""
    with torch.device("meta"):
        model = HoVerNet(fast=fast, types=5)
        assert sum(p.numel() for p in model.parameters()) == parameters
        told = model(torch.empty(1, 3, model.seen_px, model.seen_px))
        tensors = authors(model)
        again = filled(tensors, Path("consep.tar"))
        assert (again.fast, again.types) == (fast, 5)
        bare = filled({k: v for k, v in tensors.items() if ".tp." not in k}, Path("kumar.tar"))
        assert bare.types == 0 and set(bare.decoder) == {"np", "hv"}
        del tensors["desc.d2.units.3.conv2.weight"]
        with pytest.raises(ModelError, match=r"1 layers do not fit.*d2\.units\.3\.conv2\.weight"):
            filled(tensors, Path("broken.tar"))
    shapes = {name: tuple(made.shape[1:]) for name, made in told.items()}
    side = 164 if fast else 80
    assert shapes == {"np": (2, side, side), "hv": (2, side, side), "tp": (5, side, side)}


def test_other_files_are_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a.weight": torch.zeros(3)}}, tmp_path / "other.pth")
    with pytest.raises(ModelError, match="holds no HoVer-Net"):
        open_reference(f"nuclei={tmp_path / 'other.pth'}", CPU)
    with pytest.raises(ConfigError, match="a file of weights is HoVer-Net's"):
        open_reference(f"glands={tmp_path / 'other.pth'}", CPU)


def _scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of three discs, two of which touch, and the maps that say so."""
    labels = np.zeros((70, 90), np.int32)
    y, x = np.mgrid[:70, :90]
    place = np.zeros((2, 70, 90), np.float32)
    for label, (cy, cx) in enumerate(((25, 20), (25, 45), (50, 72)), start=1):
        mask = np.hypot(y - cy, x - cx) <= 12.6
        labels[mask] = label
        place[0][mask], place[1][mask] = ((x - cx) / 12.6)[mask], ((y - cy) / 12.6)[mask]
    return labels, (labels > 0).astype(np.float32), place


def test_maps_are_read_as_the_nuclei_that_they_were_drawn_from() -> None:
    labels, inside, place = _scene()
    pair = overlap(labels, part_nuclei(inside, place))
    assert len(pair.found_area) == 3 and aji(pair) > 0.9
    assert part_nuclei(np.zeros((40, 40), np.float32), place[:, :40, :40]).max() == 0


def test_tiles_answer_for_their_own_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that says what it sees: the maps of an image of odd sides are the image's own."""
    labels, inside, place = _scene()

    class Mirror(HoVerNet):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            self.types, self.seen_px, self.told_px = 3, 44, 20

        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            seen = images[..., 12:32, 12:32]
            kind = torch.nn.functional.one_hot(seen[:, 0].long() // 100, 3).permute(0, 3, 1, 2)
            both = torch.stack([100 - seen[:, 0], seen[:, 0] - 50], 1)
            return {"np": both, "hv": seen[:, 1:] / 100 - 1, "tp": kind.float()}

    image = np.stack([100 * inside + 100 * (labels == 3), *(place * 100 + 100)], -1)
    answer = find_nuclei(Mirror(), image.astype(np.uint8), ("round", "far"), CPU)
    assert answer.labels is not None and answer.types is not None
    assert aji(overlap(labels, answer.labels)) > 0.9
    for label, name in ((1, "round"), (2, "round"), (3, "far")):
        found = int(np.bincount(answer.labels[labels == label]).argmax())
        assert answer.types[found] == name
    assert hovernet.SUFFIXES[0] == ".tar"
