"""Let flash-linear-attention models run on a CPU, where none of their Triton operations does.

Everything around the recurrence (norms, short convolutions, gated MLPs, token shifts) gets a torch form that runs on
CPU tensors; on a GPU the original runs. Modules are replaced one model at a time, functions in the module that calls
them, and all of it is put back on leaving.

Three changes hold on every device. fla packs `[B, T]` into `[1, total]` wherever an attention mask is given; the stream
would be packed with it, so the mask zeroes the padded inputs instead, which is the same for left padding. Rotary
positions are then counted without the padding, as in packed rows. And HGRN2's output projection, which its kernel fuses
with the norm before it, is called as the module that it is, so that what enters it can be seen.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from writesae.hosts.gated_delta import unit
from writesae.hosts.intercept import patched
from writesae.hosts.routing import Operation, routed


@contextmanager
def fla_on_cpu(model: nn.Module) -> Iterator[None]:
    """Make one fla model runnable on whatever device its tensors are."""
    with ExitStack() as stack:
        own = [module for module in model.modules() if type(module).__module__.startswith("fla.")]
        for module in own:
            if type(module).__name__ == "HGRN2Attention":
                projection = module.get_submodule("o_proj")
                _projections[id(projection.weight)] = projection
            if type(module).__name__ == "MultiScaleRetention":
                rotary = module.get_submodule("rotary")
                stack.enter_context(patched(rotary, "forward", _by(partial(turned, rotary))))
            forward = MODULES.get(type(module).__name__)
            if forward is not None:
                stack.enter_context(patched(module, "forward", partial(routed, partial(forward, module))))
            for name in ACTIVATION_ATTRIBUTES:
                activation = _activation(vars(module).get(name))
                if activation is not None:
                    stack.enter_context(patched(module, name, partial(routed, activation)))
        for module_name in sorted({type(module).__module__ for module in own}):
            namespace = sys.modules[module_name]
            for name, operation in FUNCTIONS.items():
                if name in vars(namespace):
                    stack.enter_context(patched(namespace, name, partial(routed, operation)))
            for name, everywhere in EVERYWHERE.items():
                if name in vars(namespace) and not module_name.startswith("fla.models."):
                    stack.enter_context(patched(namespace, name, _by(everywhere)))
        yield


def _by(operation: Operation) -> Callable[[Operation], Operation]:
    return lambda original: operation


class _Padding(threading.local):
    """Of the mixer that this thread is inside of."""

    tokens: Tensor | int = 0
    """How many stand before each row, `[B]`."""


_padding = _Padding()
_projections: WeakValueDictionary[int, nn.Module] = WeakValueDictionary()
"""HGRN2's output projections by the id of their weight."""


def _masked(
    hidden_states: Tensor, cu_seqlens: Tensor | None, attention_mask: Tensor | None, q_len: int
) -> tuple[Tensor, None, Tensor | None]:
    _padding.tokens = 0
    if cu_seqlens is None and attention_mask is not None:
        hidden_states = hidden_states * attention_mask[:, -q_len:, None].to(hidden_states.dtype)
        _padding.tokens = (attention_mask == 0).sum(1)
    return hidden_states, None, cu_seqlens


def turned(rotary: nn.Module, q: Tensor, k: Tensor, seqlen_offset: int | Tensor = 0, **_: object) -> tuple[Tensor, ...]:
    """Queries and keys `[B, T, H, K]` turned by their positions in the text, one half of a head against the other."""
    width, base = int(rotary.dim), float(rotary.base)  # type: ignore[arg-type]
    rates = base ** -(torch.arange(0, width, 2, device=q.device) / width)
    first = torch.as_tensor(seqlen_offset, device=q.device) - torch.as_tensor(_padding.tokens, device=q.device)
    angle = (first.reshape(-1, 1, 1) + torch.arange(q.shape[1], device=q.device)[:, None]) * rates  # [1 or B, T, K / 2]
    cos, sin = (table.unsqueeze(2).to(q.dtype) for table in (angle.cos(), angle.sin()))
    halves = [x.chunk(2, -1) for x in (q, k)]
    return tuple(torch.cat([left * cos - right * sin, left * sin + right * cos], -1) for left, right in halves)


def _norm_then_project(
    x: Tensor, norm_weight: Tensor | None, norm_bias: Tensor | None, linear_weight: Tensor, *_: object
) -> Tensor:
    """A norm over all heads at the kernel's own epsilon, then the output projection."""
    normed = _rms(x.float(), 1e-5)
    normed = normed if norm_weight is None else normed * norm_weight.float()
    out: Tensor = _projections[id(linear_weight)](normed.to(x.dtype))
    return out


Norm = Callable[[nn.Module, Tensor], Tensor]


def _prenorm(norm: Norm) -> Callable[..., object]:
    """fla's norms can add a residual first and hand the sum on."""

    def forward(
        module: nn.Module,
        x: Tensor,
        residual: Tensor | None = None,
        prenorm: bool = False,
        residual_in_fp32: bool = False,
    ) -> object:
        whole = x if residual is None else x + residual
        out = norm(module, whole.float()).to(x.dtype)
        return (out, whole.float() if residual_in_fp32 else whole) if prenorm else out

    return forward


def _affine(module: nn.Module, x: Tensor) -> Tensor:
    weight, bias = module.weight, module.bias
    if isinstance(weight, Tensor):
        x = x * weight.float()
    return x + bias.float() if isinstance(bias, Tensor) else x


def _epsilon(module: nn.Module) -> float:
    return float(module.eps)  # type: ignore[arg-type]


def _rms(x: Tensor, epsilon: float) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon)


def _rms_norm(module: nn.Module, x: Tensor) -> Tensor:
    return _affine(module, _rms(x, _epsilon(module)))


