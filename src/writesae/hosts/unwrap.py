"""What users hold: the transformers model inside a PEFT, nnsight or TransformerLens object, or one of torch's own, and
the language model in one that sees or hears as well.

They are known by what they have, not by their classes: none of these packages is imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from writesae.errors import HostError
from writesae.hosts.internals import without_bridges
from writesae.hosts.text_part import text_part

INSIDE = ("_orig_mod", "module", "_module", "original_model")
"""Where the model is: in the result of torch.compile, in DataParallel and its relatives, in an nnsight object, in a
TransformerLens one."""


def unwrap(source: object) -> tuple[object, PreTrainedTokenizerBase | None]:
    """The transformers model in `source`, sharing its tensors, and the tokenizer that lies beside it.

    What is none of these comes back as it is. Raises HostError where the model inside is not what runs.
    """
    tokenizer = None
    while not isinstance(source, PreTrainedModel | str):
        found = getattr(source, "tokenizer", None)
        if isinstance(found, PreTrainedTokenizerBase):
            tokenizer = found
        if callable(getattr(source, "get_base_model", None)):
            source = _peft(source)
            continue
        if getattr(source, "dispatched", True) is False:
            cast(Callable[[], None], source.dispatch)()  # type: ignore[attr-defined]  # nnsight: weights not loaded yet
        inside = (getattr(source, name, None) for name in INSIDE)
        found = next((x for x in inside if isinstance(x, nn.Module)), None)
        if found is None:
            return source, tokenizer
        source = found
    if isinstance(source, PreTrainedModel):
        source = cast(PreTrainedModel, without_bridges(source))
        for name, module in source.named_modules():
            if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
                raise HostError(f"{name} is in {type(module).__name__}, whose copies cannot be watched: take it out")
        source = text_part(source)
    return source, tokenizer


def _peft(source: object) -> object:
    """A PEFT model's adapters are modules inside the base model, which runs with them; a learnt prompt is not."""
    if getattr(getattr(source, "active_peft_config", None), "is_prompt_learning", False):
        raise HostError("this PEFT model learns a prompt, which stands outside the model: only adapters can be watched")
    return cast(Callable[[], object], source.get_base_model)()  # type: ignore[attr-defined]
