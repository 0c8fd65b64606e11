"""Dictionaries of vectors in other libraries' on-disk formats: SAELens (both ways) and sparsify (import).

A dictionary of `K x V` matrices is one of vectors of length `K V` (row by row); a rank-1 dictionary also has two
vector sides, its keys and its values. What the formats mean is in docs/formats/sae.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from writesae.artifacts.folder import build
from writesae.artifacts.legacy.convert import Converted
from writesae.config import Json
from writesae.disk import inside, map_tensors, new_folder, read_json, sha256, write_json, write_tensors
from writesae.errors import DataError, InputError
from writesae.sae import SAE, BatchTopK, Factored, Flat, Gated, JumpReLU, Linear, Record, SAEConfig, TopK
from writesae.types import Target

Side = Literal["matrix", "key", "value"]
_CFG, _SAELENS, _SPARSIFY = "cfg.json", "sae_weights.safetensors", "sae.safetensors"
_FLOATS = ("F64", "F32", "F16", "BF16")
_SAELENS_VERSION = "6.0.0"


def export_saelens(sae: SAE, folder: str | Path, record: Record | None = None, *, side: Side = "matrix") -> None:
    """Write a dictionary as a SAELens SAE: of flattened matrices (the same codes), or one side of rank-1 atoms.

    `side="key"` holds `v` (encoder and decoder, no biases) as a dictionary of vectors of length `d_k`, `side="value"`
    holds `w`. Raises InputError for soft gates, which the format cannot say, and for sides of other atoms.
    """
    record = record or sae.record or Record()
    config: dict[str, Json] = {"dtype": "float32", "device": "cpu", "apply_b_dec_to_input": False}
    config |= {"normalize_activations": "none", "reshape_activations": "none"}
    about = {"sae_lens_version": _SAELENS_VERSION, "model_name": record.host, "writesae_side": side}
    about |= {"writesae_site": None if record.site is None else str(record.site), "writesae_target": sae.config.target}
    with torch.no_grad():
        tensors = _flattened(sae) if side == "matrix" else _one_side(sae, side)
    config |= {"d_in": tensors["W_dec"].shape[1], "d_sae": sae.config.features, "metadata": dict(about)}
    sparsity = sae.config.sparsity
    if isinstance(sparsity, TopK):
        config |= {"architecture": "topk", "k": sparsity.k, "rescale_acts_by_decoder_norm": False}
    elif isinstance(sparsity, BatchTopK) and sae.threshold < 0:
        raise InputError("SAELens has no form for BatchTopK without a threshold: convert it again with --threshold")
    elif isinstance(sparsity, JumpReLU | BatchTopK) and side == "matrix":
        config |= {"architecture": "jumprelu"}
        tensors["threshold"] = sae.threshold.detach().clamp_min(0).expand(sae.config.features)
    elif isinstance(sparsity, Gated) and side == "matrix":
        config |= {"architecture": "gated"}
        tensors |= {"b_gate": tensors.pop("b_enc"), "b_mag": sae.b_mag.detach(), "r_mag": sae.r_mag.detach()}
    else:
        raise InputError(f"SAELens has no form for the {side} side of a dictionary with {type(sparsity).__name__}")
    with new_folder(Path(folder)) as partial:
        write_json(partial / _CFG, config)
        write_tensors(partial / _SAELENS, {name: tensor.contiguous().clone() for name, tensor in tensors.items()})


def _flattened(sae: SAE) -> dict[str, Tensor]:
    linear = isinstance(sae.config.encoder, Linear)
    encoder = sae.enc if linear else torch.einsum("nrk,nrv->nkv", *sae.encoder_factors)
    decoder = sae.atom_matrices().detach().flatten(1)
    return {"W_enc": encoder.detach().flatten(1).T, "b_enc": sae.b_enc.detach(), "W_dec": decoder} | {
        "b_dec": sae.bias.detach().flatten()
    }


def _one_side(sae: SAE, side: Side) -> dict[str, Tensor]:
    rank_one = isinstance(sae.config.decoder, Factored) and sae.config.decoder.rank == 1
    if not rank_one or isinstance(sae.config.encoder, Linear) or sae.config.encoder.rank != 1:
        raise InputError(f"the {side} side was asked of a dictionary whose atoms and encoder are not both rank 1")
    place = 0 if side == "key" else 1
    decoder = sae.atoms()[place]
    encoder = sae.encoder_factors[place][:, 0].detach()
    zeros = {"b_enc": torch.zeros(len(decoder)), "b_dec": torch.zeros(decoder.shape[1])}
    return {"W_enc": encoder.T, "W_dec": decoder} | zeros


def import_vectors(folder: str | Path, shape: tuple[int, int], *, target: Target = "state") -> Converted:
    """Import a SAELens (TopK, standard, JumpReLU, gated) or sparsify (TopK) SAE of flattened `d_k x d_v` matrices.

    A standard SAE, whose activation is a ReLU, is a JumpReLU one with all thresholds 0. Subtracting the decoder bias
    before encoding and rescaling by decoder norms are folded into the weights, which leaves every code as it was.
    Raises InputError for options that cannot be folded.
    """
    folder = Path(folder)
    config = read_json(inside(folder, _CFG))
    if not isinstance(config, dict):
        raise DataError(f"{folder / _CFG} is not an object")
    name = _SAELENS if (folder / _SAELENS).exists() else _SPARSIFY
    tensors = {key: value.to(torch.float64) for key, value in map_tensors(inside(folder, name), _FLOATS).items()}
    d_k, d_v = shape
    if "W_dec" not in tensors:
        raise DataError(f"{folder / name} holds no W_dec, but {sorted(tensors)}")
    decoder = tensors["W_dec"]
    if decoder.ndim != 2 or min(*decoder.shape, d_k, d_v) < 1 or decoder.shape[1] != d_k * d_v:
        raise InputError(f"{folder} is an SAE of {tuple(decoder.shape)}, not of flattened {d_k} x {d_v} matrices")
    n = len(decoder)
    sizes: dict[str, Json] = {"d_in": d_k * d_v, "d_sae": n, "num_latents": n}
    for key in sizes.keys() & config.keys():
        if config[key] not in (sizes[key], 0 if key == "num_latents" else None):
            raise DataError(f"{folder / _CFG}: {key} = {config[key]!r}, its tensors say {sizes[key]}")
    parts = _from_saelens(config, tensors, folder) if name == _SAELENS else _from_sparsify(config, tensors, folder)
    encoder, b_enc, decoder, b_dec = (parts[key] for key in ("enc", "b_enc", "dec", "bias"))
    out = {"enc": encoder.reshape(n, d_k, d_v), "b_enc": b_enc, "dec": decoder.reshape(n, d_k, d_v)}
    out |= {"bias": b_dec.reshape(d_k, d_v)}
    out |= {key: value for key, value in parts.items() if key in ("threshold", "r_mag", "b_mag")}
    sparsity = JumpReLU() if "threshold" in parts else Gated() if "r_mag" in parts else _top_k(config, n, folder)
    numbers = {key: value.to(torch.float32).contiguous() for key, value in out.items()}
    if bad := [key for key, value in numbers.items() if not value.isfinite().all()]:
        raise DataError(f"{folder}: {bad[0]} would be NaN or infinite in float32")
    sae = build(SAEConfig(d_k, d_v, n, Linear(), sparsity, Flat(), target), numbers, str(folder))
    source: dict[str, Json] = {"file": name, "sha256": sha256(folder / name), "layout": _LAYOUTS[name]}
    return Converted(sae, Record(variant="flat", source=source))


def _top_k(config: dict[str, Json], features: int, folder: Path) -> TopK:
    k = config.get("k", 32)
    if type(k) is not int or not 0 < k <= features:
        raise DataError(f"{folder / _CFG}: k = {k!r} is not a number of features out of {features}")
    return TopK(k)


_LAYOUTS = {_SAELENS: "SAELens", _SPARSIFY: "sparsify"}


_OWN: dict[str, set[str]] = {
    "topk": {"b_enc"},
    "standard": {"b_enc"},
    "jumprelu": {"b_enc", "threshold"},
    "gated": {"b_gate", "b_mag", "r_mag"},
}
"""SAELens' architectures -> the tensors that each has beside weights and decoder bias."""


