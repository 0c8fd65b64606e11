"""From a folder or Hub id to a model: which class serves the checkpoint, and what to install where none does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    Mamba2ForCausalLM,
    MambaForCausalLM,
    PreTrainedModel,
)
from transformers.utils import logging

from writesae.disk import read_json
from writesae.errors import HostError
from writesae.hosts.host import Host
from writesae.hosts.identity import WEIGHTS
from writesae.hosts.internals import repository_file
from writesae.hosts.mamba_ssm_format import TOKENIZER, is_mamba_ssm, load_mamba_ssm
from writesae.hosts.sources import Place
from writesae.hosts.text_part import text_loader
from writesae.hosts.versions import installed_version, require_package

FLA_TYPES = (
    "delta_net", "gated_deltanet", "gla", "kda", "rwkv7", "comba", "gated_deltaproduct", "retnet", "hgrn2",
)  # fmt: skip
"""`model_type`s of flash-linear-attention that have a matrix state and a recurrence we know."""
TOKENIZERS = ("tokenizer_config.json", "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
"""Files that say that a checkpoint has a tokenizer of its own."""


MAMBA = {"mamba": MambaForCausalLM, "mamba2": Mamba2ForCausalLM}
"""`model_type`s that fla has as well, and transformers' own classes of them."""


@dataclass(frozen=True)
class Request:
    """What to load, and how."""

    place: Place
    dtype: str
    """Name of a precision, or `auto`."""
    device: torch.device | None
    """None: where `device_map` says."""
    device_map: str | Mapping[str, str | int] | None
    revision: str | None
    trust_remote_code: bool

    @property
    def on_cpu(self) -> bool:
        """Whether the whole model goes to the CPU."""
        return self.device is not None and self.device.type == "cpu"

    def file(self, name: str, required: bool = True) -> str | None:
        """Where one of its files is on this machine; None where it has none that is not required."""
        return repository_file(self.place.where, name, self.revision, self.place.cache_only, required)


@dataclass(frozen=True)
class Loaded:
    """A model with what its checkpoint says about itself."""

    model: PreTrainedModel
    files: Path
    """The folder that it was loaded from: its own, or the one in the Hub's cache."""
    tokenizer: str | None
    """Where its tokenizer is; None where it has none."""
    wrong: tuple[str, ...]
    """Tensors of the model that the checkpoint lacks or has in another shape."""
    unexpected: frozenset[str]
    """Tensors of the checkpoint that the model lacks."""


def load_checkpoint(request: Request) -> Loaded:
    """Load the model; raises HostError in one line, with the package to install where one is missing."""
    where = request.place.where
    try:
        file = Path(cast(str, request.file("config.json")))
        config = read_json(file, infinite=True)
        if not isinstance(config, dict):
            raise HostError(f"cannot load {where} as a language model: its config.json is no JSON object")
        with _no_progress_bar():
            model, info = _load(request, config)
        own = request.place.where if _first_file(request, TOKENIZERS) else None
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        younger = "does not recognize this architecture" in first_line
        remedy = f" (transformers {installed_version('transformers')} is installed: a newer one may know it)" * younger
        raise HostError(f"cannot load {where} as a language model: {first_line}{remedy}") from error
    if request.device is not None:
        model = cast(PreTrainedModel, cast(nn.Module, model).to(request.device))
    shapes = (f"{name} ({list(kept)}, not {list(wanted)})" for name, kept, wanted in info.get("mismatched_keys", ()))
    wrong = (*sorted(info.get("missing_keys", ())), *sorted(shapes))
    unexpected = frozenset(info.get("unexpected_keys", ()))
    return Loaded(model, file.parent, own or (TOKENIZER if is_mamba_ssm(config) else None), wrong, unexpected)


def check_whole(host: Host, loaded: Loaded) -> tuple[str, ...]:
    """What of its checkpoint a host leaves out, by the modules that it would belong to: a vision tower, a head that
    predicts several tokens.

    Raises HostError where the checkpoint lacks tensors, which would be random, or has others in a decoder layer that
    was loaded, which computes something else then.
    """
    if loaded.wrong:
        raise HostError(
            f"{host.name} lacks weights of {type(host.model).__name__}, which would be random: {_several(loaded.wrong)}"
        )
    layers = host.block_list
    ours = tuple(f"{layers}.{index}." for index in range(len(host.blocks)))
    strange = [name for name in sorted(loaded.unexpected) if name.startswith(ours) and "inv_freq" not in name]
    if strange:
        raise HostError(
            f"{host.name} has weights in its decoder layers that {type(host.model).__name__} lacks, so this is another "
            f"architecture of that name: {_several(strange)}"
        )
    return tuple(sorted({".".join(name.split(".")[:2]) for name in loaded.unexpected}))


def _several(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + f" and {len(names) - 5} more" * (len(names) > 5)


def _load(request: Request, config: Mapping[str, object]) -> tuple[PreTrainedModel, dict[str, set[Any]]]:
    if is_mamba_ssm(config):
        dtype = cast(torch.dtype, getattr(torch, "float32" if request.dtype == "auto" else request.dtype))
        return load_mamba_ssm(config, _weights(request), request.place.where, dtype), {}
    kind = "" if request.trust_remote_code else str(config.get("model_type"))
    loader, how = AutoModelForCausalLM, dict[str, Any]()
    if kind in MAMBA:  # fla, once imported, registers classes of its own for these types
        loader = cast(type[AutoModelForCausalLM], MAMBA[kind])
    elif kind in FLA_TYPES:
        loader = _fla_loader(request, kind)
    elif kind in CONFIG_MAPPING:
        loader, how = text_loader(AutoConfig.from_pretrained(Path(cast(str, request.file("config.json"))).parent))
    return cast(
        "tuple[PreTrainedModel, dict[str, set[Any]]]",
        loader.from_pretrained(
            request.place.where,
            dtype=request.dtype,
            device_map=request.device_map,
            revision=request.revision,
            trust_remote_code=request.trust_remote_code,
            local_files_only=request.place.cache_only,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **how,
        ),
    )


def _fla_loader(request: Request, model_type: str) -> type[AutoModelForCausalLM]:
    """fla registers its classes on import; on a CPU, RWKV-7 is better served by the pure-torch package."""
    why = f"{request.place.where}, a {model_type} model of flash-linear-attention,"
    if model_type == "rwkv7" and installed_version("rwkv7_hf") and (request.on_cpu or not installed_version("fla")):
        return cast(type[AutoModelForCausalLM], import_module("rwkv7_hf").RWKV7ForCausalLM)
    if model_type == "rwkv7" and installed_version("fla") is None:
        why = f"{request.place.where} is an RWKV-7 model: without flash-linear-attention it"
        require_package("rwkv7_hf", why)
    require_package("fla", why)
    import_module(f"fla.models.{model_type}")
    return AutoModelForCausalLM


def _first_file(request: Request, names: tuple[str, ...]) -> str | None:
    found = (request.file(name, required=False) for name in names)
    return next((file for file in found if file is not None), None)


def _weights(request: Request) -> Path:
    found = _first_file(request, WEIGHTS)
    if found is None:
        raise HostError(f"{request.place.where} has a config but no weights (looked for {', '.join(WEIGHTS)})")
    return Path(found)


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Loading from disk is quick and shares the terminal with our own progress."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
