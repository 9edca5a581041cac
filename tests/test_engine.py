"""The engine: what a key holds, and that nothing is ever half-written, whoever kills whom and when."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from kdpipe.cli.progress import Silent
from kdpipe.engine.cache import MANIFEST, Cache
from kdpipe.engine.run import run, with_inputs
from kdpipe.engine.stage import ANY, Context, Stage, batch_stage
from kdpipe.errors import KdpipeError
from kdpipe.files import new_file, scratch_folder

CALLS: list[str] = []


def write(tasks, context) -> None:
    """Each output is its stage's number plus the sum of its inputs."""
    for task in tasks:
        CALLS.append(task.stage.name)
        if task.stage.params.get("fails") == "before":
            task.fail("it could not be done")
            continue
        value = task.stage.params["value"] + sum(int((p / "n").read_text()) for p in task.inputs.values())
        (task.folder / "n").write_text(str(value))
        if task.stage.params.get("fails") == "raise":
            raise KdpipeError("the whole batch is off")
        if task.stage.params.get("fails") == "bug":
            raise ZeroDivisionError
        task.finish()


def stage(name: str, value: int = 1, inputs=(), kind: str = "k", **more) -> Stage:
    params = {"value": value, "name": name, **more.pop("params", {})}
    return batch_stage(kind, takes=[ANY])(write).plan(name, params, {need.name: need for need in inputs}, **more)


def doing(work, planned: Stage) -> Stage:
    """The same stage with other work."""
    return replace(planned, function=replace(planned.function, work=work))


@pytest.fixture
def cache(tmp_path):
    CALLS.clear()
    return Cache(tmp_path / "cache")


@pytest.fixture
def context(tmp_path):
    return Context("cpu", tmp_path, Silent(), tmp_path / "scratch", {})


def value(cache: Cache, of: Stage) -> int:
    return int((cache.path(of) / "n").read_text())


def leftovers(cache: Cache) -> list[Path]:
    return [*cache.root.glob("stages/.*"), *cache.root.glob("stages/*/.*")]


def chain() -> list[Stage]:
    first = stage("first", 1)
    second = stage("second", 10, [first])
    return [first, second, stage("third", 100, [first, second])]


# -------------------------------------------------------------------------------------------- keys


def test_keys_do_not_depend_on_the_order_of_parameters_and_inputs():
    a, b = stage("a"), stage("b")
    function = batch_stage("k", takes=["a", "b"])(write)
    one = function.plan("x", {"p": 1, "q": {"r": 2, "s": 3}}, {"a": a, "b": b})
    other = function.plan("x", {"q": {"s": 3, "r": 2}, "p": 1}, {"b": b, "a": a})
    assert one.key == other.key


def test_keys_hold_what_decides_the_result_and_nothing_else():
    base = stage("x", inputs=[stage("a")])
    for same in (
        replace(base, name="renamed"),
        replace(base, runtime={"path": "/elsewhere"}),
        replace(base, batch="b", batch_title="t", cost=9.0),
    ):
        assert same.key == base.key
    different = [
        replace(base, function=replace(base.function, version=2)),
        replace(base, function=replace(base.function, kind="other")),
        replace(base, params={**base.params, "value": 2}),
        replace(base, inputs={}),
        replace(base, inputs={"a": stage("a", 2)}),
        replace(base, inputs={"a": replace(stage("a"), function=replace(stage("a").function, version=2))}),
        replace(base, inputs={"b": stage("a")}),
        replace(base, function=replace(base.function, name="renamed")),
    ]
    assert len({base.key, *(other.key for other in different)}) == len(different) + 1


def test_a_parameter_that_is_not_a_number_has_no_key():
    with pytest.raises(ValueError):
        _ = stage("x", params={"p": float("nan")}).key


# -------------------------------------------------------------------------------------------- runs


