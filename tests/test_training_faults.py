"""What goes wrong on disks and devices, each answered by one sentence; steps in half precision."""

import errno
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from torch import nn
from training_samples import make_store, small_request

from wsisr.degradation import parse_degradation
from wsisr.errors import ConfigError, CorruptStoreError, DiskFullError
from wsisr.files import disk_full_is_clear
from wsisr.inference import open_run
from wsisr.models import SRModel, create_model, load_model
from wsisr.progress import ProgressEvent
from wsisr.training import (
    TrainingError,
    TrainRequest,
    outputs,
    recipes,
    resolve_config,
    run_record,
    start,
    stepping,
    train,
)
from wsisr.training import state as states
from wsisr.training.interrupts import readable_faults
from wsisr.training.outputs import PROFILE_NAME

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("faults") / "pairs.zarr", count=3)


@pytest.fixture(scope="module")
def finished(store: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainRequest:
    request = small_request(store, tmp_path_factory.mktemp("finished") / "run", steps=5)
    train(request)
    return request


def copied(request: TrainRequest, folder: Path) -> TrainRequest:
    """A request that goes on with a copy of a run."""
    shutil.copytree(request.output or Path(), folder)
    return replace(request, output=folder, resume=True, assignments=())


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_keeps_the_state_before_and_goes_on(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    request = small_request(store, tmp_path / "run", steps=10)
    right = states.save_file

    def full(tensors: dict[str, torch.Tensor], path: Path) -> None:
        right(tensors, path)
        if path.name == "step-00000010.partial":
            raise error

    monkeypatch.setattr(states, "save_file", full)
    with pytest.raises(TrainingError, match=r"run: .*No space left.* --resume") as caught:
        train(request)
    assert "\n" not in str(caught.value)
    names = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert names == {f"step-0000000{n}.{kind}" for n in (0, 5) for kind in ("json", "safetensors")}
    monkeypatch.setattr(states, "save_file", right)
    outcome, _ = train(replace(request, resume=True, assignments=()))
    assert outcome.state == "finished" and outcome.step == 10


def test_a_disk_that_fills_under_the_last_model_leaves_no_older_one_in_its_place(
    store: Path, finished: TrainRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = small_request(store, tmp_path / "run", steps=5)
    right = outputs.Outputs.save

    def full(self: outputs.Outputs, model: SRModel, folder: Path, *more: Any) -> None:
        if folder.name == ".last.new" and more[0] == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        right(self, model, folder, *more)

    monkeypatch.setattr(outputs.Outputs, "save", full)
    with pytest.raises(TrainingError, match="No space left"):
        train(request)
    monkeypatch.setattr(outputs.Outputs, "save", right)
    train(replace(request, resume=True, assignments=()))
    whole = finished.output or Path()
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "run/last" / name).read_bytes() == (whole / "last" / name).read_bytes()


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(
    "left",
    [(".probe",), (".lock",), (".lock", "config.yaml"), (".lock", "config.yaml", PROFILE_NAME)],
)
def test_what_a_kill_leaves_before_the_record_is_in_no_ones_way(
    store: Path, tmp_path: Path, left: tuple[str, ...], resume: bool
) -> None:
    (tmp_path / "run").mkdir()
    for name in left:
        (tmp_path / "run" / name).touch()
    train(small_request(store, tmp_path / "run", steps=1, resume=resume))
    assert open_run(tmp_path / "run").state == "finished"


def test_a_start_that_fails_leaves_nothing_and_a_record_has_all_that_it_names(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, seen = tmp_path / "run", []
    parse_degradation("jpeg:quality=40").write(tmp_path / "scanner.json")
    lr = {"lr_source": str(tmp_path / "scanner.json")}
    right = run_record.RunRecord.update

    def full(self: run_record.RunRecord, **values: object) -> None:
        seen.append({path.name for path in folder.iterdir()})
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_record.RunRecord, "update", full)
    with pytest.raises(TrainingError, match="No space left"):
        train(small_request(store, folder, steps=1, **lr))
    assert {"config.yaml", PROFILE_NAME} < seen[0] and not folder.exists()
    monkeypatch.setattr(run_record.RunRecord, "update", right)
    train(small_request(store, folder, steps=1, **lr))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/config.yaml").write_text("model: {}")
    with pytest.raises(ConfigError, match="is there and is no run"):
        train(small_request(store, tmp_path / "mine", steps=1))
    assert (tmp_path / "mine/config.yaml").read_text() == "model: {}"


def test_a_run_whose_states_are_gone_is_not_begun_anew(
    finished: TrainRequest, tmp_path: Path
) -> None:
    again = copied(finished, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(ConfigError, match="no trainer state left, though 5 steps were done"):
        train(again)
    assert (tmp_path / "run" / "best" / "model.safetensors").is_file()


def test_fewer_steps_than_done_are_refused(finished: TrainRequest, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has done 5 steps: 3 are fewer"):
        train(replace(copied(finished, tmp_path / "run"), steps=3))
    assert open_run(tmp_path / "run").steps == 5


def test_the_state_of_another_network_is_one_sentence(
    finished: TrainRequest, store: Path, tmp_path: Path
) -> None:
    again = copied(finished, tmp_path / "run")
    train(small_request(store, tmp_path / "other", model="edsr", steps=5))
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    shutil.copytree(tmp_path / "other" / "checkpoints", tmp_path / "run" / "checkpoints")
    with pytest.raises(TrainingError, match=r"does not fit the model \(Missing key.*net\.") as said:
        train(again)
    assert "\n" not in str(said.value) and "state_dict for" not in str(said.value)


def test_resume_without_a_run_starts_one_and_says_so(store: Path, tmp_path: Path) -> None:
    said: list[str] = []
    request = small_request(store, tmp_path / "run", steps=1, resume=True)
    train(request, lambda event: said.append(event.message))
    assert said[0].startswith(f"{tmp_path / 'run'} holds no run yet: this starts it.")


def test_a_refused_kernel_names_the_setting(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise RuntimeError(
            "grid_sampler_2d_backward_cuda does not have a deterministic implementation, but you "
            "set 'torch.use_deterministic_algorithms(True)'. You can turn off determinism."
        )

    monkeypatch.setattr(recipes.PixelRecipe, "step", refused)
    request = small_request(store, tmp_path / "run", "train.deterministic=true")
    try:
        with pytest.raises(TrainingError, match=r"refuses a kernel of srcnn: grid_sampler.*false"):
            train(request)
    finally:
        torch.use_deterministic_algorithms(False)
    with pytest.raises(RuntimeError, match="You can turn off determinism"):
        train(small_request(store, tmp_path / "plain"))


def test_validation_samples_must_serve_the_metrics(store: Path, tmp_path: Path) -> None:
    request = small_request(store, tmp_path / "run", "val.crop_lr_px=3")
    with pytest.raises(ConfigError, match=r"12 HR px at x4 are too small .* val\.crop_lr_px"):
        train(request)
    assert not (tmp_path / "run").exists()


def test_half_precision_is_chosen_where_it_is_native(monkeypatch: pytest.MonkeyPatch) -> None:
    info = create_model("srcnn", scale=4, preset="tiny").info
    cpu, gpu = torch.device("cpu"), torch.device("cuda:0")
    assert start.choose_precision("auto", cpu, info) == "fp32"
    assert start.choose_precision("bf16", cpu, info) == "bf16"
    for native in (True, False):

        def able(including_emulation: bool = True, native: bool = native) -> bool:
            return native or including_emulation

        monkeypatch.setattr(torch.cuda, "is_bf16_supported", able)
        assert start.choose_precision("auto", gpu, info) == ("bf16" if native else "fp32")
    assert start.choose_precision("fp16", gpu, info) == "fp16"
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        start.choose_precision("fp16", cpu, info)
    with pytest.raises(ConfigError, match="srcnn does not bear it"):
        start.choose_precision("bf16", gpu, replace(info, dtypes=("float32",)))


def test_a_loss_scale_changes_neither_gradient_nor_norm() -> None:
    def gradients(scale: float, largest: float | None) -> tuple[torch.Tensor, torch.Tensor]:
        parameter = nn.Parameter(torch.tensor([3.0, 4.0]))
        (0.5 * parameter.square().sum() * scale).backward()  # type: ignore[no-untyped-call]
        optimisers = {"model": torch.optim.SGD([parameter])}
        norm, bad = stepping.unscale_and_clip(optimisers, torch.tensor(scale), largest)
        assert parameter.grad is not None and bad == 0
        return parameter.grad, norm

    for scale in (1.0, 2.0**14):
        whole, norm = gradients(scale, None)
        torch.testing.assert_close(whole, torch.tensor([3.0, 4.0]))
        torch.testing.assert_close(norm, torch.tensor(5.0))
        cut, norm = gradients(scale, 1.0)
        torch.testing.assert_close(cut, torch.tensor([0.6, 0.8]))
        torch.testing.assert_close(norm, torch.tensor(5.0))


def test_each_optimiser_is_clipped_by_its_own_norm() -> None:
    sides = {name: nn.Parameter(torch.zeros(2)) for name in ("model", "discriminator")}
    sides["model"].grad = torch.tensor([3.0, 4.0])
    sides["discriminator"].grad = torch.tensor([0.0, 1000.0])
    optimisers = {name: torch.optim.SGD([side]) for name, side in sides.items()}
    norm, bad = stepping.unscale_and_clip(optimisers, torch.tensor(1.0), 1.0)
    torch.testing.assert_close(sides["model"].grad, torch.tensor([0.6, 0.8]))
    torch.testing.assert_close(sides["discriminator"].grad, torch.tensor([0.0, 1.0]))
    assert norm == 5.0 and bad == 0
    sides["discriminator"].grad[0] = float("nan")
    assert stepping.unscale_and_clip(optimisers, torch.tensor(1.0), 1.0)[1] == 1


def test_the_loss_scale_halves_after_a_skip_and_grows_after_many_steps() -> None:
    good, bad = torch.tensor(0.0), torch.tensor(1.0)
    meters = torch.tensor([1024.0, 0.0, 0.0, 0.0])
    for flag in (good, bad, bad, good):
        stepping.count(meters, flag, scaled=True)
    assert meters.tolist() == [256.0, 1.0, 2.0, 0.0]
    for _ in range(stepping._GROWTH_STEPS - 1):
        stepping.count(meters, good, scaled=True)
    assert meters.tolist() == [512.0, 0.0, 2.0, 0.0]
    stepping.count(meters, bad, scaled=False)
    assert meters.tolist() == [512.0, 0.0, 3.0, 1.0]


def test_fp16_steps_stay_near_those_of_fp32(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = train(small_request(store, tmp_path / "fp32", steps=6))
    monkeypatch.setattr(start, "choose_precision", lambda *_: "fp16")
    half, folder = train(small_request(store, tmp_path / "fp16", steps=6))
    state = states.read_state(folder / "checkpoints")
    assert state is not None and state.tensors["meters/values"].tolist() == [2.0**14, 6, 0, 0]
    a, b = (outcome.validation[0]["psnr_rgb"] for outcome in (whole, half))
    assert a != b and abs(a - b) < 0.05


def test_a_resumed_record_keeps_what_it_started_from(
    finished: TrainRequest, store: Path, tmp_path: Path
) -> None:
    request = small_request(store, tmp_path / "run", steps=2, init_from=finished.output)
    _, folder = train(request)
    before = open_run(folder).document
    assert "tensors taken over" in before["init_from"] and before["best"]["step"] == 2
    seen: list[object] = []

    def look(event: ProgressEvent) -> None:
        if event.stage == "train" and event.done == 3:
            seen.append(open_run(folder).document["best"])

    train(replace(request, resume=True, assignments=(), steps=3, init_from=None), look)
    assert seen == [before["best"]]
    assert open_run(folder).document["init_from"] == before["init_from"]


def test_a_resumed_step_keeps_its_number_of_samples(finished: TrainRequest, tmp_path: Path) -> None:
    one, two = (replace(copied(finished, tmp_path / name), steps=7) for name in ("one", "two"))
    with pytest.raises(ConfigError, match=r"takes 4 samples a step, not 8 \(data\.batch 8 x 1 pro"):
        train(replace(one, assignments=("data.batch=8",)))
    train(one)
    train(replace(two, assignments=("data.batch=2", "train.accumulate=2")))
    a, b = (load_model(tmp_path / name / "last").state_dict() for name in ("one", "two"))
    assert max(float((a[key] - b[key]).abs().max()) for key in a) < 1e-6


def test_what_the_store_says_passes_and_a_full_disk_is_put_for_a_run(tmp_path: Path) -> None:
    config = resolve_config("srcnn", preset="tiny").config
    for given, seen, said in (
        (CorruptStoreError("a shard is broken"), CorruptStoreError, "^a shard is broken$"),
        (DiskFullError("the disk is full."), TrainingError, r"the disk is full\); .* --resume"),
        (PermissionError(13, "Permission denied"), TrainingError, "Permission denied.* --resume"),
        (RuntimeError("out of memory"), TrainingError, r"lower data\.batch"),
        (RuntimeError("shapes differ"), RuntimeError, "^shapes differ$"),
    ):
        with pytest.raises(seen, match=said), readable_faults(config, tmp_path):
            raise given
    disk = OSError(28, "No space left on device")
    with (
        pytest.raises(TrainingError) as said,
        readable_faults(config, tmp_path),
        disk_full_is_clear(tmp_path),
    ):
        raise disk
    assert "(No space left on device); what" in str(said.value)
    assert str(said.value).count(str(tmp_path)) == 1 and ". " not in str(said.value)
    with pytest.raises(PermissionError), readable_faults(config, None):
        raise PermissionError(13, "Permission denied")


def test_a_network_that_the_compiler_gets_wrong_is_not_compiled(
    store: Path, tmp_path: Path
) -> None:
    request = small_request(
        store, tmp_path / "run", "train.compile=true", model="li2021", steps=1, scale=4
    )
    with pytest.raises(TrainingError, match=r"li2021 cannot be compiled for a CPU"):
        train(request)
