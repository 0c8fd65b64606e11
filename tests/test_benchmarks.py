"""Every benchmark that needs nothing more than this machine still runs, at its smallest size."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("step_time.py --quick --no-memory", "bilinear"),
        ("train_end_to_end.py --quick", "tokens/s"),
        ("many_heads.py --heads 2 --d 8 --features 16 --k 2 --sequences 6 --length 32 --steps 2 --rounds 1", "equal"),
        ("eval_speed.py --firings 6 --slow-firings 2 --passages 2 --length 64", "ratio"),
        ("attribution_cost.py", "attribution over"),
        ("soak.py --minutes 0", "after the last"),
        ("store_size.py --sequences 4", "dense"),
        ("recall.py --out recalled --hosts memory-gdn --passages 2 --found-on 1 --pairs-on 2", "is held by"),
        ("growth.py --tokens 400 --passages 1", "substitution"),
        ("on_a_gpu.py --device cpu --only capture", "tokens/s"),
        ("heads.py --out heads --heads tiny-gdn/L1.H0 --tokens 8192 --train-tokens 4096 --firings 5 --passages 3",
         "than deleting"),
        ("device_training.py --device cpu --features 32 --heads 1 2 --precisions float32 --d 8 --k 2 --tokens 64 "
         "--chunk 16 --repeats 1", "float32"),
    ],
)  # fmt: skip
def test_it_runs(command: str, says: str, tmp_path: Path) -> None:
    script, *arguments = command.split()
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert says in done.stdout
