"""Which class serves a checkpoint, and the words where none does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Mamba2Config, MambaConfig

from tiny_models import build_tiny
from writesae.errors import HostError
from writesae.hosts import load, versions
from writesae.hosts.mamba_ssm_format import convert_config

ORIGINAL = {
    "d_model": 21,
    "d_intermediate": 0,
    "n_layer": 2,
    "vocab_size": 99,
    "ssm_cfg": {"layer": "Mamba2", "headdim": 7, "d_state": 5, "ngroups": 2, "chunk_size": 11},
    "attn_layer_idx": [],
    "attn_cfg": {},
    "rms_norm": True,
    "residual_in_fp32": True,
    "fused_add_norm": True,
    "pad_vocab_size_multiple": 101,
    "tie_embeddings": True,
}


MAMBA1 = ORIGINAL | {"d_model": 7, "ssm_cfg": {"d_state": 5}}


@pytest.mark.parametrize(
    ("name", "original", "sizes"), [("mamba2", ORIGINAL, (6, 5, 7)), ("mamba1_released", MAMBA1, (14, 5, 1))]
)
def test_an_original_checkpoint_is_the_converted_model(
    tmp_path: Path, name: str, original: dict[str, object], sizes: tuple[int, int, int]
) -> None:
    model = build_tiny(name)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    weights = {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}
    weights["backbone.embedding.weight"] = weights.pop("backbone.embeddings.weight")
    torch.save(weights, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps(original))
    model.lm_head.weight = model.backbone.embeddings.weight  # type: ignore[union-attr]
    (tmp_path / "tokenizer.json").write_text(embedded_tokenizer())
    host = load(tmp_path)
    text = torch.arange(3, 20)[None]
    with torch.no_grad():
        expected = model(input_ids=text).logits
    torch.testing.assert_close(host.logits(text), expected)
    assert [(layer.heads, layer.d_k, layer.d_v) for layer in host.layers.values()] == [sizes] * 2


def embedded_tokenizer() -> str:
    from writesae.hosts import EMBEDDED

    return (EMBEDDED["tiny-gdn"] / "tokenizer.json").read_text()


def test_the_released_sizes_are_converted_as_published() -> None:
    """state-spaces/mamba2-370m: 48 layers of 1024, 32 heads of 64, state 128, vocabulary padded to 50288."""
    published = {
        "d_model": 1024,
        "n_layer": 48,
        "vocab_size": 50277,
        "ssm_cfg": {"layer": "Mamba2"},
        "pad_vocab_size_multiple": 16,
        "attn_layer_idx": [],
    }
    config = convert_config(published, "mamba2-370m")
    assert isinstance(config, Mamba2Config)
    assert (config.num_heads, config.head_dim, config.state_size, config.n_groups) == (32, 64, 128, 1)
    assert (config.vocab_size, config.num_hidden_layers, config.tie_word_embeddings) == (50288, 48, True)


def test_the_released_sizes_of_mamba1_are_converted_as_published() -> None:
    """state-spaces/mamba-2.8b: 64 layers of 2560, state 16, dt of rank 160."""
    published = {"d_model": 2560, "n_layer": 64, "vocab_size": 50277, "ssm_cfg": {}, "pad_vocab_size_multiple": 8}
    config = convert_config(published, "mamba-2.8b")
    assert isinstance(config, MambaConfig)
    assert (config.intermediate_size, config.state_size, config.time_step_rank) == (5120, 16, 160)
    assert (config.vocab_size, config.num_hidden_layers, config.tie_word_embeddings) == (50280, 64, True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ssm_cfg": {"layer": "Mamba3"}}, "is a Mamba3 model; Mamba1 and Mamba2 are known"),
        ({"attn_layer_idx": [9, 18]}, "has attention layers"),
        ({"ssm_cfg": {"layer": "Mamba2", "D_has_hdim": True}}, r"sets \['D_has_hdim'\]"),
    ],
)
def test_other_models_of_that_code_base_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(HostError, match=message):
        convert_config(ORIGINAL | change, "some-model")


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(ORIGINAL))
    with pytest.raises(HostError, match="no weights"):
        load(tmp_path)
    torch.save({"something.else": torch.zeros(2)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(HostError, match=r"do not fit.*unknown \['something\.else'\]"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("model_type", "message"),
    [
        ("gla", r"a gla model .* needs the package flash-linear-attention: pip install 'writesae\[fla\]'"),
        ("rwkv7", r"is an RWKV-7 model.* needs the package rwkv7-hf: pip install 'writesae\[rwkv7\]'"),
    ],
)
def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_type: str, message: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    monkeypatch.setattr("writesae.hosts.checkpoints.installed_version", lambda package: None)
    monkeypatch.setattr(versions, "installed_version", lambda package: None)
    with pytest.raises(HostError, match=message):
        load(tmp_path)


def test_remote_code_is_not_run_unless_asked_for(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "new", "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}})
    )
    (tmp_path / "code.py").write_text("raise SystemExit('ran')")
    with pytest.raises(HostError, match="cannot load"):
        load(tmp_path)


def test_an_old_transformers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    versions.require_transformers()
    for old in ("5.14.1", "4.57.6"):
        monkeypatch.setattr(versions, "version", lambda name, old=old: old)
        with pytest.raises(HostError, match=rf"transformers {old} is too old.*pip install 'transformers>=5\.15'"):
            versions.require_transformers()


def test_a_folder_without_a_tokenizer_gives_a_host_without_one(tmp_path: Path) -> None:
    build_tiny("qwen3_5").save_pretrained(tmp_path)
    host = load(tmp_path)
    assert set(host.record(torch.arange(3, 9)[None], [1])) == {1}


def test_a_device_map_spreads_the_model(tmp_path: Path) -> None:
    """A layer and both ends on disk: their weights come and go, and the stream is the same."""
    pytest.importorskip("accelerate")
    build_tiny("qwen3_5").save_pretrained(tmp_path)
    here, away = ("0", "2"), ("model.embed_tokens", "model.layers.1", "lm_head")
    rest = [f"model.layers.{index}" for index in here] + ["model.norm", "model.rotary_emb"]
    device_map = dict.fromkeys(rest, "cpu") | dict.fromkeys(away, "disk")
    host = load(tmp_path, device_map=device_map)
    assert host.model.get_parameter("model.layers.1.linear_attn.out_proj.weight").is_meta
    text, plain = torch.arange(3, 20)[None], load(tmp_path)
    assert torch.equal(host.record(text, [0, 1])[1].value, plain.record(text, [0, 1])[1].value)
    assert torch.equal(host.logits(text), plain.logits(text))
    assert host.revision == plain.revision
    with pytest.raises(HostError, match="offloaded"):
        _ = load(host.model).revision


def saved(tmp_path: Path, change: Callable[[dict[str, Tensor]], None]) -> Path:
    """The tiny Qwen3.5 as a folder whose weights were changed."""
    build_tiny("qwen3_5").save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    change(weights)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    return tmp_path


MIXER = "model.layers.1.linear_attn"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(f"{MIXER}.A_log"), rf"lacks weights of Qwen3_5ForCausalLM, .* random: {MIXER}\.A_log$"),
        (lambda w: [w.pop(name) for name in list(w) if "mlp" in name], r"random: model\.layers\.0\..* and 4 more$"),
        (
            lambda w: w.update({f"{MIXER}.A_log": torch.zeros(3)}),
            rf"lacks weights of .* random: {MIXER}\.A_log \(\[3\], not \[6\]\)",
        ),
        (
            lambda w: w.update({f"{MIXER}.f_a_proj.weight": torch.zeros(3)}),
            rf"Qwen3_5ForCausalLM lacks, so this is another architecture of that name: {MIXER}\.f_a_proj\.weight",
        ),
    ],
    ids=["one-missing", "many-missing", "another-shape", "another-architecture"],
)
def test_a_checkpoint_that_is_not_whole_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], None], message: str
) -> None:
    """transformers draws what is missing at random, and the self-check then proves the noise."""
    with pytest.raises(HostError, match=message):
        load(saved(tmp_path, change))


def test_what_belongs_to_no_layer_is_listed_and_left(tmp_path: Path) -> None:
    def extend(weights: dict[str, Tensor]) -> None:
        extra = ("model.vision.blocks.0.weight", "model.vision.norm", "model.layers.3.mlp.up", "value_head.weight")
        weights.update({name: torch.zeros(2) for name in extra} | {"mtp.norm.weight": torch.zeros(2)})

    host = load(saved(tmp_path, extend))
    assert host.left_out == ("model.layers", "model.vision", "value_head.weight")  # transformers itself drops mtp
    assert "without model.layers, model.vision, value_head.weight)" in repr(host)
    assert load("tiny-gdn").left_out == ()


def test_a_tied_unembedding_is_not_missing(tmp_path: Path) -> None:
    model = build_tiny("qwen3_5")
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    assert load(tmp_path).left_out == ()
