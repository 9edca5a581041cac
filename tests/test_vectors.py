"""Vectors made elsewhere: a folder gives back what went in, joined by ids, and what cannot be used is refused."""

from __future__ import annotations

import io

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save_file

import kdpipe
from kdpipe.config.vector_sheet import read_sheet, sources_of
from kdpipe.errors import DataError, StudyError
from kdpipe.vectors.checks import as_array, class_labels, pictures, rows_in_order, sample_ids, vectors
from kdpipe.vectors.content import NetworkRecord
from kdpipe.vectors.gather import RowIds, gather
from kdpipe.vectors.roles import record_of
from kdpipe.vectors.store import open_vectors, write_store

N = 24
IDS = [f"s{i:02d}" for i in range(N)]
LABELS = [i % 3 for i in range(N)]


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(N, *shape)).astype(np.float32)


NETWORKS = {
    "teacher": {"block1": draw(0, 4, 3, 3), "block10": draw(1, 6), "logits": draw(2, 3)},
    "plain": {"block1": draw(3, 5), "block10": draw(4, 5)},
    "kd-distilled-s1": {"block1": draw(5, 5), "block10": draw(6, 5)},
}


def stored(folder, networks=NETWORKS, **more):
    return open_vectors(kdpipe.write_vectors(folder, networks, **{"labels": LABELS, "ids": IDS, **more}))


def assert_is_given(store, networks=NETWORKS) -> None:
    """The store has these arrays, and no others, in the order of its samples."""
    order = [IDS.index(one) for one in store.samples.ids]
    assert store.samples.labels.tolist() == [LABELS[i] for i in order]
    assert {network.record.name for network in store.networks} == set(networks)
    for network in store.networks:
        given = dict(networks[network.record.name])
        logits = given.pop("logits", None)
        assert list(network.layers) == list(given)
        for place, array in enumerate(given.values()):
            assert np.array_equal(store.vectors(network, place), array[order])
        assert network.has_logits == (logits is not None)
        if logits is not None:
            assert np.array_equal(store.logits(network), logits[order])


# ------------------------------------------------------------------------------- write and read


def test_a_store_holds_what_was_written(tmp_path):
    images = np.arange(N * 12, dtype=np.uint8).reshape(N, 2, 2, 3)
    store = stored(
        tmp_path / "all", texts=[f"text {one}" for one in IDS], images=images, class_names=["a", "b", "c"],
        split=["probe" if i < 20 else "reference" for i in range(N)],
    )  # fmt: skip
    assert store.folder == tmp_path / "all.vectors"
    assert_is_given(store)
    assert store.samples.class_names == ["a", "b", "c"]
    assert store.samples.texts[7] == "text s07"
    assert np.array_equal(store.samples.images, np.moveaxis(images, 3, 1))
    assert store.samples.reference.nonzero()[0].tolist() == [20, 21, 22, 23]


@pytest.mark.parametrize("make", [torch.from_numpy, pl.Series, np.asfortranarray, np.ndarray.tolist])
def test_arrays_of_every_library_are_the_same_array(make):
    array = draw(0, 4)
    assert np.array_equal(vectors(make(array), N, "x"), array)


def test_half_precision_is_kept_and_bfloat16_becomes_float32():
    half = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))
    assert vectors(half.half(), N, "x").dtype == np.float16
    brain = half.bfloat16()
    assert np.array_equal(vectors(brain, N, "x"), brain.float().numpy())


@given(st.permutations(range(N)))
def test_rows_are_joined_by_ids_whatever_their_order(order):
    shuffled = [IDS[i] for i in order]
    rows = rows_in_order(shuffled, IDS, "a", "b")
    assert (rows is None) == (list(order) == list(range(N)))
    if rows is not None:
        assert [shuffled[row] for row in rows] == IDS


def test_a_network_with_its_own_order_comes_out_in_that_of_the_samples(tmp_path):
    order = np.random.default_rng(0).permutation(N)
    plain = {"ids": np.array(IDS)[order], **{layer: array[order] for layer, array in NETWORKS["plain"].items()}}
    assert_is_given(stored(tmp_path / "x", {**NETWORKS, "plain": plain}))


