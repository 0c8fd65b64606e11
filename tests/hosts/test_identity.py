"""A host is what its weights are: not what it is called, in which precision, on which device, or how it got here."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import pytest
import torch
from huggingface_hub import HfFileMetadata, constants, get_hf_file_metadata
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from fake_hub import Hub, point_at, serve
from tiny_models import build_tiny
from writesae.disk import sha256
from writesae.errors import HostError, InputError
from writesae.hosts import EMBEDDED, Host, identity, load, sources

TINY = EMBEDDED["tiny-gdn"]


@pytest.fixture
def folder(tmp_path: Path, tiny: Host) -> Path:
    tiny.model.save_pretrained(tmp_path / "hostA")
    return tmp_path / "hostA"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with serve(Hub(), monkeypatch) as hub:
        yield hub


def from_memory(folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)


def half(model: PreTrainedModel) -> PreTrainedModel:
    return nn.Module.to(copy.deepcopy(model), torch.bfloat16)


def test_a_checkpoint_in_half_precision_runs_in_float32() -> None:
    assert torch.bfloat16 == from_memory(TINY, "auto").dtype  # type: ignore[arg-type]
    assert (load(TINY).dtype, load(TINY).exact) == (torch.float32, True)
    assert (load(TINY, dtype="auto").dtype, load(TINY, dtype="bfloat16").exact) == (torch.bfloat16, False)


def test_names_precisions_and_ways_of_loading_are_the_same_host(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    want = load(folder).revision
    monkeypatch.chdir(folder.parent)
    assert {load(name).revision for name in ("hostA", "./hostA")} == {want}
    assert load(folder, dtype="bfloat16").revision == want
    assert {load(from_memory(folder, dtype)).revision for dtype in (torch.float32, torch.bfloat16)} == {want}


def test_a_model_in_memory_is_known_by_its_values_in_any_precision(tiny: Host) -> None:
    rounded = half(tiny.model)
    wide = nn.Module.to(copy.deepcopy(rounded), torch.float64)
    assert load(rounded).revision == Host(wide, None, "wide", lambda: identity.model_revision(wide)).revision
    assert load(rounded).revision != tiny.revision


def test_other_weights_under_the_same_name_are_another_host(folder: Path) -> None:
    before, model = load(folder), from_memory(folder)
    with torch.no_grad():
        model.get_parameter("model.layers.0.linear_attn.A_log")[3] += 1e-6
    assert load(model).revision != before.revision  # it still says that it came from there
    model.save_pretrained(folder)
    assert load(folder).revision != before.revision


def test_another_configuration_is_another_host(folder: Path) -> None:
    model = from_memory(folder)
    model.config.rms_norm_eps = 1e-5
    assert load(model).revision != load(folder).revision


def test_the_identity_is_found_once_and_only_where_it_is_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = reading(monkeypatch)
    host = load(folder)
    assert read == []
    assert host.revision == host.revision
    assert read == ["model.safetensors"]


def reading(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose tensors are read from now on."""
    read, real = list[str](), identity._tensors

    def watched(path: Path) -> AbstractContextManager[tuple[list[str], Callable[[str], Tensor]]]:
        read.append(path.name)
        return real(path)

    monkeypatch.setattr(identity, "_tensors", watched)
    return read


def test_a_large_file_is_read_once_for_all_processes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "WORTH_KEEPING", 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "kept"))
    read, want = reading(monkeypatch), load(folder).revision
    assert load(folder).revision == want
    assert read == ["model.safetensors"]
    (kept,) = (tmp_path / "kept" / "writesae" / "tensors").iterdir()
    kept.write_text(kept.read_text()[:1000])  # cut short: read again
    assert load(folder).revision == want
    model = from_memory(folder)
    with torch.no_grad():
        model.get_parameter("lm_head.weight")[0, 0] += 1
    model.save_pretrained(folder)  # the same size and name
    assert load(folder).revision != want
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "config.json"))  # no place for a folder
    assert load(folder).revision != want
    assert read == ["model.safetensors"] * 4


def test_splitting_files_and_what_lies_beside_them_changes_nothing(folder: Path, tmp_path: Path) -> None:
    want = load(folder).revision
    (folder / "training_args.bin").write_bytes(b"whatever")
    (folder / "config.json").write_text(
        (folder / "config.json").read_text().replace('"transformers_version": "', '"transformers_version": "0')
    )
    assert load(folder).revision == want
    from_memory(folder).save_pretrained(tmp_path / "split", max_shard_size="20KB")
    assert len(identity.weight_files(tmp_path / "split")) > 2
    assert load(tmp_path / "split").revision == want
    state = load_file(folder / "model.safetensors")
    (tmp_path / "pickled").mkdir()
    torch.save(state, tmp_path / "pickled" / "pytorch_model.bin")
    shutil.copy(folder / "config.json", tmp_path / "pickled")
    assert load(tmp_path / "pickled").revision == want
    state["lm_head.weight"] = state["lm_head.weight"].flip(0)
    torch.save(state, tmp_path / "pickled" / "pytorch_model.bin")
    assert load(tmp_path / "pickled").revision != want


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_changed_in_memory_are_another_host(folder: Path, dtype: Literal["float32", "bfloat16"]) -> None:
    """Before the identity is first asked for, and after; put back, they are the files' again."""
    host, want = load(folder, dtype=dtype), load(folder).revision
    weight = host.model.get_parameter("lm_head.weight")
    own = weight.detach().clone()
    with torch.no_grad():
        weight.mul_(2)
    changed = host.revision
    assert changed != want
    with torch.no_grad():
        weight.copy_(own)
    assert host.revision == want
    host.model.lm_head = nn.Linear(32, 101, bias=False).to(own.dtype)
    assert host.revision not in (want, changed)


