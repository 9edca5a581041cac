"""The networks of the literature: as published to the bit of a name, and as useful to kdpipe as timm's own."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from kdpipe.config.sections import StudentSpec
from kdpipe.errors import NetworkError
from kdpipe.models import LITERATURE
from kdpipe.models.build import build
from kdpipe.models.profile import profile_of
from kdpipe.models.saved import read_network, write_network

# Of RepDistiller's networks for 100 classes: number of tensors and parameters, a digest of all names and shapes, and
# what their maps and logits are under the weights and images that this file makes (mean size; the first five).
PUBLISHED = json.loads((Path(__file__).parent / "data" / "literature.json").read_text())
SHAPE = (3, 32, 32)


def spread(count: int, place: int = 0) -> torch.Tensor:
    """Numbers in [-1, 1] that lie everywhere, the same on every machine."""
    return (torch.arange(count, dtype=torch.float64) * 0.6180339887498949 + place * 0.7548776662466927) % 1 * 2 - 1


def weights(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state that depends on the places and shapes of its tensors alone."""
    made = {}
    for place, (name, tensor) in enumerate(state.items()):
        if not tensor.is_floating_point():
            made[name] = tensor
            continue
        values = spread(tensor.numel(), place)
        if tensor.ndim > 1:
            values = values * math.sqrt(2 / tensor[0].numel())
        elif name.endswith("running_var"):
            values = 1 + 0.5 * values
        else:
            values = 1 + 0.3 * values if name.endswith(".weight") else 0.1 * values
        made[name] = values.to(tensor.dtype).view(tensor.shape)
    return made


IMAGES = torch.sin(torch.arange(2 * 3 * 32 * 32, dtype=torch.float64) * 0.11).view(2, *SHAPE).float()


def bare(name: str, **more) -> nn.Module:
    return timm.create_model(name, num_classes=100, **more).eval()


def network(name: str, seed: int = 0, classes: int = 10, shape=SHAPE, **more):
    spec = StudentSpec.model_validate({"name": "x", "arch": name, **more})
    channels = shape[0]
    return build(
        spec, image_shape=shape, classes=classes, mean=[0.5] * channels, std=[0.25] * channels, seed=seed
    ).eval()


# ------------------------------------------------------------------------------------ as published


def test_every_published_network_is_there():
    assert {record.name: record.published for record in LITERATURE.values()} == {
        name: facts["published"] for name, facts in PUBLISHED.items()
    }
    assert all(timm.is_model(name) for name in LITERATURE)


@pytest.mark.parametrize("name", list(LITERATURE))
def test_names_and_shapes_of_all_tensors_are_the_published_ones(name):
    with torch.device("meta"):
        model = bare(name)
    state, facts = model.state_dict(), PUBLISHED[name]
    lines = [f"{key} {list(tensor.shape)}" for key, tensor in state.items()]
    assert len(lines) == facts["tensors"]
    assert sum(parameter.numel() for parameter in model.parameters()) == facts["parameters"]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == facts["state"]


# One of each kind of block; deeper and wider ones have the same.
COMPUTED = [
    "cifar_resnet8", "cifar_resnet20", "cifar_resnet8x4", "cifar_resnet50", "cifar_wrn16_1", "cifar_wrn16_2",
    "cifar_vgg8", "cifar_mobilenetv2", "cifar_shufflenetv1", "cifar_shufflenetv2",
]  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("name", COMPUTED)
def test_published_weights_give_the_published_maps_and_logits(name):
    """Strides, places of the ReLUs, shortcuts and pooling are those of the published networks."""
    model, facts = bare(name), PUBLISHED[name]
    model.load_state_dict(weights(model.state_dict()))
    final, maps = model.forward_intermediates(IMAGES)
    assert [float(part.double().abs().mean()) for part in maps] == pytest.approx(facts["maps"], abs=2e-5)
    logits = model.forward_head(final)
    assert logits[1, :5].tolist() == pytest.approx(facts["logits"], abs=1e-3)
    assert torch.equal(logits, model(IMAGES))


def test_parameters_as_papers_round_them():
    """In millions, for 100 classes, as written in tables of the papers on distillation."""
    rounded = {
        "cifar_resnet20": 0.28, "cifar_resnet56": 0.86, "cifar_resnet110": 1.74, "cifar_resnet8x4": 1.23,
        "cifar_resnet32x4": 7.43, "cifar_wrn16_2": 0.70, "cifar_wrn40_1": 0.57, "cifar_wrn40_2": 2.26,
        "cifar_vgg8": 3.97, "cifar_vgg13": 9.46, "cifar_mobilenetv2": 0.81, "cifar_shufflenetv1": 0.95,
        "cifar_shufflenetv2": 1.36, "cifar_resnet50": 23.71,
    }  # fmt: skip
    assert {name: round(PUBLISHED[name]["parameters"] / 1e6, 2) for name in rounded} == rounded