def test_a_frame_is_a_network_with_a_column_a_layer(tmp_path):
    frame = pl.DataFrame({"ids": IDS, **{layer: pl.Series(list(a)) for layer, a in NETWORKS["plain"].items()}})
    assert_is_given(stored(tmp_path / "x", {**NETWORKS, "plain": frame.reverse()}))


def test_a_network_s_key_depends_on_its_own_vectors_and_its_samples_alone(tmp_path):
    def keys(name, networks=NETWORKS, **more):
        store = stored(tmp_path / name, networks, **more)
        return {network.record.name: store.network_key(network) for network in store.networks}

    first = keys("first")
    changed = keys("changed", {**NETWORKS, "plain": {**NETWORKS["plain"], "block1": draw(9, 5)}})
    assert {name for name in first if first[name] != changed[name]} == {"plain"}
    turned = keys("turned", dict(reversed(NETWORKS.items())))
    assert turned == first
    assert set(keys("renamed", class_names=["a", "b", "c"]).values()).isdisjoint(first.values())


def test_a_byte_that_changed_is_noticed(tmp_path):
    store = stored(tmp_path / "x")
    file = store.folder / "001" / "000.npy"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    store.vectors(store.networks[0], 0)
    with pytest.raises(DataError, match=r"000\.npy: the file is not what was written"):
        store.vectors(store.networks[1], 0)


def test_a_folder_is_replaced_whole_or_stays_as_it_was(tmp_path):
    stored(tmp_path / "x")
    broken = {**NETWORKS, "plain": {"block1": draw(3, 5)[:-1]}}
    with pytest.raises(DataError, match="23 rows, and 24 ids"):
        stored(tmp_path / "x", broken)
    assert_is_given(open_vectors(tmp_path / "x.vectors"))
    assert [path.name for path in tmp_path.iterdir()] == ["x.vectors"]


@pytest.mark.parametrize(
    "head", ["", "[]", '{"format": "kdpipe-vectors", "version": 2}', '{"format": "kdpipe-vectors", "version": 1}']
)
def test_a_damaged_or_other_head_is_refused(tmp_path, head):
    (tmp_path / "vectors.json").write_text(head)
    with pytest.raises(DataError, match=r"vectors\.json: .*import"):
        open_vectors(tmp_path)


# ------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (["a", "b", "a", "b"], "2 ids stand there more than once .'a', 'b'"),
        ([1.0, 2.0], "one text or whole number"),
        ([["a"], ["b"]], "one text or whole number"),
        (["a", ""], "1 ids are empty"),
        (["a", None], "objects .NoneType, str"),
        ([], "one text or whole number"),
    ],
)  # fmt: skip
def test_ids_are_one_text_or_number_a_sample(ids, said):
    with pytest.raises(DataError, match=said):
        sample_ids(ids, "ids")


def test_an_id_is_the_same_as_text_and_as_number():
    assert sample_ids([12, 7], "x") == sample_ids(["12", "7"], "x") == sample_ids(np.array([b"12", b"7"]), "x")
    assert sample_ids(["012"], "x") != sample_ids([12], "x")


def test_other_samples_are_counted_and_named():
    with pytest.raises(DataError, match=r"2 are missing .'a', 'b'. and 4 are not among them .'w', 'x', 'y', …"):
        rows_in_order(["c", "w", "x", "y", "z"], ["a", "b", "c"], "here", "there")


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((N, 2, 3)), r"of tokens \(N, T, d\) take one, or their mean"),
        (np.zeros(N), "a layer is"),
        (np.zeros((N, 0)), "a layer is"),
        (np.zeros((3, 4)), "3 rows, and 24 ids"),
        (np.full((N, 2), "a"), "must hold numbers"),
        (np.array([[np.nan, 1], *[[0, 0]] * (N - 1)]), "1 of 24 rows hold NaN or infinity"),
        (np.full((N, 2), 1e300), "24 of 24 rows hold NaN or infinity"),
        ([[1.0], [1.0, 2.0]], "different lengths"),
        (pa.array([[1.0], None]), "1 of 2 rows are empty"),
        (pa.array([[1.0], [1.0, 2.0]]), "different lengths"),
        (pa.array([[1.0, None], [1.0, 2.0]]), "1 of its values are empty"),
        (np.array([object()] * N), "objects"),
    ],
)  # fmt: skip
def test_what_is_no_layer_is_refused(array, said):
    with pytest.raises(DataError, match=said):
        vectors(array, N, "x")


