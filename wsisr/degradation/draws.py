"""Random numbers as a pure function of (seed, step, slot, purpose), the same on every device.

Philox 4x32-10 written in 64-bit integer tensor operations: the words are identical on CPU and
GPU, do not depend on the batch they are drawn in, and need no generator state, so that exact
resume is one integer. Only the last step to a normal deviate (log, cos) can differ between
devices, in the last bit of float32.

References
----------
Salmon, Moraes, Dror and Shaw, Parallel random numbers: as easy as 1, 2, 3, SC11 (2011).
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from wsisr.device import upload
from wsisr.errors import DegradationError

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> Tensor:
    """Ten rounds of Philox 4x32: int64 words (..., 4), as of counter and key all in [0, 2^32).

    The counter's four tensors are broadcast.
    """
    a, b, c, d = torch.broadcast_tensors(*counter)  # type: ignore[no-untyped-call]
    key_0, key_1 = key
    for _ in range(_ROUNDS):
        # The wrapped 64-bit product holds the right bits; the mask undoes the sign extension.
        first, second = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b, c, d = (
            ((second >> 32) & _MASK) ^ b ^ key_0,
            second & _MASK,
            ((first >> 32) & _MASK) ^ d ^ key_1,
            first & _MASK,
        )
        key_0, key_1 = (key_0 + _WEYL[0]) & _MASK, (key_1 + _WEYL[1]) & _MASK
    return torch.stack((a, b, c, d), dim=-1)


@dataclass(frozen=True, kw_only=True)
class Draws:
    """The random numbers of one batch.

    Attributes
    ----------
    seed : int
        Any integer of up to 64 bits.
    step : int
        Training step, or 0.
    slots : Tensor, int64, shape (B,)
        Place of each sample in the step (over all ranks) or its index in the data set. It
        lies on the device on which the numbers are wanted.
    scope : str
        Prefix of every purpose, e.g. the stage of a pipeline.
    ready : mapping of str to Tensor (B,)
        Single draws made in advance (`prefetch`).
    denied : str
        Why nothing may be drawn; empty: it may.
    """

    seed: int
    step: int
    slots: Tensor
    scope: str = ""
    ready: Mapping[str, Tensor] = field(default_factory=dict)
    denied: str = ""

    def within(self, scope: str) -> "Draws":
        """The same batch under a longer scope, whose numbers are independent of the others."""
        return replace(self, scope=f"{self.scope}/{scope}", ready={})

    def refused(self, why: str) -> "Draws":
        """The same batch without any numbers: to draw one is an error."""
        return replace(self, denied=why)

    def prefetch(self, purposes: Sequence[str]) -> "Draws":
        """The same draws, with those of `uniform` for these purposes made in one go.

        Numbers do not change; a GPU starts one chain of kernels instead of one per purpose.
        """
        streams = [zlib.crc32(f"{self.scope}:{purpose}".encode()) for purpose in purposes]
        device = self.slots.device
        first = torch.zeros(1, dtype=torch.int64, device=device)
        drawn = (self._blocks(first, upload(streams, device))[..., 0] >> 8).float() * 2.0**-24
        return replace(self, ready=dict(zip(purposes, drawn.unbind(1), strict=True)))

    def words(self, purpose: str, count: int) -> Tensor:
        """Raw 32-bit words, int64, shape (B, count)."""
        blocks = torch.arange(-(-count // 4), device=self.slots.device)
        stream = torch.full_like(blocks[:1], zlib.crc32(f"{self.scope}:{purpose}".encode()))
        return self._blocks(blocks, stream).flatten(1)[:, :count]

    def _blocks(self, blocks: Tensor, streams: Tensor) -> Tensor:
        """Four words of each block of a stream, shape (B, n, 4), n that of either or both."""
        if self.denied:
            raise DegradationError(f"{self.denied}.")
        step = torch.full((1, 1), self.step & _MASK, dtype=torch.int64, device=self.slots.device)
        counter = (blocks[None, :], streams[None, :], (self.slots & _MASK)[:, None], step)
        return philox(counter, (self.seed & _MASK, (self.seed >> 32) & _MASK))

    def uniform(self, purpose: str, low: float = 0.0, high: float = 1.0) -> Tensor:
        """One float32 per sample in [low, high), shape (B,)."""
        drawn = self.ready.get(purpose)
        if drawn is None:
            drawn = self.uniforms(purpose, 1)[:, 0]
        return drawn * (high - low) + low

    def uniforms(self, purpose: str, count: int) -> Tensor:
        """float32 in [0, 1), exact multiples of 2^-24, shape (B, count)."""
        return (self.words(purpose, count) >> 8).float() * 2.0**-24

    def normals(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        """Standard normal deviates, float32, shape (B, *shape) (Box-Muller)."""
        count = math.prod(shape)
        half = (count + 1) // 2
        u = self.uniforms(purpose, 2 * half)
        # 1 - u lies in (0, 1], so that the logarithm is finite.
        radius = torch.sqrt(-2.0 * torch.log1p(-u[:, :half]))
        angle = (2.0 * math.pi) * u[:, half:]
        pair = torch.cat((radius * torch.cos(angle), radius * torch.sin(angle)), dim=1)
        return pair[:, :count].reshape(len(self.slots), *shape)


def batch_draws(
    seed: int, step: int, slots: Tensor | list[int] | None, batch: int, device: torch.device
) -> Draws:
    """Draws of a batch; `slots` defaults to 0, 1, ... B - 1."""
    if slots is None:
        slots = torch.arange(batch, device=device)
    else:
        slots = torch.as_tensor(slots, dtype=torch.int64, device=device)
    return Draws(seed=seed, step=step, slots=slots)
