"""Networks: taps that show what a layer really gives, small stems, costs by hand, weights there and back."""

from __future__ import annotations

import contextlib
import copy
import json
import pickle
import resource
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from kdpipe.config.sections import ArchSpec, TeacherSpec
from kdpipe.config.training import TrainingSpec
from kdpipe.errors import NetworkError
from kdpipe.models.build import build
from kdpipe.models.network import Network
from kdpipe.models.profile import Tap, pair_by_depth, profile_of
from kdpipe.models.saved import read_network, write_network
from kdpipe.models.weights import load_weights

TINY = {"channels": [8, 8, 16, 16], "layers": [1, 1, 1, 1]}


def spec(arch="resnet18", **more):
    return ArchSpec(arch=arch, **more)


def make(arch="resnet18", side=32, seed=0, channels=3, classes=10, **more) -> Network:
    shape = (channels, side, side)
    return build(
        spec(arch, **more), image_shape=shape, classes=classes, mean=[0.4] * channels, std=[0.3] * channels, seed=seed
    ).eval()


def tiny(**more) -> Network:
    return make(**{"arguments": TINY, "stem": "small", **more})


FAMILIES = {
    "resnet18": {"side": 64},
    "resnetv2_18": {"side": 64},
    "efficientnet_lite0": {"side": 64},
    "mobilenetv3_small_050": {"side": 64},
    "convnext_atto": {"side": 64},
    "vit_tiny_patch16_224": {"arguments": {"img_size": 32, "patch_size": 8, "depth": 3}},
}


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request):
    return make(request.param, layers="all", **FAMILIES[request.param]), FAMILIES[request.param].get("side", 32)


def captured(network: Network, images) -> dict[str, torch.Tensor]:
    """What each tapped module returned, cloned before anything could overwrite it."""
    seen, hooks = {}, []
    for name in network.names:

        def keep(module, inputs, output, name=name):
            seen[name] = output.detach().clone()

        hooks.append(network.model.get_submodule(name).register_forward_hook(keep))
    network(images)
    for hook in hooks:
        hook.remove()
    return seen


@torch.no_grad()
def test_taps_are_what_their_modules_returned(family):
    """Also where a later activation works in place, and where timm turns tokens into maps."""
    network, side = family
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    maps = network(images).maps
    for name, own in captured(network, images).items():
        shown = maps[network.names.index(name)]
        if own.ndim == 3:  # tokens: class token first, then patches
            extra = own.shape[1] - shown.shape[2] * shown.shape[3]
            own = own[:, extra:].transpose(1, 2).reshape(shown.shape)
        assert torch.equal(own, shown), name
    assert len(maps) == len(network.names) >= 3


@torch.no_grad()
def test_logits_are_those_of_the_plain_model(family):
    network, side = family
    images = torch.rand(2, 3, side, side)
    assert torch.equal(network(images).logits, network.model((images - 0.4) / 0.3))


def test_depth_and_cost_grow_along_the_taps(family):
    network, side = family
    found = profile_of(network, (3, side, side))
    taps, macs = found.taps, found.macs
    assert [tap.relative_depth for tap in taps] == [i / (len(taps) - 1) for i in range(len(taps))]
    shares = [tap.mac_share for tap in taps]
    assert shares == sorted(shares) and shares[0] > 0 and shares[-1] <= 1
    assert macs > 1e5
    assert [tap.layer for tap in taps] == network.names


def test_maps_and_logits_are_differentiable_in_train_mode(family):
    network, side = copy.deepcopy(family[0]).train(), family[1]
    outputs = network(torch.rand(4, 3, side, side))
    (outputs.logits.sum() + sum(part.square().mean() for part in outputs.maps)).backward()
    assert next(network.parameters()).grad.abs().sum() > 0


