"""Every model keeps the contract (`wsisr.testing.models`)."""

import torch

from wsisr.models import list_models
from wsisr.testing.models import CompiledTests, FixedScaleTests, ModelTests

torch.set_num_threads(1)


class TestBicubic(ModelTests):
    name = "bicubic"


class TestSrcnn(CompiledTests):
    name, scale = "srcnn", 3


class TestEdsr(FixedScaleTests):
    name, scale = "edsr", 4


class TestCompact(FixedScaleTests):
    name, scale = "compact", 4


class TestCompactAny(ModelTests):
    name = "compact-any"


class TestRcan(CompiledTests):
    name, scale = "rcan", 2


class TestRdn(FixedScaleTests):
    name, scale = "rdn", 6


class TestSwinir(CompiledTests):
    name, scale = "swinir", 3


class TestHat(CompiledTests):
    name, scale = "hat", 2


class TestMihatp(CompiledTests):
    name, scale = "mihatp", 4
    # A constant added to all of a query's scores drops out of the softmax.
    unused = ("proj_k.bias",)


class TestMasrnet(CompiledTests):
    name, scale = "masrnet", 8


class TestMasrgan(FixedScaleTests):
    name, scale, settings = "masrgan", 4, {"upsampler": "deconv", "attention": "spatial"}


class TestCwtnet(CompiledTests):
    name, scale = "cwtnet", 4
    # The diagonal band of a constant is zero, so that its bias has no effect.
    unused = ("wt_tail", "wr.tail.2.bias")


class TestIste(ModelTests):
    name = "iste"


class TestIsteOfficialForm(ModelTests):
    name, settings = "iste", {"lfi": "official", "stf_scope": "chunk", "stf_chunk_px": 50}


class TestLiif(ModelTests):
    name = "liif"


class TestLte(ModelTests):
    name = "lte"


class TestLit(ModelTests):
    name = "lit"


class TestItsrn(ModelTests):
    name = "itsrn"


class TestLmi(ModelTests):
    name = "lmi"


class TestSrmfenet(FixedScaleTests):
    name, scale = "srmfenet", 2


class TestSrgan(FixedScaleTests):
    name, scale = "srgan", 2


class TestEsrgan(FixedScaleTests):
    name, scale = "esrgan", 6


class TestMwcnn(FixedScaleTests):
    name, scale = "mwcnn", 3


class TestSwdnet(FixedScaleTests):
    name, scale = "swdnet", 2
    # As above: the softmax over the mask ignores its constant.
    unused = ("mask.bias",)


class TestDcanet(FixedScaleTests):
    name, scale = "dcanet", 2


class TestLi2021(FixedScaleTests):
    name, scale = "li2021", 3


def test_no_model_is_left_out() -> None:
    tested = {
        case.name
        for kind in (ModelTests, FixedScaleTests, CompiledTests)
        for case in kind.__subclasses__()
        if hasattr(case, "name")
    }
    assert set(list_models()) <= tested  # those of plug-ins are tested elsewhere
