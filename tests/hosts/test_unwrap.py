"""Models as users hold them: adapted, compiled, spread, inside another library's object."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from random_hosts import relative, some_tokens
from tiny_models import build_tiny
from writesae.errors import HostError, InputError
from writesae.hosts import EMBEDDED, Host, load
from writesae.hosts.fork import native_run
from writesae.hosts.output import head_columns, record_outputs, unembedding


class Adapted(nn.Module):
    """A linear map with a low-rank one beside it, as adapters are."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.randn(3, base.in_features) * 0.3)
        self.up = nn.Parameter(torch.randn(base.out_features, 3) * 0.3)

    @property
    def weight(self) -> Tensor:
        return self.base.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x) + x @ self.down.T @ self.up.T
        return out


class Packed(nn.Module):
    """A linear map kept in 8 bits; with `inputs`, what comes in is rounded too."""

    def __init__(self, base: nn.Linear, inputs: bool) -> None:
        super().__init__()
        self.scale = base.weight.detach().abs().amax(1, keepdim=True) / 127
        self.register_buffer("packed", (base.weight.detach() / self.scale).round().to(torch.int8))
        self.inputs = inputs

    def forward(self, x: Tensor) -> Tensor:
        if self.inputs:
            step = x.abs().amax(-1, keepdim=True).clamp_min(1e-9) / 127
            x = (x / step).round() * step
        return x @ (cast(Tensor, self.packed).to(x.dtype) * self.scale).T


def changed(wrap: Callable[[nn.Linear], nn.Module]) -> PreTrainedModel:
    """The tiny Qwen3.5 with every linear map of its mixers wrapped, and its unembedding."""
    model = build_tiny("qwen3_5")
    torch.manual_seed(0)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and ("linear_attn" in name or name == "lm_head"):
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, wrap(module))
    return model


def columns_are_what_runs(host: Host) -> None:
    found: list[Tensor] = []
    projection = host.mixers[0].module.get_submodule("out_proj")
    handle = projection.register_forward_hook(lambda _, given, out: found.append(out))
    host.logits(some_tokens())
    handle.remove()
    outputs = record_outputs(host, some_tokens(), [0])[0]
    summed = torch.einsum("bthv,hvw->btw", outputs.projected, head_columns(host, 0))
    assert relative(summed, found[0]) <= 1e-5
    assert unembedding(host).shape == (101, 32)


@pytest.mark.parametrize("wrap", [Adapted, lambda base: Packed(base, inputs=False)], ids=["adapted", "packed"])
def test_a_wrapped_projection_has_the_columns_that_run(wrap: Callable[[nn.Linear], nn.Module]) -> None:
    host = load(changed(wrap))
    columns_are_what_runs(host)
    assert relative(head_columns(host, 0), head_columns(load(build_tiny("qwen3_5")), 0)) > 1e-3


def test_a_projection_that_rounds_its_inputs_is_refused_by_name() -> None:
    host = load(changed(lambda base: Packed(base, inputs=True)))
    assert set(host.record(some_tokens(), [0, 1])) == {0, 1}
    with pytest.raises(HostError, match=r"layer 1's output projection \(Packed\) is not linear"):
        head_columns(host, 1)
    with pytest.raises(HostError, match=r"the unembedding \(Packed\) is not linear"):
        unembedding(host)


@pytest.mark.parametrize("whole", ["method", "function", "forward"])
def test_a_compiled_model_runs_as_it_was_written(tiny: Host, whole: str) -> None:
    """Compiled code has other names in it: recorded or edited it would be as if nobody had asked."""
    model, ran = build_tiny("qwen3_5"), []

    def backend(graph: torch.fx.GraphModule, examples: object) -> Callable[..., object]:
        ran.append(graph)
        return graph.forward

    if whole == "method":
        model.compile(backend=backend)
        model.model.layers[0].linear_attn.compile(backend=backend)
    elif whole == "forward":
        model.forward = torch.compile(model.forward, backend=backend)
    held = torch.compile(model, backend=backend) if whole == "function" else model
    before = dict(vars(model))
    host = load(held)
    assert host.model is model
    assert torch.equal(host.record(some_tokens(), [1])[1].key, tiny.record(some_tokens(), [1])[1].key)
    assert torch.equal(host.logits(some_tokens()), tiny.logits(some_tokens()))
    assert ran == []
    assert vars(model) == before


