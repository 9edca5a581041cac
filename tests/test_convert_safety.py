"""Checkpoints that could run code, are damaged or are none: refused in a sentence, and nothing of them is run."""

from __future__ import annotations

import argparse
import gzip
import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_files import a_resnet, saved
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kdpipe.errors import NetworkError
from kdpipe.models.tensor_files import read_tensors


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return a_resnet()


@pytest.fixture
def state(model) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


class Trap:
    """Writes a file if it is ever unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return (open, (str(self.canary), "w"))


def zip_of(path: Path, members: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def tar_of(path: Path, names: list[str]) -> None:
    with tarfile.open(path, "w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO(b""))


def compressed(path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(saved({"w": torch.zeros(9, 9)}))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    zip_of(path, members, zipfile.ZIP_DEFLATED)


def scripted(path: Path) -> None:
    torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(str(path))


NOT_READ = {
    "nothing": (lambda p: None, "there is no such file."),
    "a folder": (lambda p: p.mkdir(), "is a folder; name the file"),
    "empty": (lambda p: p.write_bytes(b""), "is empty"),
    "zeros": (lambda p: p.write_bytes(bytes(1000)), "is empty"),
    "noise": (lambda p: p.write_bytes(bytes(range(1, 256)) * 9), "is damaged or was not written by torch.save"),
    "a web page": (lambda p: p.write_text("\n<!DOCTYPE html>"), "is a web page"),
    "a pointer": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1"), "Git LFS"),
    "JSON": (lambda p: p.write_text('{"weights": "none"}'), "is JSON and holds no weights"),
    "gzip": (lambda p: p.write_bytes(gzip.compress(b"x")), "is compressed (gzip)"),
    "HDF5": (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64)), "is an HDF5 file"),
    "a zip of images": (lambda p: zip_of(p, {"a/1.png": b"x"}), "is a zip archive without a checkpoint"),
    "compressed parts": (compressed, "has compressed parts, which torch never writes"),
    "a cut zip": (lambda p: p.write_bytes(saved({"w": torch.zeros(99, 99)})[:-99]), "is damaged or cut short"),
    "TorchScript": (scripted, "is a TorchScript program"),
    "an old tar": (lambda p: tar_of(p, ["storages", "tensors", "pickle"]), "was written by torch before 0.1.10"),
    "a tar": (lambda p: tar_of(p, ["a.png"]), "is a tar archive and no checkpoint"),
    "a plain pickle": (lambda p: p.write_bytes(pickle.dumps({"w": 1})), "is damaged or was not written by torch.save"),
    "a module": (lambda p: torch.save(nn.Linear(2, 2), p), "needs torch.nn.modules.linear.Linear to be loaded"),
    "sparse": (lambda p: torch.save({"w": torch.eye(3).to_sparse()}, p), "w is a tensor of layout torch.sparse_coo"),
    "no numbers": (lambda p: torch.save({"w": torch.empty(3, 3, device="meta")}, p), "w has a shape and no numbers"),
    "stretched": (lambda p: torch.save({"w": torch.zeros(1).expand(10**6, 10**6)}, p), "and fewer numbers than that"),
    "complex": (lambda p: torch.save({"w": torch.zeros(2, 2, dtype=torch.complex64)}, p), "numbers of torch.complex64"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NOT_READ)
@pytest.mark.filterwarnings("ignore")
def test_what_holds_no_weights_is_named_in_one_sentence(kind, tmp_path):
    make, said = NOT_READ[kind]
    path = tmp_path / "x.pth"
    make(path)
    with pytest.raises(NetworkError) as error:
        read_tensors(path)
    assert said in str(error.value) and str(path) in str(error.value)
    assert str(error.value).endswith(".") and "\n" not in str(error.value) and "weights_only" not in str(error.value)


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle", "beside weights", "as numpy", "os"])
def test_code_in_a_checkpoint_is_named_and_not_run(how, state, tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "x.pth"
    trap = Trap(canary)
    if how == "pickle":
        path.write_bytes(pickle.dumps(trap, protocol=2))
    elif how == "os":
        path.write_bytes(saved({"model": state}))
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        shell = f"cposix\nsystem\n(S'touch {canary}'\ntR.".encode()
        zip_of(path, {name: shell if name.endswith("data.pkl") else content for name, content in members.items()})
    else:
        value = {"beside weights": {"model": state, "extra": trap}, "as numpy": {"rng": np.array([trap])}}.get(
            how, trap
        )
        torch.save(value, path, _use_new_zipfile_serialization=how != "legacy")
    try:
        read_tensors(path)
    except NetworkError as error:
        assert "could run code, so it was not read" in str(error) and ("open" in str(error) or "posix" in str(error))
        assert "weights_only" not in str(error) and "add_safe_globals" not in str(error)
    else:
        pytest.fail("it was read")
    assert not canary.exists()


WHOLE = saved({"model": {"a.weight": torch.ones(4, 4), "b": torch.zeros(3)}, "opt": argparse.Namespace(x=1)})


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cut=st.integers(0, len(WHOLE)),
    places=st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=4),
)
def test_a_damaged_file_is_read_or_refused_in_a_sentence(tmp_path, cut, places):
    content = bytearray(WHOLE)
    for place, byte in places:
        content[place] = byte
    (tmp_path / "x.pth").write_bytes(bytes(content[: cut or None]))
    try:
        assert all(isinstance(tensor, Tensor) for tensor in read_tensors(tmp_path / "x.pth").values())
    except NetworkError as error:
        assert str(error).endswith(".") and "\n" not in str(error)