def test_macs_of_a_small_network_by_hand():
    """Stem 3x3 to timm's 64 channels, then four basic blocks with 1x1 shortcuts; later stages halve the side."""
    network = tiny(layers="all")
    found = profile_of(network, (3, 32, 32))
    taps, macs = found.taps, found.macs
    stem = 3 * 64 * 9 * 16 * 16
    first = (64 * 8 * 9 + 8 * 8 * 9 + 64 * 8) * 16 * 16
    second = (8 * 8 * 9 + 8 * 8 * 9 + 8 * 8) * 8 * 8
    third = (8 * 16 * 9 + 16 * 16 * 9 + 8 * 16) * 4 * 4
    fourth = (16 * 16 * 9 + 16 * 16 * 9 + 16 * 16) * 2 * 2
    head = 16 * 10
    assert macs == stem + first + second + third + fourth + head
    spent = [stem, stem + first, stem + first + second, stem + first + second + third, macs - head]
    assert [tap.mac_share for tap in taps] == pytest.approx([part / macs for part in spent])


def test_macs_of_a_transformer_count_attention():
    """d = 32, 2 heads, 17 tokens, 1 block: qkv, scores and mixing, projection, MLP; then the head."""
    network = make(
        "vit_tiny_patch16_224",
        arguments={"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2},
    )
    tokens, d = 17, 32
    block = tokens * (3 * d * d + d * d + 8 * d * d) + 2 * tokens * tokens * d
    patches = 16 * 3 * 64 * d
    assert profile_of(network, (3, 32, 32)).macs == patches + 2 * block + d * 10


@pytest.mark.parametrize(("stride", "sides"), [(2, [16, 8, 4, 2]), (1, [32, 16, 8, 4])])
def test_the_small_stem(stride, sides):
    network = tiny(stem_stride=stride)
    with torch.no_grad():
        assert [part.shape[2] for part in network(torch.rand(2, 3, 32, 32)).maps] == sides
    assert network.model.conv1.kernel_size == (3, 3) and isinstance(network.model.maxpool, nn.Identity)


@pytest.mark.parametrize("arch", ["resnetv2_18", "mobilenetv3_small_050"])
def test_small_stems_of_other_families_keep_more_of_the_image(arch):
    def first(**more):
        with torch.no_grad():
            return make(arch, side=64, **more)(torch.rand(2, 3, 64, 64)).maps[0].shape[2]

    assert first(stem="small", stem_stride=1) > first()


def test_a_network_without_a_stem_to_make_small_says_so():
    with pytest.raises(NetworkError, match=r"stem: 'vit_tiny_patch16_224' has no plain convolutional stem"):
        make("vit_tiny_patch16_224", arguments={"img_size": 32, "patch_size": 8}, stem="small")


def test_a_seed_is_a_network_and_the_global_state_is_left_alone():
    torch.manual_seed(5)
    one = tiny(seed=1)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), after)
    torch.rand(10)
    same, other = tiny(seed=1).state_dict(), tiny(seed=2).state_dict()
    assert all(torch.equal(same[name], tensor) for name, tensor in one.state_dict().items())
    assert not torch.equal(other["model.conv1.weight"], one.state_dict()["model.conv1.weight"])


def test_stages_leave_the_stem_out_and_layers_choose_in_order():
    assert tiny().names == ["layer1", "layer2", "layer3", "layer4"]
    assert tiny(layers="all").names == ["act1", "layer1", "layer2", "layer3", "layer4"]
    chosen = tiny(layers=["layer4", "layer2"])
    assert chosen.names == ["layer2", "layer4"]
    with torch.no_grad():
        images = torch.rand(2, 3, 32, 32)
        assert torch.equal(chosen(images).maps[0], tiny()(images).maps[1])


