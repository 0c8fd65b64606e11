"""Dictionaries of one composition and shape side by side, so that one set of products steps all of them.

Feature `i` of dictionary `g` has the number `g N + i`, and the tokens of dictionary `g` follow those of `g - 1`. What
picks rows by feature or goes token by token then needs no change; the rest carries a leading `g`. One dictionary is
a stack of one, whose parameters are used as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from writesae.errors import InputError
from writesae.sae.codes import Codes
from writesae.sae.model import SAE
from writesae.types import Float

Gradients = dict[str, Tensor]
"""By parameter name; those of a stack have one row a feature of any of its dictionaries, `bias` a leading `[G]`."""


class Stack:
    """`G` dictionaries. Raises InputError where they differ in composition or shape."""

    bias: Tensor
    """`[G, K, V]`."""
    b_enc: Tensor
    """`[G N]`."""
    v_dec: Tensor
    """`[G N, r, K]`."""
    w_dec: Tensor
    """`[G N, r, V]`."""
    dec: Tensor
    """`[G N, K, V]`."""
    enc: Tensor
    """`[G N, K, V]`."""

    def __init__(self, saes: Sequence[SAE], half: bool = False) -> None:
        """`half`: the products that pick features round their factors to bfloat16 and add up in fp32."""
        self.config, self.count, self.half = saes[0].config, len(saes), half
        if any(sae.config != self.config for sae in saes):
            raise InputError("dictionaries of different shape or composition cannot be stepped together")
        self.parameters: Gradients = {}
        for name, own in saes[0].named_parameters():
            rows = [own.detach()] if self.count == 1 else [sae.get_parameter(name).detach() for sae in saes]
            if name == "bias":
                self.parameters[name] = rows[0].unsqueeze(0) if self.count == 1 else torch.stack(rows)
            else:
                self.parameters[name] = rows[0] if self.count == 1 else torch.cat(rows)
            setattr(self, name, self.parameters[name])

    @property
    def features(self) -> int:
        """Features of all dictionaries, `G N`."""
        return self.count * self.config.features

    @property
    def encoder_factors(self) -> tuple[Tensor, Tensor]:
        """`[G N, r, K]` and `[G N, r, V]` of a bilinear encoder; the decoder's where tied."""
        names = ("v_dec", "w_dec") if self.config.tied else ("v_enc", "w_enc")
        return self.parameters[names[0]], self.parameters[names[1]]

    def product(
        self, left: Float[Tensor, "G a b"], right: Float[Tensor, "G b c"], out: Float[Tensor, "G a c"]
    ) -> Float[Tensor, "G a c"]:
        """Batched product for pre-activations, in `out`."""
        if not self.half:
            return torch.bmm(left, right, out=out)
        left, right = left.bfloat16(), right.bfloat16()
        if out.device.type == "cuda":
            return out.copy_(torch.bmm(left, right, out_dtype=torch.float32))
        return torch.bmm(left.float(), right.float(), out=out)  # the same numbers, and no faster

    def apart(self, rows: Tensor) -> Tensor:
        """`[G x, ...]` as `[G, x, ...]`."""
        return rows.reshape(self.count, len(rows) // self.count, *rows.shape[1:])

    def numbered(self, codes: Codes) -> Codes:
        """Codes `[G T, J]` of each dictionary's own features, with their numbers in the stack."""
        if self.count == 1:
            return codes
        first = torch.arange(0, self.features, self.config.features, device=codes.index.device)
        return Codes((self.apart(codes.index) + first[:, None, None]).flatten(0, 1), codes.value)

    def own(self, index: Tensor) -> Tensor:
        """Numbers in the stack as each dictionary's own."""
        return index if self.count == 1 else index % self.config.features

    def split(self, gradients: Gradients) -> list[Gradients]:
        """A stack's gradients, one dictionary at a time."""
        parts = {name: x if name == "bias" else self.apart(x) for name, x in gradients.items()}
        return [{name: x[g] for name, x in parts.items()} for g in range(self.count)]
