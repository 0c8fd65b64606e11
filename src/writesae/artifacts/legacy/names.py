"""Which tensor of an old checkpoint plays which part, told by its name.

Names differ between releases (`V_enc`, `encoder.v`, `enc.V`); the part is read from the words of the name. A name that
fits nothing is refused: a dictionary is never built from a guess about half of its tensors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch import Tensor

from writesae.errors import DataError

_IGNORED = {"steps_since_active", "num_batches_not_active", "usage", "fire_count", "step"}
_PAIRS = (("v", "w"), ("u", "v"), ("key", "value"), ("left", "right"), ("row", "col"), ("k", "v"))
_SIDES = {"enc": "enc", "encoder": "enc", "dec": "dec", "decoder": "dec"}
_OTHERS = {"r_mag": "r_mag", "b_mag": "b_mag", "b_gate": "b_gate", "log_threshold": "log_threshold"}


class Roles(Mapping[str, Tensor]):
    """Tensors by part: `enc_v enc_w enc b_enc dec_v dec_w dec bias` and those of the gates."""

    def __init__(self, names: dict[str, str], tensors: dict[str, Tensor]) -> None:
        self._names, self._tensors = names, tensors

    def __getitem__(self, role: str) -> Tensor:
        return self._tensors[self._names[role]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def name(self, role: str) -> str:
        """The tensor's name in the checkpoint."""
        return self._names[role]

    def features(self) -> int:
        """Number of features, which every part must agree on."""
        axis = {"dec": 1}
        counts = {role: (*map(int, self[role].shape), 0, 0)[axis.get(role, 0)] for role in self if role != "bias"}
        if len(set(counts.values())) != 1:
            told = ", ".join(f"{self.name(role)} {count}" for role, count in counts.items())
            raise DataError(f"its tensors disagree on the number of features: {told}")
        return next(iter(counts.values()))

    def variant(self) -> str:
        """The research code's name of the type."""
        if "dec" in self:
            return "flat" if "enc" in self else "bilinear_flat"
        if "enc" in self:
            return "rank1"
        if "log_threshold" in self:
            return "bilinear_jumprelu"
        if "b_gate" in self:
            return "bilinear_gated"
        return "bilinear" if "enc_v" in self else "bilinear_tied"


def assign_roles(tensors: dict[str, Tensor]) -> Roles:
    """Give every tensor its part; raises DataError for a name that fits none, and where a needed part is missing."""
    names: dict[str, str] = {}
    pair = _pair({word for name in tensors for word in _words(name)})
    for name, tensor in tensors.items():
        role = _role(name, tensor, pair)
        if role is None:
            continue
        if role in names:
            raise DataError(f"its tensors {names[role]!r} and {name!r} both look like the {role} part")
        names[role] = name
    roles = Roles(names, tensors)
    _check(roles)
    return roles


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[._]", name.lower()) if word]


def _pair(words: set[str]) -> tuple[str, str]:
    for pair in _PAIRS:
        if words.issuperset(pair):
            return pair
    return _PAIRS[0]


def _role(name: str, tensor: Tensor, pair: tuple[str, str]) -> str | None:
    last = name.rpartition(".")[2].lower()
    if last in _IGNORED:
        return None
    if last in _OTHERS:
        return _OTHERS[last]
    words = _words(name)
    sides = {_SIDES[word] for word in words if word in _SIDES}
    rest = [word for word in words if word not in _SIDES]
    if len(sides) <= 1 and len(rest) <= 1:
        side = next(iter(sides), None)
        word = rest[0] if rest else ""
        if word in pair and len(tensor.shape) in (2, 3):
            return f"{side or 'dec'}_{'v' if word == pair[0] else 'w'}"
        if word in ("weight", "w") and side is not None and len(tensor.shape) == 2:
            return side
        if word in ("bias", "b"):
            return "b_enc" if side == "enc" else "bias"
    raise DataError(f"its tensor {name[:80]!r} of shape {tuple(tensor.shape)} belongs to no known type of dictionary")


def _check(roles: Roles) -> None:
    if "dec" in roles and "dec_v" in roles:
        raise DataError("it has both a flat and a factored decoder")
    needed = ["bias", *(["dec"] if "dec" in roles else ["dec_v", "dec_w"])]
    if "b_gate" in roles:
        needed += ["enc_v", "enc_w", "b_mag", "r_mag"]
    else:
        needed += ["b_enc"]
    if "enc_v" in roles or "enc_w" in roles:
        needed += ["enc_v", "enc_w"]
    elif "dec" in roles:
        needed += ["enc"]
    if missing := [role for role in needed if role not in roles]:
        raise DataError(f"it lacks the parts {', '.join(missing)}; it has {', '.join(roles.name(r) for r in roles)}")
    if "enc" in roles and ("b_gate" in roles or "log_threshold" in roles):
        raise DataError("it has a gate on a dense encoder, which no known type has")
