"""A whole study through the real command line: complete, repeatable, resumable, and honest about failures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import CommandLine

import kdpipe
from kdpipe.artifacts.schema import TABLES, disagreement
from kdpipe.artifacts.store import load_study
from kdpipe.data.dataset import Dataset
from kdpipe.training.evaluation import predict

BASELINES = ["small-untrained", "pixels"]
NAMES = [f"small-{method}-l0.2-s{seed}" for seed in (0, 1) for method in ("plain", "kd", "fitnet", "second-seed")]


@pytest.fixture(scope="module")
def study(finished):
    return load_study(finished.artifacts / "tiny")


@pytest.fixture
def copied(finished, tmp_path):
    """A finished run that a test may change."""
    line = CommandLine(tmp_path)
    for name in ("cache", "artifacts", "weights"):
        shutil.copytree(finished.root / name, line.root / name)
    return line


def test_every_table_follows_its_schema(study):
    for name, table in TABLES.items():
        frame = study.frame(name)
        assert disagreement(table, frame.schema) is None
        # A last map of one position shows no place; two layers have no area before the last; one plain seed has maps.
        assert frame.height > 0 or name in ("explanations", "specification", "seed_credit"), name
        assert not frame.select(table.key).is_duplicated().any()


def test_all_networks_are_there_with_their_roles(study):
    assert study.networks["network_id"].to_list() == ["teacher", *NAMES, *BASELINES]
    assert study.networks["status"].unique().to_list() == ["trained"]
    roles = dict(study.networks.select("network_id", "role").iter_rows())
    assert [roles[name] for name in ("teacher", *NAMES[:4])] == [
        "teacher",
        "plain",
        "distilled",
        "distilled",
        "control",
    ]


def test_tables_tell_one_story(study):
    """Keys of one table are known to the others, and derived columns follow from their sources."""
    ids = set(study.networks["network_id"])
    for name in ("layers", "layer_measures", "sample_measures", "factors"):
        assert set(study.frame(name)["network_id"]) == ids, name
    assert set(study.predictions["network_id"]) == set(study.network_measures["network_id"]) == ids - {"pixels"}
    assert set(study.history["network_id"]) == ids - {"pixels"}
    mapped = set(study.networks.filter("mapped")["network_id"])
    assert set(study.maps["network_id"]) == set(study.neighbours["network_id"]) == mapped
    joined = study.predictions.join(study.samples.select("sample_id", "label"), "sample_id")
    assert (joined["correct"] == (joined["predicted"] == joined["label"])).all()
    assert (joined["predicted"] == joined["logits"].list.arg_max()).all()
    ids_of_neighbours = study.neighbours.explode("ids")
    assert (ids_of_neighbours["ids"] != ids_of_neighbours["sample_id"]).all()
    assert study.samples.height == 60 and study.samples["label"].value_counts()["count"].unique().to_list() == [6]
    assert set(study.layer_measures["measure"]) <= set(study.measures["measure"])


def test_what_nobody_trained_stands_beside_the_trained(study):
    """The untrained student is plain of the first seed before its first step; raw pixels are one layer."""
    untrained, pixels = (study.networks.filter(network_id=name).row(0, named=True) for name in BASELINES)
    plain = study.networks.filter(network_id=NAMES[0]).row(0, named=True)
    assert untrained["init_seed"] == plain["init_seed"] and untrained["checkpoint_step"] == 0
    assert untrained["test_accuracy"] != plain["test_accuracy"]
    assert pixels["params"] == pixels["macs"] == 0 and pixels["test_accuracy"] is None
    assert untrained["labelled_images"] == pixels["labelled_images"] == 0
    assert study.frame("layers", network_id="pixels")["layer"].unique().to_list() == ["pixels"]
    assert not set(study.similarity["network_id"]) & {"pixels"}


def test_every_number_has_its_chance_beside_it(study):
    """With labels shuffled, no layer of any network tells classes apart."""
    names = ["silhouette", "knn_accuracy", "linear_probe", "fisher"]
    rows = study.layer_measures.filter(pl.col("measure").is_in(names))
    assert rows["chance"].null_count() == 0
    trained = rows.filter(pl.col("network_id").is_in(["teacher", *NAMES]) & (pl.col("view") == "projection"))
    assert (trained["value"] > trained["chance"]).all()
    assert rows.filter(measure="linear_probe")["chance"].mean() < 0.3


def test_neighbours_are_credited_as_they_stand_in_the_table(study):
    """kept + gained are the teacher's among the network's own; kept + lost the teacher's among plain's."""
    name, plain = NAMES[1], NAMES[0]
    credit = study.frame("neighbour_credit", network_id=name, layer="layer3", view="projection").sort("sample_id")
    assert credit["plain_id"].unique().to_list() == [plain]
    own, companion, teacher = (
        study.frame("neighbours", network_id=who, layer="layer3", view="projection").sort("sample_id")["ids"].to_list()
        for who in (name, plain, "teacher")
    )
    for kinds, mine in ((("kept", "gained"), own), (("kept", "lost"), companion)):
        columns = [f"{kind}_{of}" for kind in kinds for of in ("same", "other")]
        counted = credit.select(pl.sum_horizontal(columns)).to_series()
        assert counted.to_list() == [len(set(a) & set(b)) for a, b in zip(mine, teacher, strict=True)]


def test_flips_add_up_to_the_difference_in_accuracy(study):
    right = dict(study.predictions.group_by("network_id").agg(pl.col("correct").mean()).rows())
    table = study.answers.pivot(on="measure", index=["network_id", "other_id"], values="value")
    assert set(table["other_id"]) == {"teacher", NAMES[0], NAMES[4]}
    for row in table.iter_rows(named=True):
        gained = right[row["network_id"]] - right[row["other_id"]]
        assert row["fixed"] - row["broken"] == pytest.approx(gained, abs=1e-6)
        assert row["fixed"] + row["broken"] + row["inherited"] + row["kept"] == pytest.approx(1, abs=1e-6)
        assert row["churn"] >= row["fixed"] + row["broken"] - 1e-6


def test_the_ledger_is_that_of_the_published_answers(study):
    """Counts and outcomes again from predictions.parquet; the second seed, who has no teacher, beside the study's."""
    students = [name for name in NAMES if "plain" not in name]
    assert study.flips.filter(pl.col("label").is_null())["network_id"].to_list() == students
    labels = dict(study.samples.select("sample_id", "label").rows())
    for name in students:
        images = study.frame("sample_flips", network_id=name).sort("sample_id")
        plain, teacher = (images[column].unique().item() for column in ("plain_id", "teacher_id"))
        assert (plain, teacher) == (f"small-plain-l0.2-{name[-2:]}", "teacher")
        theirs, its, own = (
            dict(study.frame("predictions", network_id=who).select("sample_id", "predicted").rows())
            for who in (teacher, plain, name)
        )
        words = {(True, True): "kept", (False, True): "fixed", (True, False): "broken", (False, False): "wrong"}
        assert images["outcome"].to_list() == [words[its[i] == labels[i], own[i] == labels[i]] for i in range(60)]
        assert images["teacher_correct"].to_list() == [theirs[i] == labels[i] for i in range(60)]
        assert images["inherited"].to_list() == [
            own[i] == theirs[i] != labels[i] and its[i] != own[i] for i in range(60)
        ]
        together = images.with_columns(label=pl.col("sample_id").replace_strict(labels))
        for row in study.frame("flips", network_id=name).iter_rows(named=True):
            of = together if row["label"] is None else together.filter(label=row["label"])
            assert row["images"] == of.height and row["inherited"] == of["inherited"].sum()
            assert [row[word] for word in ("fixed", "broken")] == [
                of.filter(outcome=w).height for w in ("fixed", "broken")
            ]
            assert row["wrong_right_wrong"] == of.filter(outcome="broken", teacher_correct=False).height