def test_a_plain_file_of_published_weights_starts_a_network(tmp_path):
    model = bare("cifar_wrn16_1")
    model.load_state_dict(weights(model.state_dict()))
    save_file(model.state_dict(), tmp_path / "wrn.safetensors")
    loaded = network("cifar_wrn16_1", classes=100, checkpoint=str(tmp_path / "wrn.safetensors"))
    scaled = (IMAGES - 0.5) / 0.25
    with torch.no_grad():
        assert torch.equal(loaded(IMAGES).logits, model(scaled))


# -------------------------------------------------------------------------------- as timm's own are

FAMILIES = [
    "cifar_resnet8", "cifar_wrn16_1", "cifar_vgg8", "cifar_mobilenetv2", "cifar_shufflenetv1", "cifar_shufflenetv2",
]  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
def test_taps_are_what_their_modules_return_and_feature_info_says_so(name):
    model = bare(name)
    seen, handles = {}, []
    for entry in model.feature_info:
        module = model.get_submodule(entry["module"])
        handles.append(
            module.register_forward_hook(lambda m, i, out, key=entry["module"]: seen.update({key: out.clone()}))
        )
    final, maps = model.forward_intermediates(IMAGES)
    for handle in handles:
        handle.remove()
    for entry, tapped in zip(model.feature_info, maps, strict=True):
        assert torch.equal(tapped, seen[entry["module"]])
        assert tapped.shape[1:] == (entry["num_chs"], 32 // entry["reduction"], 32 // entry["reduction"])
    assert torch.equal(final, model.forward_features(IMAGES))
    assert model.forward_head(final, pre_logits=True).shape == (2, model.num_features)
    early = model.forward_intermediates(IMAGES, indices=[-2, 1], stop_early=True, intermediates_only=True)
    assert [part.shape for part in early] == [maps[1].shape, maps[-2].shape]
    with pytest.raises(NetworkError, match="NCHW"):
        model.forward_intermediates(IMAGES, output_fmt="NLC")


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
def test_features_only_gives_the_same_maps(name):
    whole = bare(name)
    features = timm.create_model(name, features_only=True, out_indices=(1, 2)).eval()
    features.model.load_state_dict(whole.state_dict(), strict=False)
    _, maps = whole.forward_intermediates(IMAGES, indices=[1, 2])
    assert all(torch.equal(mine, its) for mine, its in zip(maps, features(IMAGES), strict=True))
    assert features.feature_info.channels() == [part.shape[1] for part in maps]
    assert sum(p.numel() for p in features.parameters()) < sum(p.numel() for p in whole.parameters())


@pytest.mark.parametrize("name", FAMILIES)
def test_another_classifier_other_channels_and_no_classifier(name):
    model = timm.create_model(name, num_classes=7, in_chans=1).eval()
    assert model(torch.rand(2, 1, 32, 32)).shape == (2, 7)
    model.reset_classifier(3, "max")
    assert model(torch.rand(2, 1, 32, 32)).shape == (2, 3)
    model.reset_classifier(0)
    assert model(torch.rand(2, 1, 32, 32)).shape == (2, model.num_features)
    named = model.pretrained_cfg
    assert isinstance(model.get_submodule(named["first_conv"]), nn.Conv2d)
    assert model.get_submodule(named["classifier"]) is model.get_classifier()


def test_dropout_stands_where_the_papers_have_it():
    wide = timm.create_model("cifar_wrn16_1", drop_rate=0.5).train()
    assert [m.p for m in wide.modules() if isinstance(m, nn.Dropout)] == [0.5] * 6 + [0.0]
    plain = timm.create_model("cifar_resnet8", drop_rate=0.5).train()
    assert [m.p for m in plain.modules() if isinstance(m, nn.Dropout)] == [0.5]


def test_there_are_no_weights_to_fetch():
    with pytest.raises(NetworkError, match="cifar_resnet8"):
        network("cifar_resnet8", pretrained=True)


def test_timms_own_networks_keep_their_names():
    assert not set(LITERATURE) & set(timm.list_models(exclude_filters="cifar_*"))
    assert set(timm.list_models("cifar_*")) == set(LITERATURE)
    with torch.device("meta"):
        assert timm.create_model("vgg13", num_classes=0).feature_info[0]["module"].startswith("features.")


# ------------------------------------------------------------------------------------- in kdpipe


@pytest.mark.parametrize(
    ("published", "name"),
    [("resnet8x4", "cifar_resnet8x4"), ("ShuffleV1", "cifar_shufflenetv1"), ("wrn_40_2", "cifar_wrn40_2")],
)
def test_a_name_of_the_published_code_is_answered_with_ours(published, name):
    with pytest.raises(NetworkError, match=rf"did you mean '{name}'\?"):
        network(published)


@pytest.mark.parametrize(
    ("name", "taps"),
    [
        ("cifar_resnet8", ["layer1", "layer2", "layer3"]),
        ("cifar_resnet50", ["layer1", "layer2", "layer3", "layer4"]),
        ("cifar_wrn16_1", ["block1", "block2", "block3"]),
        ("cifar_vgg8", ["block1", "block2", "block3", "block4"]),
        ("cifar_mobilenetv2", ["blocks.1", "blocks.2", "blocks.4", "blocks.6"]),
        ("cifar_shufflenetv1", ["layer1", "layer2", "layer3"]),
        ("cifar_shufflenetv2", ["layer1", "layer2", "layer3"]),
    ],
)
def test_stages_are_those_that_published_methods_compare(name, taps):
    """The stem is left out; what remains are the feature maps that AT, VID and their like take."""
    assert network(name).names == taps


@pytest.mark.parametrize("name", ["cifar_resnet8", "cifar_wrn16_1", "cifar_mobilenetv2"])
def test_a_profile_finds_costs_and_a_linear_head(name):
    """So class-activation maps and Grad-CAM exist, and methods that want them serve these networks."""
    built = network(name, layers="all")
    found = profile_of(built, SHAPE)
    assert [tap.layer for tap in found.taps] == built.names and all(tap.mac_share for tap in found.taps)
    assert found.linear_head and found.spatial_head


def test_params_and_macs_of_a_profile():
    """WRN-16-2 by hand: stem, three stages of two blocks, shortcuts, classifier."""
    found = profile_of(network("cifar_wrn16_2", classes=100), SHAPE)
    assert found.params == PUBLISHED["cifar_wrn16_2"]["parameters"]
    stem = 3 * 16 * 9 * 32 * 32

    def stage(came: int, goes: int, side: int) -> int:
        return (came * goes * 9 + 3 * goes * goes * 9 + came * goes) * side * side

    assert found.macs == stem + stage(16, 32, 32) + stage(32, 64, 16) + stage(64, 128, 8) + 128 * 100


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_takes_images_of_other_sizes(name):
    model = bare(name)
    for side in (28, 48):
        assert model(torch.rand(1, 3, side, side)).shape == (1, 100)


def test_vgg_pools_once_more_where_images_are_larger():
    """As published for 64 x 64; at 32 x 32 the last two stages share a size."""
    with torch.no_grad():
        sides = [part.shape[-1] for part in network("cifar_vgg8", shape=(3, 64, 64))(torch.rand(2, 3, 64, 64)).maps]
    assert sides == [32, 16, 8, 4]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_step_of_training_moves_every_weight_and_keeps_no_map_overwritten(name):
    """In-place ReLUs must not change what was tapped before them, nor what autograd still needs."""
    built = copy.deepcopy(network(name)).train()
    outputs = built(torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0)))
    before = [part.detach().clone() for part in outputs.maps]
    (outputs.logits.square().sum() + sum(part.square().mean() for part in outputs.maps)).backward()
    assert all(torch.equal(part, then) for part, then in zip(outputs.maps, before, strict=True))
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in built.parameters())


