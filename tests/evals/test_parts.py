"""Finished pieces: made once, kept, and told of."""

from pathlib import Path

import pandas as pd
import pytest

from writesae.errors import OutputError
from writesae.evals.parts import Parts, watching
from writesae.evals.provenance import Provenance
from writesae.evals.substitution import SubstitutionConfig

SOURCE = Provenance("h", "r", "L1.H2", (), "t")


def test_a_piece_is_made_once_and_every_one_is_told_of(tmp_path: Path) -> None:
    parts = Parts.open(tmp_path / "parts", "x", SOURCE, SubstitutionConfig())
    made: list[str] = []

    def make() -> pd.DataFrame:
        made.append("made")
        return pd.DataFrame({"a": [1, 2]})

    told: list[str] = []
    with watching(told.append):
        first = parts.get("passages-0", make)
        again = Parts.open(tmp_path / "parts", "x", SOURCE, SubstitutionConfig()).get("passages-0", make)
    parts.get("passages-16", make)
    assert (told, made) == (["passages-0", "passages-0"], ["made", "made"])
    pd.testing.assert_frame_equal(first, again)


def test_another_evaluation_s_folder_is_refused(tmp_path: Path) -> None:
    Parts.open(tmp_path / "parts", "x", SOURCE, SubstitutionConfig())
    with pytest.raises(OutputError, match="another evaluation"):
        Parts.open(tmp_path / "parts", "x", SOURCE, SubstitutionConfig(seed=1))
