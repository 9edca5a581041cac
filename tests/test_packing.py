"""Finished stages in one file: what is kept, what is made again, and what a hostile file can do."""

from __future__ import annotations

import io
import json
import tarfile

import pytest
from test_engine import CALLS, stage, value

from kdpipe.cli.progress import Silent
from kdpipe.engine.archive import pack, unpack
from kdpipe.engine.cache import MANIFEST, Cache
from kdpipe.engine.run import run
from kdpipe.engine.stage import Context, batch_stage
from kdpipe.errors import KdpipeError


def heavy(tasks, context) -> None:
    """Weights that the next stage reads, and a small result."""
    for task in tasks:
        CALLS.append(task.stage.name)
        (task.folder / "last.safetensors").write_bytes(b"w" * 1000)
        (task.folder / "n").write_text(str(task.stage.params["value"]))
        task.finish()


@pytest.fixture
def context(tmp_path):
    CALLS.clear()
    return Context("cpu", tmp_path, Silent(), tmp_path / "scratch", {})


@pytest.fixture
def plan():
    network = batch_stage("student")(heavy).plan("network", {"value": 3})
    return [network, stage("measure", 1, [network])]


@pytest.fixture
def packed(tmp_path, context, plan):
    cache = Cache(tmp_path / "there")
    run(plan, cache, context)
    pack(cache, plan, tmp_path / "part.tar.gz")
    CALLS.clear()
    return tmp_path / "part.tar.gz"


def test_what_was_packed_is_known_as_done_elsewhere(tmp_path, context, plan, packed):
    here = Cache(tmp_path / "here")
    assert unpack(here, packed) == (2, 0)
    outcome = run(plan, here, context)
    assert not CALLS and len(outcome.cached) == 2
    assert value(here, plan[1]) == 4 and here.thinned(plan[0]) and not here.thinned(plan[1])
    assert not (here.path(plan[0]) / "last.safetensors").exists()
    assert unpack(here, packed) == (0, 2)


def test_what_has_to_be_read_is_made_again_and_nothing_else(tmp_path, context, plan, packed):
    here = Cache(tmp_path / "here")
    unpack(here, packed)
    outcome = run([*plan, stage("later", 10, [plan[0]])], here, context)
    assert CALLS == ["network", "later"]
    assert not here.thinned(plan[0]) and not outcome.failed
    assert [kept.name for kept in outcome.cached] == ["measure"]


def test_a_thinned_output_is_packed_again_as_it_is(tmp_path, context, plan, packed):
    here = Cache(tmp_path / "here")
    unpack(here, packed)
    pack(here, plan, tmp_path / "again.tar.gz")
    there = Cache(tmp_path / "third")
    assert unpack(there, tmp_path / "again.tar.gz") == (2, 0) and there.has(plan[0])


def test_kinds_that_are_kept_whole_can_be_read(tmp_path, context, plan, packed):
    pack(Cache(tmp_path / "there"), plan, tmp_path / "whole.tar.gz", whole={"student"})
    here = Cache(tmp_path / "here")
    assert unpack(here, tmp_path / "whole.tar.gz") == (2, 0) and not here.thinned(plan[0])
    run([*plan, stage("later", 10, [plan[0]])], here, context)
    assert CALLS == ["later"]


def test_whole_outputs_that_are_there_stay(tmp_path, context, plan, packed):
    there = Cache(tmp_path / "there")
    assert unpack(there, packed) == (0, 2)
    assert not there.thinned(plan[0])


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "stages/student/../../../out", "stages/x/y/z", "other"])
def test_names_that_lead_elsewhere_are_refused_whole(tmp_path, name, packed):
    hostile = tmp_path / "hostile.tar.gz"
    with tarfile.open(hostile, "w:gz") as archive:
        info = tarfile.TarInfo(name)
        info.size = 1
        archive.addfile(info, io.BytesIO(b"x"))
    here = Cache(tmp_path / "here")
    with pytest.raises(KdpipeError, match="no part of a packed stage"):
        unpack(here, hostile)
    assert not [path for path in here.root.rglob("*") if path.is_file()]


def test_links_are_refused(tmp_path):
    hostile = tmp_path / "hostile.tar.gz"
    with tarfile.open(hostile, "w:gz") as archive:
        info = tarfile.TarInfo(f"stages/student/{'a' * 32}/link")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(KdpipeError, match="no part"):
        unpack(Cache(tmp_path / "here"), hostile)


@pytest.mark.parametrize("spoil", ["cut", "not a tar", "missing"])
def test_an_unreadable_file_is_one_sentence(tmp_path, packed, spoil):
    content = packed.read_bytes()
    target = tmp_path / "spoiled.tar.gz"
    if spoil != "missing":
        target.write_bytes(content[: len(content) // 2] if spoil == "cut" else b"hello")
    with pytest.raises(KdpipeError, match=r"can be read|damaged"):
        unpack(Cache(tmp_path / "here"), target)


def test_a_changed_file_is_noticed(tmp_path, context, plan, packed):
    unpacked = tmp_path / "unpacked"
    with tarfile.open(packed) as archive:
        archive.extractall(unpacked, filter="data")
    (changed,) = unpacked.glob(f"stages/*/{plan[1].key}/n")
    changed.write_text("5")
    with tarfile.open(tmp_path / "changed.tar.gz", "w:gz") as archive:
        for path in (path for path in unpacked.rglob("*") if path.is_file()):
            archive.add(path, path.relative_to(unpacked))
    with pytest.raises(KdpipeError, match=r"damaged.*nothing was taken"):
        unpack(Cache(tmp_path / "here"), tmp_path / "changed.tar.gz")


def test_damage_anywhere_takes_nothing_or_is_harmless(tmp_path, plan, packed):
    """A tar that breaks in the middle ends early without a word; the list of stages tells."""
    content = packed.read_bytes()
    for place in range(12, len(content) - 1, max(len(content) // 150, 1)):
        spoiled = tmp_path / "spoiled.tar.gz"
        spoiled.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        here = Cache(tmp_path / f"here-{place}")
        try:
            taken = unpack(here, spoiled)
        except KdpipeError:
            assert not [path for path in here.root.rglob("*") if path.is_file()]
        else:
            assert taken == (2, 0) and all(here.has(stage) for stage in plan)


def test_nothing_to_pack_is_one_sentence_and_no_file(tmp_path, plan):
    with pytest.raises(KdpipeError, match="nothing to pack"):
        pack(Cache(tmp_path / "empty"), plan, tmp_path / "part.tar.gz")
    assert not (tmp_path / "part.tar.gz").exists()


def test_the_manifest_names_what_was_left_behind(tmp_path, packed, plan):
    with tarfile.open(packed) as archive:
        member = archive.extractfile(f"stages/student/{plan[0].key}/{MANIFEST}")
        assert member is not None
        manifest = json.loads(member.read())
    assert manifest["dropped"] == ["last.safetensors"] and set(manifest["files"]) == {"last.safetensors", "n"}
