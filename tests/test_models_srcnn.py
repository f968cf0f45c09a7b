import torch

from wsisr.models import create_model
from wsisr.models.layers.resample import enlarge


def test_fresh_network_with_identity_start_gives_the_enlargement() -> None:
    torch.manual_seed(0)
    model = create_model("srcnn", scale=4, preset="tiny")
    lr = 0.3 + 0.4 * torch.rand(2, 3, 9, 12)
    # Beyond the image the layers see zeros: the reach of the kernels is left out.
    inner = (slice(None), slice(None), slice(8, -8), slice(8, -8))
    with torch.no_grad():
        torch.testing.assert_close(model(lr)[inner], enlarge(lr, 4)[inner])


def test_every_layer_of_an_identity_start_can_learn() -> None:
    torch.manual_seed(0)
    model = create_model("srcnn", scale=2, preset="tiny")
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    lr, hr = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 16, 16)
    before = {name: value.clone() for name, value in model.named_parameters()}
    for _ in range(2):  # channels that count for nothing yet learn from the second step on
        optimiser.zero_grad()
        (model(lr) - hr).square().mean().backward()
        optimiser.step()
    for name, value in model.named_parameters():
        assert (value != before[name]).float().mean() > 0.9, name
