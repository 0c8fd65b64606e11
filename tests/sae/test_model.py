"""The module: encoding, decoding, rescaling, for every composition."""

import itertools
import math

import pytest
import torch

from references import states_reference
from writesae.config import from_json, to_json
from writesae.errors import ConfigError, InputError
from writesae.recurrence.written import Written
from writesae.sae import (
    SAE,
    BatchTopK,
    Bilinear,
    Codes,
    Decoder,
    Encoder,
    Factored,
    Flat,
    Gated,
    JumpReLU,
    Linear,
    SAEConfig,
    SoftGated,
    Sparsity,
    TopK,
)
from writesae.sae.batch import States
from writesae.sae.encoding import preactivations
from writesae.sae.sparsity import step
from writesae.sae.workspace import Workspace
from writesae.types import Target

K, V, N, B, T = 5, 7, 23, 3, 71
SPARSITIES: tuple[Sparsity, ...] = (TopK(3), BatchTopK(3), JumpReLU(), Gated(), SoftGated())
ENCODERS: tuple[Encoder, ...] = (Linear(), Bilinear(), Bilinear(rank=2), Bilinear(tied=True), Bilinear(2, True))
DECODERS: tuple[Decoder, ...] = (Flat(), Factored(), Factored(2))


def possible(e: object, d: object) -> bool:
    return not (isinstance(e, Bilinear) and e.tied) or (isinstance(d, Factored) and d.rank == e.rank)


ALL_SAES = tuple(
    SAEConfig(K, V, N, e, s, d) for e, s, d in itertools.product(ENCODERS, SPARSITIES, DECODERS) if possible(e, d)
)


def make(config: SAEConfig, seed: int = 0) -> SAE:
    g = torch.Generator().manual_seed(seed)
    sae = SAE(config, g).double()
    with torch.no_grad():
        for name, p in sae.named_parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=g, dtype=p.dtype) * (1 if name != "threshold" else 0))
        if isinstance(config.sparsity, JumpReLU | BatchTopK):
            sae.threshold.fill_(0.4)
    return sae


def written(decays: int = 1, seed: int = 1) -> Written:
    g = torch.Generator().manual_seed(seed)
    key, update = (torch.randn(B, T, d, generator=g, dtype=torch.float64) for d in (K, V))
    gate = torch.rand(B, T, 1, generator=g, dtype=torch.float64)
    return Written(key, update, -torch.rand(B, T, decays, generator=g, dtype=torch.float64), gate)


@pytest.mark.parametrize("config", ALL_SAES, ids=str)
def test_codes_decode_to_the_dense_forward(config: SAEConfig) -> None:
    sae, x = make(config), torch.randn(B, 11, K, V, dtype=torch.float64)
    codes = sae.encode(x)
    assert codes.index.shape == codes.value.shape == (B, 11, codes.index.shape[-1])
    assert (codes.value >= 0).all()
    assert (codes.value > 0).any()
    torch.testing.assert_close(sae.decode(codes), sae(x))


@pytest.mark.parametrize("config", ALL_SAES, ids=str)
@pytest.mark.parametrize("decays", [1, K])
def test_encoding_a_stream_equals_encoding_its_states(config: SAEConfig, decays: int) -> None:
    sae, stream = make(config), written(decays)
    initial = torch.randn(B, K, V, dtype=torch.float64)
    dense = sae.encode(states_reference(stream, initial)).dense(N)
    torch.testing.assert_close(sae.encode_written(stream, initial).dense(N), dense)


@pytest.mark.parametrize("encoder", ENCODERS, ids=str)
def test_encoding_writes(encoder: Linear | Bilinear) -> None:
    decoder = Factored(encoder.rank) if isinstance(encoder, Bilinear) else Flat()
    stream = written()
    sae = make(SAEConfig(K, V, N, encoder, TopK(3), decoder, "write-delta"))
    writes = stream.key.unsqueeze(3) * stream.update.unsqueeze(2)
    torch.testing.assert_close(sae.encode_written(stream).dense(N), sae.encode(writes).dense(N))
    value = make(SAEConfig(K, V, N, encoder, TopK(3), decoder, "write-value"))
    states = states_reference(stream)
    before = torch.cat([torch.zeros_like(states[:, :1]), states[:, :-1]], 1)
    assert stream.erase_gate is not None
    native = stream.update + stream.erase_gate * torch.einsum("btkv,btk->btv", before, stream.key)
    expected = value.encode(stream.key.unsqueeze(3) * native.unsqueeze(2)).dense(N)
    torch.testing.assert_close(value.encode_written(stream).dense(N), expected)


