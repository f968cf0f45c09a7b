"""One reading of ``--device`` for training, evaluation and upscaling."""

from typing import Any

import numpy as np
import pytest
import torch

from wsisr.device import (
    accelerated,
    choose_device,
    forget_most,
    has_float64,
    most_bytes,
    on_gpu,
    shapes_stand_for_a_gpu,
    upload,
)
from wsisr.errors import ConfigError


@pytest.mark.parametrize("name", [None, "auto", "cpu"])
def test_a_device_that_is_there(name: str | None) -> None:
    gpu = torch.cuda.is_available() and name != "cpu"
    assert choose_device(name).type == ("cuda" if gpu else "cpu")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("toaster", "no such device; give auto, cpu, cuda or cuda:1"),
        ("", "no such device"),
        ("cuda:99", "finds no GPU here|no such GPU; there are"),
        ("meta", "cannot use it here"),
    ],
)
def test_a_device_that_is_not_there_is_one_sentence(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"--device {name}: .*({said})"):
        choose_device(name)


def test_a_second_gpu_that_is_not_there_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device("cuda") == choose_device(None) == torch.device("cuda:0")
    assert choose_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(ConfigError, match="no such GPU; there are 1 here, from cuda:0"):
        choose_device("cuda:1")


def test_an_apple_gpu_is_taken_where_torch_offers_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device(None) == choose_device("auto") == torch.device("mps")
    assert accelerated("mps") and not on_gpu("mps") and not has_float64("mps")


def test_shapes_stand_for_a_gpu_within_a_rehearsal_alone() -> None:
    with shapes_stand_for_a_gpu() as device:
        assert on_gpu(device) and accelerated(device)
    assert not on_gpu(device)


def test_the_most_memory_is_counted_anew() -> None:
    block = torch.ones(1 << 24)
    with_block = most_bytes("cpu")
    del block
    forget_most("cpu")
    assert 0 < most_bytes("cpu") <= with_block


@pytest.mark.parametrize("values", [[1, 2], (0.5,), np.arange(3), torch.ones(2)])
def test_values_are_uploaded_as_they_are(values: Any) -> None:
    assert torch.equal(upload(values, "cpu"), torch.as_tensor(values))
    assert upload(values, "cpu", torch.float64).dtype == torch.float64
