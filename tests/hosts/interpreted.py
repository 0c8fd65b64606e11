"""fla's own Triton kernels, unchanged, on a CPU: Triton's interpreter runs them, our translation is replayed beside.

Run as a program, because Triton is told to interpret before it is imported. Prints the larger relative error of outputs
and final state, by kernel. Chunk kernels do not run in the interpreter.
"""

from __future__ import annotations

import json
import os
import warnings
from importlib import import_module

os.environ["TRITON_INTERPRET"] = "1"

import torch
from torch import Tensor

B, T, H, K, V = 2, 11, 3, 16, 16  # Triton's products need powers of two


def first_configuration(tuner: object, *args: object, **kwargs: object) -> object:
    """In the place of the autotuner, which asks for a GPU."""
    kwargs.pop("warmup", None)
    grid, chosen = kwargs.pop("grid"), tuner.configs[0].kwargs  # type: ignore[attr-defined]
    return tuner.fn[grid](*args, **kwargs, **chosen)  # type: ignore[attr-defined]


def calls() -> dict[str, tuple[str, str, dict[str, object]]]:
    """Kernel -> its module in `fla.ops`, our name for it, and one call."""
    g = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    q, k, v = normal(B, T, H, K), normal(B, T, H, K), normal(B, T, H, V)
    scalar, vector = -0.1 * normal(B, T, H).abs(), -0.1 * normal(B, T, H, K).abs()
    beta, unit = normal(B, T, H).sigmoid(), {"use_qk_l2norm_in_kernel": True}
    qkv: dict[str, object] = {"q": q, "k": k, "v": v}
    gates = {"b": normal(B, T, H, K).sigmoid(), "w": normal(B, T, H, V).sigmoid()}
    share = torch.tensor([0.3, 0.5, 0.9])[:, None]
    return {
        "fused_recurrent_delta_rule": ("delta_rule", "DELTA", qkv | unit | {"beta": beta}),
        "fused_recurrent_gated_delta_rule": (
            "gated_delta_rule",
            "GATED_DELTA",
            qkv | unit | {"g": scalar, "beta": beta},
        ),
        "fused_recurrent_gla": ("gla", "GLA", qkv | {"gk": vector}),
        "fused_recurrent_comba": ("comba", "COMBA", qkv | unit | {"p": k * share, "g": scalar, "beta": beta}),
        "fused_recurrent_gdn2": ("gdn2", "GDN2", qkv | unit | gates | {"g": vector}),
        "fused_recurrent_simple_gla": ("simple_gla", "SIMPLE_GLA", qkv | {"g": scalar}),
        "fused_recurrent_retention": ("retention", "RETENTION", qkv),
    }


def main() -> None:
    """Print the errors as JSON."""
    warnings.simplefilter("ignore")
    import_module("triton.runtime.autotuner").Autotuner.run = first_configuration
    cached = import_module("fla.ops.utils.cache")
    for kind in [x for x in vars(cached).values() if isinstance(x, type) and "run" in vars(x)]:
        kind.run = first_configuration  # type: ignore[attr-defined]
    from writesae.hosts import fla, fla_relatives
    from writesae.recurrence import replay

    initial, errors = torch.randn(B, H, K, V, generator=torch.Generator().manual_seed(1)), {}
    for symbol, (module, name, call) in calls().items():
        kernels = getattr(fla, name, None) or getattr(fla_relatives, name)
        kernel = next(one for one in kernels if one.symbol == symbol)
        run = getattr(import_module(f"fla.ops.{module}"), symbol)
        output, final = run(**call, initial_state=initial.clone(), output_final_state=True)
        ours = replay(kernel.stream(call), initial)
        pairs = ((ours.outputs, output), (ours.final, final))
        errors[symbol] = max(float((x - y).norm() / y.norm()) for x, y in pairs)
    print(json.dumps(errors))


if __name__ == "__main__":
    main()