def test_inputs_run_first_and_each_stage_once(cache, context):
    plan = chain()
    outcome = run(plan[::-1], cache, context)
    assert CALLS == ["first", "second", "third"]
    assert value(cache, plan[2]) == 100 + 1 + 11
    assert [s.name for s in outcome.ran] == CALLS and not outcome.failed
    again = run(plan, Cache(cache.root), context)
    assert len(again.cached) == 3 and not again.ran and len(CALLS) == 3
    assert with_inputs([plan[2]]) == plan


def test_only_what_rests_on_a_change_runs_again(cache, context):
    run(chain(), cache, context)
    CALLS.clear()
    first = stage("first", 1)
    second = stage("second", 20, [first])
    run([stage("third", 100, [first, second])], cache, context)
    assert CALLS == ["second", "third"]


@pytest.mark.parametrize("how", ["raise", "bug"])
def test_a_stage_that_raises_leaves_nothing_behind(cache, context, how):
    bad = stage("bad", params={"fails": how})
    if how == "bug":
        with pytest.raises(ZeroDivisionError):
            run([stage("good"), bad], cache, context)
    else:
        assert run([stage("good"), bad], cache, context).failed == {"bad": "the whole batch is off"}
    assert not cache.has(bad) and not leftovers(cache)
    assert cache.has(stage("good"))


def test_a_failing_task_takes_neither_its_batch_nor_strangers_but_all_that_rest_on_it(cache, context):
    bad = stage("bad", batch="b", params={"fails": "before"})
    good = stage("good", batch="b")
    rests = stage("rests", inputs=[bad])
    outcome = run([bad, good, stage("on-good", inputs=[good]), rests, stage("far", inputs=[rests])], cache, context)
    assert {s.name for s in outcome.ran} == {"good", "on-good"}
    assert outcome.failed["bad"] == "it could not be done"
    assert outcome.failed["rests"] == outcome.failed["far"] == "left out, as something it needs failed"
    assert not leftovers(cache)
    assert "rests" not in CALLS


def test_what_a_batch_finished_before_it_broke_is_kept(cache, context):
    good, bad, late = (
        stage("good", batch="b"),
        stage("bad", batch="b", params={"fails": "raise"}),
        stage("z", batch="b"),
    )
    outcome = run([good, bad, late], cache, context)
    assert [s.name for s in outcome.ran] == ["good"] and cache.has(good)
    assert set(outcome.failed) == {"bad", "z"}
    assert not leftovers(cache)


def test_a_batch_is_handed_over_together_once_all_of_it_is_ready(cache, context):
    sizes = []

    def spy(tasks, context):
        sizes.append(len(tasks))
        write(tasks, context)

    slow = stage("slow")
    mates = [doing(spy, stage(n, batch="b", inputs=[slow] * (n == "late"))) for n in ("early", "late")]
    run([mates[0], slow, mates[1]], cache, context)
    assert sizes == [2]


def test_a_stage_that_says_nothing_has_failed(cache, context):
    silent = doing(lambda tasks, context: None, stage("silent"))
    assert run([silent], cache, context).failed == {"silent": "it ended without a result"}


def test_force_makes_a_kind_and_all_that_rests_on_it_anew(cache, context):
    first = stage("first", kind="one")
    second = stage("second", kind="two", inputs=[first])
    other = stage("other", kind="three")
    run([second, other], cache, context)
    CALLS.clear()
    outcome = run([second, other], cache, context, force=["one"])
    assert CALLS == ["first", "second"] and [s.name for s in outcome.cached] == ["other"]
    assert value(cache, second) == 2 and not leftovers(cache)


# ------------------------------------------------------------------------------------------ damage


