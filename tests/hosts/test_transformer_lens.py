"""States against those of TransformerLens, whose scans were written by others. Runs where it is installed."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec

import pytest
import torch
from packaging.version import Version
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from random_hosts import relative, some_tokens
from tiny_models import VOCABULARY, build_tiny
from writesae.hosts import load
from writesae.hosts.fork import native_run
from writesae.recurrence import replay_reference

HERE = version("transformer-lens") if find_spec("transformer_lens") is not None else "0"
pytestmark = [
    pytest.mark.skipif(Version(HERE) < Version("4.3"), reason="TransformerLens 4.3 or newer is not installed"),
    pytest.mark.filterwarnings("ignore"),
]
TOLERANCE = 1e-6


def theirs(name: str, tokens: Tensor) -> dict[int, Tensor]:
    """The states of every layer after every token, as its Python scan hands them to `hook_ssm_state`."""
    model, words = build_tiny(name), {str(i): i for i in range(VOCABULARY)}
    model.config.use_cache = False  # its scan is of prompts alone
    model.config.architectures = [type(model).__name__]
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="0")), eos_token="2", pad_token="0"
    )
    bridge = import_module("transformer_lens.model_bridge").TransformerBridge.boot_transformers(
        "tiny/random", hf_model=model, tokenizer=tokenizer
    )
    found: dict[int, Tensor] = {}

    def keep(layer: int, state: Tensor, hook: object) -> None:
        found[layer] = state.detach()

    for path, module in bridge.named_modules():
        if hasattr(module, "eager_scan"):
            module.eager_scan = True
            layer = next(int(part) for part in path.split(".") if part.isdigit())
            module.hook_ssm_state.add_hook(partial(keep, layer))
    with torch.no_grad():
        bridge(tokens)
    return found


@pytest.mark.parametrize("name", ["qwen3_5", "qwen3_next", "mamba2", "bamba", "mamba1"])
def test_the_states_are_those_of_transformer_lens(name: str) -> None:
    host, tokens = load(build_tiny(name)), some_tokens()
    streams, states = native_run(host, tokens, 0).streams, theirs(name, tokens)
    assert sorted(states) == sorted(host.layers)
    for index, layer in host.layers.items():
        state = states[index]
        if layer.family == "mamba2":  # [B, T, H, V, K]
            state = state.mT
        if layer.family == "mamba1":  # [B, channels, T, 16]
            state = state.transpose(1, 2).unsqueeze(-1)
        assert relative(replay_reference(streams[index]).states, state) <= TOLERANCE
