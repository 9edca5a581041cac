"""Networks that are any module: what is read of them is what they gave, and explanations are exact."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from collections import OrderedDict, namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from kdpipe.config.sections import ArchSpec
from kdpipe.errors import NetworkError
from kdpipe.methods import grad_cam
from kdpipe.models import build as building
from kdpipe.models.factories import register_module
from kdpipe.models.layouts import Hints, Layout, layouts_of
from kdpipe.models.network import Network
from kdpipe.models.profile import profile_of
from kdpipe.models.structures import answer_of, first_tensor, with_first
from kdpipe.representation.embed import embed

TINY = {"channels": [8, 8, 16, 16], "layers": [1, 1, 1, 2]}


def hooked(module: nn.Module, side: int = 32, channels: int = 3, classes: int = 10, **more) -> Network:
    torch.manual_seed(0)
    spec = ArchSpec(factory=register_module(module), **more)
    scaling = {"mean": [0.5] * channels, "std": [0.5] * channels}
    return building.build(spec, image_shape=(channels, side, side), classes=classes, seed=0, **scaling)


def images(count=4, side=32, channels=3):
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(1))


class LeNet(nn.Module):
    """Functional activations, a pooling that is called twice, and a dictionary as the answer."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.pool = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 16, 5), nn.MaxPool2d(2)
        self.fc1, self.fc2 = nn.Linear(16 * 25, 20), nn.Linear(20, 10)

    def forward(self, x):
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        features = F.relu(self.fc1(x.flatten(1)))
        return {"features": features, "logits": self.fc2(features)}


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1, self.conv2, self.relu = (
            nn.Conv2d(width, width, 3, 1, 1),
            nn.Conv2d(width, width, 3, 1, 1),
            nn.ReLU(True),
        )

    def forward(self, x):
        y = self.conv2(self.relu(self.conv1(x)))
        y += x
        return y


class Residual(nn.Module):
    """Two stages of residual blocks; the next activation works in place on what a block returned."""

    def __init__(self, width=8):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 2, 1)
        self.stage1 = nn.Sequential(Block(width), Block(width))
        self.down = nn.Conv2d(width, 2 * width, 3, 2, 1)
        self.stage2 = nn.Sequential(Block(2 * width), Block(2 * width))
        self.act = nn.ReLU(inplace=True)
        self.fc = nn.Linear(2 * width, 10)

    def forward(self, x):
        x = self.down(self.stage1(self.stem(x)))
        x = self.stage2(x)
        return [self.fc(self.act(x).mean((2, 3))), x]


class TinyViT(nn.Module):
    """A plain transformer with a class token, from torch's own layers."""

    def __init__(self, depth=3):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, 16))
        self.place = nn.Parameter(torch.randn(1, 17, 16) * 0.02)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True) for _ in range(depth)
        )
        self.norm, self.fc = nn.LayerNorm(16), nn.Linear(16, 10)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place
        for block in self.blocks:
            x = block(x)
        return SimpleNamespace(hidden=x, logits=self.fc(self.norm(x)[:, 0]))


def perceptron():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(3 * 32 * 32, 24), nn.ReLU(), nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 10)
    )


def swin():
    return timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=32, window_size=4, depths=(1, 2), embed_dim=12, num_heads=(1, 2),
        num_classes=10,
    )  # fmt: skip


FOUND = {
    "lenet": (LeNet, ["conv1", "conv2", "fc1"], [(6, 28, 28), (16, 10, 10), (20, 1, 1)]),
    "residual": (Residual, ["stage1", "stage2"], [(8, 16, 16), (16, 8, 8)]),
    "vit": (TinyViT, ["blocks.0", "blocks.1", "blocks.2"], [(16, 4, 4)] * 3),
    "perceptron": (perceptron, ["2", "4"], [(24, 1, 1), (12, 1, 1)]),
    "swin": (swin, ["layers.0", "layers.1"], [(12, 8, 8), (24, 4, 4)]),
}


@pytest.fixture(scope="module", params=list(FOUND))
def family(request):
    make, names, shapes = FOUND[request.param]
    torch.manual_seed(3)
    module = make().eval()
    return module, hooked(module), names, shapes


def own_logits(module, shown):
    return answer_of(module(shown), 10)


