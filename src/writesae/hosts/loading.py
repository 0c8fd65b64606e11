"""Turn a name, a folder, a Hub id or a loaded model into a `Host`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, cast

import torch
from transformers import (
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from writesae.errors import HostError, InputError
from writesae.hosts.checkpoints import Request, load_checkpoint, moved
from writesae.hosts.host import Host
from writesae.hosts.mamba_ssm_format import TOKENIZER
from writesae.hosts.selfcheck import check_replay

_EMBEDDED = Path(__file__).parent / "embedded"
EMBEDDED = {"tiny-gdn": _EMBEDDED / "tiny_gdn", "tiny-mamba2": _EMBEDDED / "tiny_mamba2"}
"""Hosts that ship with the package; they have one tokenizer, which is kept with the first."""

DType = Literal["auto", "float32", "bfloat16", "float16"]


def load(
    source: str | Path | PreTrainedModel,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    dtype: DType = "auto",
    device: str | None = None,
    device_map: str | Mapping[str, str | int] | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Host:
    """Load a host and prove that its recurrence is read right.

    `source` is an embedded host's name (`"tiny-gdn"`, `"tiny-mamba2"`), a local folder, a Hub id, or a loaded
    transformers model.
    `dtype="auto"` is float32 on a CPU and the checkpoint's own dtype elsewhere. Raises InputError where there is
    no such model, HostError where it has no known recurrent layer, ReplayError where the self-check fails.
    """
    if isinstance(source, PreTrainedModel):
        model = source if device is None else moved(source, device)
        host = Host(model, tokenizer, model.config.name_or_path or type(model).__name__, _revision_of_model(model))
    else:
        host = _from_pretrained(str(source), tokenizer, dtype, device, device_map, revision, trust_remote_code)
    check_replay(host)
    return host


def _from_pretrained(
    source: str,
    tokenizer: PreTrainedTokenizerBase | None,
    dtype: DType,
    device: str | None,
    device_map: str | Mapping[str, str | int] | None,
    revision: str | None,
    trust_remote_code: bool,
) -> Host:
    place = EMBEDDED.get(source, Path(source))
    local = place.is_dir()
    if local and not (place / "config.json").is_file():
        raise InputError(f"{source} is no host: the folder has no config.json (save it with save_pretrained)")
    if not local and (place.exists() or source.count("/") != 1 or source.startswith((".", "/", "~"))):
        raise InputError(
            f"unknown host {source!r}: give one of {sorted(EMBEDDED)}, a folder made by save_pretrained, "
            "or a Hub id user/name"
        )
    on_cpu = device_map is None and torch.device(device or "cpu").type == "cpu"
    chosen = torch.float32 if dtype == "auto" and on_cpu else dtype
    where = str(place) if local else source
    loaded = load_checkpoint(Request(where, chosen, device, device_map, revision, trust_remote_code))
    if tokenizer is None:
        tokens = str(EMBEDDED["tiny-gdn"]) if source in EMBEDDED else loaded.tokenizer
        tokenizer = _load_tokenizer(tokens, revision, trust_remote_code)
    return Host(loaded.model, tokenizer, source, loaded.commit or _revision_of_folder(place))


def _load_tokenizer(where: str, revision: str | None, trust_remote_code: bool) -> PreTrainedTokenizerBase | None:
    folder = Path(where)
    if folder.is_dir() and not any(folder.glob("*token*")) and not any(folder.glob("vocab*")):
        return None
    if (folder / "tokenizer.json").is_file() and not (folder / "tokenizer_config.json").is_file():
        tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
            tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|endoftext|>"
        )
        return cast(PreTrainedTokenizerBase, tokenizer)
    if where == TOKENIZER:
        revision = None
    try:
        found = AutoTokenizer.from_pretrained(where, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise HostError(f"cannot load the tokenizer of {where}: {str(error).strip().splitlines()[0]}") from error
    return cast(PreTrainedTokenizerBase, found)


def _digest(parts: Iterable[bytes | memoryview]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _revision_of_folder(folder: Path) -> str:
    """SHA-256 over the names and contents of the configuration and the weights."""
    files = sorted(p for p in folder.iterdir() if p.name == "config.json" or p.suffix in (".safetensors", ".bin"))

    def parts() -> Iterable[bytes]:
        for path in files:
            yield path.name.encode()
            with path.open("rb") as stream:
                while block := stream.read(1 << 24):
                    yield block

    return _digest(parts())


def _revision_of_model(model: PreTrainedModel) -> str:
    """SHA-256 over the configuration and every parameter, for a model that came from memory."""

    def parts() -> Iterable[bytes | memoryview]:
        yield model.config.to_json_string().encode()
        for name, parameter in model.state_dict().items():
            if parameter.is_meta:
                raise HostError(f"{name} is offloaded, so its values cannot be identified: load the model by its name")
            yield name.encode()
            yield memoryview(parameter.detach().cpu().contiguous().view(torch.uint8).flatten().numpy())

    return getattr(model.config, "_commit_hash", None) or _digest(parts())
