"""Turn a name, a folder, a Hub id or a loaded model into a `Host`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal, cast, get_args

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from writesae.calls import worded
from writesae.devices import choose_device
from writesae.errors import HostError, InputError
from writesae.hosts.checkpoints import Request, check_whole, load_checkpoint
from writesae.hosts.host import Host
from writesae.hosts.identity import Identity
from writesae.hosts.mamba_ssm_format import TOKENIZER
from writesae.hosts.selfcheck import check_replay
from writesae.hosts.sources import EMBEDDED, Place, ask_hub, embedded_tokenizer, find
from writesae.hosts.unwrap import unwrap

DType = Literal["float32", "bfloat16", "float16", "auto"]
"""Precision of a host's weights; `auto` is that of its checkpoint."""


@worded
def load(
    source: object,
    *,
    device: str | None = None,
    dtype: DType | None = None,
    revision: str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    device_map: str | Mapping[str, str | int] | None = None,
    trust_remote_code: bool = False,
) -> Host:
    """Load a host and prove that its recurrence is read right.

    `source` is an embedded host's name (`"tiny-gdn"`, `"memory-gdn"`; `writesae hosts` lists them), a local folder, a
    Hub id, or a loaded transformers model, also one inside a PEFT model (its adapters count), an nnsight LanguageModel,
    a TransformerLens TransformerBridge, `torch.compile` or DataParallel. What is loaded here goes to the CPU and runs
    in float32 if nothing else is asked for, whatever the checkpoint's precision. A model that you loaded stays as it
    is: to ask for another device or precision is refused.

    Raises InputError where there is no such model or device, HostError where it has no known recurrent layer or its
    checkpoint is not whole, ReplayError where the self-check fails.
    """
    if dtype not in (None, *get_args(DType)):
        raise InputError(f"dtype={dtype!r} was given: choose one of {', '.join(get_args(DType))}")
    source, beside = unwrap(source)
    tokenizer = tokenizer or beside
    if isinstance(source, PreTrainedModel):
        if revision is not None or device_map is not None or trust_remote_code:
            raise InputError("revision, device_map and trust_remote_code belong to a model that is loaded here")
        _refuse_changes(source, device, dtype)
        name = source.config.name_or_path or type(source).__name__
        host = Host(source, tokenizer, name, Identity(source), borrowed=True)
    elif isinstance(source, str | Path):
        place = find(str(source), revision)
        if device is not None and device_map is not None:
            raise InputError(f"give device={device!r} or device_map={device_map!r}, not both")
        where = choose_device(device) if device_map is None else None
        loaded = load_checkpoint(Request(place, dtype or "float32", where, device_map, revision, trust_remote_code))
        tokens = str(embedded_tokenizer(str(source))) if str(source) in EMBEDDED else loaded.tokenizer
        if tokenizer is None and tokens is not None:
            tokenizer = _load_tokenizer(tokens, place, revision, trust_remote_code)
        host = Host(loaded.model, tokenizer, str(source), Identity(loaded.model, loaded.files))
        host.left_out = check_whole(host, loaded)
    else:
        raise InputError(f"a host is a name, a folder, a Hub id or a transformers model, not a {type(source).__name__}")
    check_replay(host)
    return host


def _refuse_changes(model: PreTrainedModel, device: str | None, dtype: DType | None) -> None:
    """Raise InputError where a model in memory would have to become another one."""
    wanted = None if device is None else choose_device(device)
    if wanted is not None and (wanted.type, wanted.index or 0) != (model.device.type, model.device.index or 0):
        raise InputError(f"this model is on {model.device}, and is not moved to {device}: move it yourself, or load it")
    if dtype not in (None, "auto") and model.dtype != getattr(torch, dtype):
        own = str(model.dtype).removeprefix("torch.")
        raise InputError(
            f"this model's weights are {own}, and are not changed to {dtype}: give its name or folder, and it is "
            f"loaded in {dtype}"
        )


def _load_tokenizer(where: str, place: Place, revision: str | None, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    folder = Path(where)
    if (folder / "tokenizer.json").is_file() and not (folder / "tokenizer_config.json").is_file():
        tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
            tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|endoftext|>"
        )
        return cast(PreTrainedTokenizerBase, tokenizer)
    cache_only = place.cache_only
    if where == TOKENIZER:
        revision, cache_only = None, ask_hub(where)
    try:
        found = AutoTokenizer.from_pretrained(
            where, revision=revision, trust_remote_code=trust_remote_code, local_files_only=cache_only
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise HostError(f"cannot load the tokenizer of {where}: {str(error).strip().splitlines()[0]}") from error
    return cast(PreTrainedTokenizerBase, found)


@cache
def load_once(name: str, dtype: str, device: str) -> Host:
    """The same host for every job of one worker."""
    return load(name, dtype=cast(DType, dtype), device=device)
