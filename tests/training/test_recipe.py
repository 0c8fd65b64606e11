"""What is asked for becomes what is trained, or is refused in one line: nothing is ignored."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path

import pytest
from memory_store import MemoryStore

from writesae.cli import main
from writesae.cli.train import Command
from writesae.config import to_json
from writesae.errors import ConfigError, InputError
from writesae.sae import BatchTopK, Bilinear, Factored, Gated, JumpReLU, SAEConfig, TopK
from writesae.training import TrainConfig, train
from writesae.training.config import EPOCHS
from writesae.training.recipe import SPARSITIES, read_recipe, recipe, sites
from writesae.types import Site


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """What every path opens."""
    store = MemoryStore()
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))
    Path("store").mkdir()
    monkeypatch.setattr("writesae.store.open_store", lambda path: store)
    monkeypatch.setattr("writesae.training.many.open_store", lambda path: store)
    return store


def asked(out: Path, *words: str) -> list[dict[str, object]]:
    """The configurations of the runs that a command makes, three steps each unless it says otherwise."""
    end = [] if {"--steps", "--epochs", "--config"} & set(words) else ["--steps", "3"]
    main(["train", "store", "--out", str(out), "--k", "3", "--features", "23", *end, *words][:1000])
    return [json.loads(path.read_text())["config"] for path in sorted(out.rglob("run.json"))]


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["train", "store", "--out", "out", *words])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_a_call_names_its_settings(store: MemoryStore, tmp_path: Path) -> None:
    result = train("any.zarr", site="L3.H1", target="write", features=23, k=3, steps=5, out=tmp_path / "run")
    assert (result.config.site, result.config.target) == (Site(3, 1), "write-delta")
    assert (result.config.features, result.config.sparsity) == (23, TopK(3))
    assert result.folder == tmp_path / "run"
    assert result.sae.record is not None
    assert (result.sae.site, result.sae.host, result.sae.target) == (Site(3, 1), "planted", "write-delta")
    base = TrainConfig("L3.H1", features=23, sparsity=TopK(3), epochs=1)  # type: ignore[arg-type]
    other = train(store, base, tmp_path / "other", target="write-value", steps=4)
    assert (other.config.steps, other.config.epochs, other.config.features) == (4, None, 23)


def test_what_a_call_gets_wrong_is_one_line(store: MemoryStore, tmp_path: Path) -> None:
    for given, words in (
        ({"site": "L3.H1"}, 'out="run"'),
        ({"out": tmp_path}, 'needs a head: site="L5.H0"'),
        ({"out": tmp_path, "site": "H1"}, "not written like"),
        ({"out": tmp_path, "site": 5}, "site=5 cannot be"),
        ({"out": tmp_path, "site": "L3.H1", "feature": 5}, r"no setting 'feature': did you mean features\?"),
        ({"out": tmp_path, "site": "L3.H1", "features": "5"}, "features='5' cannot be: .* not of type int"),
        ({"out": tmp_path, "site": "L3.H1", "target": "writes"}, "target='writes' cannot be"),
        ({"out": tmp_path, "site": "L3.H1", "sparsity": "top"}, "unknown sparsity 'top'"),
        ({"out": tmp_path, "site": "L3.H1", "sparsity": 5}, "neither a name"),
        ({"out": tmp_path, "site": "L3.H1", "sparsity": TopK(3), "k": 5}, "which has its own"),
        ({"out": tmp_path, "site": "L3.H1", "preset": "flat", "encoder": Bilinear()}, "give it, or them"),
        ({"out": tmp_path, "site": "L3.H1", "k": 2.5}, "no whole number"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            train(store, **given)
        assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())
    for site in (5, None):
        with pytest.raises(ConfigError, match=f"site={site} cannot be"):
            TrainConfig(site)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: TrainConfig("L3.H1", feature=5), r"TrainConfig has no setting 'feature': did you mean features\?"),  # type: ignore[arg-type, call-arg]
        (lambda: TrainConfig(features=5), "missing a required argument: 'site'"),  # type: ignore[call-arg]
        (lambda: TrainConfig("L3.H1", features="5"), "features='5' cannot be"),  # type: ignore[arg-type]
        (lambda: TrainConfig("L3.H1", sparsity=Bilinear()), r"sparsity=Bilinear.* cannot be"),  # type: ignore[arg-type]
        (lambda: SAEConfig(5, 7, features=-3), "^a dictionary was asked for with features = -3: give at least 1$"),
        (lambda: SAEConfig(5, 7, feature=5), r"SAEConfig has no setting 'feature': did you mean features\?"),  # type: ignore[call-arg]
        (lambda: TopK(kk=5), r"TopK has no setting 'kk': did you mean k\?"),  # type: ignore[call-arg]
        (lambda: Factored(rank="2"), "rank='2' cannot be"),  # type: ignore[arg-type]
    ],
)
def test_a_configuration_that_is_called_wrongly_says_so(call: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        call()


def test_a_result_shows_itself(store: MemoryStore, tmp_path: Path) -> None:
    result = train(store, site="L3.H1", features=23, k=3, steps=5, out=tmp_path / "run")
    found = r"L3.H1_state_seed0: explained variance [\d.-]+, L0 \d\.\d, features that fired \d+ of 23, .* steps 5, "
    assert re.match(found, repr(result))
    assert f"<tr><th>folder</th><td>{tmp_path / 'run'}</td></tr>" in result._repr_html_()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"target": "write", "chunk": 5}, "chunk=5 has no effect on the target write-delta"),
        ({"target": "write-value", "stride": 2}, "stride=2 has no effect"),
        ({"sparsity": "gated", "k": 5}, "k=5 has no effect with Gated"),
        ({"sparsity": "soft-gated", "k": 5}, "k=5 has no effect with SoftGated"),
        ({"steps": 5, "epochs": 2.0}, "steps=5 and epochs=2.0 both say"),
        ({"k_start": 5}, "k_start=5 has no effect without k_steps"),
        ({"k_steps": 5}, "k_steps=5 has no effect without k_start"),
        ({"bandwidth_end": 0.5}, "bandwidth_end=0.5 has no effect without JumpReLU"),
        ({"patience": 2, "validate_every": 0}, "patience=2 has no effect"),
    ],
)
def test_a_setting_without_effect_is_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        recipe(None, {"site": "L3.H1"} | given)


def test_flags_become_configs(store: MemoryStore, tmp_path: Path) -> None:
    made = asked(
        tmp_path / "a", "--site", "L3", "--seeds", "0,5", "--sparsity", "batch-topk", "--preset", "writesae_rank2"
    )
    assert [(one["site"], one["seed"]) for one in made] == [("L3.H0", 0), ("L3.H0", 5), ("L3.H1", 0), ("L3.H1", 5)]
    assert made[0]["sparsity"] == {"k": 3, "prefixes": [], "kind": "BatchTopK"}
    assert (made[0]["encoder"], made[0]["decoder"]) == (
        {"rank": 2, "tied": False, "kind": "Bilinear"},
        {"rank": 2, "kind": "Factored"},
    )
    two = asked(tmp_path / "b", "--site", "L3.H1", "L3.H0", "--workers", "1", "--chunk", "12", "--stride", "3")
    assert [(one["site"], one["chunk"], one["stride"]) for one in two] == [("L3.H0", 12, 3), ("L3.H1", 12, 3)]
    assert sites(["L3.H1,".strip(","), "L3.H0"], store) == [Site(3, 1), Site(3, 0)]


def test_flags_that_are_wrong_or_without_effect_are_refused(
    store: MemoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    site = ["--site", "L3.H1"]
    for words, said in (
        ([*site, "--config", "none.json"], "no file or folder none.json"),
        (["--sites", "L3.H1"], "--sites is called --site now"),
        (["--site", "L4"], "no site L4.H0"),
        (["--site", "L3,L3.H1"], "name a head twice"),
        ([*site, "--seeds", "1,1"], "names a seed twice"),
        ([*site, "--preset", "mystery"], "unknown preset"),
        ([*site, "--target", "write", "--chunk", "5"], "chunk=5 has no effect"),
        ([*site, "--target", "write-value", "--stride", "5"], "stride=5 has no effect"),
        ([*site, "--sparsity", "gated", "--k", "5"], "k=5 has no effect"),
        ([*site, "--epochs", "2", "--steps", "5"], "both say how long"),
        ([*site, "--features", "100000000"], "GiB"),
    ):
        assert said in refused(words, capsys)


def test_flags_win_over_a_config_file_and_say_so(
    store: MemoryStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.json"
    path.write_text(
        '{"features": 37, "sparsity": {"kind": "TopK", "k": 2, "levels": [1]}, "clip": null, "epochs": 1, "seed": 3}'
    )
    [made] = asked(tmp_path / "a", "--site", "L3.H1", "--config", str(path), "--steps", "4")
    assert (made["features"], made["clip"], made["steps"], made["epochs"], made["seed"]) == (23, None, 4, None, 3)
    assert made["sparsity"] == {"k": 3, "prefixes": [], "levels": [1], "kind": "TopK"}
    said = capsys.readouterr().out
    for words in (
        f"flags win over {path}: ",
        "features is 23, not 37",
        "steps is 4, not None",
        "epochs is None, not 1.0",
    ):
        assert words in said
    for text, words in (
        ('{"feature": 37}', f"{path}: training has no setting 'feature': did you mean features?"),
        ('{"features": "37"}', f"{path}: features='37' cannot be"),
        ('{"k": 2.5}', f"{path}: k=2.5 is no whole number"),
        ('{"sparsity": {"kind": "TopK", "kk": 2}}', f"{path}: cannot read a"),
        ("[]", "no JSON object"),
        ('{"steps": 2, "epochs": 1}', f"{path}: steps=2 and epochs=1.0 both"),
    ):
        path.write_text(text)
        assert words in refused(["--site", "L3.H1", "--config", str(path)], capsys)


def test_a_config_file_takes_the_short_forms_too(store: MemoryStore, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text('{"k": 2, "sparsity": "batch-topk", "target": "write", "preset": "writesae_rank2", "steps": 3}')
    read = read_recipe(path)
    assert (read.sparsity, read.target, read.encoder) == (BatchTopK(2), "write-delta", Bilinear(2))
    path.write_text(json.dumps(to_json(read)))  # as a run keeps it
    assert read_recipe(path) == read


def test_what_a_run_lacks_is_said_before_its_folder_is_made(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    words = ["train", "store", "--site", "L3.H1", "--out", str(tmp_path / "run"), "--steps", "3"]
    for more, said in (
        (["--log", "wandb"], "python -m pip install wandb"),
        (["--memory", "0"], "memory is GiB above 0"),
        (["--device", "gpu"], "there is no device 'gpu': give cpu, cuda, cuda:1, mps or auto"),
    ):
        with pytest.raises(SystemExit):
            main([*words, *more])
        assert said in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


def test_the_help_shows_the_defaults_of_the_library() -> None:
    shown = {field.name: field.default for field in fields(Command) if field.default is not MISSING}
    for name in ("seeds", "workers", "log", "config", "given", "epochs"):
        del shown[name]
    assert recipe(None, shown | {"site": "L0.H0"}) == TrainConfig(Site(0, 0))
    assert Command.epochs == EPOCHS


def test_short_names_are_the_usual_settings() -> None:
    made = {name: recipe(None, {"site": "L0.H0", "sparsity": name}).sparsity for name in SPARSITIES}
    assert made == {name: kind() for name, kind in SPARSITIES.items()}
    assert recipe(None, {"site": "L0.H0", "sparsity": "jumprelu", "k": 7}).sparsity == JumpReLU(7.0)
    base = TrainConfig(Site(0, 0), sparsity=BatchTopK(5), decoder=Factored(2), encoder=Bilinear(2))
    assert recipe(base, {"k": 7}).sparsity == BatchTopK(7)
    with pytest.raises(ConfigError, match="no effect with Gated"):
        recipe(TrainConfig(Site(0, 0), sparsity=Gated()), {"k": 7})
