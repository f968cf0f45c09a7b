"""The place of a process among those of a run; GPUs are pretended, for there is none here."""

import pytest
import torch

from wsisr.errors import ConfigError
from wsisr.training import parallel


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Two pretended GPUs; the indices that torch was set to."""
    indices: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    # Below torch's own check, which refuses a GPU without an index.
    monkeypatch.setattr(torch._C, "_cuda_setDevice", indices.append, raising=False)
    monkeypatch.setattr(parallel.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(parallel.dist, "get_rank", lambda: 5)
    monkeypatch.setattr(parallel.dist, "get_world_size", lambda: 8)
    return indices


@pytest.mark.parametrize(
    ("name", "index"), [(None, 0), ("auto", 0), ("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)]
)
def test_one_process_takes_the_gpu_it_is_given(
    chosen: list[int], name: str | None, index: int
) -> None:
    processes, device = parallel.join(name)
    assert (processes.count, device, chosen) == (1, torch.device("cuda", index), [index])


@pytest.mark.parametrize("name", [None, "cuda", "cuda:0"])
def test_of_several_each_takes_the_gpu_of_its_local_rank(
    chosen: list[int], monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    processes, device = parallel.join(name)
    assert (processes.rank, processes.local_count) == (5, 2) and not processes.main
    assert device == torch.device("cuda:1") and chosen == [1]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match="cuda:2: there is no such GPU; there are 2 here"):
        parallel.join(name)


def test_one_process_trains_on_an_apple_gpu_and_on_no_other_kind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parallel, "choose_device", torch.device)
    assert parallel.join("mps") == (parallel.Processes(), torch.device("mps"))
    with pytest.raises(ConfigError, match="--device xpu: training runs on cpu, cuda and mps"):
        parallel.join("xpu")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="--device mps: one process alone"):
        parallel.join("mps")


def test_gpus_that_do_nothing_are_named_with_the_command_that_uses_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parallel, "gpu_count", lambda: 4)
    card, alone = torch.device("cuda", 0), parallel.Processes()
    (text,) = parallel.idle_gpus(alone, card)
    assert "3 of 4 GPUs are idle: torchrun --nproc-per-node 4" in text
    assert not parallel.idle_gpus(alone, torch.device("cpu"))
    assert not parallel.idle_gpus(parallel.Processes(count=4, local_count=4), card)
    monkeypatch.setattr(parallel, "gpu_count", lambda: 1)
    assert not parallel.idle_gpus(alone, card)
