"""Data: splits and budgets by their invariants, batches by their address, sources by small real files."""

from __future__ import annotations

import gzip
import io
import json
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kdpipe.data.augmentation import AUGMENTATIONS, Augmentation, augment, draw_views
from kdpipe.data.batches import Batches
from kdpipe.data.dataset import Dataset, probe_set, split_dataset
from kdpipe.data.sources import SOURCES
from kdpipe.data.sources.base import RawData, Split, fingerprint, no_tick, peek
from kdpipe.data.sources.idx import DEBIAN_FASHION_MNIST
from kdpipe.data.splits import label_budget, stratified_order
from kdpipe.errors import DataError
from kdpipe.seeds import derive_seed

SAMPLE = Path(__file__).parent / "data" / "cifar10-sample"
CPU = torch.device("cpu")


def request(path: Path | None = None, **more):
    return SimpleNamespace(
        path=str(path) if path else None,
        **{**dict.fromkeys(("image_size", "channels", "image_column", "label_column")), **more},
    )


def load(name: str, path: Path | None = None, **more) -> RawData:
    return SOURCES[name].load(request(path, **more), Path(), no_tick)


# ------------------------------------------------------------------------------------------ splits

imbalanced = st.lists(st.integers(1, 40), min_size=2, max_size=6).map(
    lambda sizes: np.repeat(np.arange(len(sizes)), sizes)
)


@given(imbalanced, st.integers(0, 2**31))
def test_every_prefix_of_a_stratified_order_is_stratified(labels, seed):
    """At every cut there is one share t of which each class has ceil(t n) images."""
    order = stratified_order(labels, seed)
    assert sorted(order) == list(range(len(labels)))
    sizes = np.bincount(labels)
    assert len(set(labels[order[: len(sizes)]])) == len(sizes)  # one of each first
    for cut in range(1, len(labels) + 1):
        taken = np.bincount(labels[order[:cut]], minlength=len(sizes))
        least = np.where(taken > 0, (taken - 1) / sizes, 0.0).max()  # all places up to here are used up
        most = np.where(taken < sizes, taken / sizes, 1.0).min()
        assert least <= most + 1e-12


@given(st.integers(2, 8), st.integers(1, 20), st.integers(0, 2**31))
def test_with_equal_classes_no_prefix_is_off_by_more_than_one(classes, each, seed):
    labels = np.tile(np.arange(classes), each)
    order = stratified_order(labels, seed)
    for cut in range(1, len(labels) + 1):
        counts = np.bincount(labels[order[:cut]], minlength=classes)
        assert counts.max() - counts.min() <= 1


def test_a_stratified_order_is_repeatable_and_random():
    labels = np.arange(200) % 10
    assert (stratified_order(labels, 1) == stratified_order(labels, 1)).all()
    assert (stratified_order(labels, 1) != stratified_order(labels, 2)).any()


@given(imbalanced, st.floats(0.3, 1.0), st.floats(0.3, 1.0), st.integers(0, 100))
def test_label_budgets_are_nested(labels, one, other, seed):
    small, large = sorted((one, other))
    try:
        few = label_budget(labels, small, seed)
    except DataError:
        return
    assert len(few) == round(small * len(labels))
    assert set(few) <= set(label_budget(labels, large, seed))
    assert len(set(labels[few])) == len(np.unique(labels))


def test_a_budget_below_one_label_a_class_is_refused_with_the_least_that_would_do():
    labels = np.arange(100) % 10
    with pytest.raises(DataError, match=r"0.05 of 100 training images are 5 labels for 10 classes.*at least 0.1"):
        label_budget(labels, 0.05, 0)
    assert len(label_budget(labels, 0.1, 0)) == 10


