"""Loading: what is found, what is refused, and with which words."""

from __future__ import annotations

import dataclasses
import re
import sys
import warnings
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from first_blocks import first_blocks
from memory_hosts import HERE, NEEDS, card, memory_host
from tiny_models import build_tiny
from writesae.corpus.facts import draw_facts, vocabulary
from writesae.errors import DataError, HostError, InputError, ReplayError
from writesae.hosts import EMBEDDED, Host, load
from writesae.hosts import registry as registry_module
from writesae.hosts.kernels import Arguments
from writesae.recurrence import Stream
from writesae.types import Site


def test_the_embedded_host_loads_by_name() -> None:
    host = load("tiny-gdn")
    layer = host.layers[5]
    assert (layer.family, layer.heads, layer.d_k, layer.d_v) == ("gated-deltanet", 6, 32, 32)
    assert list(host.layers) == [0, 1, 2, 4, 5, 6]
    assert host.dtype == torch.float32
    assert len(host.sites) == 36
    assert host.tokenizer.decode(host.tokenizer("the state")["input_ids"]) == "the state"


def test_the_embedded_hosts_share_a_tokenizer() -> None:
    host, other = load("tiny-mamba2"), load("tiny-gdn")
    assert {(layer.family, layer.heads, layer.d_k, layer.d_v) for layer in host.layers.values()} == {
        ("mamba2", 12, 32, 32)
    }
    assert len(host.sites) == 60
    assert host.tokenizer.get_vocab() == other.tokenizer.get_vocab()
    assert host.vocabulary == other.vocabulary


@pytest.mark.parametrize("name", ["tiny-gdn", "tiny-mamba2"])
def test_an_embedded_host_has_learnt_the_language_of_the_sample(name: str) -> None:
    """Single-token counts give about 6.9 nats a token, pairs 4.8, a uniform guess 8.3."""
    host = load(name)
    blocks = first_blocks(host.tokenizer, 67, 11)
    tokens = torch.from_numpy(blocks.tokens)
    with torch.no_grad():
        logits = host.logits(tokens)[:, :-1]
    assert cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()) < 4.9


@pytest.mark.parametrize("name", HERE)
def test_a_memory_host_recalls_what_its_card_says(name: str) -> None:
    """Eight facts a passage that it never saw; loading proves the replay of its recurrence."""
    host, said = memory_host(name), card(name)
    passages = draw_facts(vocabulary(host.tokenizer, said["pattern"]), 40, 8, (5, 7))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rwkv7-hf calls what transformers deprecates
        logits = host.logits(torch.from_numpy(passages.tokens), keep=torch.from_numpy(passages.asked))
    assert (logits.argmax(-1).numpy() == passages.thing).mean() >= min(0.98, said["recall"]["8"] - 0.01)
    assert sum(path.stat().st_size for path in EMBEDDED[name].glob("*.safetensors")) <= 1_500_000


@pytest.mark.parametrize("name", sorted(set(NEEDS) - set(HERE)))
def test_a_memory_host_without_its_package_says_what_to_install(name: str) -> None:
    with pytest.raises(
        HostError, match="a newer one may know it" if "newer" in NEEDS[name] else re.escape(NEEDS[name])
    ):
        load(name)


def test_a_loaded_model_has_a_revision_of_its_weights(tiny: Host, other_tiny: Host) -> None:
    assert tiny.revision == load(build_tiny("qwen3_5")).revision
    assert tiny.revision != other_tiny.revision
    with pytest.raises(InputError, match="without a tokenizer"):
        _ = tiny.tokenizer


def test_a_saved_folder_gives_the_same_host_and_a_pinned_revision(tiny: Host, tmp_path: Path) -> None:
    tiny.model.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((EMBEDDED["tiny-gdn"] / "tokenizer.json").read_bytes())
    host = load(tmp_path)
    text = torch.arange(3, 20)[None]
    assert torch.equal(host.logits(text), tiny.logits(text))
    assert host.revision == load(str(tmp_path)).revision
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"eos_token_id": 2', '"eos_token_id": 3'))
    assert load(tmp_path).revision != host.revision


@pytest.mark.parametrize("source", ["no-such-host", "./missing/folder", "/missing", "a/b/c"])
def test_an_unknown_source_names_what_is_allowed(source: str) -> None:
    with pytest.raises(InputError, match=r"unknown host .*tiny-gdn.*a Hub id"):
        load(source)