def test_initial_weights_are_those_of_the_published_recipes():
    """He's normal by fan out, but torch's own in ShuffleNets; classifiers near zero in VGG and MobileNetV2."""
    resnet, shufflenet = bare("cifar_resnet8x4"), bare("cifar_shufflenetv1")
    weight = resnet.layer3[0].conv1.weight
    assert float(weight.detach().std()) == pytest.approx(math.sqrt(2 / (256 * 9)), rel=0.01)
    fan_in = shufflenet.layer3[1].conv1.weight[0].numel()
    assert float(shufflenet.layer3[1].conv1.weight.detach().abs().max()) == pytest.approx(
        1 / math.sqrt(fan_in), rel=0.01
    )
    for name in ("cifar_vgg8", "cifar_mobilenetv2"):
        classifier = bare(name).get_classifier()
        assert float(classifier.weight.detach().std()) == pytest.approx(0.01, rel=0.05) and not classifier.bias.any()
    assert not bare("cifar_wrn16_1").get_classifier().bias.any()
    assert bare("cifar_resnet8").get_classifier().bias.any()


def test_a_seed_is_a_network():
    first, again, other = (network("cifar_vgg8", seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["model.block1.0.weight"], other["model.block1.0.weight"])


def test_a_network_comes_back_from_its_file_alone(tmp_path):
    spec = StudentSpec(name="x", arch="cifar_mobilenetv2")
    built = network("cifar_mobilenetv2", classes=7)
    write_network(tmp_path / "n.safetensors", built, spec, SHAPE, 7)
    back = read_network(tmp_path / "n.safetensors")
    with torch.no_grad():
        assert torch.equal(back(IMAGES).logits, built(IMAGES).logits)


def test_compiled_passes_are_whole():
    """One graph: names of modules are resolved while the graph is made."""
    model = bare("cifar_wrn16_1")
    compiled = torch.compile(lambda x: model.forward_intermediates(x, indices=[1, 2]), backend="eager", fullgraph=True)
    final, maps = compiled(IMAGES)
    assert torch.equal(final, model.forward_features(IMAGES)) and len(maps) == 2


def test_names_of_published_code_are_unlike_each_other():
    published = [record.published.lower() for record in LITERATURE.values()]
    assert len(set(published)) == len(published)
