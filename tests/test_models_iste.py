"""ISTE: exact fast forms, retrieval scope, forms and ablations; LIIF, LTE, LIT, ITSRN beside it."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from wsisr.models import create_model, model_spec
from wsisr.models.iste import scopes
from wsisr.models.layers.coordinates import (
    CORNERS,
    corner_of,
    ensemble_weights,
    gather_cells,
    pixel_centres,
    sample_at,
)
from wsisr.models.layers.interactor import OfficialInteractor, PaperInteractor
from wsisr.models.layers.retrieval import best_match, transfer
from wsisr.testing.naive_models import naive_iste

torch.set_num_threads(1)
DOUBLE = torch.float64
SMALL = {"encoder": "edsr", "encoder_size": "tiny", "hidden": 16}


def build(name: str = "iste", **settings: object):  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    return create_model(name, preset="recommended", **{**SMALL, **settings}).double().eval()


def queries(lr: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    coord = pixel_centres(size, lr.device, lr.dtype).expand(lr.shape[0], -1, -1)
    cell = torch.tensor([2 / size[0], 2 / size[1]], dtype=lr.dtype).expand_as(coord)
    return coord, cell


def gradients(out: Tensor, module: torch.nn.Module) -> dict[str, Tensor]:
    module.zero_grad()
    out.sin().sum().backward()
    return {k: p.grad.clone() for k, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("scale", [1.0, 2.4, 4.0])
@pytest.mark.parametrize("lfi", ["paper", "official"])
def test_fast_form_equals_the_plain_one_forward_and_gradients(scale: float, lfi: str) -> None:
    model = build(lfi=lfi)
    lr = torch.rand(2, 3, 6, 5, dtype=DOUBLE)
    coord, cell = queries(lr, (round(6 * scale), round(5 * scale)))
    plain = naive_iste(model.net, lr, coord, cell)
    wanted = gradients(plain, model)
    fast = model.query(lr, coord, cell)
    assert (fast - plain).abs().max() < 1e-12
    got = gradients(fast, model)
    assert got.keys() == wanted.keys()
    for key, gradient in got.items():
        assert (gradient - wanted[key]).abs().max() <= 1e-12 * (1 + wanted[key].abs().max()), key


def test_queries_that_differ_between_samples_and_fewer_than_cells() -> None:
    model = build()
    lr = torch.rand(2, 3, 8, 9, dtype=DOUBLE)
    coord = torch.rand(2, 30, 2, dtype=DOUBLE) * 2 - 1
    cell = torch.full((2, 30, 2), 0.1, dtype=DOUBLE)
    together = model.query(lr, coord, cell)
    assert (together - naive_iste(model.net, lr, coord, cell)).abs().max() < 1e-12
    apart = torch.cat([model.query(lr[i : i + 1], coord[i : i + 1], cell[:1]) for i in (0, 1)])
    assert (together - apart).abs().max() < 1e-12


def test_retrieval_blocks_of_any_size_give_the_same() -> None:
    q = torch.randn(2, 37, 8, dtype=DOUBLE, requires_grad=True)
    k = torch.randn(2, 53, 8, dtype=DOUBLE, requires_grad=True)
    wanted = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(1, 2)).max(dim=-1)
    for block_bytes in (1, 37 * 53 * 8, 10**9):
        assert torch.equal(best_match(q, k, block_bytes), wanted.indices)
        found, confidence = transfer(q, k, block_bytes)
        assert (confidence[..., 0] - wanted.values).abs().max() < 1e-14
        assert torch.equal(found, gather_cells(k, wanted.indices))
    one_hot = torch.autograd.grad(wanted.values.sum(), (q, k))
    ours = torch.autograd.grad(transfer(q, k)[1].sum(), (q, k))
    for a, b in zip(ours, one_hot, strict=True):
        assert (a - b).abs().max() < 1e-13


def test_retrieval_ignores_autocast() -> None:
    q, k = torch.randn(1, 50, 64), torch.randn(1, 300, 64)
    wanted = best_match(q, k)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(best_match(q, k), wanted)


@pytest.mark.parametrize("scope", ["tile", "image", "chunk"])
def test_the_memory_chunk_changes_nothing(scope: str) -> None:
    model = build(stf_scope=scope, stf_tile_px=5, stf_chunk_px=70)
    lr = torch.rand(1, 3, 9, 8, dtype=DOUBLE)
    outs = []
    for chunk in (10**6, 64, 7):
        model.chunk_px = chunk
        with torch.no_grad():
            outs.append(model(lr, scale=2.4))
    assert (outs[0] - outs[1]).abs().max() < 1e-13
    assert (outs[0] - outs[2]).abs().max() < 1e-13


def test_the_scope_changes_what_is_retrieved() -> None:
    lr = torch.rand(1, 3, 16, 16, dtype=DOUBLE)
    outs = {}
    for scope in ("tile", "image", "chunk"):
        model = build(stf_scope=scope, stf_tile_px=8, stf_chunk_px=200)
        with torch.no_grad():
            outs[scope] = model(lr, scale=2.0)
    assert (outs["tile"] - outs["image"]).abs().max() > 1e-9
    assert (outs["chunk"] - outs["image"]).abs().max() > 1e-9


def test_image_scope_is_the_query_of_all_pixels() -> None:
    model = build(stf_scope="image")
    lr = torch.rand(1, 3, 6, 7, dtype=DOUBLE)
    coord, cell = queries(lr, (15, 17))
    with torch.no_grad():
        image = model(lr, size=(15, 17))
        flat = model.query(lr, coord, cell)
    assert (image.flatten(2).transpose(1, 2) - flat).abs().max() < 1e-13


def test_without_fusion_the_scope_is_irrelevant() -> None:
    lr = torch.rand(1, 3, 9, 8, dtype=DOUBLE)
    outs = []
    for scope in ("tile", "image", "chunk"):
        model = build(stf=False, stf_scope=scope, stf_tile_px=4, stf_chunk_px=50)
        with torch.no_grad():
            outs.append(model(lr, scale=3.0))
    assert (outs[0] - outs[1]).abs().max() < 1e-13 and (outs[0] - outs[2]).abs().max() < 1e-13


@pytest.mark.parametrize(
    ("lr_side", "hr_side", "tile"), [(100, 240, 48), (7, 7, 3), (5, 41, 2), (9, 4, 2), (1, 8, 4)]
)
def test_scopes_tile_the_output_by_the_place_of_pixel_centres(
    lr_side: int, hr_side: int, tile: int
) -> None:
    ranges = scopes(lr_side, hr_side, tile)
    pixels = [p for a, b in ranges for p in range(a, b)]
    assert pixels == list(range(hr_side))
    count = -(-lr_side // tile)
    edges = [i * lr_side // count for i in range(count + 1)]
    for a, b in ranges:
        tiles = {
            max(i for i in range(count) if edges[i] <= (p + 0.5) * lr_side / hr_side)
            for p in range(a, b)
        }
        assert len(tiles) == 1


@pytest.mark.parametrize(
    "ablation",
    [
        {"lfi": "none"},
        {"texture": "conv"},
        {"stf": False},
        {"ltd": False},
        {"branches": "texture"},
        {"branches": "feature"},
        {"stf": False, "ltd": False},
        {"encoder": "rdn"},
        {"encoder": "swinir"},
    ],
)
def test_every_ablation_runs_and_has_no_dead_parameters(ablation: dict[str, object]) -> None:
    model = build(**ablation)
    out = model(torch.rand(2, 3, 5, 6, dtype=DOUBLE), scale=2.4)
    assert out.shape == (2, 3, 12, 14) and torch.isfinite(out).all()
    out.sin().sum().backward()
    assert not [k for k, p in model.named_parameters() if p.grad is None]


def plain_interactor(module: torch.nn.Module, x: Tensor) -> Tensor:
    """Ten tokens for each cell, one at a time."""
    n, c, height, width = x.shape
    padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
    out = torch.zeros_like(x)
    heads = module.heads
    for i in range(height):
        for j in range(width):
            window = padded[:, :, i : i + 3, j : j + 3]
            centre = x[:, :, i, j]
            if isinstance(module, PaperInteractor):
                tokens = window.flatten(2).transpose(1, 2)
                tokens = torch.cat((tokens.mean(1, keepdim=True), tokens), dim=1)
                q, extra = module.q(centre), None
                k, v = module.kv(tokens).chunk(2, dim=-1)
            else:
                tokens = window.detach().reshape(n, 9, c)
                tokens = torch.cat((tokens.mean(1, keepdim=True), tokens), dim=1)
                q, own = module.qk_linear(centre).chunk(2, dim=-1)
                k, v = module.kv_linear(tokens).chunk(2, dim=-1)
                extra = (q * own).view(n, heads, -1).sum(-1, keepdim=True)
            qh = q.view(n, heads, 1, -1)
            kh, vh = (t.view(n, 10, heads, -1).transpose(1, 2) for t in (k, v))
            scores = (qh * kh).sum(-1) * (c // heads) ** -0.5
            if extra is not None:
                scores = torch.cat((scores, extra), dim=-1)
            weights = scores.softmax(-1)[..., :10]
            mixed = (weights.unsqueeze(-1) * vh).sum(2).reshape(n, c)
            out[:, :, i, j] = module.proj(mixed)
    return out


@pytest.mark.parametrize("form", [PaperInteractor, OfficialInteractor])
def test_interactor_equals_tokens_one_at_a_time(form: type[torch.nn.Module]) -> None:
    torch.manual_seed(1)
    module = form(16, 4).double()
    x = torch.randn(2, 16, 4, 5, dtype=DOUBLE, requires_grad=True)
    fast, plain = module(x), plain_interactor(module, x)
    assert (fast - plain).abs().max() < 1e-13
    for a, b in zip(
        torch.autograd.grad(fast.sin().sum(), (x, *module.parameters())),
        torch.autograd.grad(plain.sin().sum(), (x, *module.parameters())),
        strict=True,
    ):
        assert (a - b).abs().max() < 1e-12


def test_features_of_odd_sizes_are_those_of_the_padded_image_cropped() -> None:
    model = create_model("liif", preset="paper", encoder_size="tiny").double().eval()
    lr = torch.rand(1, 3, 21, 30, dtype=DOUBLE)
    padded = F.pad(lr, (0, 2, 0, 3), mode="reflect")
    with torch.no_grad():
        ours, wanted = model.net.encoder(lr), model.net.encoder(padded)[..., :21, :30]
    assert (ours - wanted).abs().max() < 1e-12


@pytest.mark.parametrize("scale", [1.5, 2.4, 3.3, 4.2, 5.1])
def test_non_integer_scales_round_the_sides(scale: float) -> None:
    for name in ("iste", "liif", "lte", "lit", "itsrn"):
        model = create_model(name, preset="tiny").eval()
        with torch.no_grad():
            assert model(torch.rand(1, 3, 7, 5), scale=scale).shape[2:] == (
                round(7 * scale),
                round(5 * scale),
            )


def test_nearest_cells_are_those_of_grid_sample() -> None:
    size = (7, 5)
    coord = torch.rand(1, 400, 2, dtype=DOUBLE) * 2 - 1
    coord = torch.cat((coord, pixel_centres((14, 10), coord.device, DOUBLE)[None]), dim=1)
    grid = torch.arange(35.0, dtype=DOUBLE).view(1, 1, 7, 5)
    for shift in CORNERS:
        place = coord + torch.tensor(shift, dtype=DOUBLE) / torch.tensor(size) + 1e-6
        place = place.clamp(-1 + 1e-6, 1 - 1e-6)
        wanted = F.grid_sample(
            grid, place.flip(-1).unsqueeze(1), mode="nearest", align_corners=False
        )
        corner = corner_of(coord, size, shift)
        assert torch.equal(corner.index[0], wanted[0, 0, 0].long())


def test_ensemble_weights_sum_to_one_and_reproduce_bilinear_interpolation() -> None:
    lr = torch.rand(1, 3, 6, 7, dtype=DOUBLE)
    # Inside the outer centres, where all four cells exist.
    coord = (torch.rand(1, 200, 2, dtype=DOUBLE) * 2 - 1) * 0.8
    corners = [corner_of(coord, (6, 7), shift) for shift in CORNERS]
    weights = ensemble_weights(corners)
    assert (weights.sum(0) - 1).abs().max() < 1e-12
    rows = lr.flatten(2).transpose(1, 2)
    mixed = sum(
        gather_cells(rows, c.index) * w.unsqueeze(-1) for c, w in zip(corners, weights, strict=True)
    )
    assert (mixed - sample_at(lr, coord)).abs().max() < 1e-5


def test_cell_clip_holds_the_cell_beyond_the_trained_range() -> None:
    lr = torch.rand(1, 3, 5, 5, dtype=DOUBLE)
    clipped, free = build(cell_clip=True), build(cell_clip=False)
    free.load_state_dict(clipped.state_dict())
    with torch.no_grad():
        assert torch.equal(clipped(lr, scale=4.0), free(lr, scale=4.0))
        assert not torch.equal(clipped(lr, scale=8.0), free(lr, scale=8.0))
        coord, _ = queries(lr, (40, 40))
        held = torch.full((1, 1600, 2), 2 / 20, dtype=DOUBLE)
        wanted = build(stf_scope="image", cell_clip=True)
        wanted.load_state_dict(clipped.state_dict())
        flat = wanted.query(lr, coord, held)
        image = wanted(lr, scale=8.0).flatten(2).transpose(1, 2)
    assert (image - flat).abs().max() < 1e-12


def test_liif_and_itsrn_agree_with_their_plain_forms() -> None:
    lr = torch.rand(2, 3, 5, 6, dtype=DOUBLE)
    coord, cell = queries(lr, (12, 13))
    liif = build("liif")
    feature = F.unfold(liif.net.encoder(lr * 2 - 1), 3, padding=1).view(2, -1, 5, 6)
    side = torch.tensor([5, 6], dtype=DOUBLE)
    corners = [corner_of(coord, (5, 6), shift) for shift in CORNERS]
    plain = torch.zeros(2, 156, 3, dtype=DOUBLE)
    for corner, weight in zip(corners, ensemble_weights(corners), strict=True):
        token = gather_cells(feature.flatten(2).transpose(1, 2), corner.index)
        token = torch.cat((token, corner.rel, cell * side), dim=-1)
        plain = plain + liif.net.imnet(token) * weight.unsqueeze(-1)
    assert (liif.query(lr, coord, cell) - (plain / 2 + 0.5)).abs().max() < 1e-12

    itsrn = build("itsrn")
    net = itsrn.net
    feature = F.unfold(net.encoder(lr * 2 - 1), 3, padding=1).view(2, -1, 5, 6)
    preds = []
    for shift in CORNERS:
        step = (1 - cell) / (side - 1)
        place = (coord + torch.tensor(shift, dtype=DOUBLE) * step + 1e-6).clamp(-1 + 1e-6, 1 - 1e-6)
        grid = place.flip(-1).unsqueeze(1)
        value = F.grid_sample(feature, grid, mode="nearest", align_corners=False)[
            :, :, 0
        ].transpose(1, 2)
        centres = (
            pixel_centres((5, 6), lr.device, DOUBLE).T.reshape(1, 2, 5, 6).expand(2, -1, -1, -1)
        )
        key = F.grid_sample(centres, grid, mode="nearest", align_corners=False)[:, :, 0].transpose(
            1, 2
        )
        rel = (coord - key) * side
        matrix = net.imnet(torch.cat((rel, cell * side), dim=-1)).view(2, 156, -1, 3)
        preds.append((value.unsqueeze(-2) @ matrix).squeeze(-2) + net.score(rel))
    plain = net.weight(torch.stack(preds, dim=-1)).squeeze(-1)
    assert (itsrn.query(lr, coord, cell) - (plain / 2 + 0.5)).abs().max() < 1e-12


def test_lit_agrees_with_its_plain_form() -> None:
    model = build("lit", width=16, heads=4, reach_px=2)
    net, lr = model.net, torch.rand(2, 3, 5, 6, dtype=DOUBLE)
    coord, cell = queries(lr, (7, 9))
    side = torch.tensor([5, 6], dtype=DOUBLE)
    x = net.conv_ch(net.encoder(lr * 2 - 1))
    grids = net.conv_q(x), net.conv_k(x), net.conv_v(x)
    centres = pixel_centres((5, 6), lr.device, DOUBLE).T.reshape(1, 2, 5, 6).expand(2, -1, -1, -1)

    def sample(feature: Tensor, place: Tensor, mode: str) -> Tensor:
        out = F.grid_sample(feature, place.flip(-1), mode=mode, align_corners=False)
        return out.permute(0, 2, 3, 1)

    here = sample(centres, coord[:, :, None], "nearest")
    steps = torch.arange(-2, 3, dtype=DOUBLE)
    delta = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1).view(1, 1, 25, 2)
    place = here + delta * 2 / side
    q = sample(grids[0], coord[:, :, None], "bilinear").view(2, 63, 1, 4, 4)
    k, v = (sample(g, place, "nearest").view(2, 63, 25, 4, 4) for g in grids[1:])
    rel = (coord[:, :, None] - place) * side
    weights = ((q * k).sum(-1) / 2 + net.bias(rel)).softmax(2)
    token = (v * weights.unsqueeze(-1)).reshape(2, 63, -1)
    plain = net.imnet(torch.cat((token, cell * side), -1)) + sample_at(lr * 2 - 1, coord)
    assert (model.query(lr, coord, cell) - (plain / 2 + 0.5)).abs().max() < 1e-12


def test_swinir_encoder_gives_the_features_of_the_whole_network() -> None:
    torch.manual_seed(0)
    whole = create_model("swinir", scale=2, preset="tiny").double().eval()
    encoder = build("liif", encoder="swinir").net.encoder
    fitting = {k: v for k, v in whole.net.state_dict().items() if k in encoder.state_dict()}
    extra = whole.net.state_dict().keys() - fitting.keys()
    assert {k.split(".")[0] for k in extra} == {"upsample", "conv_last"}
    encoder.load_state_dict(fitting)
    lr = torch.rand(1, 3, 24, 40, dtype=DOUBLE)
    with torch.no_grad():
        ours = encoder(lr)
        wanted = whole.net.conv_before_upsample(whole.net.trunk(lr))
    assert torch.equal(ours, wanted)


def test_presets_say_what_they_are() -> None:
    presets = model_spec("iste").presets
    paper, official = presets["paper"](None), presets["official"](None)
    recommended = presets["recommended"](None)
    assert (paper.lfi, paper.stf_scope, paper.scale_draw) == ("paper", "image", "batch")
    assert (official.lfi, official.stf_scope, official.stf_chunk_px) == (
        "official",
        "chunk",
        30_000,
    )
    assert (recommended.lfi, recommended.stf_scope) == ("paper", "tile")
