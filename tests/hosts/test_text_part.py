"""The language model in one that sees or hears as well: loaded alone, or taken out of one in memory."""

from pathlib import Path

import pytest
import torch

from random_hosts import some_tokens, tiny_host
from tiny_models import WRAPPED_MODELS, build_tiny, lacking
from writesae.hosts import load
from writesae.hosts.selfcheck import TOLERANCE, measure_replay

HERE = [
    pytest.param(name, marks=pytest.mark.skipif(lacking(name) is not None, reason=str(lacking(name))))
    for name in WRAPPED_MODELS
]
SAME = {"minicpm_v": "Qwen3_5ForCausalLM", "nemotron_h_omni": "NemotronHForCausalLM"}


@pytest.mark.parametrize("name", HERE)
def test_a_model_in_memory_gives_its_text_part(name: str) -> None:
    model = build_tiny(name)
    host = load(model)
    assert type(host.model).__name__ == SAME[name]
    assert host.model.get_input_embeddings().weight is model.get_input_embeddings().weight
    with torch.no_grad(), host.tap():
        whole = model(input_ids=some_tokens(), use_cache=False).logits
    assert torch.equal(host.logits(some_tokens()), whole)
    assert host.logits(some_tokens(), keep=1).shape[1] == 1
    for errors in measure_replay(host, some_tokens(), (11, 1, 1, 4)).values():
        assert max(errors.state, errors.output) <= TOLERANCE


@pytest.mark.parametrize("name", HERE)
def test_a_checkpoint_gives_its_text_part_alone(name: str, tmp_path: Path) -> None:
    model = build_tiny(name)
    model.save_pretrained(tmp_path)
    host, memory = load(tmp_path), load(model)
    assert type(host.model).__name__ == SAME[name]
    assert "without" in repr(host)
    assert not any("vision" in path for path, _ in host.model.named_parameters())
    assert torch.equal(host.logits(some_tokens()), memory.logits(some_tokens()))


def test_a_model_that_is_a_language_model_stays_as_it_is(tmp_path: Path) -> None:
    model = build_tiny("qwen3_5_vision")
    assert load(model).model is model
    model.save_pretrained(tmp_path)
    assert type(load(tmp_path).model).__name__ == "Qwen3_5ForCausalLM"


@pytest.mark.skipif(lacking("glm5_next") is not None, reason=str(lacking("glm5_next")))
def test_a_model_whose_text_part_is_no_model_of_its_own_is_loaded_whole(tmp_path: Path) -> None:
    host = tiny_host("glm5_next")
    host.model.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert type(again.model) is type(host.model)
    assert torch.equal(again.logits(some_tokens()), host.logits(some_tokens()))