def test_a_model_spread_by_data_parallel_is_taken_out_of_it(tiny: Host) -> None:
    model = build_tiny("qwen3_5")
    assert load(nn.DataParallel(model)).model is model
    model.model.layers = nn.ModuleList(nn.DataParallel(layer) for layer in model.model.layers)
    with pytest.raises(HostError, match=r"model\.layers\.0 is in DataParallel, .*: take it out"):
        load(model)


def test_other_libraries_objects_are_known_by_what_they_have(tiny: Host) -> None:
    tokenizer = load("tiny-gdn").tokenizer
    lazy = SimpleNamespace(_module=nn.Module.to(build_tiny("qwen3_5"), "meta"), dispatched=False, tokenizer=tokenizer)

    def dispatch() -> None:
        lazy._module, lazy.dispatched = build_tiny("qwen3_5"), True

    lazy.dispatch = dispatch
    host = load(lazy)
    assert lazy.dispatched
    assert host.tokenizer is tokenizer
    peft = SimpleNamespace(get_base_model=lambda: tiny.model, active_peft_config=SimpleNamespace())
    assert load(peft).model is tiny.model
    peft.active_peft_config.is_prompt_learning = True
    with pytest.raises(HostError, match="learns a prompt"):
        load(peft)
    with pytest.raises(InputError, match="not a SimpleNamespace"):
        load(SimpleNamespace(module="a name"))


class Bridge(nn.Module):
    """As TransformerLens': it stands for a module, and does its steps itself."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.add_module("_original_component", original)

    def forward(self, *args: object, **kwargs: object) -> object:
        raise AssertionError("the bridge ran")


def test_bridges_are_left_out_and_their_tensors_shared(tiny: Host) -> None:
    model = build_tiny("qwen3_5")
    for name in ("model.layers.1.linear_attn.out_proj", "model.layers.1.linear_attn", "model.layers.1", "model.norm"):
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, Bridge(model.get_submodule(name)))
    host = load(SimpleNamespace(original_model=model))
    assert torch.equal(host.logits(some_tokens()), tiny.logits(some_tokens()))
    assert (host.revision, list(host.layers)) == (tiny.revision, [0, 1])
    assert not any("_original_component" in name for name, _ in host.model.named_modules())
    assert isinstance(model.get_submodule("model.norm"), Bridge)
    weight = model.get_parameter("model.layers.1._original_component.input_layernorm.weight")
    assert host.model.get_parameter("model.layers.1.input_layernorm.weight") is weight
    assert native_run(host, some_tokens(), 1).layer == 1
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.skipif(find_spec("peft") is None, reason="needs peft")
@pytest.mark.filterwarnings("ignore")
def test_a_peft_model_runs_with_its_adapters() -> None:
    from peft import LoraConfig, get_peft_model

    plain = load(build_tiny("qwen3_5"))
    config = LoraConfig(r=3, target_modules=["out_proj", "in_proj_qkv"], init_lora_weights=False)
    adapted = get_peft_model(build_tiny("qwen3_5"), config)
    host = load(adapted)
    assert torch.allclose(host.logits(some_tokens()), adapted(some_tokens()).logits)
    assert host.revision != plain.revision
    columns_are_what_runs(host)
    merged = load(adapted.merge_and_unload())
    assert relative(head_columns(merged, 0), head_columns(host, 0)) <= 1e-5


@pytest.mark.skipif(find_spec("nnsight") is None, reason="needs nnsight")
@pytest.mark.filterwarnings("ignore")
def test_an_nnsight_model_is_loaded_first() -> None:
    from nnsight import LanguageModel

    tokenizer = load("tiny-gdn").tokenizer
    host = load(LanguageModel(str(EMBEDDED["tiny-gdn"]), tokenizer=tokenizer))
    assert host.revision == load("tiny-gdn").revision
    assert host.has_tokenizer


@pytest.mark.skipif(find_spec("transformer_lens") is None, reason="needs transformer-lens")
@pytest.mark.filterwarnings("ignore")
def test_a_transformer_lens_bridge_is_the_model_in_it() -> None:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoModelForCausalLM

    plain = load("tiny-gdn")
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED["tiny-gdn"], dtype=torch.float32)
    bridge = TransformerBridge.boot_transformers(str(EMBEDDED["tiny-gdn"]), hf_model=model, tokenizer=plain.tokenizer)
    host = load(bridge)  # it has given the unembedding a bias of zeros
    assert torch.equal(host.record(some_tokens(), [2])[2].key, plain.record(some_tokens(), [2])[2].key)
    assert torch.equal(host.logits(some_tokens()), plain.logits(some_tokens()))