@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 4))
def test_lists_of_arrow_are_read_from_slices_and_chunks(chunks, dims, cut):
    rows = np.random.default_rng(dims).normal(size=(10 * chunks, dims)).astype(np.float32)
    column = pa.chunked_array([pa.array(list(part)) for part in np.split(rows, chunks)]).slice(cut)
    assert np.array_equal(as_array(column, "x"), rows[cut:])
    fixed = pa.FixedSizeListArray.from_arrays(rows.ravel(), dims).slice(cut)
    assert np.array_equal(as_array(fixed, "x"), rows[cut:])


@pytest.mark.parametrize(
    ("labels", "names", "said"),
    [
        ([1, 1, 1], None, "all samples have the label 1"),
        ([0.0, 1.0], None, "one text or whole number"),
        ([0, 3], ["a", "b"], "labels run from 0 to 3, and the 2 classes"),
        ([-1, 1], ["a", "b"], "labels run from -1"),
        (["a", "c"], ["a", "b"], "'c' stands among the labels, not in class_names"),
        ([0, 1], ["a", "a"], "'a' stands there twice"),
    ],
)  # fmt: skip
def test_labels_fit_the_names_of_classes(labels, names, said):
    with pytest.raises(DataError, match=said):
        class_labels(labels, names, "labels")


def test_labels_are_numbered_by_the_names_that_are_given_or_by_their_order():
    assert class_labels(["b", "a", "b"], None, "x")[0].tolist() == [1, 0, 1]
    assert class_labels(["b", "a", "b"], ["b", "a"], "x")[0].tolist() == [0, 1, 0]
    assert class_labels([10, 2, 10], None, "x")[1] == ["2", "10"]
    assert class_labels([True, False], None, "x")[1] == ["False", "True"]


def test_text_labels_beside_logits_need_the_columns_names(tmp_path):
    labels = [("ant", "bee", "cow")[label] for label in LABELS]
    with pytest.raises(DataError, match="give class_names in the columns' order"):
        stored(tmp_path / "x", labels=labels)
    store = stored(tmp_path / "x", labels=labels, class_names=["cow", "bee", "ant"])
    assert store.samples.labels.tolist() == [2 - label for label in LABELS]


def test_logits_have_a_column_a_class(tmp_path):
    with pytest.raises(DataError, match=r"logits are .samples, 4., one column a class"):
        stored(tmp_path / "x", class_names=list("abcd"))
    wider = {**NETWORKS, "teacher": {**NETWORKS["teacher"], "logits": draw(2, 5)}}
    assert stored(tmp_path / "x", wider).samples.class_names == list("01234")


def test_images_are_pixels_and_no_address_is_followed():
    grey = np.zeros((N, 5, 5), np.uint8)
    assert pictures(grey, N, "x").shape == (N, 1, 5, 5)
    for refused, said in (
        (["https://example.org/a.png"] * N, "these are texts, such as addresses"),
        (np.zeros((N, 5, 5, 3)), "images are uint8"),
        (np.zeros((N, 3, 5, 3), np.uint8), "either the second or the fourth"),
        (np.zeros((N, 5, 5, 2), np.uint8), "none of them is"),
    ):
        with pytest.raises(DataError, match=said):
            pictures(refused, N, "x")


