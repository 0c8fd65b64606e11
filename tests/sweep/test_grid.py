"""A sweep's file, and the runs that follow from it."""

from pathlib import Path
from typing import NamedTuple

import pytest

from writesae.config import Json
from writesae.errors import ConfigError, DataError, InputError
from writesae.sweep import Sweep, read_sweep
from writesae.sweep.plan import costs
from writesae.sweep.runs import planned
from writesae.types import Site


class Shape(NamedTuple):
    family: str
    heads: int
    d_k: int
    d_v: int


LAYERS = {2: Shape("deltanet", 3, 5, 7), 4: Shape("deltanet", 2, 5, 7)}


def grid(**axes: Json) -> Sweep:
    return Sweep(hosts=("tiny-gdn",), grid={"site": ["L2.H1"], **axes})


def test_runs_are_every_combination_each_with_a_name_of_its_own() -> None:
    sweep = grid(site=["L2", "L4.H1"], k=[3, 5], preset=["writesae", "flat"], seed=[0, 7])
    runs = planned(sweep, LAYERS)
    assert len(runs) == (3 + 1) * 2 * 2 * 2 == len({run.name for run in runs}) == len({run.config for run in runs})
    assert runs[0].name == "L2.H0-k3-writesae-seed0"
    last = runs[-1]
    assert (last.name, last.config.site, last.config.seed) == ("L4.H1-k5-flat-seed7", Site(4, 1), 7)
    assert last.cell == {"site": "L4.H1", "k": 5, "preset": "flat", "seed": 7}


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({"site": ["L3"]}, "no layer 3"),
        ({"site": ["L4.H2"]}, "layer 4 has 2"),
        ({"site": ["L4", "L4.H1"]}, "asked for twice"),
        ({"k": [3, 9999999]}, "k 9999999"),
        ({"sparsity": ["gated"], "k": [3]}, "no effect with Gated"),
        ({"preset": ["writesea"]}, "unknown preset"),
    ],
)
def test_a_run_that_cannot_be_is_named_before_anything_runs(axes: dict[str, Json], said: str) -> None:
    with pytest.raises(InputError, match=said):
        planned(grid(**axes), LAYERS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('hosts = ["tiny-gdn"]\n[grid]\nk = [3]', "names no heads"),
        ('hosts = ["tiny-gdn"]\n[grid]\nsite = ["L2"]\nkk = [3]', r"\[grid\] kk: it is no setting of training"),
        ('hosts = ["tiny-gdn"]\n[grid]\nsite = ["L2"]\ndevice = ["cpu"]', "said by the command"),
        ('hosts = ["tiny-gdn"]\n[grid]\nsite = ["L2", "L2"]', "each value once"),
        ('hosts = ["tiny-gdn"]\n[grid]\nsite = ["L2"]\n[train]\nsite = "L2"', "stands in"),
        ('hosts = ["tiny-gdn"]\n[grid]\nsite = ["L2"]\n[evaluate.nothing]', "unknown evaluation"),
        ('hosts = ["tiny-gdn"]\n[grid]\nsite = ["L2"]\n[evaluate.spectrum]', "does not measure one dictionary"),
        ('hosts = ["tiny-gdn"]\n[grid]\nsite = ["L2"]\n[evaluate.quality]\nfirings = 3', "firings"),
        ('hosts = ["tiny-gdn"]\n[grid]\nsite = ["L2"]\n[evaluate.quality]\npassages = "x"', "passages = 'x'"),
        ('hosts = ["tiny-gdn"]\n[grid]\nsite = ["L2"]\n[evaluate.quality]\ndense = "x"', "dense"),
        ('hosts = "tiny-gdn"\n[grid]\nsite = ["L2"]', "give a list, hosts"),
        ('hosts = ["tiny-gdn"]\ntokenz = 3\n[grid]\nsite = ["L2"]', "did you mean tokens"),
        ('hosts = ["tiny-gdn"]\n[grid]\nsite = ["L2"]\n[train]\nkk = 4', r"\[train\] kk"),
        ('hosts = []\n[grid]\nsite = ["L2"]', "hosts is empty"),
        ('hosts = ["tiny-gdn"]\n[grid]\nsite = "L2"', "give a list"),
        ("hosts = [", "no TOML"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line_with_its_name(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises((ConfigError, DataError), match=said) as caught:
        read_sweep(file)
    assert "mine.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_names_the_shipped_ones() -> None:
    with pytest.raises(InputError, match="matched, small"):
        read_sweep("nothing.toml")


def test_the_shipped_sweeps_have_as_many_runs_as_they_say() -> None:
    assert [read_sweep(name).size for name in ("small", "matched")] == [24, 720]


def test_a_plan_counts_by_hand() -> None:
    sweep = Sweep(
        hosts=("Qwen/Qwen3.5-0.8B",), tokens=1000, length=100,
        grid={"site": ["L1", "L5.H3"], "target": ["state", "write-delta"], "seed": [0, 1, 2]},
        train={"steps": 7, "batch": 11},
    )  # fmt: skip
    (cost,) = costs(sweep, "cuda")
    assert (cost.runs, cost.layers, cost.seen) == (17 * 2 * 3, 2, 17 * 2 * 3 * 77)
    assert cost.bytes == 1000 * 2 * 16 * (256 * 2 + 8)
    assert cost.capture == pytest.approx(2 * 752e6 * 1000 / 15e12)
    whole, factored = (
        costs(Sweep(hosts=sweep.hosts, grid={"site": ["L1.H0"], "preset": [preset]}), "cuda")[0].train
        for preset in ("flat", "writesae")
    )
    assert whole > 5 * factored