def test_a_model_with_a_buffer_of_no_dimension_has_an_identity() -> None:
    first, second = build_tiny("qwen3_5"), build_tiny("qwen3_5")
    for model, scale in ((first, 1.0), (second, 2.0)):
        model.register_buffer("scale", torch.tensor(scale))
    assert load(first).revision != load(second).revision


def test_files_that_changed_after_loading_do_not_identify_the_host(folder: Path) -> None:
    host = load(folder)
    build_tiny("qwen3_5", seed=1).save_pretrained(folder)
    with pytest.raises(HostError, match="changed since the model was loaded"):
        _ = host.revision


def test_several_files_of_weights_are_all_counted(tiny: Host, tmp_path: Path) -> None:
    tiny.model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(identity.weight_files(tmp_path)) > 2
    assert load(from_memory(tmp_path)).revision == load(tmp_path).revision


def test_a_model_of_the_caller_is_left_as_it_is(folder: Path) -> None:
    model = from_memory(folder, torch.bfloat16).train()
    frozen = model.get_parameter("lm_head.weight").requires_grad_(False)
    host = load(model)
    assert host.model is model
    with host.tap():
        assert not any(module.training for module in model.modules())
        with host.tap():
            assert not any(parameter.requires_grad for parameter in model.parameters())
        assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.modules())
    assert [parameter for parameter in model.parameters() if not parameter.requires_grad] == [frozen]
    assert model.dtype == torch.bfloat16
    assert not host.exact
    for change in ({"dtype": "float32"}, {"device": "meta"}, {"revision": "main"}):
        with pytest.raises(InputError, match=r"not changed to float32|not moved to meta|belong to a model"):
            load(model, **change)  # type: ignore[arg-type]
    assert load(model, dtype="bfloat16", device="cpu").model is model


def test_a_bad_device_is_one_line() -> None:
    with pytest.raises(InputError, match=r"^there is no device 'gpu': give cpu, cuda, cuda:1, mps or auto$"):
        load("tiny-gdn", device="gpu")
    with pytest.raises(InputError, match="not a int"):
        load(5)


def test_a_host_of_the_hub_is_the_one_of_a_folder(
    folder: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "tokenizer.json").write_bytes((EMBEDDED["tiny-gdn"] / "tokenizer.json").read_bytes())
    old = hub.add_folder("me/host", folder)
    build_tiny("qwen3_5", seed=1).save_pretrained(folder.parent / "new")
    hub.add_folder("me/host", folder.parent / "new")
    first, local = load("me/host", revision=old), load(folder)
    monkeypatch.setattr(identity, "WORTH_KEEPING", 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "kept"))
    assert first.revision == local.revision
    names = {path.stem for path in (tmp_path / "kept" / "writesae" / "tensors").iterdir()}
    assert sha256(folder / "model.safetensors") in names  # the Hub's cache knows it by its content, whatever its time
    assert load("me/host").revision != local.revision
    assert load(AutoModelForCausalLM.from_pretrained("me/host")).revision == load("me/host").revision


def test_the_hub_is_asked_once_and_its_cache_serves_without_it(
    folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_folder("me/host", folder)
    want = load("me/host").revision
    asked: list[str] = []
    point_at(hub, "http://127.0.0.1:9", monkeypatch)

    def watched(url: str, timeout: float) -> HfFileMetadata:
        asked.append(url)
        return get_hf_file_metadata(url, timeout=timeout)

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", watched)
    assert load("me/host").revision == want
    assert len(asked) == 1
    for name in ("me/hots", "nobody/nothing"):
        with pytest.raises(
            InputError, match=f"no folder {name}.*the Hub cannot be reached .* not in its cache"
        ) as caught:
            load(name)
        assert "\n" not in str(caught.value)
    assert len(asked) == 3


def test_what_the_hub_does_not_have_is_said(folder: Path, hub: Hub) -> None:
    hub.add("me/text", {"README.md": b"words"})
    for name, revision, words in (
        ("me/none", None, "no me/none on the Hub"),
        ("me/text", None, "no config.json"),
        ("me/text", "v2", "no revision v2"),
        ("me/a--b", None, "no me/a--b on the Hub"),
    ):
        with pytest.raises(InputError, match=words):
            load(name, revision=revision)


def test_a_mistyped_folder_is_named_with_what_is_near(folder: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr(sources, "ask_hub", lambda *_: pytest.fail("it is no Hub id"))
    for wrong, near in (
        ("hotsA", "hostA"),
        ("./hotA", "hostA"),
        (str(folder) + "s", str(folder)),
        ("tiny-gnd", "tiny-gdn"),
    ):
        with pytest.raises(InputError, match=f"no folder .*near: {near}"):
            load(wrong)
    monkeypatch.undo()
    shutil.copytree(folder, folder.parent / "models" / "good")
    monkeypatch.chdir(folder.parent)
    with pytest.raises(InputError, match=r"no folder models/goood \(near: models/good"):
        load("models/goood")