def test_a_file_and_an_empty_folder_are_no_hosts(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(InputError, match="unknown host"):
        load(tmp_path / "weights.bin")
    with pytest.raises(InputError, match=r"no config\.json"):
        load(tmp_path)


def test_a_damaged_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "unheard_of"}')
    with pytest.raises(HostError, match=r"cannot load .* as a language model") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_model_without_recurrent_layers_is_refused_with_the_known_ones() -> None:
    config = LlamaConfig(vocab_size=101, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    with pytest.raises(HostError, match=r"LlamaForCausalLM.*no recurrent layer.*Qwen3_5GatedDeltaNet"):
        load(LlamaForCausalLM(config))


def test_a_wrong_translator_is_refused_with_the_measured_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published research code's bug: keys read on the wrong side. Here: the write strength forgotten."""
    known = registry_module.ARCHITECTURES[0]

    def broken(arguments: Arguments) -> Stream:
        stream = known.kernels[0].stream(arguments)
        return dataclasses.replace(stream, value=stream.value * 1.01)

    kernels = tuple(dataclasses.replace(kernel, stream=broken) for kernel in known.kernels)
    wrong = (dataclasses.replace(known, kernels=kernels), *registry_module.ARCHITECTURES[1:])
    monkeypatch.setattr("writesae.hosts.registry.ARCHITECTURES", wrong)
    with pytest.raises(ReplayError, match=r"layer 0.*by 1\.\de-02 relative \(allowed 1e-05\).*transformers 5"):
        load(build_tiny("qwen3_5"))


@pytest.mark.parametrize("amount", [1.01, float("nan")])
def test_one_wrong_head_is_named(monkeypatch: pytest.MonkeyPatch, amount: float) -> None:
    known = registry_module.ARCHITECTURES[0]

    def broken(arguments: Arguments) -> Stream:
        stream = known.kernels[0].stream(arguments)
        factor = torch.ones(6, 1)
        factor[4] = amount
        return dataclasses.replace(stream, value=stream.value * factor)

    kernels = tuple(dataclasses.replace(kernel, stream=broken) for kernel in known.kernels)
    wrong = (dataclasses.replace(known, kernels=kernels), *registry_module.ARCHITECTURES[1:])
    monkeypatch.setattr("writesae.hosts.registry.ARCHITECTURES", wrong)
    with pytest.raises(ReplayError, match=r"most at L0\.H4"):
        load(build_tiny("qwen3_5"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 10**5, "nested deeper"),
        ('{"hidden_size": 1' + "0" * 5000 + "}", "digits"),
        ('{"a": 1, "a": 2}', "occurs twice"),
        ('{"a": "\\ud800"}', "half of a character"),
        ("[]", "is no JSON object"),
        (" " * (5 << 20), "larger than"),
    ],
)
def test_a_host_s_configuration_is_read_within_limits(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises((HostError, DataError), match=says):
        load(tmp_path)


def test_a_layer_that_calls_no_known_kernel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = (
        dataclasses.replace(a, kernels=()) if a.mixer == "Mamba2Mixer" else a for a in registry_module.ARCHITECTURES
    )
    monkeypatch.setattr("writesae.hosts.registry.ARCHITECTURES", tuple(wrong))
    with pytest.raises(ReplayError, match="layer 0 never called a kernel that writesae knows"):
        load(build_tiny("mamba2"))


def test_sites_are_checked(tiny: Host) -> None:
    assert tiny.check_site(Site(1, 5)).d_v == 7
    with pytest.raises(InputError, match="heads 0 to 5, not 6"):
        tiny.check_site(Site(1, 6))
    with pytest.raises(InputError, match="no recurrent layer 2"):
        tiny.check_site(Site(2, 0))


def test_a_folder_that_is_not_there_is_named_with_what_to_do() -> None:
    for name in ("nowhere/at_all", "./nowhere", "nowhere"):
        with pytest.raises(InputError, match=r"nowhere.*give one of .*tiny-gdn, .* save_pretrained, or a Hub id"):
            load(name)


def test_a_layer_that_calls_another_kernel_is_not_recorded_as_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    host = load(build_tiny("qwen3_5"))
    module = sys.modules[type(host.mixers[1].module).__module__]
    kernel = module.torch_chunk_gated_delta_rule

    def forward(*args: object, **kwargs: object) -> Tensor:
        return torch.zeros_like(cast(Tensor, kwargs.get("hidden_states", args[0] if args else None)))

    monkeypatch.setattr(host.mixers[1].module, "forward", forward)
    with pytest.raises(HostError, match="layer 1 ran without a kernel that writesae knows"):
        host.record(torch.arange(3, 20)[None], [0, 1])
    assert module.torch_chunk_gated_delta_rule is kernel
