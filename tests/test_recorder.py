"""The recorder: it changes nothing of what is learned, and keeps what a study of the same network would."""

from __future__ import annotations

import random
from collections import namedtuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import kdpipe
from kdpipe.errors import DataError, NetworkError
from kdpipe.representation.embed import gap, projection
from kdpipe.vectors.gather import gather
from kdpipe.vectors.store import open_vectors, write_store

N, CLASSES = 30, 3
IMAGES = torch.randn(N, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = [i % CLASSES for i in range(N)]
IDS = [f"i{i}" for i in range(N)]
PROBE = (IMAGES, LABELS, IDS)
Answer = namedtuple("Answer", ["features", "logits"])


class Restless(nn.Module):
    """Draws random numbers of every kind, counts its passes even in eval mode, and works in place."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x):
        self.passes += 1
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean((0, 2, 3))
        noise = float(np.random.rand() + random.random())
        return x.add_(0.001 * noise * torch.randn_like(x)).relu_()


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), Restless())
        self.second = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(0.5))
        self.classifier = nn.Linear(16, CLASSES)

    def forward(self, x):
        maps = self.second(self.first(x))
        return Answer(maps, self.classifier(maps.mean((2, 3))))


def trained(record, steps: int = 6) -> tuple[list[torch.Tensor], kdpipe.Recorder]:
    """A network's whole state after some steps of training, with the random numbers that would come next."""
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(0)
    model = Small()
    model.first[1].eval()  # a frozen norm stays frozen
    recorder = kdpipe.Recorder(model, ["first", "second"], PROBE, role="plain")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(steps):
        chosen = torch.randint(N, (8,))
        loss = nn.functional.cross_entropy(model(IMAGES[chosen]).logits, torch.tensor(LABELS)[chosen])
        optimizer.zero_grad()
        loss.backward()
        record(recorder, step)  # between the gradient and the step, the worst place
        optimizer.step()
    modes = torch.tensor([module.training for module in model.modules()])
    drawn = torch.tensor([float(torch.rand(())), np.random.rand(), random.random()], dtype=torch.float64)
    return [*(value.clone() for value in model.state_dict().values()), modes, drawn], recorder


def test_what_is_learned_is_the_same_to_the_bit_whether_or_not_it_is_looked_at():
    alone, _ = trained(lambda recorder, step: None)
    watched, recorder = trained(lambda recorder, step: recorder.record(step))
    assert len(recorder.found) == 6
    assert all(torch.equal(a, b) for a, b in zip(alone, watched, strict=True))


def test_a_pass_that_fails_leaves_all_as_it_was():
    def fail(recorder, step):
        recorder.layers = ["second.9"]
        with pytest.raises(AttributeError):
            recorder.record(step)

    alone, _ = trained(lambda recorder, step: None)
    watched, _ = trained(fail)
    assert all(torch.equal(a, b) for a, b in zip(alone, watched, strict=True))


def test_it_keeps_the_layers_as_they_leave_their_modules(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(512, CLASSES))
    recorder = kdpipe.Recorder(model, ["0", "1", "3"], PROBE, role="plain", batch_size=7, seed=2)
    recorder.record(0)
    with torch.no_grad():
        maps = model[0](IMAGES)
        logits = model(IMAGES)
    store = open_vectors(recorder.save(tmp_path / "x"))
    (network,) = store.networks
    assert network.record.seed == 2 and network.record.step == 0 and network.record.role == "plain"
    assert network.shapes == ((8, 8, 8), (8, 8, 8), (CLASSES, 1, 1))
    for order, expected in ((0, maps), (1, maps.relu()), (2, logits[:, :, None, None])):
        for view, function in (("gap", gap), ("projection", projection)):
            kept = store.vectors(network, order, view)
            assert np.allclose(kept.astype(np.float32), function(expected).numpy(), rtol=1e-3, atol=1e-3)
    assert np.allclose(store.logits(network), logits.numpy(), atol=1e-6)


def test_named_arguments_tokens_and_pool():
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(20, 12)
            self.block = nn.TransformerEncoderLayer(12, 2, 16, batch_first=True)

        def forward(self, tokens, mask):
            return {"last_hidden_state": self.block(self.embedding(tokens), src_key_padding_mask=mask)}

    torch.manual_seed(0)
    model = Reader()
    inputs = {"tokens": torch.randint(20, (N, 5)), "mask": torch.zeros(N, 5, dtype=torch.bool)}
    with pytest.raises(NetworkError, match=r"'embedding' returns .30, 5, 12., and the inputs are no images"):
        kdpipe.Recorder(model, ["embedding", "block.linear1"], (inputs, LABELS, IDS), role="plain").record(0)
    for pool, function in (("mean", lambda x: x.mean(1)), ("first", lambda x: x[:, 0]), *[(lambda x: x[:, -1],) * 2]):
        recorder = kdpipe.Recorder(
            model, ["embedding", "block.linear1"], (inputs, LABELS, IDS), role="plain", pool=pool
        )
        recorder.record(0)
        found = recorder.found[0]
        assert found.logits is None and found.shapes == {"embedding": (12, 1, 1), "block.linear1": (16, 1, 1)}
        expected = function(model.embedding(inputs["tokens"])).detach().numpy()
        assert np.allclose(found.views["embedding"]["gap"], expected, atol=1e-3)


@pytest.mark.parametrize(
    ("layers", "more", "said"),
    [
        (["frst"], {}, "there is no module 'frst', did you mean 'first'"),
        (["first", "first"], {}, "'first' stands there twice"),
        ([], {}, "name one module"),
        ("first", {}, r"give a list of modules, \['first'\]"),
        (["first"], {"role": "student"}, "there is no role 'student'"),
        (["first"], {"pool": "max"}, "there is no 'max'"),
        (["first"], {"texts": ["a"]}, "one text for each of 30 samples"),
    ],
)
def test_what_cannot_be_recorded_is_refused_before_training(layers, more, said):
    with pytest.raises((DataError, NetworkError), match=said):
        kdpipe.Recorder(Small(), layers, PROBE, **{"role": "plain", **more})


@pytest.mark.parametrize(
    ("probe", "said"),
    [
        ((IMAGES, LABELS), "not 2 of them"),
        (TensorDataset(IMAGES), "not TensorDataset"),
        (IMAGES[:3], "not Tensor"),
    ],
)
def test_a_probe_is_inputs_labels_and_ids(probe, said):
    with pytest.raises(DataError, match=rf"give \(inputs, labels, ids\).*{said}"):
        kdpipe.Recorder(Small(), ["first"], probe, role="plain")


@pytest.mark.parametrize("cut", [(IMAGES[:9], LABELS, IDS), (IMAGES, LABELS[:9], IDS), (IMAGES, LABELS, IDS[:9])])
def test_inputs_labels_and_ids_are_as_many(cut):
    with pytest.raises(DataError, match=r"9.*30|30.*9"):
        kdpipe.Recorder(Small(), ["first"], cut, role="plain")


def test_steps_rise_and_something_was_recorded(tmp_path):
    recorder = kdpipe.Recorder(Small(), ["first"], PROBE, role="plain")
    with pytest.raises(DataError, match="nothing was recorded"):
        recorder.save(tmp_path / "x")
    recorder.record(10)
    for step in (10, 3, -1, 1.5):
        with pytest.raises(DataError, match="step"):
            recorder.record(step)


def test_runs_join_into_one_folder(tmp_path):
    folders = []
    for role, seed in (("teacher", 0), ("plain", 0), ("distilled", 0), ("plain", 1)):
        torch.manual_seed(seed)
        recorder = kdpipe.Recorder(Small(), ["first", "second"], PROBE, role=role, seed=seed)
        for step in (5, 10):
            recorder.record(step)
        folders.append(recorder.save(tmp_path / f"{role}-{seed}"))
    store = write_store(tmp_path / "all", *gather(folders))
    found = {(n.record.role, n.record.seed, n.record.step) for n in store.networks}
    assert found == {(role, seed, step) for role, seed in
                     (("teacher", 0), ("plain", 0), ("distilled", 0), ("plain", 1)) for step in (5, 10)}  # fmt: skip
    first = open_vectors(folders[0])
    assert np.array_equal(store.vectors(store.networks[0], 1, "gap"), first.vectors(first.networks[0], 1, "gap"))


def test_lightning_records_its_steps_and_learns_the_same(tmp_path):
    lightning = pytest.importorskip("lightning.pytorch", reason="the extra lightning is not installed")
    from kdpipe.lightning import RecorderCallback

    class Task(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = Small()

        def forward(self, images):
            return self.model(images)

        def training_step(self, batch, _):
            return nn.functional.cross_entropy(self(batch[0]).logits, batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def fit(callbacks):
        lightning.seed_everything(0, verbose=False)
        task = Task()
        data = torch.utils.data.TensorDataset(IMAGES, torch.tensor(LABELS))
        loader = torch.utils.data.DataLoader(data, batch_size=5, shuffle=True)
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = lightning.Trainer(
            max_steps=10, accelerator="cpu", accumulate_grad_batches=2, callbacks=callbacks, enable_model_summary=False,
            default_root_dir=tmp_path, **quiet,
        )  # fmt: skip
        trainer.fit(task, loader)
        return list(task.state_dict().values())

    callback = RecorderCallback(
        tmp_path / "run", ["model.first", "model.second"], PROBE, every_n_steps=4, role="distilled", method="kd"
    )
    alone, watched = fit([]), fit([callback])
    assert all(torch.equal(a, b) for a, b in zip(alone, watched, strict=True))
    records = [network.record for network in open_vectors(tmp_path / "run.vectors").networks]
    assert [record.step for record in records] == [0, 4, 8, 10] and {record.method for record in records} == {"kd"}