def numbered(count: int, classes: int = 4, side: int = 4) -> Split:
    """Images that carry their own number in their first two pixels."""
    images = np.zeros((count, 1, side, side), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.arange(count) // 256, np.arange(count) % 256
    return Split(images, np.arange(count) % classes)


def numbers(split: Split) -> list[int]:
    return (split.images[:, 0, 0, 0].astype(int) * 256 + split.images[:, 0, 0, 1]).tolist()


def raw(count: int = 400, test: Split | None = None) -> RawData:
    return RawData(numbered(count), test, ["a", "b", "c", "d"])


def test_splits_are_disjoint_stratified_and_cover_everything():
    data = split_dataset(raw(), validation_fraction=0.1, test_fraction=0.3, split_seed=0)
    parts = [data.train, data.validation, data.test]
    assert [len(part.labels) for part in parts] == [252, 28, 120]
    assert sorted(number for part in parts for number in numbers(part)) == list(range(400))
    for part in parts:
        counts = np.bincount(part.labels)
        assert counts.max() - counts.min() <= 1
        assert (np.array(numbers(part)) % 4 == part.labels).all()  # labels stayed with their images


def test_a_sources_own_test_split_is_kept_as_it_is():
    own = numbered(40)
    data = split_dataset(raw(test=own), validation_fraction=0.1, test_fraction=0.3, split_seed=0)
    assert (data.test.images == own.images).all() and (data.test.labels == own.labels).all()
    assert len(data.train.labels) + len(data.validation.labels) == 400


def test_the_split_seed_moves_the_split_and_not_the_content_hash():
    one, other = (split_dataset(raw(), validation_fraction=0.1, test_fraction=0.3, split_seed=seed) for seed in (0, 1))
    assert set(numbers(one.test)) != set(numbers(other.test))
    assert one.content_hash == other.content_hash


def test_a_class_too_small_for_three_splits_is_named():
    images = numbered(41)
    labels = np.r_[np.arange(40) % 3, 3]
    data = RawData(Split(images.images, labels), None, ["a", "b", "c", "lonely"])
    with pytest.raises(DataError, match="class 'lonely' has no image in the training split"):
        split_dataset(data, validation_fraction=0.1, test_fraction=0.3, split_seed=0)


def test_a_dataset_reads_back_as_it_was_written(tmp_path):
    data = split_dataset(raw(), validation_fraction=0.1, test_fraction=0.3, split_seed=0)
    data.write(tmp_path)
    back = Dataset.read(tmp_path)
    for name in ("train", "validation", "test"):
        assert (getattr(back, name).images == getattr(data, name).images).all()
        assert (getattr(back, name).labels == getattr(data, name).labels).all()
    assert (back.mean, back.std, back.class_names) == (data.mean, data.std, data.class_names)


def test_probe_sets_are_nested_and_no_larger_than_the_test_set():
    data = split_dataset(raw(), validation_fraction=0.1, test_fraction=0.3, split_seed=0)
    assert (probe_set(data, 100, 0)[:20] == probe_set(data, 20, 0)).all()
    with pytest.raises(DataError, match="121 probe images are asked for, the test set has 120"):
        probe_set(data, 121, 0)


def test_derived_seeds_do_not_run_their_parts_together():
    assert derive_seed("a", 11) != derive_seed("a1", 1)
    assert 0 <= derive_seed("x") < 2**63


# ----------------------------------------------------------------------------------------- batches


def batches(split: Split, policy: Augmentation = AUGMENTATIONS["none"], **more) -> Batches:
    options = {"batch_size": 16, "seed": 3, "device": CPU, "policy": policy, **more}
    return Batches(split, options.pop("indices", np.arange(len(split.labels))), **options)


def test_a_step_gives_the_same_bits_whatever_ran_before():
    split = Split(np.random.default_rng(0).integers(0, 255, (50, 3, 8, 8), np.uint8), np.arange(50) % 5)
    policy = AUGMENTATIONS["flip-shift2"]
    alone = batches(split, policy)(7)
    stream = batches(split, policy)
    for step in (0, 1, 20, 3, 7):
        torch.rand(step + 1)
        batch = stream(step)
    for part in ("images", "labels", "positions", "views"):
        assert torch.equal(getattr(batch, part), getattr(alone, part))
    assert not torch.equal(stream(8).images, batch.images)


def test_a_view_is_known_by_its_number():
    """What a cache keyed by (image, view) rests on: the same number gives the same pixels at every step."""
    split = Split(np.random.default_rng(0).integers(0, 255, (20, 3, 8, 8), np.uint8), np.arange(20) % 5)
    policy = AUGMENTATIONS["flip-shift2"]
    stream = batches(split, policy)
    assert policy.views == 50
    for step in (0, 5, 11):
        batch = stream(step)
        for row in range(len(batch.images)):
            again = stream.render(batch.positions[row : row + 1], int(batch.views[row]))
            assert torch.equal(again[0], batch.images[row])
    every = torch.cat([stream.render(torch.tensor([3]), view) for view in range(policy.views)])
    assert len(every.flatten(1).unique(dim=0)) == policy.views


def test_outside_of_a_cropped_image_is_black_and_of_a_shifted_one_its_reflection():
    split = Split(np.full((4, 3, 8, 8), 9, np.uint8), np.arange(4))
    corner = {  # the first view: shifted by the whole margin, down and to the right
        name: batches(split, AUGMENTATIONS[name]).render(torch.tensor([0]), 0)[0] * 255
        for name in ("flip-crop4", "flip-shift4")
    }
    assert (corner["flip-shift4"] == 9).all()
    assert (corner["flip-crop4"][:, 4:, 4:] == 9).all() and corner["flip-crop4"].sum() == 9 * 3 * 4 * 4


@given(st.integers(3, 60), st.integers(1, 70))
@settings(max_examples=30)
def test_each_epoch_shows_every_image_once(count, batch_size):
    stream = batches(numbered(count), batch_size=batch_size)
    steps = -(-3 * count // batch_size)
    seen = torch.cat([stream.positions(step) for step in range(steps)])
    assert all(len(stream.positions(step)) == batch_size for step in range(steps))
    for epoch in range(3):
        assert sorted(seen[epoch * count : (epoch + 1) * count].tolist()) == list(range(count))


def test_labels_stay_with_their_images():
    split = numbered(100)
    batch = batches(split)(2)
    images, labels = batch.images, batch.labels
    assert torch.equal(torch.from_numpy(split.labels)[batch.positions], labels)
    which = (images[:, 0, 0, 0] * 255).round().long() * 256 + (images[:, 0, 0, 1] * 255).round().long()
    assert (which % 4 == labels).all()
    assert len(set(which.tolist())) == 16


@pytest.mark.parametrize("name", list(AUGMENTATIONS))
def test_views_are_shifts_and_flips_of_the_image_and_all_of_them_occur(name):
    policy = AUGMENTATIONS[name]
    image = np.random.default_rng(0).integers(0, 255, (1, 3, 10, 10), np.uint8)
    m = policy.shift
    padded = np.pad(image, ((0, 0), (0, 0), (m, m), (m, m)), mode="reflect")[0]
    allowed = {}
    for top in range(2 * m + 1):
        for left in range(2 * m + 1):
            crop = padded[:, top : top + 10, left : left + 10]
            allowed[crop.tobytes()] = (top, left, False)
            if policy.flip:
                allowed.setdefault(np.ascontiguousarray(crop[:, :, ::-1]).tobytes(), (top, left, True))
    many = torch.from_numpy(np.repeat(padded[None], 3000, 0))
    views = augment(many, (10, 10), policy, draw_views(3000, policy, torch.Generator().manual_seed(0)))
    seen = Counter(allowed[view.contiguous().numpy().tobytes()] for view in views)  # KeyError: not a legal view
    assert len(seen) == (2 * m + 1) ** 2 * (2 if policy.flip else 1)
    if policy.flip:
        assert 0.45 < sum(n for (_, _, flipped), n in seen.items() if flipped) / 3000 < 0.55


def test_labelled_and_unlabelled_streams_never_meet():
    split = numbered(200)
    labelled = label_budget(split.labels, 0.25, 0)
    rest = np.setdiff1d(np.arange(200), labelled)
    ours = batches(split, indices=labelled)
    theirs = batches(split, indices=rest, stream="unlabelled")

    def seen(stream):
        images = torch.cat([stream(step).images for step in range(30)])
        return set((images[:, 0, 0, 0] * 255 * 256 + images[:, 0, 0, 1] * 255).round().long().tolist())

    assert seen(ours) == set(labelled.tolist())
    assert seen(theirs) == set(rest.tolist())
    both = [batches(split, stream=name).positions(0) for name in ("labelled", "unlabelled")]
    assert not torch.equal(*both)  # streams of one seed are independent


# ----------------------------------------------------------------------------------------- sources


def test_digits_are_the_ones_scikit_learn_has():
    data = load("digits")
    assert data.train.images.shape == (1797, 1, 8, 8) and data.train.images.max() == 255
    assert data.test is None and data.class_names == [str(i) for i in range(10)]
    assert np.bincount(data.train.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert load("digits", image_size=16, channels=3).train.images.shape == (1797, 3, 16, 16)


def picture(seed: int, size=(6, 6), mode="RGB") -> Image.Image:
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, shape, np.uint8), mode)


def image_folder(root: Path, splits=("",), each: int = 3) -> Path:
    for split in splits:
        for label, name in enumerate(("cat", "dog")):
            (root / split / name).mkdir(parents=True)
            for i in range(each):
                picture(10 * label + i + 100 * len(split)).save(root / split / name / f"{i}.png")
    return root


def test_a_flat_image_folder(tmp_path):
    data = load("folder", image_folder(tmp_path))
    assert data.class_names == ["cat", "dog"] and data.test is None
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert (np.moveaxis(data.train.images[4], 0, 2) == np.asarray(picture(11))).all()


@pytest.mark.parametrize("test", ["test", "val"])
def test_an_image_folder_with_its_own_test_split(tmp_path, test):
    data = load("folder", image_folder(tmp_path, ("train", test)))
    assert data.test is not None and len(data.test.labels) == 6
    seen = peek(SOURCES["folder"], request(tmp_path), Path())
    assert (seen.image_shape, seen.class_names, seen.train, seen.test) == ((3, 6, 6), ["cat", "dog"], 6, 6)


def test_relative_paths_start_at_the_data_root(tmp_path):
    image_folder(tmp_path / "pets")
    assert len(SOURCES["folder"].load(request(Path("pets")), tmp_path, no_tick).train.labels) == 6


def test_channels_and_size_are_converted_on_request(tmp_path):
    image_folder(tmp_path)
    picture(1, (9, 6), "L").save(tmp_path / "dog" / "grey.png")
    assert load("folder", tmp_path, channels=3, image_size=6).train.images.shape == (7, 3, 6, 6)
    assert load("folder", tmp_path, channels=1, image_size=12).train.images.shape == (7, 1, 12, 12)


def parquet_file(path: Path, rows: int = 6, names=("cat", "dog"), labels=None, images=None) -> None:
    def encoded(i: int) -> bytes:
        buffer = io.BytesIO()
        picture(i).save(buffer, "PNG")
        return buffer.getvalue()

    labels = [i % 2 for i in range(rows)] if labels is None else labels
    images = [{"bytes": encoded(i), "path": f"{i}.png"} for i in range(rows)] if images is None else images
    metadata = {"info": {"features": {"img": {"_type": "Image"}, "label": {"names": list(names or ())}}}}
    table = pa.table(
        {
            "img": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            "label": pa.array(labels, pa.int64()),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(metadata)} if names else None), path)


