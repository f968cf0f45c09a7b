"""What a reference is fitted on: patches, their labels, and which patients are left out."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsisr.arrays import UInt8Array
from wsisr.degradation import crop_to_scale, degrade, parse_degradation
from wsisr.degradation.draws import Draws
from wsisr.errors import ConfigError
from wsisr.inference import super_resolve
from wsisr.inference.loading import load_network
from wsisr.inference.opening import open_model
from wsisr.inference.tiles import WHOLE, plan_tiles
from wsisr.progress import ProgressEvent, Reporter, silent
from wsisr.selection.image_labels import ImageLabels
from wsisr.store import PairStore
from wsisr.store.whole_images import WholeImage, whole_image
from wsisr.tasks.kinds import Kind, Maps
from wsisr.tasks.request import HR, TaskRequest
from wsisr.tasks.truth import Truth
from wsisr.training.batches import Batch, symmetric
from wsisr.training.config import TrainConfig
from wsisr.training.feeds import Feed
from wsisr.training.parallel import Processes
from wsisr.training.sampling import sample_index, slots_of

JITTER = 0.1
NUCLEUS_RADIUS_UM = 3.0


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """One patch, or image, that a task has an answer for.

    Attributes
    ----------
    slide_index, row : int
        Its place in the store; an image's is that of its first patch.
    patient : str
        Its own name where nobody knows whose it is.
    label : str
        Class of the image, or empty.
    whole : WholeImage or None
        How the image is put together, where its patches cover it and objects are asked for.
    """

    slide: str
    slide_index: int
    row: int
    patient: str
    label: str
    whole: WholeImage | None = None

    def image(self, store: PairStore) -> UInt8Array:
        """HR pixels, shape (h, w, 3)."""
        if self.whole is not None:
            return self.whole.read(store)
        return store.patch(self.slide, self.row, store.arrays[0])

    def labels(self, truth: Truth) -> ImageLabels | None:
        """What is to be found in it."""
        if self.whole is not None:
            return truth.image(self.slide)
        return truth.patch(self.slide, self.row)


def labelled(store: PairStore, split: str, kind: Kind, truth: Truth) -> list[Labelled]:
    """Patches of a split (or of several, with commas) that the task has an answer for.

    Objects are learnt from whole images where the patches cover them: crops then lie anywhere, and
    no border cuts a gland that is not cut in the image.

    Raises
    ------
    ConfigError
        No such split, or no patch of it is labelled.
    """
    names = [name.strip() for name in split.split(",")]
    known = store.split_names()
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(
            f"{store.path} has no split {', '.join(unknown)}; it has {', '.join(known)}"
        )
    rows = np.concatenate([np.asarray(store.split(name)).reshape(-1, 2) for name in names])
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    table = store.table(columns=["label"])
    words = table.names("label") if "label" in table else []
    labels = {
        (int(s), int(r)): w for (s, r), w in zip(table.index.tolist(), words, strict=False) if w
    }
    found = []
    of_image: dict[int, list[int]] = {}
    for slide_index, row in rows.tolist():
        of_image.setdefault(slide_index, []).append(row)
    images = {}
    for slide_index, part in of_image.items() if isinstance(kind, Maps) else ():
        with suppress(ConfigError):  # patches then
            slide = store.attributes["slides"][slide_index]
            images[slide_index] = whole_image(store, slide, part)
    for slide_index, row in rows.tolist():
        whole = images.get(slide_index)
        if whole is not None and row != whole.rows[0]:
            continue
        slide = store.attributes["slides"][slide_index]
        attributes: Any = store.slides[slide].attributes
        label = labels.get((slide_index, row)) or attributes.get("label") or ""
        if truth.has(slide) if isinstance(kind, Maps) else label:
            found.append(
                Labelled(
                    slide=slide,
                    slide_index=slide_index,
                    row=row,
                    patient=attributes["patient"] or slide,
                    label=label,
                    whole=whole,
                )
            )
    if not found:
        what = "outlines" if isinstance(kind, Maps) else "a class"
        raise ConfigError(f"{store.path}: no image of its {split} split has {what}")
    return found


def detection_radius_px(store: PairStore) -> float:
    """3 um in HR px; by the nominal magnification where no resolution is stated."""
    first = next(iter(store.slides.values()))
    um = first.spec(store.arrays[0]).um_per_px
    nominal = 10.0 / float(store.arrays[0].rstrip("x"))
    return NUCLEUS_RADIUS_UM / (um or nominal)


def folds_of(patients: Mapping[str, str], folds: int, seed: int = 0) -> dict[str, int]:
    """Fold of every patient, from 0: by a hash of the name, evenly within each class.

    Parameters
    ----------
    patients : mapping of str to str
        Patient to class (or empty).

    Raises
    ------
    ConfigError
        Fewer patients than folds.
    """
    if not 2 <= folds <= len(patients):
        raise ConfigError(f"{folds} folds of {len(patients)} patients: give 2 to {len(patients)}")
    order = sorted(
        patients,
        key=lambda p: (patients[p], hashlib.blake2b(f"{seed}/{p}".encode()).digest()),
    )
    return {patient: at % folds for at, patient in enumerate(order)}


def seen_images(
    store: PairStore,
    samples: Sequence[Labelled],
    request: TaskRequest,
    device: torch.device,
    seed: int,
    report: Reporter = silent,
) -> list[UInt8Array]:
    """The images that a reference sees: HR, or what a model (or bicubic) makes of LR of it.

    Returns
    -------
    list of ndarray, shape (h, w, 3), uint8
        A side that the scale does not divide is a few px shorter, at the bottom right.

    Raises
    ------
    ConfigError, ModelError
        The scale is not the model's, or there is no such model.
    """
    index = np.array([(s.slide_index, s.row) for s in samples], np.int32)
    whole = [sample.image(store) for sample in samples]
    scale = request.scale
    if request.images == HR:
        return whole
    assert scale is not None
    entry = open_model(request.images, request.runs)
    if not entry.serves(scale):
        raise ConfigError(f"{entry.name} is a model of x{entry.scale:g}, not of x{scale:g}")
    engine = load_network(entry, device=device, precision="float32")
    plan = plan_tiles(engine.needs, scale) if entry.is_network else WHOLE
    degradation = parse_degradation(request.lr_source)
    made = []
    for at, (image, (slide, row)) in enumerate(zip(whole, index.tolist(), strict=True)):
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
        lr = degrade(pixels, degradation, scale, seed=seed, slots=[(slide << 32) + row])
        height, width = crop_to_scale(pixels, scale).shape[-2:]
        array = np.ascontiguousarray(lr[0].permute(1, 2, 0).numpy())
        grey = super_resolve(engine, array, scale, plan)[:height, :width]
        made.append(np.floor(grey.clip(0, 255) + 0.5).astype(np.uint8))
        report(ProgressEvent(stage="restore", done=at + 1, total=len(whole), unit="image"))
    return made


class TaskFeed(Feed):
    """Crops of images and of what is to be drawn on them; a function of (seed, step, slot).

    Parameters
    ----------
    images : sequence of ndarray, shape (h, w, 3), uint8
    targets : sequence of ndarray, shape (c, h, w), uint8; or of int
        What a network is to draw, or the number of the class.
    """

    def __init__(
        self,
        images: Sequence[UInt8Array],
        targets: Sequence[UInt8Array] | Sequence[int],
        config: TrainConfig,
        device: torch.device,
        processes: Processes,
    ) -> None:
        self.images, self.targets, self.config = images, targets, config
        self.device, self.processes = device, processes
        self.jitter = float(config.recipe.settings.get("jitter", JITTER))
        self.side = min(config.data.crop_lr_px, *(min(image.shape[:2]) for image in images))

    def batch(self, step: int, part: int) -> Batch:
        data, train = self.config.data, self.config.train
        slots = slots_of(self.processes.rank, self.processes.count, data.batch, part)
        per_step = data.batch * self.processes.count * train.accumulate
        index = sample_index(train.seed, step, slots, per_step, len(self.images))
        draws = Draws(seed=train.seed, step=step, slots=torch.from_numpy(slots), scope="task")
        corners = draws.uniforms("corner", 2).double().numpy()
        stacked: list[Tensor] = []
        numbers: list[int] = []
        for at, (y_share, x_share) in zip(index.tolist(), corners.tolist(), strict=True):
            image, target = self.images[at], self.targets[at]
            height, width = image.shape[:2]
            y, x = int(y_share * (height - self.side + 1)), int(x_share * (width - self.side + 1))
            window = (slice(y, y + self.side), slice(x, x + self.side))
            planes = torch.from_numpy(np.ascontiguousarray(image[window])).permute(2, 0, 1)
            if isinstance(target, np.ndarray):
                drawn = torch.from_numpy(np.ascontiguousarray(target[:, *window]))
                planes = torch.cat((planes, drawn))
            else:
                numbers.append(int(target))
            stacked.append(planes)
        both = symmetric(torch.stack(stacked), draws, data.flips).float().div_(255.0)
        seen = _recoloured(both[:, :3], draws, self.jitter)
        target_of = torch.tensor(numbers) if numbers else both[:, 3:]
        return Batch(lr=seen.contiguous(), hr=target_of, draws=draws).to(self.device)


def _recoloured(images: Tensor, draws: Draws, amount: float) -> Tensor:
    """Gain and offset of each channel, drawn: stains differ between laboratories."""
    if not amount:
        return images
    drawn = 2.0 * draws.uniforms("stain", 6).reshape(-1, 6, 1, 1) - 1.0
    gain, offset = 1.0 + amount * drawn[:, :3], 0.5 * amount * drawn[:, 3:]
    return ((images - 1.0) * gain + 1.0 + offset).clamp(0.0, 1.0)


def targets_of(
    kind: Kind, samples: Sequence[Labelled], truth: Truth, classes: Sequence[str]
) -> tuple[list[Any], list[ImageLabels | None]]:
    """What a network is to say of each sample, and the labels themselves."""
    if not isinstance(kind, Maps):
        return [classes.index(sample.label) for sample in samples], [None] * len(samples)
    labels = [sample.labels(truth) for sample in samples]
    return [kind.target(found) for found in labels if found is not None], list(labels)
