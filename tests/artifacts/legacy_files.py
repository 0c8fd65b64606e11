"""Checkpoints in both published layouts, and what the research code computes with them, written out plainly.

The reference is NumPy in float64 and shares nothing with the package.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

K, V, N, ACTIVE, ROWS = 11, 7, 23, 5, 13
TYPES = ("flat", "rank1", "bilinear", "bilinear_tied", "bilinear_flat", "bilinear_gated", "bilinear_jumprelu")
RELEASE = "released_module_that_is_gone"
State = dict[str, torch.Tensor]
Array = npt.NDArray[np.float64]


class Expected(NamedTuple):
    """What the research code gives in evaluation mode."""

    coefficients: Array
    reconstruction: Array


def random_state(kind: str, rank: int = 1, seed: int = 0) -> State:
    """A state dict with the tensor names and shapes of one of the seven types."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) / 2

    state: State = {"steps_since_active": torch.zeros(N, dtype=torch.int64)}
    if kind in ("flat", "rank1"):
        state |= {"encoder.weight": random(N, K * V), "encoder.bias": random(N)}
    elif kind != "bilinear_tied":
        state |= {"V_enc": random(N, rank, K), "W_enc": random(N, rank, V)}
    if kind in ("flat", "bilinear_flat"):
        state |= {"decoder.weight": random(K * V, N), "decoder.bias": random(K * V)}
    elif kind == "rank1":
        state |= {"V": random(N, rank, K), "W": random(N, rank, V), "bias": random(K, V)}
    else:
        state |= {"V_dec": random(N, rank, K), "W_dec": random(N, rank, V), "bias": random(K, V)}
    if kind == "bilinear_gated":
        state |= {"b_gate": random(N), "b_mag": random(N), "r_mag": random(N)}
    elif kind not in ("flat", "rank1"):
        state["b_enc"] = random(N)
    if kind == "bilinear_jumprelu":
        state["log_threshold"] = random(N) - 1
    return state


def random_config(kind: str, rank: object = 1, **changes: object) -> dict[str, object]:
    """The config that the research code stores beside a state dict."""
    config: dict[str, object] = {"sae_type": kind, "layer": 9, "head": 4, "n_features": N, "d_k": K, "d_v": V}
    return config | {"d_in": K * V, "k": ACTIVE, "rank": rank, "use_batchtopk": False, "seed": 42, "lr": 3e-4} | changes


def inputs(seed: int = 3) -> torch.Tensor:
    """`[ROWS, K, V]`."""
    return torch.randn(ROWS, K, V, generator=torch.Generator().manual_seed(seed))


def reference(kind: str, state: State, x: torch.Tensor, k: int = ACTIVE, batchtopk: bool = False) -> Expected:
    """The research code's forward pass, term by term."""
    s = {name: tensor.double().numpy() for name, tensor in state.items()}
    for name in ("V_enc", "W_enc", "V_dec", "W_dec", "V", "W"):
        if name in s and s[name].ndim == 2:
            s[name] = s[name][:, None, :]
    rows = x.double().numpy()
    if "encoder.weight" in s:
        pre = rows.reshape(ROWS, -1) @ s["encoder.weight"].T + s["encoder.bias"]
    else:
        left, right = (s["V_enc"], s["W_enc"]) if "V_enc" in s else (s["V_dec"], s["W_dec"])
        pre = np.einsum("nrk,bkv,nrv->bn", left, rows, right) + s.get("b_enc", 0.0)
    if kind == "bilinear_gated":
        gate = 1 / (1 + np.exp(-(pre + s["b_gate"]) / 0.1))
        codes = gate * np.maximum(np.exp(s["r_mag"]) * pre + s["b_mag"], 0)
    elif kind == "bilinear_jumprelu":
        codes = np.where(pre > np.exp(s["log_threshold"]), pre, 0)
    elif batchtopk:
        codes = kept(np.maximum(pre, 0).reshape(1, -1), k * ROWS).reshape(pre.shape)
    else:
        codes = np.maximum(kept(pre, k), 0)
    if "decoder.weight" in s:
        return Expected(codes, (codes @ s["decoder.weight"].T + s["decoder.bias"]).reshape(ROWS, K, V))
    left, right = (s["V"], s["W"]) if kind == "rank1" else (s["V_dec"], s["W_dec"])
    return Expected(codes, np.einsum("bn,nrk,nrv->bkv", codes, left, right) + s["bias"])


def kept(values: Array, k: int) -> Array:
    """The `k` largest of each row, zero elsewhere."""
    out = np.zeros_like(values)
    top = np.argsort(-values, axis=1)[:, : min(k, values.shape[1])]
    np.put_along_axis(out, top, np.take_along_axis(values, top, 1), 1)
    return out


def write_payload(path: Path, state: State, config: dict[str, object] | None, *, zipped: bool = True) -> None:
    """First layout: a state dict beside a config."""
    payload: dict[str, object] = {"model_state_dict": state, "epoch": 3, "step": 500, "val_mse": 2.2e-5}
    payload["optimizer_state_dict"] = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 3e-4}]}
    if config is not None:
        payload["config"] = config
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(payload, path, _use_new_zipfile_serialization=zipped)


def write_module(
    path: Path,
    state: State,
    attributes: dict[str, object],
    config: object,
    *,
    key: str | None = "sae",
    rename: Callable[[str], str] = str,
    zipped: bool = True,
) -> None:
    """Second layout: a whole pickled module of a class that nobody can import."""
    with gone_module() as make:
        root = make("WriteSAE")
        for name, tensor in state.items():
            *parents, last = rename(name).split(".")
            owner = root
            for parent in parents:
                if parent not in dict(owner.named_children()):
                    owner.add_module(parent, make(parent.capitalize()))
                owner = owner.get_submodule(parent)
            if tensor.is_floating_point():
                owner.register_parameter(last, torch.nn.Parameter(tensor))
            else:
                owner.register_buffer(last, tensor)
        for name, value in attributes.items():
            setattr(root, name, value)
        path.parent.mkdir(parents=True, exist_ok=True)
        checkpoint: object = root if key is None else {key: root, "config": config, "val_mse": 2.2e-5}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Couldn't retrieve source code")
            torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)


@contextmanager
def gone_module() -> Iterator[Callable[[str], torch.nn.Module]]:
    """Makes instances of new module classes in an importable module that does not exist afterwards."""
    module = ModuleType(RELEASE)

    def make(name: str) -> torch.nn.Module:
        if not hasattr(module, name):
            setattr(module, name, type(name, (torch.nn.Module,), {"__module__": RELEASE}))
        instance: torch.nn.Module = getattr(module, name)()
        return instance

    sys.modules[RELEASE] = module
    try:
        yield make
    finally:
        del sys.modules[RELEASE]