def test_parquet_as_on_the_hugging_face_hub(tmp_path):
    parquet_file(tmp_path / "data" / "train-00000-of-00002.parquet")
    parquet_file(tmp_path / "data" / "train-00001-of-00002.parquet", rows=2)
    parquet_file(tmp_path / "data" / "test-00000-of-00001.parquet", rows=4)
    data = load("parquet", tmp_path)
    assert data.class_names == ["cat", "dog"]
    assert data.train.labels.tolist() == [0, 1, 0, 1, 0, 1, 0, 1] and len(data.test.labels) == 4
    assert (np.moveaxis(data.train.images[3], 0, 2) == np.asarray(picture(3))).all()
    seen = peek(SOURCES["parquet"], request(tmp_path), Path())
    assert (seen.image_shape, seen.train, seen.test) == ((3, 6, 6), 8, 4)


def test_parquet_without_names_calls_the_classes_by_their_numbers(tmp_path):
    parquet_file(tmp_path / "train.parquet", names=None)
    assert load("parquet", tmp_path).class_names == ["0", "1"]


def test_the_sample_of_cifar10():
    data = load("parquet", SAMPLE)
    assert data.class_names[:3] == ["airplane", "automobile", "bird"]
    assert data.train.images.shape == (160, 3, 32, 32) and data.test.images.shape == (40, 3, 32, 32)
    assert set(np.bincount(data.train.labels)) == {16} and set(np.bincount(data.test.labels)) == {4}
    assert 80 < data.train.images.mean() < 160 and data.train.images.std() > 40


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


