"""One evaluation: what it asks, its options, and the functions that measure, summarise and show it.

An evaluation is a folder `evals/NAME/`:

    __init__.py   one frozen dataclass of options (the flags, the JSON and the header of a result), and the entry, an
                  `Evaluation` called NAME                                                      (no torch)
    measure.py    measure(subject, config, keep) -> Measured                                    (torch, the model)
    summary.py    what the records say: Summary, COLUMNS, MORE, summarise(tables, config) -> Summary in numbers,
                  finding(result) -> str in words, panel(result) -> Panel of figures and a table    (no torch)
    show.py       finding and panel, where these would make summary.py long

The entry knows its other files by these names and loads them when they are needed, so that all entries together are
free to import.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast

from writesae.calls import worded
from writesae.config import from_json, to_json
from writesae.errors import InputError
from writesae.types import Target

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from writesae.corpus import Passages, Text
    from writesae.evals.common.pieces import Keep, Measured
    from writesae.evals.common.provenance import Allowance
    from writesae.evals.common.result import Result
    from writesae.evals.common.subject import Dictionaries, Sites, Subject, TextLike
    from writesae.hosts import Host
    from writesae.show.parts import Panel

C = TypeVar("C")
S = TypeVar("S")

Takes = Literal["one", "heads", "seeds", "none", "sites", "optional"]
"""Dictionaries: exactly one; one for each of several heads; several of one head; none; none, but heads are named; one
for each of several heads, or none."""

Progress = Callable[[int, int], None]
"""Called with (finished pieces, all pieces)."""


@dataclass(frozen=True)
class Evaluation(Generic[C]):
    """An entry. Call it as `evaluation(model, dictionaries, text, option=value)`: see `__call__`."""

    name: str
    config: type[C]
    takes: Takes
    title: str
    """The question it answers."""
    intro: str
    """What was done, for a reader who has not read the paper."""
    short: str = ""
    """A word or two for the page's navigation; its name if empty."""
    passages: int = 64
    """Passages that are drawn from a text where no number is given."""
    length: int | None = None
    """Tokens of a passage, where the evaluation needs a length of its own; None: that of the text."""
    pairs: tuple[Target, ...] = ("write-value",)
    """Targets of dictionaries that it can take where a token adds two rank-1 matrices (RWKV-7)."""
    second: bool = False
    """Whether a second dictionary of a head has a use (the flat one of a control)."""
    causal: bool = False
    """Whether it edits what the heads write: its results then say how much of the state a write is."""
    presets: Mapping[str, C] = field(default_factory=dict, compare=False)
    """Protocols with a name."""

    @property
    def word(self) -> str:
        """For the page's navigation."""
        return self.short or self.name.replace("_", " ").capitalize()

    def __repr__(self) -> str:
        """How it is called."""
        return f"<evaluation {self.name}: {self.title}>"

    @worded
    def __call__(
        self,
        model: Host,
        *given: Dictionaries | Text | Passages | TextLike,
        config: C | None = None,
        preset: str | None = None,
        site: Sites | None = None,
        passages: int | None = None,
        length: int | None = None,
        text_seed: int = 0,
        out: str | Path | None = None,
        allow: Allowance | tuple[Allowance, ...] = (),
        progress: Progress | None = None,
        **options: object,
    ) -> Result[C, Any]:
        """Measure: `evaluation(model, dictionaries, text)`, or `evaluation(model, text)` where none is taken or needed.

        `dictionaries` is one, several, or a mapping from head to dictionary; `text` a `Text` (of which `passages` are
        drawn under `text_seed`), drawn `Passages`, or token ids `[B, T]` without padding. `site` names the head of a
        dictionary that does not know it, or the heads of an evaluation that takes no dictionary. Options are the
        config's fields, or what is changed of a `preset`; one value stands for a tuple of one. In `out` finished pieces
        are kept, a run that was stopped goes on there, and the result is saved at the end. `allow` overrules a refusal,
        and is named in the result: "mismatch" (a dictionary of another head or host), "overlap" (text that a
        dictionary was trained on), "precision" (a host in less than float32).

        Raises InputError for what cannot be measured, OutputError for an `out` of another evaluation.
        """
        from writesae.evals.common.frame import evaluate
        from writesae.evals.common.subject import subject_of

        beside = [*options, *([] if preset is None else ["preset"])]
        if config is not None and beside:
            raise InputError(f"{self.name} was given a config and {', '.join(beside)} beside it: give one of the two")
        asked = self.configured(options, preset) if config is None else config
        overruled = (allow,) if isinstance(allow, str) else tuple(allow)
        subject = subject_of(self, model, given, site, passages, length, text_seed, overruled)
        return evaluate(self, subject, asked, out, progress)

    def preset(self, name: str) -> C:
        """The protocol of this name; raises InputError where there is none."""
        if name not in self.presets:
            known = f"it has {', '.join(self.presets)}" if self.presets else "it has none"
            raise InputError(f"{self.name} has no preset {name!r}: {known}")
        return self.presets[name]

    def configured(self, options: Mapping[str, object], preset: str | None = None) -> C:
        """The options as a config, one value under a list's name in the singular too (`native_write="value"`).

        Raises InputError naming an unknown option, preset or a wrong value.
        """
        default, plain = self.config() if preset is None else self.preset(preset), dict[str, object]()
        known = [field.name for field in fields(cast(Any, self.config))]
        for given, value in options.items():
            listed = given not in known and isinstance(getattr(default, f"{given}s", None), tuple)
            name = f"{given}s" if listed else given
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                meant = f", did you mean {near[0]}?" if near else ""
                raise InputError(f"{self.name} has no option {name!r}{meant}; its options are {', '.join(known)}")
            if name in plain:
                raise InputError(f"{self.name} was given {name} twice: give it once")
            many = isinstance(getattr(default, name), tuple) and not isinstance(value, tuple | list)
            plain[name] = to_json((value,) if many else value)
        return from_json(self.config, cast(dict[str, object], to_json(default)) | plain)

    def _part(self, name: str) -> Any:
        return import_module(f"writesae.evals.{self.name}.{name}")

    @property
    def _shown(self) -> Any:
        return self._part("show" if find_spec(f"writesae.evals.{self.name}.show") else "summary")

    def measure(self, subject: Subject, config: C, keep: Keep) -> Measured:
        """The records, and what was refused."""
        return cast("Measured", self._part("measure").measure(subject, config, keep))

    def summarise(self, tables: Mapping[str, pd.DataFrame], config: C) -> object:
        """The summary of a result's tables: of them and the config alone."""
        return self._part("summary").summarise(tables, config)

    @property
    def summary(self) -> type:
        """The class of its summaries."""
        return cast(type, self._part("summary").Summary)

    @property
    def columns(self) -> dict[str, Mapping[str, str]]:
        """Table -> column -> what it means; a name that ends in `*` stands for all that begin so."""
        part = self._part("summary")
        return {"records": part.COLUMNS, **getattr(part, "MORE", {})}

    def finding(self, result: Result[Any, Any]) -> str:
        """One or two sentences with the numbers, the same everywhere."""
        return cast(str, self._shown.finding(result))

    def panel(self, result: Result[Any, Any]) -> Panel:
        """Figures, table and note."""
        return cast("Panel", self._shown.panel(result))