def test_specification_variants_are_those_of_the_published_neighbours(study):
    """Three neighbours, as the study says, vote; a class's mean over images stands in no other column."""
    assert study.sample_measures.null_count().sum_horizontal().item() == 0
    labels = study.samples.sort("sample_id")["label"].to_numpy()
    place = {"network_id": NAMES[1], "layer": "layer3", "view": "projection"}
    ids = np.array(study.frame("neighbours", **place).sort("sample_id")["ids"].to_list())[:, :3]
    votes = [np.bincount(labels[row], minlength=10).argmax() for row in ids]
    found = study.frame("sample_measures", **place).sort("sample_id")
    assert found["knn_correct_second"].to_list() == (votes == labels).tolist()


def test_each_layer_of_each_network_is_held_against_the_teachers_class_similarity(study):
    rows = study.layer_measures.filter(measure="dark_knowledge")
    places = ["network_id", "layer", "view"]
    assert rows.select(places).sort(places).equals(study.layers.select(places).sort(places))
    defined = rows.drop_nulls("value")
    assert (defined["chance"] == 0).all() and defined.height >= rows.height - 2  # raw grey pixels may have one column
    assert (defined["low"] <= defined["value"]).all() and (defined["value"] <= defined["high"]).all()


def test_an_image_settles_where_its_votes_do(study):
    """From its prediction depth on, every layer votes for the network's answer; the layer before does not."""
    for name in ("teacher", NAMES[0]):
        votes = study.frame("sample_measures", network_id=name, view="gap").join(
            study.frame("layers", network_id=name, view="gap").select("layer", "order"), "layer"
        )
        answers = study.frame("predictions", network_id=name).select("sample_id", "predicted", "prediction_depth")
        together = votes.join(answers, "sample_id").with_columns(agrees=pl.col("knn_vote") == pl.col("predicted"))
        never = pl.col("prediction_depth").is_null()
        after = together.filter(~never & (pl.col("order") >= pl.col("prediction_depth")))
        before = together.filter(~never & (pl.col("order") == pl.col("prediction_depth") - 1))
        assert after["agrees"].all() and not before["agrees"].any()
        last = together.filter(never & (pl.col("order") == pl.col("order").max()))
        assert not last["agrees"].any()