@pytest.mark.parametrize("file", ["n", MANIFEST])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "empty list"])
def test_damaged_outputs_are_noticed_and_made_anew(cache, context, file, damage):
    plan = chain()
    run(plan, cache, context)
    victim = cache.path(plan[1]) / file
    whole = victim.read_bytes()
    victim.write_bytes(
        {"flip": bytes([whole[0] ^ 1]) + whole[1:], "truncate": whole[:-1], "empty list": b"[]"}.get(damage, b"")
    )
    if damage == "remove":
        victim.unlink()
    CALLS.clear()
    fresh = Cache(cache.root)
    outcome = run(plan, fresh, context)
    assert CALLS == ["second"] and len(outcome.cached) == 2
    assert value(fresh, plan[2]) == 112


def test_a_manifest_says_how_its_output_was_made(cache, context):
    plan = chain()
    run(plan, cache, context)
    manifest = cache.manifest(plan[2])
    assert manifest["params"] == plan[2].params and set(manifest["files"]) == {"n"}
    assert manifest["inputs"] == {"first": plan[0].key, "second": plan[1].key}
    assert manifest["seconds"] >= 0


def test_cleaning_and_size(cache, context):
    run(chain(), cache, context)
    count, size = cache.size()
    assert count == 3 and cache.clean() == size
    assert cache.size() == (0, 0) and not cache.has(chain()[0])


def test_sweeping_takes_ruins_and_leaves_what_is_being_built(cache, context):
    """Whatever the clock says: an old folder may be a long training's, a new one that of a run just killed."""
    run(chain(), cache, context)
    ruins = [cache.root / place for place in ("stages/.building-1", "stages/k/.1-2", "scratch/ivis-3")]
    ruins += [cache.root / "scratch" / "resume" / f".{name}.pt.new-4" for name in "ab"]
    for ruin in ruins[:3]:
        ruin.mkdir(parents=True)
        (ruin / "half").write_text("12345")
    ruins[3].parent.mkdir()
    ruins[3].write_text("123"), ruins[4].write_text("")
    with cache.building() as building, new_file(cache.root / "scratch" / "resume" / "c.pt") as unfinished:
        (building / "half").write_text("mine")
        os.utime(building, (1, 1)), os.utime(unfinished, (1, 1))
        assert Cache(cache.root).sweep() == 18
        assert (building / "half").exists() and unfinished.exists()
    assert not leftovers(cache) and not any(ruin.exists() for ruin in ruins) and cache.size()[0] == 3


def test_what_is_swept_between_its_making_and_its_locking_is_made_again(tmp_path, monkeypatch):
    lock, swept = fcntl.flock, []

    def overtaken(descriptor, how):
        if not swept:
            swept.append(os.readlink(f"/proc/self/fd/{descriptor}"))
            os.rmdir(swept[0])
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", overtaken)
    with scratch_folder(tmp_path, ".x-") as folder:
        assert folder.is_dir() and str(folder) != swept[0]


def test_on_a_disk_without_locks_nothing_is_swept_and_all_the_rest_works(cache, context, monkeypatch):
    def unsupported(descriptor, how):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    ruin = cache.root / "stages" / ".building-1"
    ruin.mkdir(parents=True)
    assert len(run(chain(), cache, context).ran) == 3 and cache.sweep() == 0
    assert leftovers(cache) == [ruin]


# --------------------------------------------------------------------------- kills and companions