def test_two_networks_of_one_place_are_refused(tmp_path):
    twins = {"teacher": NETWORKS["teacher"], "plain-a": NETWORKS["plain"], "plain-b": NETWORKS["plain"]}
    with pytest.raises(DataError, match=r"'plain-a' and 'plain-b' are both plain, student 'student', .*, seed 0"):
        stored(tmp_path / "x", twins)
    store = stored(tmp_path / "x", twins, about={"plain-b": {"seed": 1}})
    assert [network.record.seed for network in store.networks] == [0, 0, 1]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("teacher", ("teacher", "teacher", "teacher", 0, None)),
        ("runs/plain_seed12", ("plain", "student", "plain", 12, None)),
        ("KD.distilled-s1-step200", ("distilled", "student", "kd", 1, 200)),
        ("distilled", ("distilled", "student", "distillation", 0, None)),
    ],
)  # fmt: skip
def test_a_name_says_role_seed_step_and_method(name, expected):
    record = record_of(name, {})
    assert (record.role, record.student, record.method, record.seed, record.step) == expected


@pytest.mark.parametrize(
    ("name", "said"), [("small", "Its name says none"), ("plain-teacher", "Its name says plain and teacher")]
)
def test_a_role_that_no_name_tells_is_asked(name, said):
    with pytest.raises(DataError, match=f"which role does it have .*{said}"):
        record_of(name, {})
    assert record_of(name, {"role": "plain"}).role == "plain"


@pytest.mark.parametrize(
    ("field", "value"),
    [("role", "techer"), ("seed", -1), ("seed", True), ("step", 1.5), ("label_fraction", 0), ("method", "a b")],
)
def test_a_record_s_fields_are_checked(field, value):
    with pytest.raises(DataError, match="network 'x'"):
        NetworkRecord(**{"name": "x", "role": "plain", field: value})


# ------------------------------------------------------------------------------- files


def write_npz(folder):
    flat = {f"{name}/{layer}": array for name, layers in NETWORKS.items() for layer, array in layers.items()}
    np.savez(folder / "all.npz", ids=np.array(IDS), labels=LABELS, **flat)


def write_npz_each(folder):
    """Every network in an order of its own."""
    for seed, (name, layers) in enumerate(NETWORKS.items()):
        order = np.random.default_rng(seed).permutation(N)
        arrays = {layer: array[order] for layer, array in layers.items()}
        np.savez(folder / f"{name}.npz", ids=np.array(IDS)[order], labels=np.array(LABELS)[order], **arrays)


def write_npy(folder):
    np.save(folder / "ids.npy", np.array(IDS))
    np.save(folder / "labels.npy", LABELS)
    for name, layers in NETWORKS.items():
        for layer, array in layers.items():
            np.save(folder / f"{name}.{layer}.npy", array)


def write_safetensors(folder):
    flat = {f"{name}/{layer}": array for name, layers in NETWORKS.items() for layer, array in layers.items()}
    save_file(flat, folder / "all.safetensors")
    np.savez(folder / "samples.npz", ids=np.array(IDS), labels=LABELS)
    (folder / "ids.txt").write_text("\n".join(IDS))


def flat_arrays(layers):
    return {layer: array for layer, array in layers.items() if array.ndim == 2}


def write_wide(folder):
    for name, layers in NETWORKS.items():
        columns = {layer: list(array) for layer, array in flat_arrays(layers).items()}
        table = pa.table({"sample_id": IDS, "label": LABELS, **columns})
        feather.write_feather(table, folder / f"{name}.arrow", compression="zstd")


def write_long(folder):
    rows = [
        pa.table(
            {
                "network": [name] * N, "layer": [layer] * N, "id": IDS, "label": LABELS, "vector": list(array),
                "logits": pa.array(list(layers["logits"]) if layer == "block10" and "logits" in layers else [None] * N,
                                   pa.list_(pa.float32())),
            }
        )
        for name, layers in NETWORKS.items()
        for layer, array in flat_arrays(layers).items()
        if layer != "logits"
    ]  # fmt: skip
    table = pa.concat_tables(rows)
    order = np.random.default_rng(0).permutation(N)  # within each block, as a join would leave them
    taken = np.concatenate([start + order for start in range(0, table.num_rows, N)])
    pq.write_table(table.take(taken), folder / "long.parquet")


