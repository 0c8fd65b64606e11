"""Everything that wants a GPU, in one go and at most so many minutes: tests, then speeds, then one table.

    python benchmarks/on_a_gpu.py [--device cuda] [--minutes 8] [--only tests steps capture ...]

tests          all that are marked `gpu`, one after another
steps          training steps of one and sixteen heads at 2,048 and 16,384 features (device_training.py)
capture        tokens a second of recording one layer: tiny-gdn, and a host of Qwen3.5-0.8B's shape with random weights
substitution   firings a second of the substitution test on tiny-gdn
store          tokens a second from a store to updated weights (train_end_to_end.py)
quickstart     the whole chain on the device

A part that fails, or for which no time is left, says so in its row; the exit status is 1 then.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
import tyro
from capture_cost import SHAPE
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel, Qwen3_5ForCausalLM, Qwen3_5TextConfig

import writesae as ws
from writesae.devices import choose_device
from writesae.hosts import Host

HERE = Path(__file__).parent
Part = Literal["tests", "steps", "capture", "substitution", "store", "quickstart"]
PARTS: tuple[Part, ...] = ("tests", "steps", "capture", "substitution", "store", "quickstart")


@dataclass(frozen=True)
class Options:
    """Check and measure a device."""

    device: str = "cuda"
    """Which."""
    minutes: float = 8.0
    """For all of it."""
    only: tuple[Part, ...] = PARTS
    """Parts, in this order."""


def run(command: list[str], seconds: float) -> str:
    """What a script printed; raises RuntimeError with its last lines where it failed or took longer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"not finished after {seconds:.0f} s") from error
    if done.returncode:
        raise RuntimeError("\n".join((done.stdout + done.stderr).strip().splitlines()[-12:]))
    return done.stdout.strip()


def script(name: str, *options: str) -> list[str]:
    return [sys.executable, str(HERE / f"{name}.py"), *options]


def tests(options: Options, seconds: float) -> str:
    found = run([sys.executable, "-m", "pytest", "-m", "gpu", "-n", "0", str(HERE.parent / "tests")], seconds)
    return found.splitlines()[-1]


def steps(options: Options, seconds: float) -> str:
    return run(script("device_training", "--device", options.device, "--repeats", "5"), seconds)


def store(options: Options, seconds: float) -> str:
    return run(script("train_end_to_end", "--device", options.device, "--quick"), seconds)


def capture(options: Options, seconds: float) -> str:
    """Recording alone, without a store's disk."""
    big = None
    device, rows = choose_device(options.device), []
    if device.type == "cuda":
        with torch.device(device):
            big = Host(cast(PreTrainedModel, Qwen3_5ForCausalLM(Qwen3_5TextConfig(**SHAPE)).eval()), "0.8B shape")
    for host, length in ((ws.load("tiny-gdn", device=options.device), 256), (big, 1024)):
        if host is None:
            continue
        layer = sorted(host.layers)[len(host.layers) // 2]
        tokens = torch.randint(5, 300, (16, length))
        host.record(tokens, [layer])
        started = time.perf_counter()
        stream = host.record(tokens, [layer])[layer]
        float(stream.key.sum())  # waits for the device
        rate = tokens.numel() / (time.perf_counter() - started)
        rows.append(f"{host.name}, layer {layer}, {host.dtype}: {rate:,.0f} tokens/s")
    return "\n".join(rows)


def substitution(options: Options, seconds: float) -> str:
    """The published test, with the dictionary that a minute of training gives."""
    host = ws.load("tiny-gdn", device=options.device)
    train, test = ws.text("sample", host, length=128).split()
    with tempfile.TemporaryDirectory() as place:
        streams = ws.capture(host, train, [5], f"{place}/s", tokens=16_000, progress=lambda done, total: None)
        sae = ws.train(
            streams,
            site="L5.H0",
            target="write",
            features=256,
            k=8,
            steps=50,
            device=options.device,
            out=f"{place}/run",
        ).sae
    started = time.perf_counter()
    result = ws.evals.substitution(host, sae, test, firings=400, passages=16)
    return f"{result.n / (time.perf_counter() - started):,.0f} firings a second; {result.finding}"


def quickstart(options: Options, seconds: float) -> str:
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "writesae.cli", "quickstart", "--device", options.device]
        return run([*command, "--out", f"{place}/quickstart"], seconds).splitlines()[-2]


def main(options: Options) -> bool:
    """Run the parts and print the table; whether all of them went well."""
    until, well = time.monotonic() + 60 * options.minutes, True
    table = Table("part", "seconds", "what was found", show_lines=True)
    for name in options.only:
        left, started = until - time.monotonic(), time.monotonic()
        try:
            said = globals()[name](options, left) if left > 0 else "not run: no time is left"
        except Exception as error:  # its row says so, and the others are run
            said = f"failed: {type(error).__name__}: {error}"
        well &= not said.startswith(("failed", "not run"))
        table.add_row(name, f"{time.monotonic() - started:.0f}", said)
    device = choose_device(options.device)
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    console = Console(width=170)
    console.print(f"{card}, torch {torch.__version__}", highlight=False)
    console.print(table, highlight=False)
    return well


if __name__ == "__main__":
    raise SystemExit(0 if main(tyro.cli(Options)) else 1)