def idx_folder(root: Path, count: int = 20, zipped: bool = False) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for prefix, many in (("train", count), ("t10k", count // 2)):
        images = np.random.default_rng(many).integers(0, 255, (many, 5, 4), np.uint8)
        labels = (np.arange(many) % 10).astype(np.uint8)
        for name, array in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
            content = idx_bytes(array)
            (root / (name + ".gz" * zipped)).write_bytes(gzip.compress(content) if zipped else content)
    return root


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files_plain_and_zipped(tmp_path, zipped):
    data = load("fashion-mnist-idx", idx_folder(tmp_path, zipped=zipped))
    assert data.train.images.shape == (20, 1, 5, 4) and data.test.images.shape == (10, 1, 5, 4)
    assert data.train.labels.tolist() == [*range(10), *range(10)]
    assert (data.train.images[:, 0] == np.random.default_rng(20).integers(0, 255, (20, 5, 4), np.uint8)).all()
    assert load("fashion-mnist-idx", tmp_path, image_size=5).train.images.shape == (20, 1, 5, 5)


@pytest.mark.skipif(not DEBIAN_FASHION_MNIST.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_debians_fashion_mnist():
    data = load("fashion-mnist-idx")
    assert data.train.images.shape == (60_000, 1, 28, 28) and len(data.test.labels) == 10_000
    assert set(np.bincount(data.train.labels)) == {6000} and data.class_names[9] == "Ankle boot"


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion-mnist", "svhn", "stl10"])
def test_torchvision_without_network_says_where_the_files_belong(tmp_path, monkeypatch, name):
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(DataError, match=r"neither found in .*torchvision.* nor downloadable .*KDPIPE_DATA") as error:
        fingerprint(SOURCES[name], request(), tmp_path)
    assert len(str(error.value).splitlines()) == 1


# ------------------------------------------------------------------------------------- fingerprints


def mark(name: str, path: Path) -> str:
    return fingerprint(SOURCES[name], request(path), Path())


@pytest.mark.parametrize(
    ("name", "make", "victim"),
    [
        ("folder", lambda root: image_folder(root, ("train", "test")), "train/dog/1.png"),
        ("parquet", lambda root: [parquet_file(root / f"{n}.parquet") for n in ("train", "test")], "test.parquet"),
        ("fashion-mnist-idx", idx_folder, "t10k-labels-idx1-ubyte"),
    ],
)
def test_a_fingerprint_knows_content_and_not_place(tmp_path, name, make, victim):
    make(tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "far" / "away")
    assert mark(name, tmp_path / "here") == mark(name, tmp_path / "far" / "away")
    content = bytearray((tmp_path / "here" / victim).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "here" / victim).write_bytes(content)
    assert mark(name, tmp_path / "here") != mark(name, tmp_path / "far" / "away")


def test_an_image_in_another_class_is_another_dataset(tmp_path):
    image_folder(tmp_path)
    before = mark("folder", tmp_path)
    (tmp_path / "cat" / "2.png").rename(tmp_path / "dog" / "9.png")
    assert mark("folder", tmp_path) != before


def test_a_neighbour_in_the_data_root_does_not_change_svhn(tmp_path, monkeypatch):
    """SVHN's files lie beside the folders of torchvision's other datasets."""
    from torchvision import datasets

    place = tmp_path / "torchvision"
    place.mkdir()
    for name in ("train_32x32.mat", "test_32x32.mat"):
        (place / name).write_bytes(name.encode())
    monkeypatch.setattr(datasets.SVHN, "__init__", lambda *args, **options: None)  # the files are no real ones
    before = fingerprint(SOURCES["svhn"], request(), tmp_path)
    (place / "cifar-10-batches-py").mkdir()
    (place / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"another dataset")
    assert fingerprint(SOURCES["svhn"], request(), tmp_path) == before


# ------------------------------------------------------------------------------------------ errors


def refused(name: str, path: Path, *said: str, lines: int = 1, **more) -> None:
    with pytest.raises(DataError) as error:
        load(name, path, **more)
    assert len(str(error.value).splitlines()) == lines
    for part in said:
        assert part in str(error.value)


def test_a_missing_folder(tmp_path):
    for name in ("folder", "parquet", "fashion-mnist-idx"):
        refused(name, tmp_path / "nowhere", "nowhere", "no such folder", "data.path")


@pytest.mark.parametrize("content", [b"", b"no image", "truncated"])
def test_a_corrupt_image(tmp_path, content):
    image_folder(tmp_path)
    victim = tmp_path / "dog" / "1.png"
    victim.write_bytes(victim.read_bytes()[:60] if content == "truncated" else content)
    refused("folder", tmp_path, str(victim), "not a readable image", "replace or remove")


def test_an_empty_class(tmp_path):
    image_folder(tmp_path)
    (tmp_path / "emu").mkdir()
    refused("folder", tmp_path, str(tmp_path / "emu"), "empty")


def test_a_class_that_only_the_test_split_has(tmp_path):
    image_folder(tmp_path, ("train", "test"))
    (tmp_path / "test" / "emu").mkdir()
    refused("folder", tmp_path, "emu", "no folder under")


def test_a_folder_without_classes(tmp_path):
    picture(0).save(tmp_path / "0.png")
    refused("folder", tmp_path, "one folder a class")


def test_mixed_channels_and_sizes_say_what_to_set(tmp_path):
    image_folder(tmp_path)
    picture(1, (6, 6), "L").save(tmp_path / "dog" / "9.png")
    refused("folder", tmp_path, "dog/9.png", "1 channels", "data.channels")
    picture(1, (7, 6)).save(tmp_path / "dog" / "9.png")
    refused("folder", tmp_path, "dog/9.png", "7x6 pixels", "6x6", "data.image_size")


@pytest.mark.parametrize("victim", ["train-00000.parquet", "train-00001.parquet", "test.parquet"])
@pytest.mark.parametrize("keep", [0, 100, -1])
def test_truncated_parquet_in_load_and_peek(tmp_path, victim, keep):
    for name in ("train-00000.parquet", "train-00001.parquet", "test.parquet"):
        parquet_file(tmp_path / name)
    (tmp_path / victim).write_bytes((tmp_path / victim).read_bytes()[:keep])
    refused("parquet", tmp_path, victim, "fetch it again")
    with pytest.raises(DataError, match=victim):
        peek(SOURCES["parquet"], request(tmp_path), Path())


def test_parquet_with_a_bad_image_or_label_names_the_row(tmp_path):
    path = tmp_path / "train.parquet"
    parquet_file(path, labels=[0, 1, 0, 1, 0, 2])
    refused("parquet", tmp_path, "train.parquet", "labels run from 0 to 2, but there are 2 classes")
    parquet_file(path, labels=[0, 1, 0, 1, 0, -1])
    refused("parquet", tmp_path, "labels run from -1")
    parquet_file(path, labels=[0, 1, None, 1, 0, 1])
    refused("parquet", tmp_path, "row 2: the label is empty")
    parquet_file(path, rows=2, images=[{"bytes": b"junk", "path": ""}, {"bytes": b"junk", "path": ""}])
    refused("parquet", tmp_path, "row 0", "row 1", "not a readable image", lines=2)
    parquet_file(path, rows=2, images=[None, {"bytes": None, "path": "x.png"}])
    refused("parquet", tmp_path, "row 0: the image is empty", "row 1: it has the path 'x.png' and no image", lines=2)
    pq.write_table(pa.table({"x": [1.0]}), path)
    refused("parquet", tmp_path, "needs an image column", "it has x")
    (tmp_path / "train.parquet").unlink()
    refused("parquet", tmp_path, "no train*.parquet")


@pytest.mark.parametrize(
    ("victim", "content", "said"),
    [
        ("train-images-idx3-ubyte", b"", "not a readable idx file"),
        ("train-images-idx3-ubyte", b"\0\0\x08", "not a readable idx file"),
        ("train-images-idx3-ubyte", idx_bytes(np.zeros((20, 5, 4), np.uint8))[:-7], "not a readable idx file"),
        ("train-images-idx3-ubyte", idx_bytes(np.zeros(20, np.uint8)), "3 dimensions"),
        ("t10k-labels-idx1-ubyte", idx_bytes(np.zeros(3, np.uint8)), "10 images but 3 labels"),
        ("t10k-labels-idx1-ubyte", idx_bytes(np.full(10, 10, np.uint8)), "labels run from 10 to 10"),
    ],
)
def test_bad_idx_files(tmp_path, victim, content, said):
    idx_folder(tmp_path)
    (tmp_path / victim).write_bytes(content)
    refused("fashion-mnist-idx", tmp_path, victim, said)


def test_zipped_idx_files_with_any_byte_flipped_load_or_are_refused(tmp_path):
    idx_folder(tmp_path, zipped=True)
    victim = tmp_path / "train-labels-idx1-ubyte.gz"
    whole = victim.read_bytes()
    for place in range(10, len(whole)):
        victim.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        refused("fashion-mnist-idx", tmp_path, victim.name)


def test_a_missing_idx_file_is_named(tmp_path):
    (idx_folder(tmp_path) / "t10k-labels-idx1-ubyte").unlink()
    refused("fashion-mnist-idx", tmp_path, "t10k-labels-idx1-ubyte", "missing")
