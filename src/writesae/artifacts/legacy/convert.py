"""A checkpoint of the research code as a dictionary of this library, with the same codes and reconstructions.

What the old code computes (its `core/sae.py`): pre-activations act on raw matrices, nothing is subtracted; the `k`
largest are kept and then clipped at zero; the reconstruction adds the bias once. `bilinear_gated` has a soft gate,
`sigmoid((s + b_gate) / 0.1) relu(exp(r_mag) s + b_mag)` with `s` the bilinear form without bias. BatchTopK has no
threshold: it keeps the `k * rows` largest of whatever batch it is given. Types are guessed as there, from tensor names.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from writesae.artifacts.folder import build
from writesae.artifacts.legacy.layouts import Payload, find_payload
from writesae.artifacts.legacy.names import Roles, assign_roles
from writesae.artifacts.legacy.reader import read_archive
from writesae.config import Json
from writesae.disk import sha256
from writesae.errors import DataError, InputError
from writesae.sae import (
    SAE,
    BatchTopK,
    Bilinear,
    Factored,
    Flat,
    JumpReLU,
    Linear,
    Record,
    SAEConfig,
    SoftGated,
    Sparsity,
    TopK,
)
from writesae.types import Site, Target

_DEFAULT_K = 32
_DEFAULT_TAU = 0.1
_TYPES = {"flat", "rank1", "bilinear", "bilinear_tied", "bilinear_flat", "bilinear_gated", "bilinear_jumprelu"}
"""Types whose name the research code obeys; for any other name it looks at the tensors, as is done here."""
_METRICS = ("val_mse", "best_val_mse", "best_mse", "final_mse", "final_n_dead")


@dataclass(frozen=True)
class Converted:
    """One imported dictionary."""

    sae: SAE
    """The dictionary, fp32, in evaluation mode."""
    record: Record
    """What the checkpoint says about its origin; `source` has the file's name and SHA-256."""


def convert_file(
    path: str | Path,
    *,
    target: Target = "state",
    shape: tuple[int, int] | None = None,
    host: str | None = None,
    threshold: float | None = None,
) -> Converted:
    """Import one `.pt` file of either layout without running code from it.

    `target` is the matrix that it models (the checkpoints do not say; the research code trained on states), `shape`
    the head's `(d_k, d_v)` where a flat dictionary does not carry it. A BatchTopK checkpoint has no threshold: its
    codes keep depending on the batch, as in the research code, unless `threshold` gives one.
    Raises InputError or DataError saying what is wrong with which file.
    """
    path = Path(path)
    root = read_archive(path)
    try:
        payload = find_payload(root)
        sae, variant = build_sae(payload, target, shape, threshold)
    except (DataError, InputError) as error:
        raise type(error)(f"{path}: {error}") from None
    sae.record = _record(path, payload, variant, host)
    return Converted(sae, sae.record)


def build_sae(
    payload: Payload, target: Target, shape: tuple[int, int] | None, threshold: float | None = None
) -> tuple[SAE, str]:
    """The dictionary of a payload, and the name of its type in the research code."""
    roles = assign_roles(payload.tensors)
    given, variant = payload.config.get("sae_type"), roles.variant()
    if given in _TYPES and given != variant and (given, variant) != ("bilinear", "bilinear_tied"):
        raise DataError(f"its config says sae_type {given!r}, its tensors are those of {variant!r}")
    d_k, d_v = _shape(payload, roles, shape)
    config = _config(payload, roles, target, (d_k, d_v))
    tensors = _tensors(payload, roles, config)
    if isinstance(config.sparsity, BatchTopK):
        if threshold is not None and threshold < 0:
            raise InputError(f"a BatchTopK threshold is at least 0, not {threshold}")
        tensors["threshold"] = torch.tensor(-1.0 if threshold is None else threshold)  # below 0: the batch decides
    elif threshold is not None:
        raise InputError(f"a threshold was given, but it is a dictionary with {type(config.sparsity).__name__}")
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise DataError(f"its {name} holds NaN or infinity")
    return build(config, tensors, "it"), variant


def _integer(payload: Payload, name: str) -> int | None:
    value = payload.config.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise DataError(f"its config has {name} = {value!r}, not an integer")
    return value


def _shape(payload: Payload, roles: Roles, shape: tuple[int, int] | None) -> tuple[int, int]:
    for name in ("dec_v", "enc_v"):
        if name in roles:
            found = (roles[name].shape[-1], roles[name.replace("_v", "_w")].shape[-1])
            break
    else:
        said = (_integer(payload, "d_k"), _integer(payload, "d_v"))
        if said[0] is not None and said[1] is not None:
            found = (said[0], said[1])
        elif shape is not None:
            found = shape
        else:
            size = roles["dec"].shape[0]
            raise InputError(f"a flat dictionary of {size:,} numbers does not say its matrix shape; give d_k and d_v")
    if shape is not None and shape != found:
        raise InputError(f"it is a dictionary of {found[0]} x {found[1]} matrices, not {shape[0]} x {shape[1]}")
    for name, value in zip(("d_k", "d_v"), found, strict=True):
        if _integer(payload, name) not in (None, value):
            raise DataError(f"its config says {name} = {payload.config[name]}, its tensors say {value}")
    return found


