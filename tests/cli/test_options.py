"""Groups of flags that several commands share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from small_results import small_sae
from writesae.artifacts import save_sae
from writesae.cli.options import Flat, HostOptions, Running, TextOptions, dictionaries, dictionary
from writesae.cli.parsing import parse_flags
from writesae.errors import InputError
from writesae.hosts import Host
from writesae.sae import Record
from writesae.types import Site


@dataclass(frozen=True)
class Flags:
    """A command."""

    out: Path
    """Where to write."""
    on: Flat[HostOptions] = field(default_factory=HostOptions)
    text: Flat[TextOptions] = field(default_factory=lambda: TextOptions(part="train"))


def parse(words: str) -> Flags:
    return parse_flags(Flags, "writesae try", words.split(), "")


def test_flags_stand_beside_the_command_s_own() -> None:
    assert parse("--out o") == Flags(Path("o"), HostOptions(), TextOptions(part="train"))
    given = parse("--dtype bfloat16 --out o --device cuda --host h --part all --held-out 0.3 --bos --corpus c")
    assert given.on == HostOptions("h", Running("cuda", "bfloat16"))
    assert given.text == TextOptions("c", "all", 0.3, True)
    with pytest.raises(InputError, match="--host is given more than once"):
        parse("--out o --host a --host b")


def test_a_host_is_opened_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    host = parse("--out o --host tiny-gdn --dtype bfloat16 --device cpu").on.open()
    assert (host.name, host.dtype, host.device) == ("tiny-gdn", torch.bfloat16, torch.device("cpu"))
    asked: dict[str, object] = {}
    monkeypatch.setattr("writesae.hosts.load", lambda source, **options: asked.update(options, source=source))
    parse("--out o --host u/n --revision main --trust-remote-code").on.open()
    assert (asked["source"], asked["revision"], asked["trust_remote_code"]) == ("u/n", "main", True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs that `train` wrote, a dictionary, and one that does not say its head."""
    place = tmp_path_factory.mktemp("saes")
    for head in (4, 5):
        save_sae(small_sae(), place / "runs" / f"L5.H{head}_state_seed0" / "sae", Record(site=Site(5, head)))
    save_sae(small_sae(), place / "one", Record(site=Site(2, 1)))
    save_sae(small_sae(), place / "homeless", Record())
    return place


def test_dictionaries_of_folders(folder: Path) -> None:
    runs, one, homeless = (str(folder / name) for name in ("runs", "one", "homeless"))
    assert [sae.site for sae in dictionaries([one, runs])] == [Site(2, 1), Site(5, 4), Site(5, 5)]
    assert [sae.site for sae in dictionaries([runs], ["all"])] == [Site(5, 4), Site(5, 5)]
    assert [sae.site for sae in dictionaries([runs, homeless], ["L5.H5"])] == [Site(5, 5), None]
    assert dictionary(runs, "L5.H4").site == Site(5, 4)
    assert dictionary(str(folder / "runs" / "L5.H4_state_seed0"), None).site == Site(5, 4)
    with pytest.raises(InputError, match=r"runs holds 2 dictionaries, of L5\.H4, L5\.H5: name a head with --site"):
        dictionary(runs, None)
    with pytest.raises(InputError, match=r"no dictionary of L5\.H1; it has L5\.H4, L5\.H5"):
        dictionaries([runs], ["L5.H1"])
    with pytest.raises(InputError, match=r"there is no folder nowhere, and it is no Hub id"):
        dictionaries([one, "nowhere"])
    with pytest.raises(InputError, match="holds neither"):
        dictionaries([str(folder)])


def test_text_is_a_part_of_one_split(host: Host) -> None:
    parts = {
        part: parse(f"--out o --part {part} --held-out 0.3").text.open(host, 31) for part in ("train", "test", "all")
    }
    assert [parts[part].described for part in parts] == ["train of 0.7", "test of 0.7", "all"]
    assert parts["test"].length == 31
    blocks = {part: {tuple(row) for row in text.blocks().tokens.tolist()} for part, text in parts.items()}
    assert blocks["train"]
    assert blocks["test"]
    assert not blocks["train"] & blocks["test"]


def test_bad_text_is_seen_before_a_host_is_loaded() -> None:
    TextOptions().check()
    with pytest.raises(InputError, match="no corpus at nowhere"):
        TextOptions("nowhere").check()
    for share in (0, 1, -3, float("nan")):
        with pytest.raises(InputError, match="between 0 and 1"):
            TextOptions(held_out=share).check()