def _from_saelens(config: dict[str, Json], tensors: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    kind = config.get("architecture")
    plain = all(config.get(name, "none") == "none" for name in ("normalize_activations", "reshape_activations"))
    if not isinstance(kind, str) or kind not in _OWN or not plain:
        raise InputError(f"{folder}: only SAELens {', '.join(map(str, _OWN))} SAEs without normalisation, not {kind!r}")
    n, size = tensors["W_dec"].shape
    wanted: dict[str, tuple[int, ...]] = {"W_enc": (size, n), "W_dec": (n, size), "b_dec": (size,)}
    _exactly(tensors, wanted | dict.fromkeys(_OWN[kind], (n,)), folder)
    encoder, decoder, b_dec = tensors["W_enc"].T, tensors["W_dec"], tensors["b_dec"]
    b_enc = tensors["b_gate" if kind == "gated" else "b_enc"]
    subtracted = encoder @ b_dec if config.get("apply_b_dec_to_input", True) else torch.zeros_like(b_enc)
    parts = {"enc": encoder, "b_enc": b_enc - subtracted, "dec": decoder, "bias": b_dec}
    if kind == "topk" and config.get("rescale_acts_by_decoder_norm", False):
        norm = decoder.norm(dim=1)
        parts |= {"enc": encoder * norm[:, None], "b_enc": parts["b_enc"] * norm, "dec": decoder / norm[:, None]}
    if kind == "gated":
        rate = tensors["r_mag"]
        parts |= {"r_mag": rate, "b_mag": tensors["b_mag"] - rate.exp() * subtracted}
    if kind in ("standard", "jumprelu"):
        parts["threshold"] = tensors.get("threshold", torch.zeros_like(b_enc))
    return parts


def _from_sparsify(config: dict[str, Json], tensors: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    if config.get("activation", "topk") != "topk" or config.get("skip_connection") or config.get("transcode"):
        raise InputError(f"{folder}: only sparsify TopK autoencoders are read, not transcoders, skips or groupmax")
    n, size = tensors["W_dec"].shape
    wanted: dict[str, tuple[int, ...]] = {"encoder.weight": (n, size), "encoder.bias": (n,)}
    _exactly(tensors, wanted | {"W_dec": (n, size), "b_dec": (size,)}, folder)
    encoder, b_dec = tensors["encoder.weight"], tensors["b_dec"]
    b_enc = tensors["encoder.bias"] - encoder @ b_dec
    return {"enc": encoder, "b_enc": b_enc, "dec": tensors["W_dec"], "bias": b_dec}


def _exactly(tensors: dict[str, Tensor], wanted: dict[str, tuple[int, ...]], folder: Path) -> None:
    held = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if held != wanted:
        raise DataError(f"{folder} holds the tensors {held} where {wanted} are expected")
