"""Checkpoints and foreign weights."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from wsisr.errors import ModelError
from wsisr.models import create_model, load_model, save_model, start_from
from wsisr.models.weights import CONFIG_NAME, WEIGHTS_NAME, load_model_and_config

torch.set_num_threads(1)
TINY = {"width": 8, "blocks": 1}


def tiny(**settings: object):  # type: ignore[no-untyped-def]
    return create_model("edsr", scale=2, preset="tiny", **{**TINY, **settings})


def test_config_states_what_rebuilds_the_model(tmp_path: Path) -> None:
    model = tiny(res_scale=0.5)
    folder = save_model(model, tmp_path / "run", extra={"degradation": "bicubic", "step": 7})
    again, config = load_model_and_config(folder)
    assert config["extra"] == {"degradation": "bicubic", "step": 7}
    assert config["settings"]["res_scale"] == 0.5 and config["parameters"] == model.parameter_count
    assert again.settings == model.settings and not again.training
    assert sorted(p.name for p in folder.iterdir()) == [CONFIG_NAME, WEIGHTS_NAME]
    for path in (folder / CONFIG_NAME, folder / WEIGHTS_NAME):
        assert load_model(path).info == model.info


def test_loading_leaves_the_random_state_alone(tmp_path: Path) -> None:
    folder = save_model(tiny(), tmp_path)
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    load_model(folder)
    assert torch.equal(torch.rand(3), wanted)


def test_saving_over_an_older_model_replaces_it(tmp_path: Path) -> None:
    save_model(tiny(), tmp_path)
    newer = tiny(width=12)
    save_model(newer, tmp_path)
    assert load_model(tmp_path).settings == newer.settings


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    a, b = save_model(tiny(), tmp_path / "a"), save_model(tiny(width=12), tmp_path / "b")
    (a / CONFIG_NAME).write_bytes((b / CONFIG_NAME).read_bytes())
    with pytest.raises(ModelError, match="belong together"):
        load_model(a)


def test_broken_or_foreign_folders_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no"):
        load_model(tmp_path)
    folder = save_model(tiny(), tmp_path / "m")
    (folder / WEIGHTS_NAME).write_bytes(b"\x00" * 20)
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(folder)
    folder = save_model(tiny(), tmp_path / "n")
    (folder / CONFIG_NAME).write_text(json.dumps({"format": "other"}))
    with pytest.raises(ModelError, match="does not describe"):
        load_model(folder)


def test_a_newer_format_or_missing_setting_is_refused(tmp_path: Path) -> None:
    folder = save_model(tiny(), tmp_path / "m")
    config = json.loads((folder / CONFIG_NAME).read_text())

    def rewrite(changed: dict[str, object]) -> None:
        (folder / CONFIG_NAME).write_text(json.dumps(changed))
        tensors = {f"{k}": v.clone() for k, v in tiny().state_dict().items()}
        save_file(tensors, folder / WEIGHTS_NAME, metadata={"wsisr": json.dumps(changed)})

    rewrite({**config, "format_version": 99})
    with pytest.raises(ModelError, match="format version 99"):
        load_model(folder)
    settings = {k: v for k, v in config["settings"].items() if k != "width"}
    rewrite({**config, "settings": settings})
    with pytest.raises(ModelError, match="width"):
        load_model(folder)
    rewrite({**config, "settings": {**config["settings"], "wings": 2}})
    with pytest.raises(ModelError, match="wings"):
        load_model(folder)


def test_a_model_from_before_a_setting_is_what_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model("srgan", scale=2, preset="tiny", image_skip=False).eval()
    folder = save_model(model, tmp_path / "m")
    config = json.loads((folder / CONFIG_NAME).read_text())
    del config["settings"]["image_skip"]
    (folder / CONFIG_NAME).write_text(json.dumps(config))
    save_file(model.state_dict(), folder / WEIGHTS_NAME, metadata={"wsisr": json.dumps(config)})
    lr = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(load_model(folder)(lr), model(lr))


def test_the_weights_can_be_read_by_whom_the_folder_lets(tmp_path: Path) -> None:
    folder = save_model(tiny(), tmp_path / "m")
    modes = {path.stat().st_mode for path in folder.iterdir()}
    assert len(modes) == 1 and modes.pop() & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_starting_from_another_scale_keeps_the_new_upsampler(tmp_path: Path) -> None:
    small = {
        "width": 12,
        "groups": 1,
        "depth": 2,
        "heads": 3,
        "offset_groups": 3,
        "window_px": 4,
        "squeeze": 3,
        "head_width": 8,
    }
    x2 = create_model("mihatp", scale=2, preset="tiny", **small, table_px=16)
    x4 = create_model("mihatp", scale=4, preset="tiny", **small, table_px=8)
    report = start_from(x4, save_model(x2, tmp_path))
    assert any("rpe_table" in key for key in report.resampled)
    assert report.fresh and all("upsample" in key for key in report.fresh)
    assert torch.equal(x4.net.conv_first.weight, x2.net.conv_first.weight)
    with pytest.raises(ModelError, match="no tensor fits"):
        start_from(create_model("srcnn", scale=2, preset="tiny"), tmp_path)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("edsr", {}),
        ("rdn", {}),
        ("swinir", {}),
        ("lte", {"encoder": "edsr", "encoder_size": "small"}),
    ],
)
def test_a_start_from_our_own_weights_takes_them_as_they_are(
    tmp_path: Path, name: str, settings: dict[str, Any]
) -> None:
    # Their tensors have the names that layouts of others have, with ranges to fold.
    scale = None if name == "lte" else 2
    saved, fresh = (
        create_model(name, scale=scale, preset="recommended" if settings else "tiny", **settings)
        for _ in range(2)
    )
    for path in (save_model(saved, tmp_path), tmp_path / WEIGHTS_NAME):
        report = start_from(fresh, path)
        assert not (report.fresh or report.left_over or report.notes)
        assert all(torch.equal(v, fresh.state_dict()[k]) for k, v in saved.state_dict().items())


def test_a_flipped_bit_of_a_weight_is_an_error(tmp_path: Path) -> None:
    weights = save_model(tiny(), tmp_path / "m") / WEIGHTS_NAME
    data = bytearray(weights.read_bytes())
    data[-1001] ^= 64
    weights.write_bytes(data)
    with pytest.raises(ModelError, match="do not match the digest"):
        load_model(tmp_path / "m")


@pytest.mark.parametrize(
    "change",
    [
        {"settings": 5},
        {"scale": 1e400},
        {"scale": [4]},
        {"scale": -1},
        {"name": ["edsr"]},
        {"preset": None},
        {"settings": {"width": "x"}},
        {"settings": {"width": -3, "blocks": 1e9}},
    ],
)
def test_a_config_of_any_content_is_one_sentence(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = save_model(tiny(), tmp_path / "m")
    text = json.dumps(json.loads((folder / CONFIG_NAME).read_text()) | change)
    (folder / CONFIG_NAME).write_text(text)
    save_file(load_file(folder / WEIGHTS_NAME), folder / WEIGHTS_NAME, metadata={"wsisr": text})
    with pytest.raises(ModelError):
        load_model(folder)