def test_known_factors_leave_nothing_linear_behind(study):
    rows = study.factors.filter(pl.col("view") == "gap")
    assert rows.filter(network_id="pixels", factor="brightness")["explained"].item() > 0.99
    assert rows["residual"].max() < 0.05
    of_all = rows.filter(factor="all").select("knn_whole", "knn_explained", "knn_residual", "share_of_layer")
    assert of_all.null_count().sum_horizontal()[0] == 0


def test_maps_are_drawn_from_a_shared_start_and_alone_and_the_headline_with_other_seeds(study):
    drawn = study.maps.filter(projector="tsne").select("network_id", "layout", "perplexity", "map_seed").unique()
    assert set(drawn["layout"]) == {"consensus", "independent"}
    assert set(drawn.filter(network_id="teacher")["map_seed"]) == {0, 1, 2}
    assert set(drawn.filter(network_id=NAMES[2])["map_seed"]) == {0}
    drift = study.map_measures.filter(measure="seed_drift")
    assert set(drift["network_id"]) == {"teacher", *NAMES[:2]}


def test_plain_and_distilled_of_a_seed_start_alike_and_the_second_seed_does_not(study):
    seeds = study.networks.filter((pl.col("role") != "untrained"), seed=0, student="small")
    starts = dict(seeds.select("method", "init_seed").iter_rows())
    assert starts["plain"] == starts["kd"] == starts["fitnet"] != starts["second-seed"]
    assert seeds["data_seed"].n_unique() == seeds["label_seed"].n_unique() == seeds["labelled_images"].n_unique() == 1


def test_weights_load_in_two_lines_and_give_the_published_predictions(finished, study):
    from kdpipe.models.saved import read_network

    probe = next((finished.cache / "stages" / "probe").glob("[!.]*"))
    images = np.load(probe / "images.npy")
    for name in ("teacher", *NAMES[:4]):
        network = read_network(finished.weights / "tiny" / f"{name}.safetensors")
        rows = study.frame("predictions", network_id=name).sort("sample_id")
        np.testing.assert_allclose(predict(network, images).numpy(), np.array(rows["logits"].to_list()), atol=1e-4)


def test_published_accuracy_is_that_of_the_published_weights_on_the_whole_test_set(finished, study):
    from kdpipe.models.saved import read_network

    data = Dataset.read(next((finished.cache / "stages" / "data").glob("[!.]*")))
    for name, published in study.networks.select("network_id", "test_accuracy").head(3).iter_rows():
        network = read_network(finished.weights / "tiny" / f"{name}.safetensors")
        right = predict(network, data.test.images).argmax(1).numpy() == data.test.labels
        assert published == pytest.approx(right.mean(), abs=1e-6)


def test_a_second_run_computes_nothing_and_writes_the_same_bytes(finished):
    again = finished()
    assert again.code == 0
    assert "0 stages run" in again.out
    assert finished.files() == finished.first


def test_a_new_method_trains_nobody_again(finished, tmp_path):
    before = finished.stages("student"), finished.stages("teacher")
    more = 'methods=["plain","kd","fitnet","second-seed",{method="kd",label="kd-hot",parameters={temperature=8.0}}]'
    done = finished(more, "--only", "student")
    assert done.code == 0, done.err
    assert before[0] < finished.stages("student")
    assert len(finished.stages("student") - before[0]) == 2
    assert finished.stages("teacher") == before[1]
    assert finished.files() == finished.first  # --only writes no artifacts


