"""flash-linear-attention: its models on a CPU against its own naive operations and references, and its presence beside
transformers hosts. Runs where the fla extra is installed."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tiny_models import build_tiny
from writesae.errors import HostError
from writesae.hosts import Host, KernelCall, KernelResult, Tap, fla_on_cpu, load
from writesae.hosts.gated_delta import delta_stream
from writesae.hosts.internals import torch_reference
from writesae.hosts.kernels import Arguments, grouped, tensor
from writesae.hosts.selfcheck import TOLERANCE, relative

pytestmark = [
    pytest.mark.fla,
    pytest.mark.skipif(find_spec("fla") is None, reason="needs writesae[fla]"),
    pytest.mark.filterwarnings("ignore"),
]


def tiny_host(name: str) -> Host:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load(build_tiny(name))


def tokens(time: int = 17) -> Tensor:
    return torch.randint(3, 101, (2, time), generator=torch.Generator().manual_seed(0))


def swapped(x: Tensor) -> Tensor:
    """`[B, T, H, ...]` <-> `[B, H, T, ...]`."""
    return x.transpose(1, 2)


def normalised(arguments: Arguments, heads: int) -> tuple[Tensor, Tensor]:
    """The naive operations leave this to their callers; the kernels add 1e-6 to the squared length."""
    q, k = (grouped(tensor(arguments, name), heads) for name in ("q", "k"))
    return q / (q.square().sum(-1, keepdim=True) + 1e-6).sqrt(), k / (k.square().sum(-1, keepdim=True) + 1e-6).sqrt()


def naive_delta(call: Arguments) -> Tensor:
    q, k = normalised(call, tensor(call, "v").shape[2])
    run = import_module("fla.ops.delta_rule.naive").delta_rule_recurrence
    out, _ = run(*(swapped(x) for x in (q, k, tensor(call, "v"), tensor(call, "beta"))))
    return swapped(out)


def naive_gated_delta(call: Arguments) -> Tensor:
    v = tensor(call, "v")
    q, k = normalised(call, v.shape[2])
    gate = import_module("fla.ops.gated_delta_rule.gate").naive_gdn_gate
    g = gate(tensor(call, "g"), tensor(call, "A_log"), tensor(call, "dt_bias"))
    run = import_module("fla.ops.gated_delta_rule.naive").naive_recurrent_gated_delta_rule
    return run(q, k, v, tensor(call, "beta").sigmoid(), g)[0]  # type: ignore[no-any-return]


def naive_kimi(call: Arguments) -> Tensor:
    v = tensor(call, "v")
    q, k = normalised(call, v.shape[2])
    gate = import_module("fla.ops.kda.gate").naive_kda_gate
    g = gate(tensor(call, "g"), tensor(call, "A_log"), tensor(call, "dt_bias"))
    run = import_module("fla.ops.kda.naive").naive_recurrent_kda
    return run(q, k, v, g, tensor(call, "beta").sigmoid())[0]  # type: ignore[no-any-return]


def naive_gla(call: Arguments) -> Tensor:
    run = import_module("fla.ops.gla.naive").naive_recurrent_gla
    return run(*(tensor(call, name) for name in ("q", "k", "v", "gk")))[0]  # type: ignore[no-any-return]


def naive_rwkv7(call: Arguments) -> Tensor:
    r, w, k, v, kk, a = (swapped(tensor(call, name)) for name in ("r", "w", "k", "v", "kk", "a"))
    run = import_module("fla.ops.generalized_delta_rule.dplr.naive").dplr_recurrence
    out, _ = run(r * r.shape[-1] ** 0.5, k, v, -kk, kk * a, w)  # it scales its queries, RWKV-7 does not
    return swapped(out)


def naive_comba(call: Arguments) -> Tensor:
    q, k = normalised(call, tensor(call, "v").shape[2])
    p, _ = normalised({"q": call["p"], "k": call["p"]}, q.shape[2])
    run = import_module("fla.ops.comba.naive").naive_chunk_comba  # its recurrent form decays first, as no kernel does
    return run(q, k, tensor(call, "v"), p, tensor(call, "g"), tensor(call, "beta"))[0]  # type: ignore[no-any-return]


def naive_gdn2(call: Arguments) -> Tensor:
    q, k = normalised(call, tensor(call, "v").shape[2])
    run = import_module("fla.ops.gdn2.naive").naive_recurrent_gdn2
    return run(q, k, *(tensor(call, name) for name in ("v", "g", "b", "w")))[0]  # type: ignore[no-any-return]


def naive_delta_product(call: Arguments) -> Tensor:
    q, k = normalised(call, tensor(call, "v").shape[2])
    run = import_module("fla.ops.gated_delta_product.naive").naive_recurrent_gated_delta_product
    v, g, beta = (tensor(call, name) for name in ("v", "g", "beta"))
    return run(q, k, v, g, beta, q.shape[-1] ** -0.5)[0]  # type: ignore[no-any-return]


def naive_simple_gla(call: Arguments) -> Tensor:
    run = import_module("fla.ops.simple_gla.naive").naive_recurrent_simple_gla
    return run(*(tensor(call, name) for name in ("q", "k", "v", "g")))[0]  # type: ignore[no-any-return]


def naive_retention(call: Arguments) -> Tensor:
    run = import_module("fla.ops.retention.naive").naive_retention
    return swapped(run(*(swapped(tensor(call, name)) for name in ("q", "k", "v"))))


NAIVE: dict[str, Callable[[Arguments], Tensor]] = {
    "fla_delta_net": naive_delta,
    "fla_gated_deltanet": naive_gated_delta,
    "fla_kda": naive_kimi,
    "fla_gla": naive_gla,
    "fla_rwkv7": naive_rwkv7,
    "fla_comba": naive_comba,
    "fla_gdn2": naive_gdn2,
    "fla_gated_deltaproduct": naive_delta_product,
    "fla_simple_gla": naive_simple_gla,
    "fla_retnet": naive_retention,
    "fla_hgrn2": naive_gla,
}


@pytest.mark.parametrize("name", NAIVE)
def test_our_outputs_are_those_of_fla_s_naive_operations(name: str) -> None:
    """On a CPU the host runs our replay, so the replay check alone would prove nothing: this is the oracle."""
    host = tiny_host(name)
    compared: list[float] = []

    def after(call: KernelCall, result: KernelResult) -> KernelResult:
        compared.append(relative(result.output, NAIVE[name](call.arguments)))
        return result

    host.logits(tokens(), Tap(after=after))
    assert len(compared) == 2
    assert max(compared) <= TOLERANCE


def test_translations_are_fla_s_own_kernels_in_triton_s_interpreter() -> None:
    """The naive operations are written by hand, and one of them (Comba's) is not what its kernels do."""
    script = Path(__file__).with_name("interpreted.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    errors = json.loads(done.stdout.splitlines()[-1])
    assert len(errors) == 7
    assert max(errors.values()) <= 1e-6, errors


def test_every_form_of_gate_is_fla_s_own() -> None:
    g = torch.Generator().manual_seed(2)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    call: dict[str, object] = {"q": normal(2, 5, 2, 3), "k": normal(2, 5, 2, 3), "v": normal(2, 5, 4, 7)}
    raw, rate, bias, beta = normal(2, 5, 4, 3), normal(4), normal(12), normal(2, 5, 4)
    call |= {"g": raw, "A_log": rate, "dt_bias": bias, "beta": beta}
    gate = import_module("fla.ops.kda.gate")
    inside: dict[str, object] = {"use_gate_in_kernel": True, "use_beta_sigmoid_in_kernel": True}
    for extra, decay, factor in (
        (inside, gate.naive_kda_gate(raw, rate, bias), 1.0),
        (inside | {"lower_bound": -5.0}, gate.naive_kda_lowerbound_gate(raw, rate, bias, lower_bound=-5.0), 1.0),
        (inside | {"lower_bound": -3.0, "A_log": None}, -3.0 * (raw + bias.view(4, 3)).sigmoid(), 1.0),
        (inside | {"allow_neg_eigval": True}, gate.naive_kda_gate(raw, rate, bias), 2.0),
    ):
        stream = delta_stream(call | extra)
        torch.testing.assert_close(stream.log_decay, decay)
        torch.testing.assert_close(stream.erase_gate, factor * beta.sigmoid().unsqueeze(-1))
    final = delta_stream(call)
    torch.testing.assert_close(final.log_decay, raw)
    torch.testing.assert_close(final.erase_gate, beta.unsqueeze(-1))
    scaled = delta_stream(call | {"scale": 0.25})
    torch.testing.assert_close(scaled.query, final.query * 0.25 * 3**0.5)


def test_the_chunk_call_of_rwkv7_means_the_same_as_the_fused_one() -> None:
    """With gradients on, the layer calls another kernel with other arguments."""
    host = tiny_host("fla_rwkv7")
    with host.tap():
        chunked = host.run(tokens(), keep=0)
    assert relative(chunked.detach(), host.logits(tokens())) <= TOLERANCE


def test_long_prompts_take_the_chunk_kernels_and_agree_with_short_segments() -> None:
    from writesae.hosts.caches import new_cache, run_cached

    for name in ("fla_delta_net", "fla_gla", "fla_gated_deltanet"):
        host = tiny_host(name)
        symbols: list[str] = []

        def seen(call: KernelCall, to: list[str] = symbols) -> None:
            to.append(call.kernel.symbol)

        whole = host.logits(tokens(83), Tap(before=seen))
        assert all(symbol.startswith("chunk") for symbol in symbols)
        live = new_cache(host)
        with host.tap():
            parts = [run_cached(host, tokens(83)[:, at : at + 41], live, at) for at in (0, 41, 82)]
        assert relative(torch.cat(parts, 1), whole) <= TOLERANCE


def test_the_torch_forms_are_fla_s_own_references() -> None:
    norms = import_module("fla.modules.norm.layernorm")
    g = torch.Generator().manual_seed(1)
    x, residual = (torch.randn(2, 11, 12, generator=g) for _ in range(2))
    for module, reference, settings in (
        (norms.RMSNorm(12), norms.rms_norm_ref, {}),
        (norms.LayerNorm(12, bias=True), norms.layer_norm_ref, {}),
        (norms.GroupNorm(3, 12, bias=True), norms.group_norm_ref, {"num_groups": 3}),
        (norms.GroupNorm(3, 12, is_rms_norm=True), norms.group_norm_ref, {"num_groups": 3, "is_rms_norm": True}),
    ):
        torch.nn.init.normal_(module.weight, generator=g)
        ours = fla_on_cpu.MODULES[type(module).__name__](module, x, residual, True)
        theirs = reference(x, module.weight, module.bias, residual=residual, prenorm=True, **settings)
        torch.testing.assert_close(ours, theirs)
    shift = import_module("fla.modules.token_shift").token_shift_ref
    torch.testing.assert_close(fla_on_cpu.FUNCTIONS["token_shift"](x), shift(x))
    r, k, v = (torch.randn(2, 11, 3, 4, generator=g) for _ in range(3))
    o, gate, bonus = torch.randn(2, 11, 12, generator=g), torch.randn(2, 11, 12, generator=g), torch.randn(3, 4)
    correct = import_module("fla.ops.rwkv7.gate_output_correction").gate_output_correction_ref
    torch.testing.assert_close(
        fla_on_cpu.FUNCTIONS["gate_output_correction"](o, r, k, bonus, v, gate), correct(o, r, k, bonus, v, gate)
    )
    update = import_module("fla.ops.rwkv7.fused_k_update").k_update_ref
    torch.testing.assert_close(fla_on_cpu.FUNCTIONS["fused_k_rwkv7"](o, gate, x[0, 0]), update(o, gate, x[0, 0]))


def test_retention_turns_its_keys_as_fla_does() -> None:
    """Counted from the first real token, also in a padded row and in a continuation."""
    ops = import_module("fla.modules.rotary.ops")
    rotary, g = ops.RotaryEmbedding(dim=6), torch.Generator().manual_seed(3)
    q, k = (torch.randn(2, 11, 3, 6, generator=g) for _ in range(2))
    angles = torch.outer(torch.arange(18.0), rotary.inv_freq)
    for offset, mask, first in (
        (0, None, (0, 0)),
        (7, None, (7, 7)),
        (0, [[1] * 11, [0] * 4 + [1] * 7], (0, -4)),
        (7, [[1] * 18, [0] * 4 + [1] * 14], (7, 3)),
    ):
        seen = None if mask is None else torch.tensor(mask)
        fla_on_cpu.EVERYWHERE["unpad_hidden_states"](torch.zeros(2, 11, 5), None, seen, 11)
        for ours, x in zip(fla_on_cpu.turned(rotary, q, k, seqlen_offset=offset), (q, k), strict=True):
            for row, start in enumerate(first):
                real = slice(max(0, -start), 11)
                table = angles[max(0, start) :][: 11 - real.start]
                theirs = ops.rotary_embedding_ref(x[row : row + 1, real], table.cos(), table.sin())
                torch.testing.assert_close(ours[row : row + 1, real], theirs)


def test_hgrn2_projects_what_its_fused_kernel_would() -> None:
    norms, layer = import_module("fla.modules.norm.layernorm"), import_module("fla.layers.hgrn2")
    host = tiny_host("fla_hgrn2")
    x = 1e-3 * torch.randn(2, 11, 35, generator=torch.Generator().manual_seed(4))  # where an epsilon is seen
    norm, out = (host.mixers[1].module.get_submodule(name) for name in ("g_norm", "o_proj"))
    weight = torch.randn(35, generator=torch.Generator().manual_seed(5))
    epsilon = inspect.signature(layer.rms_norm_linear).parameters["eps"].default
    theirs = out(norms.rms_norm_ref(x, weight, None, eps=epsilon))
    with host.tap():
        ours = layer.rms_norm_linear(x, weight, norm.bias, out.weight, out.bias)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.skipif(find_spec("rwkv7_hf") is None, reason="needs writesae[rwkv7]")
def test_rwkv7_is_the_same_model_in_both_packages(tmp_path: Path) -> None:
    ours = build_tiny("rwkv7_hf")
    settings = ours.config.to_dict()
    module = import_module("fla.models.rwkv7")
    kept = ("hidden_size", "num_hidden_layers", "head_dim", "num_heads", "intermediate_size", "vocab_size", "norm_eps")
    ranks = ("decay_low_rank_dim", "gate_low_rank_dim", "a_low_rank_dim", "v_low_rank_dim")
    config = module.RWKV7Config(**{name: settings[name] for name in (*kept, *ranks)}, norm_first=True)
    theirs = module.RWKV7ForCausalLM(config)
    theirs.load_state_dict(ours.state_dict())
    a, b = load(ours), load(theirs)
    assert relative(b.logits(tokens()), a.logits(tokens())) <= TOLERANCE
    mine, other = (host.record(tokens(), [1])[1] for host in (a, b))
    assert relative(other.value, mine.value) <= TOLERANCE
    assert relative(other.log_decay, mine.log_decay) <= TOLERANCE
    theirs.save_pretrained(tmp_path)
    served = load(tmp_path)
    assert type(served.model).__module__.startswith("rwkv7_hf")  # on a CPU, the package made for it
    assert relative(served.logits(tokens()), a.logits(tokens())) <= TOLERANCE


@pytest.mark.parametrize("name", ["qwen3_5", "kimi_linear"])
def test_an_installed_fla_does_not_break_transformers_hosts_on_a_cpu(name: str) -> None:
    """transformers picks fla's kernels at import; on CPU tensors they cannot run. Ours routes by device."""
    host = tiny_host(name)
    kernel = next(iter(host.mixers.values())).kernels[0]
    module = import_module(type(next(iter(host.mixers.values())).module).__module__)
    symbol = getattr(module, kernel.symbol)
    assert torch_reference(symbol) is not symbol
    with pytest.raises(Exception), torch.no_grad():  # noqa: B017, PT011  whatever Triton says without a GPU
        host.model(input_ids=tokens(), use_cache=False)
    assert host.logits(tokens()).isfinite().all()


def test_nothing_of_fla_stays_replaced() -> None:
    host = tiny_host("fla_rwkv7")
    layer = import_module("fla.layers.rwkv7")
    before = {name: vars(layer)[name] for name in fla_on_cpu.FUNCTIONS if name in vars(layer)}
    with host.tap():
        assert any(vars(layer)[name] is not before[name] for name in before)
    assert {name: vars(layer)[name] for name in before} == before
    assert not any("forward" in vars(module) for module in host.model.modules())


def test_a_saved_fla_model_loads_without_remote_code(tmp_path: Path) -> None:
    host = tiny_host("fla_gla")
    host.model.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert torch.equal(again.logits(tokens()), host.logits(tokens()))


def test_several_writes_a_token_are_refused_by_name() -> None:
    module = import_module("fla.models.gated_deltaproduct")
    settings = {"hidden_size": 32, "num_hidden_layers": 2, "num_heads": 2, "head_dim": 6, "vocab_size": 101}
    model = module.GatedDeltaProductForCausalLM(module.GatedDeltaProductConfig(num_householder=3, **settings))
    with pytest.raises(HostError, match=r"model.layers.0.attn of this GatedDeltaProduct.* writes 3 times a token"):
        load(model)