def test_tapping_more_layers_does_not_change_a_bit():
    images = torch.rand(8, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(tiny(layers="all")(images).logits, tiny(layers=["layer1", "layer2"])(images).logits)


def test_layers_are_paired_by_depth():
    student = profile_of(tiny(), (3, 32, 32)).taps
    teacher = profile_of(tiny(layers="all"), (3, 32, 32)).taps
    assert pair_by_depth(student, teacher) == [0, 1, 3, 4]
    assert pair_by_depth(student, student) == [0, 1, 2, 3]


# ------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"arch": "resnet81"}, r"arch: timm .* has no model 'resnet81', did you mean 'resnet"),
        ({"layers": ["layer1", "layr2"]}, r"layers: 'resnet18' has no layer 'layr2', did you mean 'layer2'\?; it has"),
        ({"arguments": {"chanels": [1]}}, r"arguments: 'resnet18' cannot be built"),
        ({"arch": "vit_tiny_patch16_224"}, r"arch: 'vit_tiny_patch16_224' cannot take images of shape \(3, 32, 32\)"),
        ({"checkpoint": "no/such.safetensors"}, r"checkpoint: there is no file no/such.safetensors"),
    ],
)
def test_wrong_names_are_answered_with_the_closest_match(arguments, said):
    with pytest.raises(NetworkError, match=said) as error:
        make(**arguments)
    assert len(str(error.value).splitlines()) == 1


SMALL_BRANCHES = {
    "crossvit_9_240": {"embed_dim": [16, 32], "depth": [[1, 1, 0]], "num_heads": [2, 2], "mlp_ratio": [1, 1, 1]},
    "efficientvim_m1": {},
}


@pytest.mark.parametrize("arch", SMALL_BRANCHES)
def test_models_of_several_branches_are_refused_for_what_they_are(arch):
    """Their images are of the right size, so nothing is said of sizes."""
    with pytest.raises(NetworkError, match=r"^arch: its layers come as lists of several maps.*choose another model\.$"):
        make(arch, side=240 if "240" in arch else 224, arguments=SMALL_BRANCHES[arch])


@pytest.mark.parametrize(
    ("arch", "arguments", "side", "said"),
    [
        ("resnet18", {"channels": [20_000] * 4}, 32, "arguments: 'resnet18' would have more than 1,000,000,000 par"),
        (
            "vit_gigantic_patch14_224",
            {},
            224,
            "arch: 'vit_gigantic_patch14_224' would have more than 1,000,000,000 par",
        ),
        ("resnet18", {"layers": [90_000, 1, 1, 1]}, 32, "arguments: 'resnet18' would have more than 10,000 modules"),
        ("vit_tiny_patch16_224", {"img_size": 512, "patch_size": 1}, 512, "more than 1,000,000,000 activations"),
        ("resnet18", {"channels": [2048] * 4}, 512, "more than 200,000,000,000 MACs for one image"),
        ("resnet18", {"layers": [10**9]}, 32, "arguments: layers holds 1000000000, which is beyond 100,000"),
        ("resnet18", {"layers": [1] * 101}, 32, "arguments: layers has 101 entries, more than 100"),
        ("resnet18", {"layers": [[[[[1]]]]]}, 32, "arguments: layers is nested deeper than 4"),
        ("resnet18", {"drop_rate": float("nan")}, 32, "arguments: drop_rate holds nan"),
        ("resnet18", {"block": "basic"}, 32, "arguments: 'resnet18' cannot be built with {'block': 'basic'}: 'str'"),
        ("resnet18", {"base_width": 0}, 32, "arguments: 'resnet18' cannot be built with"),
        ("resnet18", {"checkpoint_path": "x"}, 32, "arguments: checkpoint_path makes timm load weights by itself"),
        ("resnet18", {"pretrained_cfg": {"url": "http://x"}}, 32, "arguments: pretrained_cfg makes timm load weights"),
        ("resnet18", {"pretrained_cfg_overlay": {"file": "x"}}, 32, "arguments: pretrained_cfg_overlay makes timm"),
        ("resnet18", {"cache_dir": "/"}, 32, "arguments: cache_dir makes timm load weights"),
    ],
)
def test_networks_that_are_too_large_or_load_something_are_refused_at_once(arch, arguments, side, said):
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(NetworkError) as error:
        make(arch, side, arguments=arguments)
    assert said in str(error.value) and len(str(error.value).splitlines()) == 1
    assert time.monotonic() - started < 15
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB: nothing of it was built


