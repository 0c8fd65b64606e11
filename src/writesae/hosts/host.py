"""A language model with recurrent layers, seen through one interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from writesae.corpus import decoded, in_place
from writesae.errors import HostError, InputError
from writesae.hosts.cache_kinds import CacheKind
from writesae.hosts.finite import check_finite, check_stream
from writesae.hosts.intercept import KernelCall, Mixer, Tap, own_thread, patched, tap
from writesae.hosts.internals import execution_device, uncompiled
from writesae.hosts.quiet import Quiet
from writesae.hosts.registry import TWO_WRITES, Architecture, architecture_of, known_architectures
from writesae.recurrence import Stream
from writesae.types import Site


@dataclass(frozen=True)
class Layer:
    """One recurrent layer of a host."""

    index: int
    """Model layer index, counted from 0 over all layers."""
    family: str
    heads: int
    d_k: int
    d_v: int
    name: str
    """Path of the mixer inside the model."""
    architecture: Architecture

    @property
    def two_writes(self) -> bool:
        """Whether a token adds two rank-1 matrices, and so has no delta write."""
        return self.family in TWO_WRITES

    @property
    def one_site(self) -> bool:
        """Whether all heads together are one site, for the audit: the channels of Mamba-1."""
        return bool(self.architecture.audit_only)


class StopForward(Exception):
    """Raised inside a forward pass once everything asked for has been seen."""


class Host:
    """A loaded model, its tokenizer, and its recurrent layers.

    Build one with `writesae.load`. A model runs in evaluation mode and with frozen weights; one that is `borrowed`
    from the caller only inside context managers that leave no trace. Any number of threads may run one host at a time,
    here or through the bare model, and none sees what another changes; only training it meanwhile is not possible.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None,
        name: str,
        identify: Callable[[], str],
        borrowed: bool = False,
    ) -> None:
        """`identify` says what pins the model's content, whenever `revision` is asked for."""
        self._quiet = Quiet(model)
        if not borrowed:
            self._quiet.hush()
        self.model = model
        self._tokenizer = tokenizer
        self.name = name
        self.left_out: tuple[str, ...] = ()
        """Modules that its checkpoint has weights of and this class has not: a vision tower, ..."""
        self._identify = identify
        self.layers = find_layers(model)
        if not self.layers:
            known = ", ".join(a.mixer for a in known_architectures())
            raise HostError(
                f"{name} ({type(model).__name__}) has no recurrent layer that writesae knows; known mixers: {known}"
            )

    def __repr__(self) -> str:
        first = next(iter(self.layers.values()))
        return (
            f"Host({self.name}: {type(self.model).__name__}, {len(self.layers)} {first.family} layers "
            f"{list(self.layers)}, {first.heads} heads of {first.d_k} x {first.d_v}, {self.dtype}, {self.device}"
            + f", without {', '.join(self.left_out)}" * bool(self.left_out)
            + ")"
        )

    @property
    def revision(self) -> str:
        """A SHA-256 over configuration and weights: the same under every name, in every dtype, on every device, and
        another one after a change of weights in memory."""
        return self._identify()

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The host's tokenizer; raises InputError where it was loaded without one."""
        if self._tokenizer is None:
            raise InputError(f"{self.name} was loaded without a tokenizer: pass one to load(tokenizer=...)")
        return self._tokenizer

    @property
    def has_tokenizer(self) -> bool:
        """Whether it can read and write text."""
        return self._tokenizer is not None

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        return cast(nn.Embedding, self.model.get_input_embeddings()).num_embeddings

    def text(self, tokens: Sequence[int]) -> str:
        r"""The text of some token ids; bytes that make no whole character are written like `\xe6`."""
        return decoded(self.tokenizer, tokens)

    def read(self, tokens: Sequence[int]) -> list[str]:
        """What each token adds to a text: a character of several tokens stands at the one that completes it."""
        return in_place(self.tokenizer, tokens)

    @property
    def device(self) -> torch.device:
        """Where the model's input embeddings are used: tokens go there."""
        embeddings = self.model.get_input_embeddings()
        place = cast(Tensor, embeddings.weight).device
        if place.type == "meta":  # offloaded: its weights are elsewhere between calls
            place = execution_device(embeddings)
        return place

    @property
    def config(self) -> PreTrainedConfig:
        """The language model's configuration."""
        return self.model.config.get_text_config()

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the model's weights."""
        return self.model.dtype

    @property
    def exact(self) -> bool:
        """Whether all its weights have 32 bits or more."""
        return all(p.dtype in (torch.float32, torch.float64) for p in self.model.parameters())

    @property
    def sites(self) -> list[Site]:
        """Every recurrent head, by layer and head; one a layer of Mamba-1."""
        return [
            Site(layer.index, head)
            for layer in self.layers.values()
            for head in range(1 if layer.one_site else layer.heads)
        ]

    @property
    def attends(self) -> bool:
        """Whether it is a hybrid: it has attention beside its recurrent layers."""
        recurrent = {layer.name for layer in self.layers.values()}
        others = (type(part).__name__ for name, part in self.model.named_modules() if name not in recurrent)
        return any("attention" in kind.lower() for kind in others)

    def need_writes(self) -> None:
        """Raise HostError for a host whose heads can be audited and nothing else."""
        why = next(iter(self.layers.values())).architecture.audit_only
        if why:
            raise HostError(f"{self.name} can be audited only (writesae eval spectrum): {why}")

    def layer(self, index: int) -> Layer:
        """The recurrent layer at a model index; raises InputError naming the ones there are."""
        if index not in self.layers:
            raise InputError(f"{self.name} has no recurrent layer {index}; it has {list(self.layers)}")
        return self.layers[index]

    def check_site(self, site: Site) -> Layer:
        """The layer of a site; raises InputError where the host has no such head, HostError as `need_writes` does."""
        self.need_writes()
        layer = self.layer(site.layer)
        if not 0 <= site.head < layer.heads:
            raise InputError(f"{self.name} layer {site.layer} has heads 0 to {layer.heads - 1}, not {site.head}")
        return layer

    @cached_property
    def mixers(self) -> dict[int, Mixer]:
        """The recurrent modules by layer index."""
        return {
            layer.index: Mixer(layer.index, self.model.get_submodule(layer.name), layer.architecture.kernels)
            for layer in self.layers.values()
        }

    @cached_property
    def block_list(self) -> str:
        """Path of the list of decoder layers inside the model."""
        name = next(iter(self.layers.values())).name
        while not isinstance(self.model.get_submodule(name), nn.ModuleList):
            name = name.rpartition(".")[0]
        return name

    @property
    def blocks(self) -> nn.ModuleList:
        """The model's list of decoder layers, recurrent or not."""
        return cast(nn.ModuleList, self.model.get_submodule(self.block_list))

    @property
    def cache_kind(self) -> CacheKind:
        """How this model keeps its states between calls."""
        return next(iter(self.layers.values())).architecture.cache

    @contextmanager
    def tap(self, what: Tap | None = None) -> Iterator[None]:
        """Watch or change every recurrence call of this thread; with None only make the model runnable."""
        runnable = next(iter(self.layers.values())).architecture.runnable
        with ExitStack() as stack:
            for module in self.model.modules():
                for name, plain in uncompiled(module):
                    stack.enter_context(patched(module, name, partial(_instead, plain)))
            for context in (self._quiet, runnable(self.model), tap(self.mixers, what)):
                stack.enter_context(context)
            yield

    @torch.no_grad()
    def record(
        self, tokens: Tensor, layers: Sequence[int], attention_mask: Tensor | None = None, first: int | None = None
    ) -> dict[int, Stream]:
        """The streams of these layers for token ids `[B, T]`, float32, on the layers' devices.

        The forward pass ends inside the deepest layer asked for; logits are never computed. `attention_mask` `[B, T]`
        is 0 on left padding, where nothing is written. Raises HostError as `need_writes` does, and DataError where NaN
        or infinity begins, with layer, head, token and passage (by its number, where that of the `first` is given).
        """
        self.need_writes()
        streams: dict[int, Stream] = {}
        wanted = {self.layer(index).index for index in layers}

        def before(call: KernelCall) -> None:
            if call.layer in wanted:
                streams[call.layer] = call.stream
                if call.layer == max(wanted):
                    raise StopForward

        with self.tap(Tap(before=before)), suppress(StopForward):
            self.run(tokens, attention_mask)
        if wanted != set(streams):
            raise HostError(f"{self.name}: layer {min(wanted - set(streams))} ran without a kernel that writesae knows")
        for stream in streams.values():
            check_stream(self, stream, tokens, attention_mask, first)
        return streams

    def run(self, tokens: Tensor, attention_mask: Tensor | None = None, keep: int | Tensor = 1) -> Tensor:
        """One forward pass without a cache, inside whatever tap is open: logits `[B, P, vocabulary]`, float32 whatever
        the weights are (float64 of a host in 64 bits).

        `keep` says of which positions: the last so many (0: all), or a LongTensor of them, `[P]` for all rows alike or
        `[B, P]`. They are chosen before the vocabulary projection. `attention_mask` is `[B, T]`, 0 on left padding.
        Raises DataError where NaN or infinity begins, if it reaches these positions.
        """
        mask = None if attention_mask is None else attention_mask.to(self.device)
        last = keep if isinstance(keep, int) else 0
        with nullcontext() if isinstance(keep, int) else self._only(keep):
            out = self.model(
                input_ids=tokens.to(self.device), attention_mask=mask, use_cache=False, logits_to_keep=last
            )
        logits = wide(cast(Tensor, out.logits))
        check_finite(self, logits, tokens, attention_mask)
        return logits

    @contextmanager
    def _only(self, positions: Tensor) -> Iterator[None]:
        """Let nothing but these positions reach the unembedding: not every class takes them as an argument."""

        def choose(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            hidden, *others = given
            at = positions.to(hidden.device).expand(len(hidden), -1)
            return hidden[torch.arange(len(hidden), device=hidden.device)[:, None], at], *others

        head = cast(nn.Module, self.model.get_output_embeddings())  # type: ignore[no-untyped-call]
        handle = head.register_forward_pre_hook(own_thread(choose))
        try:
            yield
        finally:
            handle.remove()

    @torch.no_grad()
    def logits(self, tokens: Tensor, what: Tap | None = None, keep: int | Tensor = 0) -> Tensor:
        """Next-token logits of a plain (or tapped) run, `[B, P, vocabulary]`, of the positions that `run` keeps."""
        with self.tap(what):
            return self.run(tokens, keep=keep)


def _instead(plain: object, _: object) -> object:
    return plain


def wide(logits: Tensor) -> Tensor:
    """In float32 at least: in less, no log probability is worth its name."""
    return logits.float() if logits.dtype.itemsize < 4 else logits


def find_layers(model: nn.Module) -> dict[int, Layer]:
    """Every module of a known mixer class, by its model layer index; raises HostError for one that is configured so
    that it cannot be read."""
    layers = {}
    for name, module in model.named_modules():
        architecture = architecture_of(module)
        if architecture is not None:
            if why := architecture.refused(module):
                raise HostError(f"{name} of this {type(model).__name__} {why}")
            index = next(int(part) for part in name.split(".") if part.isdigit())
            layers[index] = Layer(
                index, architecture.family, *architecture.shape(module), name=name, architecture=architecture
            )
    return layers