@torch.no_grad()
def test_layers_are_found_and_read_as_maps(family):
    module, network, names, shapes = family
    outputs = network(images())
    assert network.names == names
    assert [tuple(part.shape[1:]) for part in outputs.maps] == shapes
    torch.testing.assert_close(outputs.logits, own_logits(module, (images() - 0.5) / 0.5), rtol=0, atol=1e-6)
    taps = profile_of(network, (3, 32, 32)).taps
    assert [tap.shape for tap in taps] == shapes and taps[0].mac_share < taps[-1].mac_share <= 1


@torch.no_grad()
def test_one_image_is_what_it_is_in_a_batch(family):
    network = family[1]
    together, alone = network(images()), network(images()[2:3])
    for part, single in zip(together.maps, alone.maps, strict=True):
        torch.testing.assert_close(part[2:3], single, rtol=1e-4, atol=1e-5)


def test_gradients_do_not_change_what_is_read(family):
    network = family[1]
    with torch.no_grad():
        without = network(images())
    outputs = network(images())
    assert torch.equal(outputs.logits, without.logits)
    assert all(torch.equal(a, b) for a, b in zip(outputs.maps, without.maps, strict=True))
    assert all(part.requires_grad for part in outputs.maps)


def test_a_head_that_runs_alone_gives_the_pass_s_own_answer(family):
    network = family[1]
    with torch.no_grad():
        outputs = network(images())
        pooled, logits = network.classify(outputs.final, outputs.shown)
        changed = network.classify(outputs.final * 2 + 1, outputs.shown)[1]
    assert torch.equal(logits, outputs.logits) and torch.equal(pooled, outputs.pooled)
    assert not torch.allclose(changed, logits)


def test_nothing_of_a_pass_stays_behind(family):
    network = family[1]
    outputs = network(images())
    network.classify(outputs.final, outputs.shown)
    kept = weakref.ref(outputs.final), weakref.ref(outputs.shown), weakref.ref(outputs.logits)
    del outputs
    gc.collect()
    assert [one() for one in kept] == [None] * 3
    own = [network.classifier] if network.classifier is not None else []
    assert all(not module._forward_hooks for module in network.model.modules())
    assert [module for module in network.model.modules() if module._forward_pre_hooks] == own


def test_layers_are_what_their_modules_returned_whatever_works_on_them_in_place():
    torch.manual_seed(0)
    module = Residual().eval()
    network = hooked(module, layers=["stem", "stage1.0", "stage2.1"])
    seen = {}
    for name in network.names:
        network.model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.update({name: output.clone()})
        )
    with torch.no_grad():
        outputs = network(images())
    for name, part in zip(network.names, outputs.maps, strict=True):
        assert torch.equal(part, seen[name]), name


# ----------------------------------------------------------------------------------- known answers


@pytest.mark.parametrize("layers", ["stages", "all"])
def test_a_hooked_timm_model_is_the_native_one(layers):
    arguments = {"image_shape": (3, 32, 32), "classes": 10, "mean": [0.5] * 3, "std": [0.5] * 3, "seed": 0}
    native = building.build(ArchSpec(arch="resnet18", arguments=TINY, layers=layers), **arguments)
    other = hooked(native.model, layers=native.names)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    (logits, vectors), (own, mine) = (embed(network, pixels, ["gap", "projection"]) for network in (native, other))
    np.testing.assert_array_equal(own, logits)
    assert mine.keys() == vectors.keys()
    for key, part in vectors.items():
        np.testing.assert_allclose(mine[key], part, rtol=0, atol=1e-6)
    classes = torch.from_numpy(logits.argmax(1))
    one, two = (grad_cam(network, network(images(5)), classes) for network in (native, other))
    torch.testing.assert_close(two, one)
    graphs = [grad_cam(network, network(images(5)), classes, create_graph=True) for network in (native, other)]
    torch.testing.assert_close(graphs[1], graphs[0])
    first, second = profile_of(native, (3, 32, 32)), profile_of(other, (3, 32, 32))
    assert (second.macs, second.params, second.linear_head) == (first.macs, first.params, first.linear_head)
    if layers == "stages":
        assert hooked(native.model).names == native.names