def _config(payload: Payload, roles: Roles, target: Target, shape: tuple[int, int]) -> SAEConfig:
    features = roles.features()
    ranks = {
        name: 1 if len(roles[name].shape) == 2 else roles[name].shape[1] for name in ("enc_v", "dec_v") if name in roles
    }
    for name, value in (("n_features", features), *(("rank", rank) for rank in ranks.values())):
        if _integer(payload, name) not in (None, value):
            raise DataError(f"its config says {name} = {payload.config[name]}, its tensors say {value}")
    tied = "enc_v" not in roles and "enc" not in roles
    return SAEConfig(
        d_k=shape[0],
        d_v=shape[1],
        features=features,
        encoder=Linear() if "enc" in roles else Bilinear(ranks["dec_v"] if tied else ranks["enc_v"], tied),
        sparsity=_sparsity(payload, roles, features),
        decoder=Factored(ranks["dec_v"]) if "dec_v" in roles else Flat(),
        target=target,
    )


def _sparsity(payload: Payload, roles: Roles, features: int) -> Sparsity:
    if "b_gate" in roles:
        return SoftGated()
    if "log_threshold" in roles:
        return JumpReLU()
    given = _integer(payload, "k")
    k = min(_DEFAULT_K if given is None else given, features)
    if k < 1:
        raise DataError(f"its config asks for k = {given}: it would never fire")
    return BatchTopK(k) if payload.config.get("use_batchtopk") else TopK(k)


def _tensors(payload: Payload, roles: Roles, config: SAEConfig) -> dict[str, Tensor]:
    d_k, d_v, n = config.d_k, config.d_v, config.features
    precise = torch.float64 if "b_gate" in roles else torch.float32
    if whole := [roles.name(name) for name in roles if not roles[name].is_floating_point()]:
        raise DataError(f"its {whole[0]} holds whole numbers")
    read = {name: roles[name].detach().to(precise, copy=True) for name in roles}
    for name, tensor in read.items():
        if name in ("enc_v", "enc_w", "dec_v", "dec_w") and tensor.ndim == 2:
            read[name] = tensor.unsqueeze(1)
    sizes = {"enc": (n, d_k * d_v), "dec": (d_k * d_v, n)}
    for name, size in sizes.items():
        if name in read and tuple(read[name].shape) != size:
            raise DataError(f"its {roles.name(name)} is {tuple(read[name].shape)} where {size} follows from the rest")
    if read["bias"].numel() != d_k * d_v:
        raise DataError(f"its {roles.name('bias')} is {tuple(read['bias'].shape)}, not {d_k} x {d_v}")
    out = {"bias": read["bias"].reshape(d_k, d_v)}
    if "enc" in read:
        out["enc"] = read["enc"].reshape(n, d_k, d_v)
    elif not config.tied:
        out["v_enc"], out["w_enc"] = read["enc_v"], read["enc_w"]
    if "dec" in read:
        out["dec"] = read["dec"].T.reshape(n, d_k, d_v)
    else:
        out["v_dec"], out["w_dec"] = read["dec_v"], read["dec_w"]
    if isinstance(config.sparsity, SoftGated):
        # p = exp(r_mag) s + b_mag, so s = exp(-r_mag) (p - b_mag): the gate in terms of p
        tau = payload.config.get("gate_tau", _DEFAULT_TAU)
        if not isinstance(tau, int | float) or not math.isfinite(tau) or tau <= 0:
            raise DataError(f"its gate_tau is {tau!r}, not a positive number")
        out["w_enc"] = out["w_enc"] * read["r_mag"].exp()[:, None, None]
        out["b_enc"] = read["b_mag"]
        out["r_gate"] = -read["r_mag"] - math.log(tau)
        out["b_gate"] = read["b_gate"] / tau
    else:
        out["b_enc"] = read["b_enc"]
    if isinstance(config.sparsity, JumpReLU):
        out["threshold"] = read["log_threshold"].exp()
    return {name: tensor.to(torch.float32).contiguous() for name, tensor in out.items()}


def _record(path: Path, payload: Payload, variant: str, host: str | None) -> Record:
    config, facts = payload.config, payload.facts
    layer, head = config.get("layer"), config.get("head")
    placed = type(layer) is int and type(head) is int and 0 <= min(layer, head) <= max(layer, head) < 2**16
    site = Site(cast(int, layer), cast(int, head)) if placed else None
    named = config.get("model", config.get("model_name"))
    seed = config.get("seed")
    metrics = {name: facts[name] for name in _METRICS if name in facts and _finite(facts[name])}
    source: dict[str, Json] = {
        "file": path.name,
        "sha256": sha256(path),
        "layout": payload.kind,
        "sae_type": variant,
        "config": {name: value for name, value in config.items() if _finite(value)},
        "facts": {name: value for name, value in facts.items() if name not in metrics and _finite(value)},
    }
    return Record(
        host=host or (named if isinstance(named, str) else None),
        site=site,
        variant=variant + ("_batchtopk" if config.get("use_batchtopk") else ""),
        seed=seed if type(seed) is int and abs(seed) < 2**63 else None,
        metrics=metrics,
        source=source,
    )


def _finite(value: Json) -> bool:
    return abs(value) < 1e30 if isinstance(value, int | float) else True
