"""The mixer classes that writesae knows: one `Architecture` each. A new host is one entry here and one family file."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from torch import nn
from transformers import PreTrainedConfig

from writesae.hosts import fla, fla_relatives, gated_delta, mamba1, mamba2, rwkv7, tails
from writesae.hosts.cache_kinds import FLA, RWKV7_HF, TRANSFORMERS, CacheKind
from writesae.hosts.fla_on_cpu import fla_on_cpu
from writesae.hosts.kernels import Kernel
from writesae.hosts.routing import transformers_on_cpu
from writesae.hosts.tails import Tail


@dataclass(frozen=True)
class Architecture:
    """How to find and read one class of recurrent mixer."""

    mixer: str
    """Class name of the mixer module."""
    family: str
    """The recurrence it runs (MATH.md section 1)."""
    package: str
    """The package whose models contain it."""
    kernels: tuple[Kernel, ...]
    """The symbols it calls, looked up in the module that defines the class."""
    shape: Callable[[nn.Module], tuple[int, int, int]]
    """The mixer -> (heads, d_k, d_v)."""
    tail: Tail
    """How its outputs are normalised and gated before the output projection."""
    out_proj: str
    """Submodule that maps the heads' outputs to the residual stream, head-major columns."""
    value_first: bool = False
    """Whether its cached state is `[B, H, V, K]`."""
    cache: CacheKind = TRANSFORMERS
    """How its package keeps states between calls."""
    residual_scale: Callable[[PreTrainedConfig], float] = lambda config: 1.0
    """What the model multiplies the mixer's output by before it joins the residual stream."""
    logit_scale: Callable[[PreTrainedConfig], float] = lambda config: 1.0
    """What the model multiplies its logits by."""

    runnable: Callable[[nn.Module], AbstractContextManager[None]] = transformers_on_cpu
    """What its models need around them to run on the device that they are on."""
    models: tuple[str, ...] = ()
    """Model classes that contain it, for listings."""
    no_direct_path: str = ""
    """Why a head's output has no direct path to the logits, where it has none."""
    audit_only: str = ""
    """Why nothing but the audit of heads (`spectrum`) is possible, where it is so; a layer is then one site."""
    refused: Callable[[nn.Module], str] = lambda mixer: ""
    """The mixer -> why one so configured is no host; empty where it is."""
    token_by_token: bool = False
    """Whether a text is continued from a cache by single tokens only."""


TWO_WRITES = ("rwkv7", "gated-deltanet-2")
"""Families whose erase has a direction of its own: a token's stream holds two rank-1 matrices."""
SEVERAL_STREAMS = "hyper-connections mix several residual streams anew in every layer, by weights that the text decides"


def _gated_deltanet(mixer: str, *models: str, norm: str = "norm", out_proj: str = "out_proj") -> Architecture:
    known = (gated_delta.GATED_DELTA_KERNELS, gated_delta.shape, tails.per_head_norm(norm), out_proj)
    return Architecture(mixer, "gated-deltanet", "transformers", *known, models=models)


def _kimi(mixer: str, *models: str) -> Architecture:
    known = (gated_delta.KIMI_DELTA_KERNELS, gated_delta.kimi_shape, tails.per_head_norm("o_norm"), "o_proj")
    return Architecture(mixer, "kimi-delta", "transformers", *known, models=models)


def _mamba2(mixer: str, *models: str) -> Architecture:
    known = (mamba2.KERNELS, mamba2.shape, tails.MAMBA, "out_proj")
    return Architecture(mixer, "mamba2", "transformers", *known, value_first=True, models=models)


def _mamba1(mixer: str, model: str) -> Architecture:
    known = (mamba1.KERNELS, mamba1.shape, mamba1.TAIL, "out_proj", False, mamba1.CACHE)
    return Architecture(
        mixer, "mamba1", "transformers", *known, models=(model,), audit_only=ELEMENTWISE, token_by_token=True
    )


ELEMENTWISE = (
    "every number of its state decays at a rate of its own, so that no write stays a rank-1 matrix, which is what a "
    "dictionary is made of"
)
FALCON = replace(
    _mamba2("FalconH1Mixer", "FalconH1ForCausalLM"),
    tail=tails.FALCON,
    residual_scale=lambda config: float(config.ssm_out_multiplier),
    logit_scale=lambda config: float(config.lm_head_multiplier),
)
GRANITE = replace(
    _mamba2("GraniteMoeHybridMambaLayer", "GraniteMoeHybridForCausalLM"),
    residual_scale=lambda config: float(config.residual_multiplier),
    logit_scale=lambda config: 1.0 / float(config.logits_scaling),
)

RWKV7_TORCH = Architecture(
    "RWKV7TimeMix", "rwkv7", "rwkv7_hf", rwkv7.TORCH_KERNELS, rwkv7.shape, rwkv7.TORCH_TAIL, "o_proj", cache=RWKV7_HF,
    models=("RWKV7ForCausalLM",),
)  # fmt: skip


