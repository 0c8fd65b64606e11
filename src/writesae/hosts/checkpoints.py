"""From a folder or Hub id to a model: which class serves the checkpoint, and what to install where none does."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import cast

import torch
from torch import nn
from transformers import AutoModelForCausalLM, Mamba2ForCausalLM, PreTrainedModel
from transformers.utils import logging
from transformers.utils.hub import cached_file, extract_commit_hash

from writesae.errors import HostError
from writesae.hosts.mamba_ssm_format import TOKENIZER, WEIGHTS, is_mamba_ssm, load_mamba_ssm
from writesae.hosts.versions import installed_version, require_package

FLA_TYPES = ("delta_net", "gated_deltanet", "gla", "kda", "rwkv7")
"""`model_type`s of flash-linear-attention that have a matrix state and a recurrence we know."""


@dataclass(frozen=True)
class Request:
    """What to load, and how."""

    where: str
    """Folder or Hub id."""
    dtype: torch.dtype | str
    device: str | None
    device_map: str | Mapping[str, str | int] | None
    revision: str | None
    trust_remote_code: bool

    @property
    def on_cpu(self) -> bool:
        """Whether the whole model goes to the CPU."""
        return self.device_map is None and torch.device(self.device or "cpu").type == "cpu"


@dataclass(frozen=True)
class Loaded:
    """A model with what its checkpoint says about itself."""

    model: PreTrainedModel
    commit: str | None
    """The Hub commit; None for a local folder."""
    tokenizer: str
    """Where its tokenizer is."""


def load_checkpoint(request: Request) -> Loaded:
    """Load the model; raises HostError in one line, with the package to install where one is missing."""
    where = request.where
    try:
        file = cast(str, cached_file(where, "config.json", revision=request.revision))
        config = json.loads(Path(file).read_text())
        with _no_progress_bar():
            model, tokenizer = _load(request, config)
    except (OSError, ValueError, KeyError, ImportError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise HostError(f"cannot load {where} as a language model: {first_line}") from error
    if request.device is not None and request.device_map is None:
        model = moved(model, request.device)
    commit = getattr(model.config, "_commit_hash", None) or extract_commit_hash(file, None)
    return Loaded(model, cast(str | None, commit), tokenizer)


def moved(model: nn.Module, device: str) -> PreTrainedModel:
    """The model on another device."""
    return cast(PreTrainedModel, model.to(device))


def _load(request: Request, config: dict[str, object]) -> tuple[PreTrainedModel, str]:
    if is_mamba_ssm(config):
        dtype = torch.float32 if request.dtype == "auto" else request.dtype
        exact = dtype if isinstance(dtype, torch.dtype) else cast(torch.dtype, getattr(torch, dtype))
        own = _first_file(request, ("tokenizer_config.json", "tokenizer.json"))
        model = load_mamba_ssm(config, _weights(request), request.where, exact)
        return model, TOKENIZER if own is None else request.where
    loader = AutoModelForCausalLM
    if config.get("model_type") == "mamba2" and not request.trust_remote_code:
        # fla, once imported, registers a class of its own for this type
        loader = cast(type[AutoModelForCausalLM], Mamba2ForCausalLM)
    if config.get("model_type") in FLA_TYPES and not request.trust_remote_code:
        loader = _fla_loader(request, str(config["model_type"]))
    loaded = loader.from_pretrained(
        request.where,
        dtype=request.dtype,
        device_map=request.device_map,
        revision=request.revision,
        trust_remote_code=request.trust_remote_code,
    )
    return cast(PreTrainedModel, loaded), request.where


def _fla_loader(request: Request, model_type: str) -> type[AutoModelForCausalLM]:
    """fla registers its classes on import; on a CPU, RWKV-7 is better served by the pure-torch package."""
    why = f"{request.where}, a {model_type} model of flash-linear-attention,"
    if model_type == "rwkv7" and installed_version("rwkv7_hf") and (request.on_cpu or not installed_version("fla")):
        return cast(type[AutoModelForCausalLM], import_module("rwkv7_hf").RWKV7ForCausalLM)
    if model_type == "rwkv7" and installed_version("fla") is None:
        why = f"{request.where} is an RWKV-7 model: without flash-linear-attention it"
        require_package("rwkv7_hf", why)
    require_package("fla", why)
    import_module(f"fla.models.{model_type}")
    return AutoModelForCausalLM


def _first_file(request: Request, names: tuple[str, ...]) -> str | None:
    for name in names:
        found = cached_file(request.where, name, revision=request.revision, _raise_exceptions_for_missing_entries=False)
        if found is not None:
            return found
    return None


def _weights(request: Request) -> Path:
    found = _first_file(request, WEIGHTS)
    if found is None:
        raise HostError(f"{request.where} has a config but no weights (looked for {', '.join(WEIGHTS)})")
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
