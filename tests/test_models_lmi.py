"""LMI and SRMFENet against plain forms of their descriptions, and their sizes."""

import torch
import torch.nn.functional as F

from wsisr.models import create_model


def _naive_lmi(net, lr, size, cell_rows):
    """One query and one cell at a time, from the description alone."""
    x = (lr - 0.5) / 0.5
    features = net.encoder(x)[0]
    height, width = lr.shape[-2:]
    out = torch.empty(3, *size, dtype=lr.dtype)
    low, high = -1 + 1e-6, 1 - 1e-6

    def nearest(place: float, count: int) -> int:
        place = min(max(place, low), high)
        return min(max(round(((place + 1) * count - 1) / 2), 0), count - 1)

    mixer = net.imnet.mixer_blocks[0]
    for i in range(size[0]):
        for j in range(size[1]):
            r, c = (2 * i + 1) / size[0] - 1, (2 * j + 1) / size[1] - 1
            found, colours, rel = [], [], []
            for kr in (-3, -1, 1, 3):
                for kc in (-3, -1, 1, 3):
                    a = nearest(r + kr / height + 1e-6, height)
                    b = nearest(c + kc / width + 1e-6, width)
                    found.append(features[:, a, b])
                    colours.append(x[0, :, a, b])
                    rel.append(
                        [
                            (r - ((2 * a + 1) / height - 1)) * height,
                            (c - ((2 * b + 1) / width - 1)) * width,
                        ]
                    )
            cells, rgb = torch.stack(found), torch.stack(colours)
            rel = torch.tensor(rel, dtype=lr.dtype)
            z = torch.full((1,), cell_rows * height, dtype=lr.dtype)
            meta = net.metanet(torch.cat([rel.flatten(), z])).view(cells.shape[1], 16)
            y = cells + mixer.token_mix(torch.cat([cells.T, meta], dim=1)).T
            y = y + mixer.channel_mix(torch.cat([y, rgb, rel, z.expand(16, 1)], dim=1))
            each = net.imnet.out(cells + y)
            area = rel.prod(dim=1).abs() + 1e-9
            out[:, i, j] = sum(each[t] * area[15 - t] / area.sum() for t in range(16))
    return out * 0.5 + 0.5


def test_lmi_equals_a_loop_over_its_sixteen_cells() -> None:
    torch.manual_seed(0)
    model = create_model("lmi", preset="tiny").double().eval()
    lr = torch.rand(1, 3, 5, 4, dtype=torch.float64)
    with torch.no_grad():
        for size in ((10, 8), (13, 11)):
            made = model(lr, size=size)[0]
            assert (made - _naive_lmi(model.net, lr, size, 2 / size[0])).abs().max() < 1e-12
        whole = model(lr, scale=4)
        model.chunk_px = 7
        assert (
            torch.equal(model(lr, scale=4), whole)
            or (model(lr, scale=4) - whole).abs().max() < 1e-12
        )


def test_sizes_are_the_papers() -> None:
    """Table 8 of ISTE prints 11.1 (2^20) for LMI, table 9 13.2 and 13.3 for LIIF* and LTE*."""
    with torch.device("meta"):

        def count(name: str, **settings: object) -> int:
            return create_model(name, preset="paper", **settings).parameter_count

        assert count("lmi") == 11_690_903
        assert count("lmi", encoder="edsr") == 1_308_275
        assert count("lmi", encoder="rdn") == 22_061_811
        assert count("liif", encoder_groups=7) == 13_816_887
        assert count("lte", encoder_groups=7) == 13_963_831
        by_scale = {2: 733_120, 3: 917_760, 4: 880_832, 8: 1_028_544}
        assert {s: count("srmfenet", scale=s) for s in by_scale} == by_scale
        plain = count("srmfenet", scale=2, gate="plain")
        assert plain == by_scale[2] - 3 * (169_344 - 168_576)


def test_srmfenet_equals_its_description() -> None:
    torch.manual_seed(0)
    model = create_model("srmfenet", scale=2, preset="tiny").double()
    lr = torch.rand(2, 3, 9, 7, dtype=torch.float64)
    model(lr)  # running statistics that are not the identity's
    model.eval()
    net = model.net

    def unit(layer, x, padding=0, dilation=1):
        y = F.conv2d(x, layer[0].weight, layer[0].bias, padding=padding, dilation=dilation)
        norm = layer[1]
        y = F.batch_norm(
            y, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.1, 1e-5
        )
        return y.relu()

    with torch.no_grad():
        x = head = F.conv2d(lr, net.head.weight, net.head.bias, padding=1)
        for block in list(net.body)[:-1]:
            y, kept = torch.zeros_like(x), []
            for layer, dilation in zip(block.layers, (1, 2, 4, 8), strict=True):
                y = unit(layer, y + x, dilation, dilation)
                kept.append(y)
            gates = [
                torch.sigmoid(unit(gate, y.mean((2, 3), keepdim=True)))
                for gate, y in zip(block.gates, kept, strict=True)
            ]
            total = sum(g.exp() for g in gates)
            mixed = sum(y * g.exp() / total for y, g in zip(kept, gates, strict=True))
            x = unit(block.project, mixed + x)
        last = net.body[-1]
        x = F.conv2d(x, last.weight, last.bias, padding=1) + head
        x = F.conv2d(x, net.up[0].weight, net.up[0].bias, padding=1)
        x = F.leaky_relu(F.pixel_shuffle(x, 2), 0.1)
        x = F.leaky_relu(F.conv2d(x, net.tail[0].weight, net.tail[0].bias, padding=1), 0.1)
        x = F.conv2d(x, net.tail[2].weight, padding=1)
        assert (model(lr) - x).abs().max() < 1e-12
