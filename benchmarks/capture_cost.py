"""What recording costs: time and memory of one layer's stream beside the forward pass that it needs anyway.

A model of Qwen3.5-0.8B's shape with random weights (hidden 1024, 24 layers, 16 heads of 128 x 128, vocabulary
248,320), 512 tokens a sequence. Three passes are compared, each the median of several:

    full        the whole forward pass, logits of the last position only
    truncated   the same pass, ended where the recorded layer's recurrence would start
    capture     `Host.record`: the truncated pass, with the layer's stream built and kept

Times are processor seconds, summed over threads, so that other work on the machine does not count.

Run it: python benchmarks/capture_cost.py [--layer 9] [--threads 1] [--repeats 5] [--dtype bfloat16]
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import cast

import torch
from transformers import PreTrainedModel, Qwen3_5ForCausalLM, Qwen3_5TextConfig

from writesae.hosts import Host, KernelCall, Tap
from writesae.hosts.host import StopForward

SHAPE = {
    "vocab_size": 248320,
    "hidden_size": 1024,
    "intermediate_size": 3584,
    "num_hidden_layers": 24,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 256,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 16,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
    "tie_word_embeddings": True,
}


def build(dtype: torch.dtype) -> Host:
    """The model with random weights, drawn in place in its own dtype."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        model = Qwen3_5ForCausalLM(Qwen3_5TextConfig.from_dict(SHAPE))
    finally:
        torch.set_default_dtype(before)
    return Host(cast(PreTrainedModel, model), None, "qwen3.5-0.8b-shaped", lambda: "random")


def truncated(host: Host, tokens: torch.Tensor, layer: int) -> None:
    """The forward pass up to the recurrence of `layer`, with nothing recorded."""

    def stop(call: KernelCall) -> None:
        if call.layer == layer:
            raise StopForward

    with torch.no_grad(), host.tap(Tap(before=stop)), suppress(StopForward):
        host.run(tokens)


def peak_mib() -> float:
    """Peak resident memory since the last reset."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def reset_peak() -> None:
    """Forget the peak so far (Linux); elsewhere the peak of the whole process stands."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def measure(passes: dict[str, Callable[[], object]], repeats: int) -> dict[str, dict[str, float]]:
    """Median processor seconds and peak memory of each pass; the passes take turns, so that drift meets all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    peaks: dict[str, float] = dict.fromkeys(passes, 0.0)
    for repeat in range(repeats + 1):
        for name, run in passes.items():
            reset_peak()
            begun = time.process_time()
            kept = run()
            took = time.process_time() - begun
            if repeat > 0:  # the first round warms up
                seconds[name].append(took)
                peaks[name] = max(peaks[name], peak_mib())
            del kept
    return {name: {"cpu_seconds": statistics.median(seconds[name]), "peak_mib": peaks[name]} for name in passes}


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layer", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    host = build(getattr(torch, given.dtype))
    tokens = torch.randint(0, 248320, (1, given.length))
    layer = given.layer

    def full() -> torch.Tensor:
        with torch.no_grad(), host.tap():
            return host.run(tokens)

    found = measure(
        {
            "full": full,
            "truncated": lambda: truncated(host, tokens, layer),
            "capture": lambda: host.record(tokens, [layer]),
        },
        given.repeats,
    )
    time_of = {name: row["cpu_seconds"] for name, row in found.items()}
    result = {
        "settings": vars(given) | {"torch": torch.__version__, "machine": platform.processor() or platform.machine()},
        "passes": found,
        "capture_over_truncated_time": time_of["capture"] / time_of["truncated"],
        "capture_over_truncated_peak": found["capture"]["peak_mib"] / found["truncated"]["peak_mib"],
        "capture_over_full_time": time_of["capture"] / time_of["full"],
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
