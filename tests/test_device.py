"""One reading of ``--device`` for training, evaluation and upscaling."""

import pytest
import torch

from wsisr.device import choose_device
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