def test_plan_and_validate_write_nothing(command_line):
    before = command_line.everything()
    planned = command_line.here(command="plan")
    assert planned.code == 0 and "11 networks" in planned.out
    checked = command_line.here(command="validate")
    assert checked.code == 0 and "layer3" in checked.out
    assert command_line.everything() == before
    assert [path.name for path in command_line.root.iterdir()] == ["tiny.toml"]


@pytest.mark.parametrize(
    ("change", "said", "in_process"),
    [
        ("training.stpes=5", "'steps'", False),
        ('teacher.arch="resnet81"', "resnet18", True),
        ('methods=["plain", "kdd"]', "'kd'", True),
        ("label_fractions=[0.001]", "label", True),
        ("measures.k=60", "60 neighbours", True),
        ("nonsense", "key=value", True),
    ],
)
def test_a_wrong_study_is_one_line_and_leaves_nothing(command_line, change, said, in_process):
    wrong = command_line.here(change) if in_process else command_line(change)
    assert wrong.code == 2
    assert wrong.out == ""
    assert len(wrong.err.strip().splitlines()) == 1
    assert said in wrong.err
    assert [path.name for path in command_line.root.iterdir()] == ["tiny.toml"]


def test_an_unknown_seed_is_refused_before_anything_is_written(command_line):
    wrong = command_line.here("--seed", "9")
    assert wrong.code == 2 and "seeds 0, 1" in wrong.err
    assert [path.name for path in command_line.root.iterdir()] == ["tiny.toml"]


def test_one_seed_of_a_finished_study_leaves_its_artifacts_whole(copied):
    """Artifacts are of the whole study or not written at all."""
    before = copied.files()
    done = copied("--seed", "0")
    assert done.code == 0
    after = copied.files()
    assert after["networks.parquet"] == before["networks.parquet"]
    assert len(list((copied.weights / "tiny").iterdir())) == 10


def test_one_seed_of_a_new_study_trains_that_seed_and_writes_no_artifacts(command_line):
    done = command_line("--seed", "1", "training.steps=2", "teacher.training.steps=2", "--only", "student")
    assert done.code == 0
    assert len(command_line.stages("student")) == 4
    assert not command_line.artifacts.exists()
    assert "4 students of the study are still to be trained" in done.out


def modified(line: CommandLine, kind: str) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in (line.cache / "stages" / kind).glob("[!.]*")}


def test_force_makes_a_kind_and_what_rests_on_it_anew(copied):
    kinds = ("probe", "teacher", "student", "embedding", "neighbours", "measure", "map")
    before = {kind: modified(copied, kind) for kind in kinds}
    done = copied("--force", "teacher", "methods=['plain', 'kd']", "seeds=[0]", 'maps.projectors=["pca"]')
    assert done.code == 0
    after = {kind: modified(copied, kind) for kind in before}
    changed = {kind: {key for key in before[kind] if before[kind][key] != after[kind][key]} for kind in before}
    assert len(changed["teacher"]) == 1
    assert len(changed["student"]) == 1  # kd; plain does not rest on the teacher
    assert not changed["probe"]
    assert len(changed["embedding"]) == len(changed["neighbours"]) == 2  # of the teacher and of kd
    study = load_study(copied.artifacts / "tiny")
    of_layers = study.measures.filter(of="layer").height
    # All of the two, and of everybody what is held against the teacher's answers.
    assert len(changed["measure"]) == 2 * of_layers + study.networks.height - 2


def test_a_diverging_method_is_named_and_the_others_are_complete(copied):
    """A learner with a hopeless weight loses only itself."""
    hopeless = '{method="kd",label="hopeless",parameters={kd_weight=1e30}}'
    done = copied(f'methods=["plain","kd","fitnet","second-seed",{hopeless}]', "seeds=[0]")
    assert "small-hopeless-l0.2-s0 diverged at step" in " ".join(done.out.split())
    study = load_study(copied.artifacts / "tiny")
    lost = study.networks.filter(status="diverged")
    assert lost["network_id"].to_list() == ["small-hopeless-l0.2-s0"]
    assert 1 <= lost["diverged_step"].item() <= 30
    assert lost["test_accuracy"].item() is None
    assert set(study.layers["network_id"]) == {"teacher", *NAMES[:4], *BASELINES}


def test_study_json_says_nothing_of_where_and_when(finished):
    text = finished.first["study.json"].decode()
    record = json.loads(text)
    assert str(finished.root) not in text
    assert "seconds" not in text
    assert record["missing"] == {}
    assert record["data"]["sha256"]
    assert record["versions"]["kdpipe"] == kdpipe.__version__ and "commit" in record
    assert Path(record["study"]["data"].get("path") or ".") == Path(".")