SCRIPT = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    import test_engine as t
    from kdpipe.engine.cache import Cache
    from kdpipe.engine.run import run
    from kdpipe.engine.stage import Context

    root = Path(sys.argv[1])

    def slow(tasks, context):
        for task in tasks:
            (task.folder / "n").write_text("half")
            (root / "in the middle").touch()
            time.sleep(float(sys.argv[2]))
        t.write(tasks, context)

    first, second, third = t.chain()
    second = t.doing(slow, second)
    from dataclasses import replace
    third = replace(third, inputs={{"first": first, "second": second}})
    for _ in range(int(sys.argv[3])):
        run([third], Cache(root / "cache"), Context("cpu", root, t.Silent(), root, {{}}), sys.argv[4:])
    """
).format(tests=str(Path(__file__).parent))


def started(root: Path, seconds: float, times: int = 1, *force: str) -> subprocess.Popen:
    command = [sys.executable, "-c", SCRIPT, str(root), str(seconds), str(times), *force]
    return subprocess.Popen(command, cwd=Path(__file__).resolve().parent.parent, stderr=subprocess.PIPE, text=True)


def test_a_killed_process_leaves_nothing_half_written(tmp_path, context):
    process = started(tmp_path, 60)
    for _ in range(3000):
        if (tmp_path / "in the middle").exists():
            break
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    cache, plan = Cache(tmp_path / "cache"), chain()
    assert [cache.has(s) for s in plan] == [True, False, False]
    assert len(leftovers(cache)) == 1  # the ruin, aside
    assert cache.sweep() == 4 and not leftovers(cache)
    CALLS.clear()
    run(plan, cache, context)
    assert CALLS == ["second", "third"]
    assert value(cache, plan[2]) == 112


def test_two_runs_on_one_cache_do_not_hurt_each_other(tmp_path):
    """Both find the cache empty, do the same work at the same time, and one comes second everywhere."""
    both = [started(tmp_path, seconds, 20) for seconds in (0.5, 0.7)]
    for process in both:
        _, complaint = process.communicate(timeout=60)
        assert process.returncode == 0, complaint
    cache = Cache(tmp_path / "cache")
    assert all(cache.has(s) for s in chain()) and value(cache, chain()[2]) == 112
    assert not leftovers(cache)


def test_what_another_run_published_meanwhile_stays(cache, context):
    """It may be reading it."""
    mine = stage("mine")

    def late(tasks, context):
        run([mine], Cache(cache.root), context)
        late.published = cache.path(mine).stat().st_ino
        write(tasks, context)

    late.__name__ = "write"
    outcome = run([doing(late, mine)], cache, context)
    assert len(outcome.ran) == 1 and cache.path(mine).stat().st_ino == late.published
    assert cache.has(mine) and not leftovers(cache)


def test_threads_that_publish_one_key_leave_one_whole_output(cache, context):
    plan = chain()
    run(plan, cache, context)
    failures = []

    def again():
        try:
            for _ in range(40):
                run(plan[:1], Cache(cache.root), context, force=["k"])
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=again) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not failures
    assert Cache(cache.root).has(plan[0]) and not leftovers(cache)
    assert json.loads((cache.path(plan[0]) / MANIFEST).read_text())["name"] == "first"


def test_cleaning_a_folder_that_is_no_cache_touches_nothing(tmp_path):
    mine = [
        tmp_path / "stages" / "thesis.txt",
        tmp_path / "stages" / "data" / "x" / "y.txt",
        tmp_path / "scratch" / "z",
    ]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    assert Cache(tmp_path).clean() == 0
    assert all(path.read_text() == "mine" for path in mine)


# ---------------------------------------------------------------------------------- declared stages


def test_a_stage_refuses_inputs_that_its_function_does_not_take(cache):
    function = batch_stage("k", takes=["a"], may_take=["b"])(write)
    a, b = stage("a"), stage("b")
    assert function.plan("x", {}, {"a": a, "b": b}).inputs.keys() == {"a", "b"}
    for inputs in ({}, {"b": b}, {"a": a, "c": b}):
        with pytest.raises(TypeError, match="a k stage takes a, not"):
            function.plan("x", {}, inputs)


def test_each_task_is_alone_in_failing(cache, context):
    from kdpipe.engine.stage import stage as declared

    @declared("k")
    def halves(task, context):
        if task.stage.params["value"] % 2:
            raise ValueError(f"{task.stage.params['value']} is odd")
        (task.folder / "n").write_text(str(task.stage.params["value"] // 2))

    stages = [halves.plan(f"half of {number}", {"value": number}, batch="all") for number in (4, 5, 6)]
    outcome = run(stages, cache, context)
    assert [value(cache, one) for one in stages[::2]] == [2, 3]
    assert outcome.failed == {"half of 5": "5 is odd"} and not leftovers(cache)
