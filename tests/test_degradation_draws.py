"""Counter-based random numbers: published answers, independence of the batch, distribution."""

import torch

from wsisr.degradation.draws import Draws, batch_draws, philox


def _words(counter: tuple[int, ...], key: tuple[int, int]) -> list[str]:
    words = [torch.tensor([c]) for c in counter]
    return [f"{w:08x}" for w in philox((words[0], words[1], words[2], words[3]), key)[0].tolist()]


def test_philox_gives_the_published_answers() -> None:
    assert _words((0, 0, 0, 0), (0, 0)) == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]
    full = 0xFFFFFFFF
    assert _words((full,) * 4, (full, full)) == ["408f276d", "41c83b0e", "a20bc7c6", "6d5451fd"]
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    key = (0xA4093822, 0x299F31D0)
    assert _words(pi, key) == ["d16cfe09", "94fdcceb", "5001e420", "24126ea1"]


def test_a_slot_does_not_depend_on_its_batch() -> None:
    whole = Draws(seed=3, step=9, slots=torch.tensor([5, 0, 77]))
    alone = Draws(seed=3, step=9, slots=torch.tensor([77]))
    assert torch.equal(whole.uniforms("a", 7)[2:], alone.uniforms("a", 7))
    assert torch.equal(whole.normals("n", (3, 5))[2:], alone.normals("n", (3, 5)))


def test_seed_step_slot_purpose_and_scope_all_matter() -> None:
    slots = torch.tensor([1])
    drawn = [
        Draws(seed=1, step=2, slots=slots).uniform("a"),
        Draws(seed=1 + (1 << 40), step=2, slots=slots).uniform("a"),
        Draws(seed=1, step=3, slots=slots).uniform("a"),
        Draws(seed=1, step=2, slots=slots + 1).uniform("a"),
        Draws(seed=1, step=2, slots=slots).uniform("b"),
        Draws(seed=1, step=2, slots=slots).within("x").uniform("a"),
    ]
    assert len({float(d) for d in drawn}) == len(drawn)


def test_distributions() -> None:
    draws = batch_draws(0, 0, None, 4, torch.device("cpu"))
    u = draws.uniforms("u", 50_000).double()
    assert float(u.min()) >= 0.0 and float(u.max()) < 1.0
    assert abs(float(u.mean()) - 0.5) < 0.004 and abs(float(u.var()) - 1 / 12) < 0.002
    n = draws.normals("n", (50_001,)).double()
    assert n.shape == (4, 50_001) and bool(torch.isfinite(n).all())
    assert abs(float(n.mean())) < 0.012 and abs(float(n.std()) - 1.0) < 0.01
    assert abs(float((n**4).mean()) - 3.0) < 0.1
    low_high = draws.uniform("r", 2.0, 5.0)
    assert bool(((low_high >= 2.0) & (low_high < 5.0)).all())


def test_prefetched_numbers_are_the_same_numbers() -> None:
    draws = Draws(seed=8, step=1, slots=torch.tensor([3, 4])).within("stage")
    ready = draws.prefetch(("a", "b"))
    for purpose in ("a", "b", "c"):
        assert torch.equal(ready.uniform(purpose, 1.0, 3.0), draws.uniform(purpose, 1.0, 3.0))
    assert not torch.equal(ready.within("x").uniform("a"), draws.uniform("a"))