def test_asking_for_the_size_does_not_change_a_bit(monkeypatch):
    asked = tiny(seed=3).state_dict()
    monkeypatch.setattr("kdpipe.models.build.refuse_size", lambda make, image_shape: None)
    assert all(torch.equal(tensor, asked[name]) for name, tensor in tiny(seed=3).state_dict().items())


def test_pretrained_weights_without_a_network_point_to_checkpoint(monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(NetworkError, match=r"pretrained: the weights of 'resnet18' cannot be fetched .* checkpoint"):
        make(pretrained=True)


# ----------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize(
    "more",
    [
        {"arguments": TINY, "stem": "small", "stem_stride": 1},
        {"arch": "vit_tiny_patch16_224", "arguments": {"img_size": 32, "patch_size": 8, "depth": 2}},
    ],
)
def test_a_network_comes_back_bit_for_bit_from_its_file_alone(tmp_path, more):
    made = spec(**more)
    network = make(**more, seed=4, classes=7)
    network.train()(torch.rand(16, 3, 32, 32))  # BatchNorm's statistics move
    network.eval()
    write_network(tmp_path / "n.safetensors", network, made, (3, 32, 32), 7)
    back = read_network(tmp_path / "n.safetensors")
    assert not back.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name
    assert torch.equal(back.mean, network.mean) and torch.equal(back.std, network.std)
    images = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        one, other = network(images), back(images)
    assert torch.equal(one.logits, other.logits)
    assert all(torch.equal(a, b) for a, b in zip(one.maps, other.maps, strict=True))


def test_a_checkpoint_of_other_classes_starts_a_network_but_keeps_its_head(tmp_path):
    path = tmp_path / "n.safetensors"
    write_network(path, tiny(seed=1, classes=5), spec(arguments=TINY, stem="small"), (3, 32, 32), 5)
    fresh, started = tiny(seed=2), tiny(seed=2, checkpoint=str(path))
    assert torch.equal(started.model.conv1.weight, tiny(seed=1, classes=5).model.conv1.weight)
    assert torch.equal(started.model.fc.weight, fresh.model.fc.weight)


def written(tmp_path, change=lambda state: None, metadata=lambda header: None):
    path = tmp_path / "n.safetensors"
    write_network(path, tiny(), spec(arguments=TINY, stem="small"), (3, 32, 32), 10)
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["kdpipe"])
    state = load_file(path)
    change(state)
    metadata(header)
    save_file(state, path, {"kdpipe": json.dumps(header)})
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("bn1.weight"), "lacks bn1.weight"),
        (lambda state: state.update(extra=torch.zeros(1)), "has extra"),
        (
            lambda state: state.update({"conv1.weight": torch.zeros(8, 1, 3, 3)}),
            r"conv1.weight has shape \(8, 1, 3, 3\)",
        ),
        (lambda state: state.pop("fc.weight"), "lacks fc.weight"),
        (lambda state: state.update({"fc.weight": torch.zeros(3, 16)}), r"fc.weight has shape \(3, 16\)"),
    ],
)
def test_a_network_file_whose_tensors_do_not_fit_is_refused(tmp_path, change, said):
    """The head as well: a network that is read back must not have a random one."""
    with pytest.raises(NetworkError, match=said):
        read_network(written(tmp_path, change))


@pytest.mark.parametrize(
    "metadata", [lambda header: header.pop("classes"), lambda header: header.pop("arch"), lambda h: h.update(new=1)]
)
def test_a_header_that_kdpipe_did_not_write_is_refused(tmp_path, metadata):
    with pytest.raises(NetworkError, match=r"n\.safetensors: not a network that kdpipe wrote"):
        read_network(written(tmp_path, metadata=metadata))