@pytest.mark.parametrize("target", ["state", "write-value", "write-delta"])
@pytest.mark.parametrize("decays", [1, K])
@pytest.mark.parametrize("encoder", [Linear(), Bilinear(2)], ids=str)
def test_a_part_of_a_sequence_has_the_codes_of_the_whole(
    target: Target, decays: int, encoder: Linear | Bilinear
) -> None:
    """Given the state before it, whatever the target."""
    stream = written(decays)
    sae = make(SAEConfig(K, V, N, encoder, TopK(3), target=target))
    whole, states = sae.encode_written(stream), states_reference(stream)
    part = sae.encode_written(stream.tokens(29, T), states[:, 28])
    torch.testing.assert_close(part.dense(N), whole.dense(N)[:, 29:])


def test_preactivations_are_formed_a_few_states_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """`[N, T, V]` of them all would be gigabytes for large heads."""
    sae, stream = make(SAEConfig(K, V, N, Bilinear(2), TopK(3), Factored(2))), written(K)
    x = torch.randn(T, K, V, dtype=torch.float64)
    batch = States(stream.key[:, :13], stream.update[:, :13], stream.log_decay[:, :13], x[:B])
    found = [sae.encode(x), sae.encode_written(stream)]
    pre = preactivations(sae, batch, batch.matrices())
    sizes, einsum, taken = [], torch.einsum, Workspace.take

    def counted(equation: str, *operands: torch.Tensor) -> torch.Tensor:
        sizes.append(len(operands[1]) if "t" in equation else 0)
        return einsum(equation, *operands)

    def take(self: Workspace, name: str, like: torch.Tensor, *shape: int) -> torch.Tensor:
        sizes.append(math.prod(shape) // (N * 2 * V) if name == "seen" else 0)
        return taken(self, name, like, *shape)

    monkeypatch.setattr(torch, "einsum", counted)
    monkeypatch.setattr(Workspace, "take", take)
    for module in ("sae.model", "sae.encoding", "recurrence.scan"):
        monkeypatch.setattr(f"writesae.{module}.PROJECTED", 5 * N * 2 * V)
    again = [sae.encode(x), sae.encode_written(stream)]
    torch.testing.assert_close(preactivations(sae, batch, batch.matrices()), pre)
    for one, other in zip(found, again, strict=True):
        torch.testing.assert_close(one.dense(N), other.dense(N))
    assert max(sizes) == 5
    assert sizes.count(5) >= T // 5 + B * (T // 5) + B * 13 // 5


@pytest.mark.parametrize("config", ALL_SAES, ids=str)
def test_rescaling_is_exact(config: SAEConfig) -> None:
    sae, x = make(config), torch.randn(29, K, V, dtype=torch.float64)
    scaled = sae.encode(3.7 * x).dense(N), sae(3.7 * x)
    sae.rescale_(3.7)
    torch.testing.assert_close(sae.encode(x).dense(N), scaled[0] / 3.7)
    torch.testing.assert_close(sae(x), scaled[1] / 3.7)


@pytest.mark.parametrize("config", [c for c in ALL_SAES if not c.tied], ids=str)
def test_normalising_keeps_each_contribution(config: SAEConfig) -> None:
    sae, x = make(config), torch.randn(29, K, V, dtype=torch.float64)
    if isinstance(config.sparsity, TopK | BatchTopK):  # the choice of features may move: compare all that are positive
        contribution = sae.preactivations(x)[..., None, None] * sae.atom_matrices()
        sae.normalise_()
        after = sae.preactivations(x)[..., None, None] * sae.atom_matrices()
        torch.testing.assert_close(after, contribution)
    else:
        before = sae(x)
        sae.normalise_()
        torch.testing.assert_close(sae(x), before)
    torch.testing.assert_close(sae.atom_matrices().flatten(1).norm(dim=1), torch.ones(N, dtype=torch.float64))


def test_atoms_add_exactly_what_the_decoder_adds() -> None:
    sae = make(SAEConfig(K, V, N, sparsity=TopK(3)))
    codes = Codes(torch.tensor([4]), torch.tensor([2.5], dtype=torch.float64))
    v, w = sae.atoms()
    torch.testing.assert_close(sae.decode(codes) - sae.bias, 2.5 * torch.outer(v[4], w[4]))
    with pytest.raises(InputError, match="rank-1 atoms"):
        make(SAEConfig(K, V, N, sparsity=TopK(3), decoder=Flat())).atoms()


@pytest.mark.parametrize("config", ALL_SAES, ids=str)
def test_configs_survive_json(config: SAEConfig) -> None:
    assert from_json(SAEConfig, to_json(config)) == config
    assert str(config.features) in repr(SAE(config))
    assert "<table>" in SAE(config)._repr_html_()


def test_impossible_configs_are_refused() -> None:
    with pytest.raises(ConfigError, match="k = 32"):
        SAEConfig(K, V, 31)
    with pytest.raises(ConfigError, match="tied"):
        SAEConfig(K, V, N, Bilinear(tied=True), TopK(3), Flat())
    with pytest.raises(ConfigError, match="prefixes"):
        SAEConfig(K, V, N, sparsity=TopK(3, (5, 23)))
    with pytest.raises(InputError, match="7 x 5"):
        make(SAEConfig(K, V, N, sparsity=TopK(3))).encode(torch.zeros(2, V, K))


def test_a_new_batch_topk_dictionary_keeps_k_a_token() -> None:
    sae, x = SAE(SAEConfig(K, V, N, sparsity=BatchTopK(4))), torch.randn(29, K, V)
    assert int((sae.encode(x).value > 0).sum()) == 4 * 29
    torch.testing.assert_close(sae.decode(sae.encode(x)), sae(x))
    with pytest.raises(InputError, match=r"holds no threshold.* train it"):
        sae.encode_written(Written(torch.randn(2, 3, K), torch.randn(2, 3, V), torch.zeros(2, 3, 1)))


@pytest.mark.parametrize(("threshold", "bandwidth"), [(0.0, 0.5), (0.4, 0.5), (0.4, 3.0), (-0.3, 0.5)])
def test_thresholds_have_a_gradient_without_a_trainer(threshold: float, bandwidth: float) -> None:
    """Its window is `bandwidth` wide, in units of the mean threshold where there is one; all of it counts, on both
    sides of the threshold and below 0 too."""
    sae, x = SAE(SAEConfig(K, V, N, sparsity=JumpReLU(bandwidth=bandwidth))).double(), torch.randn(97, K, V).double()
    with torch.no_grad():
        sae.threshold.fill_(threshold)
    pre, width = sae.preactivations(x).detach(), bandwidth * (threshold if threshold > 0 else 1.0)
    fires, seen = (pre > threshold) & (pre > 0), pre.clone().requires_grad_()
    found = sae.activations(seen)
    assert isinstance(found, torch.Tensor)
    torch.testing.assert_close(found, torch.where(fires, pre, 0))
    torch.testing.assert_close(torch.autograd.grad(found.sum(), seen)[0], fires.double())
    torch.autograd.backward(sae(x).square().sum())
    slope = 2 * torch.einsum("tkv,nkv->tn", sae(x), sae.atom_matrices()).detach()
    near = (pre - threshold).abs() < width / 2
    assert (near & (pre > threshold)).any()
    assert (near & (pre < threshold)).any()
    expected = (-slope * near * max(threshold, 0) / width).sum(0)
    torch.testing.assert_close(sae.threshold.grad, expected)
    sae.zero_grad()
    torch.autograd.backward(step(pre, sae.threshold, sae.window()).sum())
    torch.testing.assert_close(sae.threshold.grad, -near.double().sum(0) / width)
