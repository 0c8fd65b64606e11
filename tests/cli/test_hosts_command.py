"""`writesae hosts`: what is supported, what is installed, and one model's sites."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tiny_models import TINY_MODELS
from writesae.cli import main
from writesae.hosts import EMBEDDED, inventory
from writesae.hosts.registry import ARCHITECTURES


def test_every_family_and_class_is_listed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    main(["hosts"])
    out = capsys.readouterr().out
    for architecture in ARCHITECTURES:
        assert architecture.family in out
        assert architecture.models
        for model in architecture.models:
            assert model in out
    for name, folder in EMBEDDED.items():
        row = next(line for line in out.splitlines() if line.split()[:1] == [name])
        assert json.loads((folder / "card.json").read_text())["quality"] in row


def test_every_tiny_model_s_class_is_listed() -> None:
    listed = {model for row in inventory.inventory() for model in row.models}
    assert {spec.model for spec in TINY_MODELS.values()} <= listed


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "installed_version", lambda package: "5.23" if package == "transformers" else None)
    rows = {(row.family, row.package): row for row in inventory.inventory()}
    assert rows["rwkv7", "rwkv7-hf"].devices == "pip install 'writesae[rwkv7]'"
    assert rows["mamba2", "transformers"].devices.startswith("cpu (torch)")
    needs = {host.name: host.needs for host in inventory.shipped()}
    extras = {"memory-rwkv7": "rwkv7", "memory-gla": "fla", "memory-deltanet": "fla"}
    assert needs == {name: f"pip install 'writesae[{extras[name]}]'" if name in extras else "" for name in EMBEDDED}


def test_a_model_s_sites_are_listed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    main(["hosts", "tiny-gdn"])
    out = capsys.readouterr().out
    assert "36 sites in 6 of 8 layers" in out
    assert "L5.H0 to L5.H5" in out
    assert "32 x 32" in out
    assert "5c17f11d5f0b0bf60c13de20e89ab93b923ed9fb944f8ccb8e707f7b2" in out


@pytest.mark.parametrize("model", ["no-such-host", "."])
def test_bad_models_exit_with_2_and_one_line(
    model: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["hosts", model])
    assert stopped.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_flag_without_a_model_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["hosts", "--device", "cpu"])
    assert stopped.value.code == 2
    assert "--device has no effect without a model" in capsys.readouterr().err