# ------------------------------------------------------------- one bad network among good companions


def layers_of(tasks, context):
    """An embedding of one layer of noise, or of nothing but zeros."""
    from kdpipe.pipeline.stages.embeddings import embedding_file
    from kdpipe.representation.embed import write_embedding

    for task in tasks:
        scale, sample_id = task.stage.params["scale"], np.arange(60, dtype=np.int32)
        vectors = scale * np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
        write_embedding(embedding_file(task.folder, 0, "gap"), vectors, sample_id)
        task.finish()


def test_a_layer_without_a_map_does_not_cost_the_others_theirs(tmp_path):
    from kdpipe.cli.progress import Silent
    from kdpipe.engine.cache import Cache
    from kdpipe.engine.run import run
    from kdpipe.engine.stage import Context, batch_stage
    from kdpipe.pipeline.stages.maps import make_maps

    params = {"projector": "pca", "options": {}, "order": 0, "view": "gap", "neighbours": 15}
    embedding = batch_stage("embedding")(layers_of)
    embeddings = [embedding.plan(f"e{scale}", {"scale": scale}) for scale in (0.0, 1.0)]
    maps = [make_maps.plan(f"map of {e.name}", params, {"embedding": e}, batch="pca") for e in embeddings]
    outcome = run(maps, Cache(tmp_path / "cache"), Context("cpu", tmp_path, Silent(), tmp_path / "scratch", {}))
    assert set(outcome.failed) == {"map of e0.0"}
    assert "every image has the same vector" in outcome.failed["map of e0.0"]


def test_a_network_beyond_all_numbers_does_not_cost_the_others_their_embeddings(tmp_path):
    import torch

    from kdpipe.cli.progress import Silent
    from kdpipe.engine.cache import Cache
    from kdpipe.engine.run import run
    from kdpipe.engine.stage import Context, batch_stage
    from kdpipe.models.build import build
    from kdpipe.models.saved import SavedArchitecture, write_network
    from kdpipe.pipeline.stages.embeddings import make_embeddings

    arguments = {"channels": [8, 8, 8, 8], "layers": [1, 1, 1, 1]}
    spec = SavedArchitecture("resnet18", arguments, "small", 1, "stages")

    @batch_stage("student")
    def networks(tasks, context):
        for task in tasks:
            made = build(spec, image_shape=(1, 8, 8), classes=10, mean=[0.5], std=[0.5], seed=0)
            with torch.no_grad():
                made.model.layer1[0].bn2.bias.fill_(task.stage.params["bias"])
            write_network(task.folder / "last.safetensors", made, spec, (1, 8, 8), 10)
            (task.folder / "result.json").write_text('{"taps": []}')
            task.finish()

    @batch_stage("probe")
    def images(tasks, context):
        for name in ("images.npy", "reference_images.npy"):
            np.save(tasks[0].folder / name, np.zeros((20, 1, 8, 8), np.uint8))
        tasks[0].finish()

    probe = images.plan("probe", {})
    trained = [networks.plan(f"n{bias:g}", {"bias": bias}) for bias in (3e38, 0.0)]
    embeddings = [
        make_embeddings.plan(
            f"embedding of {n.name}", {"views": ["gap"]}, {"probe": probe, "network": n}, batch="all"
        )
        for n in trained
    ]  # fmt: skip
    context = Context("cpu", tmp_path, Silent(), tmp_path / "scratch", {})
    outcome = run(embeddings, Cache(tmp_path / "cache"), context)
    assert set(outcome.failed) == {"embedding of n3e+38"}


def test_a_folder_that_cannot_be_written_is_named_before_any_training(command_line):
    (command_line.root / "file").write_text("x")
    for option in ("--artifacts", "--weights"):
        wrong = command_line(option, str(command_line.root / "file" / "deeper"))
        assert wrong.code == 2 and "is no writable folder" in wrong.err
        assert len(wrong.err.strip().splitlines()) == 1
    assert not command_line.cache.exists()


def test_all_maps_of_a_depth_have_one_size(finished):
    """Smaller must not look like more compact: every map has the RMS radius of the teacher's at its depth."""
    maps = load_study(finished.artifacts / "tiny").maps
    keys = ["projector", "layer", "layout", "perplexity", "map_seed", "network_id"]
    spread = maps.group_by(keys).agg((pl.col("x").cast(pl.Float64).var() + pl.col("y").cast(pl.Float64).var()).sqrt())
    for _, group in spread.group_by("projector", "layer"):
        assert group.height > 2
        assert group["x"].max() == pytest.approx(group["x"].min(), rel=1e-4)
