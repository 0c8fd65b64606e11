"""An install of tokens whose directions are made for a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from writesae.causal.actions import Edit, Install
from writesae.causal.schedule import At
from writesae.edits.directions import DirectionKind, make_many_directions
from writesae.hosts import Host
from writesae.types import NativeWrite, Site, Timing


@dataclass(frozen=True)
class InstallTarget:
    """An install whose direction is made for each prompt when it is known."""

    site: Site
    targets: tuple[int, ...]
    """Written one after another when there are several: position `i` writes target `i` modulo their number."""
    kind: DirectionKind
    positions: tuple[int, ...]
    """Of the prompt; negative ones from its end."""
    magnitude: float
    native_write: NativeWrite
    timing: Timing
    seed: int = 0

    def edits(self, model: Host, rows: Sequence[Sequence[int]]) -> list[Edit]:
        """One edit a row and target."""
        made = []
        for row, prompt in enumerate(rows):
            from_end = [p if p < 0 else p - len(prompt) for p in self.positions]
            for target in dict.fromkeys(self.targets):
                places = tuple(p for i, p in enumerate(from_end) if self.targets[i % len(self.targets)] == target)
                if not places:
                    continue
                found = make_many_directions(
                    model, [self.site], torch.tensor([prompt]), (target,), self.kind, places, self.timing,
                    seed=self.seed + row,
                )[self.site]  # fmt: skip
                what = Install(*found, self.magnitude, self.native_write, label=self._label(model, target))
                made.append(Edit(self.site, what, At(places), self.timing, row))
        return made

    def _label(self, model: Host, target: int) -> str:
        name = f"token {target}" if model._tokenizer is None else repr(model.text([target]))
        return f"{name} ({self.kind})"
