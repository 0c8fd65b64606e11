"""The recipe end to end on a small corpus: prepare, train, kill, go on, and load the result as a host."""

from __future__ import annotations

import json
import lzma
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from writesae.corpus import read_documents
from writesae.hosts import load

RECIPE = Path(__file__).parents[2] / "recipes" / "tiny_gdn"
SMALL = ["--shape.layers", "4", "--shape.hidden", "32", "--shape.feed-forward", "48", "--shape.heads", "3"]
SMALL += ["--shape.d-k", "8", "--shape.d-v", "16", "--batch", "2", "--length", "32", "--budget", str(2 * 32 * 30)]
QUICK = ["--no-compile", "--device", "cpu", "--checkpoint-every", "5", "--evaluate-every", "10"]

pytestmark = pytest.mark.slow


def command(script: str, *arguments: str) -> list[str]:
    return [sys.executable, str(RECIPE / script), *arguments]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("recipe")
    (root / "corpus").mkdir()
    documents = [text[:30_000] for _, text in read_documents("sample")][:6]
    for number, text in enumerate(documents[:2]):
        rows = [{"split": "heldout", "text": text[:4000]}, {"split": "train", "text": text[4000:]}]
        with lzma.open(root / "corpus" / f"source{number}.jsonl.xz", "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    small = ("--corpus", str(root / "corpus"), "--tokens", str(root / "tokens"), "--vocabulary", "300")
    subprocess.run(command("prepare.py", *small), check=True)
    return root / "tokens"


def last_evaluation(out: Path) -> dict[str, float]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    found: dict[str, float] = [line["bits_a_byte"] for line in lines if "bits_a_byte" in line][-1]
    return found


def test_a_killed_run_goes_on_to_the_same_weights(tokens: Path, tmp_path: Path) -> None:
    def arguments(out: str) -> list[str]:
        return command("train.py", "--tokens", str(tokens), "--out", str(tmp_path / out), *SMALL, *QUICK)

    subprocess.run(arguments("whole"), check=True, stdout=subprocess.DEVNULL)
    process = subprocess.Popen(arguments("cut"), stdout=subprocess.DEVNULL)
    while not (tmp_path / "cut" / "checkpoint.pt").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "cut" / "host").exists()
    subprocess.run(arguments("cut"), check=True, stdout=subprocess.DEVNULL)

    weights = [(tmp_path / out / "host" / "model.safetensors").read_bytes() for out in ("whole", "cut")]
    assert weights[0] == weights[1]
    bits = last_evaluation(tmp_path / "whole")
    assert bits == last_evaluation(tmp_path / "cut")
    assert set(bits) == {"source0", "source1", "all"}
    assert 1 < bits["all"] < 8  # it has learnt something: 8 bits is chance

    host = load(tmp_path / "whole" / "host")  # proves the replay of its recurrence too
    assert [(layer.heads, layer.d_k, layer.d_v) for layer in host.layers.values()] == [(3, 8, 16)] * 3

    other = subprocess.run([*arguments("cut"), "--seed", "1"], capture_output=True, text=True, check=False)
    assert other.returncode != 0
    assert "other options" in other.stderr


def test_held_out_text_is_in_no_training_token(tokens: Path) -> None:
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokens / "tokenizer.json"))
    train = tokenizer.decode(np.load(tokens / "train.npy").tolist())
    held = tokenizer.decode(np.load(tokens / "heldout_source0.npy").tolist())
    assert len(held) == pytest.approx(4000, abs=5)
    assert held[1000:1500] not in train