@pytest.mark.parametrize("write", [write_npz, write_npz_each, write_npy, write_safetensors, write_wide, write_long])
def test_every_format_gives_the_same_arrays(tmp_path, write):
    (tmp_path / "in").mkdir()
    write(tmp_path / "in")
    ids = tmp_path / "in" / "ids.txt"
    samples, networks = gather([tmp_path / "in"], row_ids=RowIds(ids if ids.is_file() else None))
    tables = write in (write_wide, write_long)  # of vectors alone
    given = {name: flat_arrays(layers) for name, layers in NETWORKS.items()} if tables else NETWORKS
    assert_is_given(write_store(tmp_path / "out", samples, networks), given)


def test_rows_without_ids_are_refused_unless_their_numbers_are_said_to_be_ids(tmp_path):
    for name, layers in NETWORKS.items():
        np.savez(tmp_path / f"{name}.npz", labels=LABELS, **layers)
    with pytest.raises(DataError, match=r"teacher\.npz: which sample is each row of\?"):
        gather([tmp_path / "teacher.npz"])
    samples, networks = gather([tmp_path], row_ids=RowIds(are_numbers=True))
    assert samples.ids == [str(row) for row in range(N)] and len(networks) == 3


def test_files_that_disagree_on_a_label_are_refused(tmp_path):
    write_npz(tmp_path)
    other = [*LABELS[:-1], 7]
    pl.DataFrame({"id": IDS, "label": other}).write_csv(tmp_path / "samples.csv")
    with pytest.raises(DataError, match=r"1 samples have another label than in .*samples\.csv.*\('s23'\)"):
        gather([tmp_path / "all.npz"], samples=tmp_path / "samples.csv")


def test_samples_without_a_label_are_counted(tmp_path):
    save_file({"teacher/a": draw(0, 3)}, tmp_path / "t.safetensors")
    (tmp_path / "ids.txt").write_text("\n".join(IDS))
    pl.DataFrame({"id": IDS[3:], "label": LABELS[3:]}).write_csv(tmp_path / "samples.csv")
    arguments = {"row_ids": RowIds(tmp_path / "ids.txt")}
    with pytest.raises(DataError, match="there are no labels"):
        gather([tmp_path / "t.safetensors"], **arguments)
    with pytest.raises(DataError, match=r"3 of 24 samples have no label .'s00', 's01', 's02'"):
        gather([tmp_path / "t.safetensors"], samples=tmp_path / "samples.csv", **arguments)


def test_a_pickle_is_never_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("code of the file was run",))

    np.save(tmp_path / "teacher.layer.npy", np.array([Bomb()]), allow_pickle=True)
    np.save(tmp_path / "ids.npy", np.array(["a", "b"]))
    np.save(tmp_path / "labels.npy", np.array([0, 1]))
    with pytest.raises(DataError, match="pickled objects, which are not opened"):
        write_store(tmp_path / "x", *gather([tmp_path / "teacher.layer.npy"], said={}))
    (tmp_path / "teacher.pt").write_bytes(b"")
    with pytest.raises(DataError, match="its objects would have to be executed"):
        gather([tmp_path / "teacher.pt"])