def _fla(
    mixer: str, family: str, kernels: tuple[Kernel, ...], tail: Tail, model: str, *, value_first: bool = False
) -> Architecture:
    known = (kernels, fla.shape, tail, "o_proj", value_first, FLA)
    return Architecture(mixer, family, "fla", *known, runnable=fla_on_cpu, models=(model,))


_O_NORM = tails.per_head_norm("o_norm")
FLA_ARCHITECTURES = (
    _fla("DeltaNet", "deltanet", fla.DELTA, _O_NORM, "DeltaNetForCausalLM"),
    _fla("GatedDeltaNet", "gated-deltanet", fla.GATED_DELTA, _O_NORM, "GatedDeltaNetForCausalLM", value_first=True),
    _fla("KimiDeltaAttention", "kimi-delta", fla.KIMI, _O_NORM, "KDAForCausalLM", value_first=True),
    _fla("GatedLinearAttention", "gla", fla.GLA, tails.GLA, "GLAForCausalLM", value_first=True),
    replace(_fla("RWKV7Attention", "rwkv7", fla.RWKV7, rwkv7.FLA_TAIL, "RWKV7ForCausalLM"), shape=rwkv7.shape),
    _fla("Comba", "comba", fla_relatives.COMBA, _O_NORM, "CombaForCausalLM"),
    _fla("GatedDeltaNet2", "gated-deltanet-2", fla_relatives.GDN2, _O_NORM, "GatedDeltaNet2 (layer)"),
    replace(
        _fla(
            "GatedDeltaProduct", "gated-deltanet", fla_relatives.DELTA_PRODUCT, _O_NORM, "GatedDeltaProductForCausalLM"
        ),
        refused=fla_relatives.several_writes,
    ),
    _fla(
        "SimpleGatedLinearAttention", "simple-gla", fla_relatives.SIMPLE_GLA, tails.GLA,
        "SimpleGatedLinearAttention (layer)", value_first=True,
    ),
    _fla("MultiScaleRetention", "retention", fla_relatives.RETENTION, tails.GLA, "RetNetForCausalLM"),
    replace(
        _fla("HGRN2Attention", "hgrn2", fla.GLA, tails.HGRN2, "HGRN2ForCausalLM", value_first=True),
        shape=fla_relatives.hgrn2_shape,
    ),
)  # fmt: skip

ARCHITECTURES: tuple[Architecture, ...] = (
    _gated_deltanet("Qwen3_5GatedDeltaNet", "Qwen3_5ForCausalLM", "Qwen3_5ForConditionalGeneration"),
    _gated_deltanet("Qwen3_5MoeGatedDeltaNet", "Qwen3_5MoeForCausalLM", "Qwen3_5MoeForConditionalGeneration"),
    _gated_deltanet("Qwen3NextGatedDeltaNet", "Qwen3NextForCausalLM"),
    _gated_deltanet("OlmoHybridGatedDeltaNet", "OlmoHybridForCausalLM", norm="o_norm", out_proj="o_proj"),
    replace(
        _gated_deltanet("Qwen4ExpTextGatedDeltaNet", "Qwen4ExpForCausalLM", "Qwen4ExpForConditionalGeneration"),
        no_direct_path=SEVERAL_STREAMS,
    ),
    _kimi("KimiLinearDeltaAttention", "KimiLinearForCausalLM"),
    _kimi("BailingHybridDeltaAttention", "BailingHybridForCausalLM"),
    replace(_kimi("Glm5NextTextLinearAttention", "Glm5NextForConditionalGeneration"), no_direct_path=SEVERAL_STREAMS),
    _mamba2("Mamba2Mixer", "Mamba2ForCausalLM"),
    _mamba2("BambaMixer", "BambaForCausalLM"),
    FALCON,
    _mamba2("NemotronHMamba2Mixer", "NemotronHForCausalLM"),
    GRANITE,
    _mamba2("Zamba2MambaMixer", "Zamba2ForCausalLM"),
    _mamba1("MambaMixer", "MambaForCausalLM"),
    _mamba1("FalconMambaMixer", "FalconMambaForCausalLM"),
    RWKV7_TORCH,
    *FLA_ARCHITECTURES,
)


_registered: list[Architecture] = []


def register(architecture: Architecture) -> None:
    """Make a mixer class known for this process; a later registration of the same class takes its place.

    The self-check of `load` applies to it as to every other: a wrong translation is refused, not used.
    """
    _registered.insert(0, architecture)


def known_architectures() -> tuple[Architecture, ...]:
    """Registered ones first, then those that come with the package."""
    return (*_registered, *ARCHITECTURES)


def architecture_of(module: nn.Module) -> Architecture | None:
    """The architecture of a mixer, by class name and package; code loaded from the Hub counts as any package's."""
    package = type(module).__module__.partition(".")[0]
    for architecture in known_architectures():
        if architecture.mixer == type(module).__name__ and package in (architecture.package, "transformers_modules"):
            return architecture
    return None