@pytest.mark.parametrize(
    "header",
    [
        "[" * 100_000,
        '{"arch": "resnet18", "arguments": ' + '{"x":' * 900 + "1" + "}" * 901,
        '{"arch": "resnet18", "image_shape": [3, 32], "classes": 10}',
        '{"arch": "resnet18", "image_shape": [3, 1000000000, 1000000000], "classes": 10}',
        '{"arch": "resnet18", "image_shape": [3, 32, 32], "classes": 1000000000000}',
        '{"arch": "resnet18", "image_shape": [3, 32, 32], "classes": 10, "head": {}}',
        '{"arch": "resnet18", "image_shape": [3, 32, 32], "classes": 10, "head": {"channels": 512, "size": [1, 1], '
        '"width": 1000000000, "classes": 10}}',
        '{"arch": "resnet18", "image_shape": [3, 32, 32], "classes": 10, "arguments": {"checkpoint_path": "/x"}}',
    ],
)
def test_a_header_that_asks_for_too_much_is_one_sentence(tmp_path, header):
    defaults = {"arguments": {}, "stem": "default", "stem_stride": 2, "layers": "stages", "mean": [0.5], "std": [0.5]}
    with contextlib.suppress(ValueError, RecursionError):
        header = json.dumps({**defaults, **json.loads(header)})
    save_file({"x": torch.zeros(1)}, tmp_path / "n.safetensors", {"kdpipe": header})
    with pytest.raises(NetworkError) as error:
        read_network(tmp_path / "n.safetensors")
    assert len(str(error.value).splitlines()) == 1 and "lacks" not in str(error.value)


def test_a_disk_that_does_not_take_weights_is_an_os_error(tmp_path):
    network, before = tiny(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match=r"n\.safetensors"):
            write_network(tmp_path / "n.safetensors", network, spec(arguments=TINY, stem="small"), (3, 32, 32), 10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_pickled_and_damaged_checkpoints_are_refused_without_being_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    for name in ("weights.pth", "weights.bin", "disguised.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap()))
        with pytest.raises(NetworkError, match=r"not a .safetensors file|damaged or no safetensors file"):
            load_weights(tiny(), tmp_path / name)
        with pytest.raises(NetworkError, match=name):
            read_network(tmp_path / name)
    assert not (tmp_path / "sprung").exists()
    whole = written(tmp_path)
    whole.write_bytes(whole.read_bytes()[:-10])
    with pytest.raises(NetworkError, match=r"n\.safetensors"):
        read_network(whole)


def test_layers_are_paired_by_depth_the_earlier_on_ties():
    def taps(count):
        return [Tap(f"l{i}", i, i / max(count - 1, 1), None, (1, 1, 1)) for i in range(count)]

    assert pair_by_depth(taps(4), taps(4)) == [0, 1, 2, 3]
    assert pair_by_depth(taps(3), taps(4)) == [0, 1, 3]  # 1/2 lies between 1/3 and 2/3
    assert pair_by_depth(taps(2), taps(5)) == [0, 4]
    assert pair_by_depth(taps(1), taps(3)) == [0]


def test_a_pretrained_teacher_of_other_classes_is_not_taken_as_it_comes():
    """Its classifier would be new: found from timm's description, before anything is fetched."""
    spec = TeacherSpec(arch="resnet18", pretrained=True, training=TrainingSpec(steps=0))
    shape = {"image_shape": (3, 64, 64), "mean": [0.5] * 3, "std": [0.5] * 3, "seed": 0, "weights": False}
    with pytest.raises(NetworkError, match=r"1000 classes apart, the data has 10.*give it steps"):
        build(spec, classes=10, **shape)
    assert build(spec, classes=1000, **shape).model.num_classes == 1000
    assert (
        build(spec.model_copy(update={"training": TrainingSpec(steps=5)}), classes=10, **shape).model.num_classes == 10
    )