@pytest.mark.parametrize("write", [write_npz, write_npz_each, write_npy, write_safetensors, write_wide, write_long])
@pytest.mark.parametrize("left", [0.0, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_one_sentence(tmp_path, write, left):
    (tmp_path / "in").mkdir()
    write(tmp_path / "in")
    for file in (tmp_path / "in").iterdir():
        if file.name not in ("ids.npy", "labels.npy", "ids.txt"):
            data = file.read_bytes()
            file.write_bytes(data[: int(left * len(data))])
    ids = tmp_path / "in" / "ids.txt"
    with pytest.raises(DataError, match="damaged"):
        write_store(tmp_path / "out", *gather([tmp_path / "in"], row_ids=RowIds(ids if ids.is_file() else None)))
    assert not (tmp_path / "out").exists()


def test_images_in_a_table_are_bytes_and_no_addresses(tmp_path):
    def png(shade: int) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (10 + shade, 12), (shade, 0, 0)).save(buffer, "PNG")
        return buffer.getvalue()

    write_npz(tmp_path)
    encoded = pa.array([{"bytes": png(i), "path": None} for i in range(N)])
    pq.write_table(pa.table({"id": IDS, "image": encoded}).take(list(range(N))[::-1]), tmp_path / "samples.parquet")
    samples, _ = gather([tmp_path / "all.npz"], samples=tmp_path / "samples.parquet", image_size=16)
    assert samples.images.shape == (N, 3, 16, 16)
    assert samples.images[:, 0, 8, 8].tolist() == list(range(N))
    pq.write_table(pa.table({"id": IDS, "image": ["https://example.org/a.png"] * N}), tmp_path / "urls.parquet")
    with pytest.raises(DataError, match="these are texts, such as addresses or paths, which are not followed"):
        gather([tmp_path / "all.npz"], samples=tmp_path / "urls.parquet")


def test_folders_of_vectors_are_joined_by_ids_and_names_of_classes(tmp_path):
    teacher = {"teacher": NETWORKS["teacher"]}
    students = {name: {k: v[::-1] for k, v in NETWORKS[name].items()} for name in ("plain", "kd-distilled-s1")}
    stored(tmp_path / "a", teacher, class_names=["x", "y", "z"])
    kdpipe.write_vectors(
        tmp_path / "b",
        students,
        labels=[2 - label for label in LABELS[::-1]],
        ids=IDS[::-1],
        class_names=["z", "y", "x"],
    )
    with pytest.raises(DataError, match="its class_names are others"):
        gather([tmp_path / "a.vectors", tmp_path / "b.vectors"])
    kdpipe.write_vectors(tmp_path / "b", students, labels=LABELS[::-1], ids=IDS[::-1], class_names=["x", "y", "z"])
    both = gather([tmp_path / "a.vectors", tmp_path / "b.vectors"])
    assert_is_given(write_store(tmp_path / "both", *both))


# ------------------------------------------------------------------------------- the command line and the sheet


SHEET = """
samples = "samples.csv"
class_names = ["ant", "bee", "cow"]

[[networks]]
name = "big"
role = "teacher"
file = "big.npz"
layers = ["block10", "block1"]
logits = "scores"

[[networks]]
name = "small"
role = "plain"
seed = 3
layers = ["small.block1.npy", "small.block10.npy"]
"""


def test_a_sheet_says_what_is_what(tmp_path):
    teacher = dict(NETWORKS["teacher"])
    np.savez(tmp_path / "big.npz", ids=np.array(IDS), scores=teacher.pop("logits"), **teacher)
    np.save(tmp_path / "ids.npy", np.array(IDS))
    for layer, array in NETWORKS["plain"].items():
        np.save(tmp_path / f"small.{layer}.npy", array)
    names = [("ant", "bee", "cow")[label] for label in LABELS]
    pl.DataFrame({"id": IDS, "label": names, "text": IDS}).write_csv(tmp_path / "samples.csv")
    (tmp_path / "sheet.toml").write_text(SHEET)
    sheet = read_sheet(tmp_path / "sheet.toml")
    samples, networks = gather(
        [], sources=sources_of(sheet, tmp_path), samples=tmp_path / "samples.csv", class_names=sheet.class_names
    )
    store = write_store(tmp_path / "out", samples, networks)
    big, small = store.networks
    assert big.layers == ("block10", "block1") and big.has_logits and big.shapes == ((6,), (4, 3, 3))
    assert small.layers == ("small.block1", "small.block10") and small.record.seed == 3
    assert np.array_equal(store.vectors(small, 1), NETWORKS["plain"]["block10"])
    (tmp_path / "sheet.toml").write_text(SHEET.replace("seed = 3", "sed = 3"))
    with pytest.raises(StudyError, match=r"sheet\.toml, line 15: networks\.1\.sed: .*did you mean 'seed'"):
        read_sheet(tmp_path / "sheet.toml")