def test_grad_cam_is_that_of_the_formula():
    """Of a mean and a linear layer: the slopes are the class's weights, each divided by the number of places."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3, 4), nn.ReLU(), nn.Conv2d(4, 6, 3, 1))
    network = hooked(
        nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10)), layers=["0.1", "0.2"]
    )
    outputs = network(images())
    classes = torch.tensor([1, 5, 0, 9])
    maps, weights = outputs.maps[-1], network.classifier.weight[classes]
    wanted = (weights[:, :, None, None] * maps).sum(1).relu() / maps[0, 0].numel()
    torch.testing.assert_close(grad_cam(network, outputs, classes).float(), wanted, rtol=1e-5, atol=1e-6)


def test_the_last_layer_with_places_is_explained_and_not_the_class_token_s_own():
    """After the last block nothing but the class token reaches the logits, so the block before it shows where."""
    final = [hooked(FOUND[name][0]()).arrangement.final for name in ("lenet", "vit", "residual")]
    assert final == [1, 1, 1]
    profile = profile_of(hooked(LeNet()), (3, 32, 32))
    assert profile.spatial_head and profile.final == (16, 10, 10)  # behind a max-pooling, too


def test_of_a_module_that_is_called_several_times_the_last_call_counts():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.step, self.fc = nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 4, 3, 1, 1), nn.Linear(4, 10)

        def forward(self, x):
            x = self.stem(x)
            for _ in range(3):
                x = self.step(x).tanh()
            return self.fc(x.mean((2, 3)))

    network = hooked(Recurrent(), layers=["stem", "step"])
    with torch.no_grad():
        outputs = network(images())
        x = network.model.stem((images() - 0.5) / 0.5)
        for _ in range(3):
            last = network.model.step(x)
            x = last.tanh()
    assert torch.equal(outputs.maps[1], last)
    assert grad_cam(network, outputs, outputs.logits.argmax(1)).max() > 0


def test_images_meet_a_network_at_its_own_size_and_scale():
    network = hooked(LeNet(), side=48, image_size=32, mean=[0.1, 0.2, 0.3], std=[0.2, 0.3, 0.4])
    large = images(side=48)
    with torch.no_grad():
        small = F.interpolate(large, (32, 32), mode="bilinear", antialias=True)
        shown = (small - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / torch.tensor([0.2, 0.3, 0.4])[:, None, None]
        assert torch.equal(network(large).logits, network.model(shown)["logits"])
    native = {"image_shape": (3, 48, 48), "classes": 10, "mean": [0.5] * 3, "std": [0.5] * 3, "seed": 0}
    vit = {"arch": "vit_tiny_patch16_224", "arguments": {"img_size": 32, "patch_size": 8, "depth": 2}}
    assert building.build(ArchSpec(**vit, image_size=32), **native)(large).maps[0].shape[2:] == (4, 4)


# ------------------------------------------------------------------------------- structures, layouts

Pair = namedtuple("Pair", ["aux", "logits"])


@dataclasses.dataclass
class Answer:
    loss: object
    hidden: torch.Tensor
    logits: torch.Tensor


A, B, C = torch.zeros(2, 3), torch.ones(2, 4), torch.full((2, 4), 7.0)


@pytest.mark.parametrize(
    ("value", "first"),
    [
        (A, A),
        ((A, B), A),
        ([None, [B, A]], B),
        (Pair(A, B), B),
        ({"hidden": A, "logits": B}, B),
        (OrderedDict(pooled=A, last_hidden_state=B), B),
        (Answer(None, A, B), B),
        (SimpleNamespace(hidden=(A,), x=B), A),
    ],
)
def test_the_first_tensor_of_what_a_module_returns_and_another_in_its_place(value, first):
    assert first_tensor(value) is first
    changed = with_first(value, C)
    assert type(changed) is type(value) and first_tensor(changed) is C and first_tensor(value) is first


def test_logits_are_told_from_other_tensors_by_name_and_shape():
    wide, logits = torch.zeros(2, 512), torch.zeros(2, 4)
    assert answer_of((wide, logits), 4) is not None and torch.equal(answer_of((wide, logits), 4), logits)
    assert torch.equal(answer_of({"aux": C, "logits": B}, 4), B)
    assert answer_of(B[:, :, None, None], 4).shape == (2, 4)
    assert answer_of(wide, 4) is None and answer_of(torch.zeros(2, 4, 3, 3), 4) is None


SQUARE = Hints(image=(32, 32))


@pytest.mark.parametrize(
    ("shape", "channels", "hints", "layout"),
    [
        ((2, 8, 4, 4), None, SQUARE, Layout("BCHW")),
        ((2, 4, 4, 8), None, SQUARE, Layout("BHWC")),
        ((2, 4, 4, 4), None, SQUARE, None),
        ((2, 4, 4, 4), None, Hints((32, 32), format="NHWC"), Layout("BHWC")),
        ((2, 8, 4, 8), 8, Hints((32, 64)), Layout("BCHW")),
        ((2, 4, 8, 8), None, Hints((32, 64)), Layout("BHWC")),
        ((2, 16, 5), 5, SQUARE, Layout("BNC", 0, (4, 4))),
        ((2, 17, 5), 5, SQUARE, Layout("BNC", 1, (4, 4))),
        ((2, 5, 16), 5, SQUARE, Layout("BCN", 0, (4, 4))),
        ((2, 9, 5), 5, SQUARE, Layout("BNC", 0, (3, 3))),
        ((2, 9, 5), 5, Hints((32, 32), patches=(2, 2)), Layout("BNC", 5, (2, 2))),
        ((2, 20, 5), 5, Hints((32, 32), prefix=4), Layout("BNC", 4, (4, 4))),
        ((2, 32, 5), 5, Hints((32, 64)), Layout("BNC", 0, (4, 8))),
        ((2, 7, 5), 5, Hints((32, 32), prefix=0), Layout("BNC", 0, None)),
        ((2, 5), 5, SQUARE, Layout("BC")),
    ],
)
def test_axes_are_told_from_shapes_and_what_the_network_says(shape, channels, hints, layout):
    assert layouts_of([(shape, channels)], hints) == [layout]


def test_what_a_shape_leaves_open_the_other_layers_tell():
    outputs = [((2, 4, 4, 4), None), ((2, 16, 2, 2), 16)]
    assert layouts_of(outputs, SQUARE) == [Layout("BCHW")] * 2
    assert layouts_of([outputs[0], ((2, 2, 2, 16), 16)], SQUARE) == [Layout("BHWC")] * 2


def test_maps_hold_the_numbers_of_their_places():
    tokens = torch.arange(2 * 5 * 3.0).view(2, 5, 3)
    read = Layout("BNC", 1, (2, 2)).as_map(tokens)
    assert torch.equal(read[1, :, 1, 0], tokens[1, 3])
    assert torch.equal(Layout("BHWC").as_map(tokens.view(2, 5, 3, 1))[1, 0], tokens[1])
    assert Layout("BNC").as_map(tokens).shape == (2, 3, 5, 1)


# ------------------------------------------------------------------------------------------- errors


class Returns(nn.Module):
    """A network whose layer returns what is asked."""

    def __init__(self, change, answer=lambda x: x):
        super().__init__()
        self.first, self.odd, self.fc = nn.Conv2d(3, 4, 8, 8), Odd(change), nn.Linear(4, 10)
        self.answer = answer

    def forward(self, x):
        x = self.first(x)
        self.odd(x)
        return self.answer(self.fc(x.mean((2, 3))))


class Odd(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.change = change

    def forward(self, x):
        return self.change(x)


@pytest.mark.parametrize(
    ("module", "more", "said"),
    [
        (LeNet, {"layers": ["conv1", "conv3"]}, "layers: a pass through the network calls no module 'conv3'"),
        (lambda: Returns(lambda x: x.argmax(1)), {"layers": ["first", "odd"]}, "layer 'odd' returns torch.int64"),
        (
            lambda: Returns(lambda x: x.transpose(0, 1)),
            {"layers": ["first", "odd"]},
            "must be the first axis",
        ),
        (lambda: Returns(lambda x: None), {"layers": ["first", "odd"]}, "layer 'odd' returns no tensor"),
        (lambda: Returns(lambda x: x[..., None]), {"layers": ["first", "odd"]}, "layer 'odd' returns 5 axes"),
        (lambda: Returns(lambda x: x), {"layers": ["fc", "odd"]}, "layers: nothing tells which axis of layer 'odd'"),
        (lambda: Returns(lambda x: x), {}, "layers: one layer of this network was found"),
        (lambda: Returns(lambda x: x, lambda x: x[:, :3]), {}, r"returns \(2, 3\), and the data has 10 classes"),
        (lambda: Returns(lambda x: x, lambda x: x + torch.rand(1)), {"layers": ["first", "fc"]}, "each time, in eval"),
        (
            lambda: nn.Sequential(torch.jit.script(nn.Conv2d(3, 4, 3)), nn.Flatten()),
            {},
            "'0' is TorchScript",
        ),
        (LeNet, {"mean": [0.5], "std": [0.5]}, "mean: it has 1 numbers and the images 3 channels"),
        (LeNet, {"image_size": 64}, r"factory: the network cannot take images of shape \(3, 64, 64\): mat1"),
        (LeNet, {"arguments": {"width": 3}}, "arguments: a module that is there already takes none"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(module, more, said):
    with pytest.raises(NetworkError, match=said) as error:
        hooked(module(), **more)
    assert len(str(error.value).splitlines()) == 1