def _layer_norm(module: nn.Module, x: Tensor) -> Tensor:
    return _affine(module, F.layer_norm(x, x.shape[-1:], eps=_epsilon(module)))


def _group_norm(module: nn.Module, x: Tensor) -> Tensor:
    groups = int(module.num_groups)  # type: ignore[arg-type]
    parts = x.view(*x.shape[:-1], groups, -1)
    if module.is_rms_norm:
        normed = _rms(parts, _epsilon(module))
    else:
        normed = F.layer_norm(parts, parts.shape[-1:], eps=_epsilon(module))
    return _affine(module, normed.flatten(-2))


def _gated_rms_norm(module: nn.Module, x: Tensor, g: Tensor) -> Tensor:
    activation = torch.sigmoid if module.activation == "sigmoid" else F.silu
    normed = _affine(module, _rms(x.float(), _epsilon(module)))
    return (normed * activation(g.float())).to(x.dtype)


def _gated_mlp(module: nn.Module, x: Tensor, **_: object) -> Tensor:
    if module.hidden_act != "swish":
        raise NotImplementedError(f"fla's {module.hidden_act} MLP has no torch form here; use a GPU")
    gate, up, down = (module.get_submodule(name) for name in ("gate_proj", "up_proj", "down_proj"))
    out: Tensor = down(F.silu(gate(x)) * up(x))
    return out


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    activation: str | None = None,
    **_: object,
) -> tuple[Tensor, Tensor | None]:
    """A causal depthwise convolution: `x` `[B, T, D]`, `weight` `[D, W]`; the state is the last inputs, `[B, D, W]`."""
    width = weight.shape[1]
    past = x.new_zeros(x.shape[0], x.shape[2], width) if initial_state is None else initial_state.to(x.dtype)
    whole = torch.cat([past, x.transpose(1, 2)], 2)
    out = F.conv1d(whole[:, :, 1:], weight[:, None].to(x.dtype), bias, groups=x.shape[2]).transpose(1, 2)
    if activation is not None:
        out = F.silu(out)
    if residual is not None:
        out = out + residual
    return out, whole[:, :, -width:].clone() if output_final_state else None


def _short_convolution(
    module: nn.Module,
    x: Tensor,
    residual: Tensor | None = None,
    mask: Tensor | None = None,
    cache: Tensor | None = None,
    output_final_state: bool = False,
    **_: object,
) -> tuple[Tensor, Tensor | None]:
    if mask is not None:
        x = x * mask.unsqueeze(-1)
    weight, bias, activation = module.weight, module.bias, module.activation
    assert isinstance(weight, Tensor)
    given = bias if isinstance(bias, Tensor) else None
    name = activation if isinstance(activation, str) else None
    return _convolution(x, weight.squeeze(1), given, residual, cache, output_final_state, name)


def _token_shift(
    x: Tensor,
    cu_seqlens: Tensor | None = None,
    cache: Tensor | None = None,
    output_cache: bool = False,
    chunk_indices: Tensor | None = None,
) -> object:
    """The previous token minus this one, `[B, T, D]`; its cache is the last token."""
    before = torch.zeros_like(x[:, :1]) if cache is None else cache.view(x.shape[0], 1, -1).to(x.dtype)
    delta = torch.cat([before, x[:, :-1]], 1) - x
    return (delta, x[:, -1:].clone()) if output_cache else delta


def _mixes(hidden: Tensor, delta: Tensor, *weights: Tensor | None) -> tuple[Tensor | None, ...]:
    mixed = [None if weight is None else torch.addcmul(hidden, delta, weight) for weight in weights]
    return tuple([*mixed, None][: max(6, len(mixed))])


def _correction(o: Tensor, r: Tensor, k: Tensor, r_k: Tensor, v: Tensor, g: Tensor) -> Tensor:
    return (o + ((r * k * r_k).sum(-1, keepdim=True) * v).view_as(o)) * g


MODULES: Mapping[str, Operation] = {
    "RMSNorm": _prenorm(_rms_norm),
    "LayerNorm": _prenorm(_layer_norm),
    "GroupNorm": _prenorm(_group_norm),
    "FusedRMSNormGated": _gated_rms_norm,
    "ShortConvolution": _short_convolution,
    "GatedMLP": _gated_mlp,
}
"""Class name -> its `forward` in torch, the module first."""

FUNCTIONS: Mapping[str, Operation] = {
    "causal_conv1d": _convolution,
    "token_shift": _token_shift,
    "l2_norm": unit,
    "fused_addcmul_rwkv7": _mixes,
    "fused_k_rwkv7": lambda k, a, ka: k.addcmul(k * (a - 1), ka),
    "gate_output_correction": _correction,
    "elu_p1": lambda x: F.elu(x) + 1,
    "swish": F.silu,
}
"""Function name -> the same in torch."""

EVERYWHERE: Mapping[str, Operation] = {"unpad_hidden_states": _masked, "rms_norm_linear": _norm_then_project}
"""Function name -> what takes its place on every device."""


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "logsigmoid": F.logsigmoid,
    "silu": F.silu,
    "swish": F.silu,
    "sqrelu": lambda x: F.relu(x).square(),
    "gelu": partial(F.gelu, approximate="tanh"),
}
"""Name in fla's table of activations -> the same in torch."""
ACTIVATION_ATTRIBUTES = ("act_fn", "gate_fn", "feature_map_fn")
"""Where its modules keep one."""


def _activation(function: object) -> Operation | None:
    table = import_module("fla.modules.activations").ACT2FN
    return next((ACTIVATIONS[name] for name, known in table.items() if known is function and name in ACTIVATIONS), None)
