"""Workers of a Ray cluster: what they make is what one process makes; a worker that is lost loses nothing."""

from __future__ import annotations

import os
import signal
import threading
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
import torch

from writesae.cli import main
from writesae.cluster import Cluster
from writesae.corpus import text
from writesae.errors import ConfigError, DataError, InputError, OutputError
from writesae.hosts import Host
from writesae.store import StreamStore, capture
from writesae.sweep import Sweep
from writesae.sweep.run import sweep
from writesae.training import TrainConfig, train_many
from writesae.training.recipe import recipe

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs the ray extra")


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def silent(done: int, total: int) -> None:
    """No progress bar."""


def small(host: Host, out: Path, cluster: Cluster | None = None) -> StreamStore:
    train, _ = text("sample", host, length=19).split()
    return capture(host, train, [5], out, tokens=19 * 77, batch=7, progress=silent, cluster=cluster)


def configs() -> list[TrainConfig]:
    own = {"features": 13, "k": 3, "steps": 20, "batch": 38, "checkpoint_every": 5, "device": "cpu"}
    return [recipe(None, {"site": site, "seed": seed, **own}) for site in ("L5.H0", "L5.H1") for seed in (0, 1)]


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_one_line_says_what_to_install(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["capture", "--workers", "2"], ["sweep", "small", "--ray", "local"]):
        with pytest.raises(SystemExit) as caught:
            main([*command, "--out", str(tmp_path / "s")])
        assert caught.value.code == 2
        assert capsys.readouterr().err.strip().endswith("pip install 'writesae[ray]'")
        assert not (tmp_path / "s").exists()


def test_flags_without_effect_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (
        ["train", "tests", "--site", "L5.H0", "--gpus-per-worker", "1"],
        ["eval", "quality", "--sae", "memory-gdn/state", "--workers", "2"],
    ):
        with pytest.raises(SystemExit) as caught:
            main([*command, "--out", "x"])
        assert caught.value.code == 2
        assert "has no effect without --ray" in capsys.readouterr().err


def test_a_cluster_without_workers_cannot_be() -> None:
    with pytest.raises(ConfigError, match="1 worker or more"):
        Cluster(workers=0)


@needs_ray
def test_every_job_is_answered_whatever_happens_to_its_worker(tmp_path: Path) -> None:
    def add(x: int, y: int) -> int:
        if y == 3:
            raise DataError("three is not whole")
        return x + y

    def die_once(mark: Path, y: int) -> int:
        """The worker is killed at its first try of an odd job."""
        if y % 2 and not (mark / str(y)).exists():
            (mark / str(y)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return y

    found = dict(Cluster(workers=2).each(add, {i: (i,) for i in range(5)}, 10))
    assert {i: x for i, x in found.items() if i != 3} == {0: 10, 1: 11, 2: 12, 4: 14}
    assert isinstance(found[3], DataError)
    assert dict(Cluster(workers=2).each(die_once, {i: (i,) for i in range(5)}, tmp_path)) == {i: i for i in range(5)}


@needs_ray
def test_a_cluster_that_does_not_answer_is_one_line() -> None:
    with pytest.raises(InputError, match="no Ray cluster answers at auto"):
        list(Cluster("auto").each(max, {0: (1,)}, 1))


@needs_ray
def test_stores_and_runs_are_those_of_one_process(host: Host, tmp_path: Path) -> None:
    assert torch.get_num_threads() == 1
    alone, together = small(host, tmp_path / "alone"), small(host, tmp_path / "together", Cluster(workers=2))
    assert files(tmp_path / "alone") == files(tmp_path / "together")
    wanted = train_many(alone, configs(), tmp_path / "one")
    found = train_many(together, configs(), tmp_path / "two", cluster=Cluster(workers=2))
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.metrics == theirs.metrics
        for name, value in theirs.sae.state_dict().items():
            assert torch.equal(ours.sae.state_dict()[name], value)
    with pytest.raises(OutputError, match="another"):
        train_many(alone, [recipe(configs()[0], {"k": 4})], [tmp_path / "two" / configs()[0].name], cluster=Cluster())


@needs_ray
def test_a_sweep_has_the_same_table(tmp_path: Path) -> None:
    plan = Sweep(
        hosts=("tiny-gdn",), tokens=1900, length=19, grid={"site": ["L5.H0"], "preset": ["writesae", "flat"]},
        train={"features": 13, "k": 3, "steps": 5, "batch": 38, "validate_every": 0},
        evaluate={"quality": {"passages": 5}, "substitution": {"passages": 5, "firings": 11}},
    )  # fmt: skip
    one = sweep(plan, tmp_path / "one", device="cpu").drop(columns="seconds")
    two = sweep(plan, tmp_path / "two", device="cpu", cluster=Cluster(workers=2)).drop(columns="seconds")
    pd.testing.assert_frame_equal(one, two)


@needs_ray
@pytest.mark.slow
def test_a_machine_that_is_lost_loses_nothing(host: Host, tmp_path: Path) -> None:
    """Two raylets; one is killed while both train."""
    from ray.cluster_utils import Cluster as Machines

    store = small(host, tmp_path / "s")
    machines = Machines(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        second = machines.add_node(num_cpus=1)
        together = Cluster(machines.address, workers=2)
        slow = [recipe(one, {"steps": 4000, "checkpoint_every": 50}) for one in configs()]
        lost = threading.Timer(10.0, machines.remove_node, (second,), {"allow_graceful": False})
        lost.start()
        found = train_many(store, slow, tmp_path / "two", cluster=together)
        assert not lost.is_alive()  # it was while they trained
    finally:
        machines.shutdown()
    expected = train_many(store, slow, tmp_path / "three")
    for ours, theirs in zip(found, expected, strict=True):
        for name, value in theirs.sae.state_dict().items():
            assert torch.equal(ours.sae.state_dict()[name], value)
    assert len(found) == 4


@needs_ray
def test_an_evaluation_has_the_same_results(host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_many(small(host, tmp_path / "s"), configs()[:2], tmp_path / "runs")
    command = ["eval", "quality", "--sae", str(tmp_path / "runs"), "--each", "--passages", "5", "--length", "19"]
    main([*command, "--out", str(tmp_path / "one")])
    main([*command, "--out", str(tmp_path / "two"), "--ray", "local", "--workers", "2"])
    assert files(tmp_path / "one").keys() == files(tmp_path / "two").keys()
    for name in (name for name in files(tmp_path / "one") if name.endswith("summary.json")):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
