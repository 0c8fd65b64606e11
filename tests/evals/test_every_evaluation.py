"""What holds of every evaluation: its files, its summary, its sentence, its figures, its refusals."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import writesae.evals
from small_results import SITE, SMALL, dictionaries, small_result, small_sae
from writesae.artifacts.verify import verify
from writesae.cli.eval import parse
from writesae.corpus import Fingerprint, Passages
from writesae.errors import DataError, InputError, OutputError
from writesae.evals import EVALUATIONS
from writesae.evals.common.result import Result, plain
from writesae.hosts import Host, load
from writesae.page.find import recompute
from writesae.sae import SAE, Record, SAEConfig, TopK
from writesae.types import Site

NAMES = list(EVALUATIONS)
WITH_DICTIONARY = [name for name, one in EVALUATIONS.items() if one.takes not in ("none", "sites")]
Results = dict[str, Result[Any, Any]]


@pytest.mark.parametrize("name", NAMES)
def test_the_summary_follows_from_the_files(name: str, results: Results, tmp_path: Path) -> None:
    result, evaluation = results[name], EVALUATIONS[name]
    assert result.attempted == result.n + sum(result.refused.values())
    loaded = Result.load(result.save(tmp_path / "saved"))
    assert plain(evaluation.summarise(loaded.tables, loaded.config)) == plain(result.summary) == plain(loaded.summary)
    assert loaded.config == result.config
    assert loaded.provenance == result.provenance
    assert loaded.finding == result.finding
    assert loaded.to_json() == result.to_json()


@pytest.mark.parametrize("name", NAMES)
def test_every_column_is_declared(name: str, results: Results) -> None:
    declared = EVALUATIONS[name].columns
    assert set(declared) == set(results[name].tables)
    for table, columns in declared.items():
        known = {column.rstrip("?") for column in columns}
        prefixes = tuple(column[:-1] for column in columns if column.endswith("*"))
        own = set(map(str, results[name].tables[table].columns))
        assert {c for c in own - known if not c.startswith(prefixes or ("\0",))} == set()
        assert {c for c in columns if not c.endswith(("*", "?"))} <= own


@pytest.mark.parametrize("name", NAMES)
def test_provenance_says_what_was_measured_on_what(name: str, results: Results) -> None:
    source = results[name].provenance
    assert (source.host, source.dtype, source.device, len(source.revision)) == ("tiny-gdn", "float32", "cpu", 64)
    assert set(source.versions) == {"writesae", "torch", "transformers"}
    assert len(source.dictionaries) == len(dictionaries(name))
    for one in source.dictionaries:
        assert (one.target, one.features, len(one.sha256)) == ("write-delta", 61, 64)
        assert "L5.H2" in one.name or "L6.H1" in one.name
    assert len(source.text.sha256) == 64
    assert source.budget > 0


def test_a_dictionary_in_low_precision_is_used_in_float32_and_left_as_it_is(host: Host, passages: Tensor) -> None:
    low = small_sae().bfloat16()
    same = SAE(low.config)
    same.load_state_dict(low.state_dict())  # the rounded values, in float32
    first, second = (writesae.evals.boundary(host, sae, passages, site=SITE) for sae in (low, same))
    assert next(low.parameters()).dtype == torch.bfloat16
    pd.testing.assert_frame_equal(first.records, second.records)


@pytest.mark.parametrize("name", NAMES)
def test_the_sentence_and_the_panel(name: str, results: Results) -> None:
    result = results[name]
    assert result.finding.endswith(".")
    assert any(c.isdigit() for c in result.finding)
    assert "nan" not in result.finding.lower().split()
    assert result.finding.replace("\u202f", " ").replace("\u2009", " ") in str(result)
    panel = result.panel
    assert panel.plots
    assert len({plot.name for plot in panel.plots}) == len(panel.plots)
    for row in panel.table.rows:
        assert len(row) == len(panel.table.head)
    figures = result.plot()
    assert list(figures) == [plot.name for plot in panel.plots]
    assert "var(--" not in str(figures[next(iter(figures))].to_json())
    assert "<iframe" in result._repr_html_()


class Killed(Exception):
    """What stops a run."""


def kill(done: int, total: int) -> None:
    """Stop when the first piece is there."""
    raise Killed


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_one_goes_on_to_the_bit_and_another_is_refused(
    name: str, host: Host, results: Results, few_passages: dict[str, Tensor], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    try:
        small_result(name, host, few_passages[name], out=out, progress=kill)
    except Killed:
        assert any((out / "parts").glob("*.parquet"))
        assert not (out / "summary.json").exists()
    result = small_result(name, host, few_passages[name], out=out)
    for table, whole in results[name].tables.items():
        pd.testing.assert_frame_equal(result.tables[table], whole, check_exact=True)
    assert json.loads((out / "summary.json").read_text())["finding"] == results[name].finding
    finished = small_result(name, host, few_passages[name], out=out, progress=kill)  # nothing is measured again
    assert plain(finished.summary) == plain(result.summary)
    with pytest.raises(OutputError, match="sha256"):
        small_result(name, host, few_passages[name].flip(0).contiguous(), out=out)


@pytest.mark.parametrize("name", WITH_DICTIONARY)
def test_a_dictionary_of_another_shape_host_or_head_is_refused(
    name: str, host: Host, few_passages: dict[str, Tensor], tmp_path: Path
) -> None:
    evaluation, text, options = EVALUATIONS[name], few_passages[name], SMALL[name]
    saes = dictionaries(name)
    narrow = SAE(SAEConfig(31, 32, 61, sparsity=TopK(3), target="write-delta"))
    both = evaluation.takes == "seeds"
    with pytest.raises(InputError, match="31 x 32"):
        evaluation(host, [narrow, narrow] if both else narrow, text, site=SITE, out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match=r"is of L5\.H2, not of L4\.H3"):
        evaluation(host, [small_sae()] * (2 if both else 1), text, site=Site(4, 3), **options)
    for sae in saes:
        sae.record = Record("other", "0" * 64, sae.site)
    with pytest.raises(InputError, match="revision 0000"):
        evaluation(host, saes, text, **options)


CAN_BE_SILENT = ("quality", "seeds", "fidelity", "recall")
"""Those that need no feature to fire."""


@pytest.mark.parametrize("name", [name for name in WITH_DICTIONARY if name not in CAN_BE_SILENT])
def test_a_silent_dictionary_is_refused_in_words(
    name: str, host: Host, few_passages: dict[str, Tensor], tmp_path: Path
) -> None:
    options = SMALL[name] | ({"controls": ()} if name == "substitution" else {})
    with pytest.raises(InputError, match="fire"):
        EVALUATIONS[name](host, small_sae(silent=61), few_passages[name], out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_allowed_mismatches_are_named(host: Host, few_passages: dict[str, Tensor]) -> None:
    text = few_passages["boundary"]
    result = EVALUATIONS["boundary"](host, small_sae(), text, site="L4.H3", allow="mismatch", pattern="e")
    assert result.provenance.allowed == ("mismatch",)
    assert "overruled: mismatch" in str(result)


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ((), {}, r"boundary\(model, dictionaries, text\)"),
        (("sae",), {}, r"boundary\(model, dictionaries, text\)"),
        ((3, "text"), {}, "takes dictionaries second"),
        (("sae", 3), {}, "takes a text last"),
        (("sae", "text"), {"patern": "e"}, "did you mean pattern"),
        (("sae", "text"), {"top": "many"}, "'many' is not of type int"),
        (("sae", "text"), {"top": 0}, "give at least 1"),
        ((("sae", "sae"), "text"), {}, "takes 1 of a head"),
        (("sae", "text"), {"passages": 3}, "leave out passages"),
        (("sae", "text"), {"site": "L5"}, "not written like L9.H4"),
    ],
)
def test_wrong_calls_are_one_line(
    given: tuple[Any, ...], options: dict[str, Any], message: str, host: Host, passages: Tensor
) -> None:
    def made(x: Any) -> Any:
        if isinstance(x, tuple):
            return [made(y) for y in x]
        return small_sae() if x == "sae" else passages if x == "text" else x

    with pytest.raises(InputError, match=message):
        EVALUATIONS["boundary"](host, *map(made, given), **options)


def test_something_that_is_no_model(passages: Tensor) -> None:
    with pytest.raises(InputError, match="takes a model first"):
        EVALUATIONS["boundary"]("tiny-gdn", small_sae(), passages)  # type: ignore[arg-type]


def test_old_and_damaged_results_are_refused_in_words(tmp_path: Path, results: Results) -> None:
    place = results["boundary"].save(tmp_path / "result")
    text = (place / "summary.json").read_text()
    for change, message in (
        ({"format": None}, "of this version"),
        ({"version": 99}, "version 99"),
        ({"version": 2}, "report .*result --recompute"),
        ({"name": "nothing"}, "unknown evaluation"),
        ({"attempted": 7}, "damaged"),
        ({"config": {"patern": "e"}}, "patern"),
        ({"summary": {}}, "cannot understand"),
        ({"provenance": 3}, "cannot understand"),
    ):
        (place / "summary.json").write_text(json.dumps(json.loads(text) | change))
        with pytest.raises(DataError, match=message):
            Result.load(place)
    (place / "summary.json").write_text(text)
    pd.DataFrame({"feature": [1]}).to_parquet(place / "records.parquet")
    (place / "summary.json").write_text(json.dumps(json.loads(text) | {"files": {}}))  # as results of this morning
    with pytest.raises(DataError, match="has no column"):
        Result.load(place)


def test_a_flipped_bit_of_a_table_is_found_by_loading_computing_anew_and_verifying(
    tmp_path: Path, results: Results
) -> None:
    place = results["spectrum"].save(tmp_path / "result")
    assert verify(place).findings == ()
    for file in sorted(place.glob("*.parquet")):
        before = file.read_bytes()
        for at in range(0, len(before), max(1, len(before) // 7)):
            file.write_bytes(before[:at] + bytes([before[at] ^ 4]) + before[at + 1 :])
            for read in (lambda: Result.load(place), lambda: recompute(tmp_path)):
                with pytest.raises(DataError, match=rf"{file.name} has changed .* not what summary.json lists"):
                    read()
            assert any(f"{file.name} has changed" in str(finding) for finding in verify(place).findings)
        file.unlink()
        with pytest.raises(DataError, match=f"{file.name} is missing"):
            Result.load(place)
        file.write_bytes(before)
    assert Result.load(place).finding == results["spectrum"].finding


def test_a_summary_that_is_saved_again_is_there_all_the_time(
    tmp_path: Path, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = results["spectrum"].save(tmp_path / "result")
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: None if self.suffix == ".partial" else 1 / 0)
    assert recompute(tmp_path) == [place]


@pytest.mark.parametrize("name", ["boundary", "substitution"])
def test_a_summary_is_computed_anew_from_its_records(name: str, tmp_path: Path, results: Results) -> None:
    place = results[name].save(tmp_path / "some" / "result")
    said = json.loads((place / "summary.json").read_text())
    del said["files"]
    before = json.dumps(said | {"version": 2, "summary": {"old": 1}, "finding": "old", "table": {}})
    (place / "summary.json").write_text(before)
    if name == "substitution":  # version 2 knew one reading, and did not say so
        results[name].records.drop(columns="reading").to_parquet(place / "records.parquet")
    assert recompute(tmp_path) == [place]
    now = json.loads((place / "summary.json").read_text())
    assert now.pop("files").keys() == {"records.parquet"}
    if name == "substitution":
        assert (now["config"].pop("readings"), said["config"].pop("readings")) == (["state"], ["state", "increment"])
    assert now == said
    assert Result.load(place).finding == results[name].finding


def test_a_wrong_choice_is_named_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"'after' is not one of after_token, at_token"):
        EVALUATIONS["substitution"].configured({"timings": ("after",)})


def test_a_dictionary_of_another_host_is_named_where_that_has_no_such_head(host: Host) -> None:
    other = load("tiny-mamba2")
    tokens, sae = torch.zeros(1, 40, dtype=torch.long), small_sae(host=host)
    with pytest.raises(InputError, match=r"the dictionary is of tiny-gdn revision .*; tiny-mamba2 has no recurrent"):
        EVALUATIONS["boundary"](other, sae, tokens)


def test_text_for_training_that_is_too_short_to_compare_is_refused(host: Host, passages: Tensor) -> None:
    sae, tokens = small_sae(), passages.numpy()
    assert sae.record is not None
    sae.record = replace(sae.record, text=Fingerprint.of(np.arange(400).reshape(2, 200)))
    text = Passages(tokens[:, :29], "sample", "train of 0.8", 0)  # shorter than a window
    with pytest.raises(InputError, match=r"too short to tell whether .* was trained on it"):
        EVALUATIONS["boundary"](host, sae, text, pattern="e")
    allowed = EVALUATIONS["boundary"](host, sae, text, pattern="e", allow="overlap")
    assert allowed.provenance.allowed == ("overlap",)
    held_out = EVALUATIONS["boundary"](host, sae, replace(text, part="test of 0.8"), pattern="e")
    assert "overlap with the training of" in str(held_out)
    assert held_out.provenance.allowed == ()


def test_every_entry_can_be_called_after_its_files_were_imported() -> None:
    for name in NAMES:
        for part in ("measure", "summary"):
            import_module(f"writesae.evals.{name}.{part}")
        assert getattr(writesae.evals, name) is EVALUATIONS[name]


def test_half_precision_hosts_are_refused_unless_allowed(host: Host, passages: Tensor) -> None:
    half = load("tiny-gdn", dtype="bfloat16")
    with pytest.raises(InputError, match="bfloat16"):
        EVALUATIONS["boundary"](half, small_sae(), passages)
    result = EVALUATIONS["boundary"](half, small_sae(), passages, allow="precision", pattern="e")
    assert (result.provenance.dtype, result.provenance.allowed) == ("bfloat16", ("precision",))
    assert half.revision == host.revision
    assert half.dtype == torch.bfloat16


@pytest.mark.parametrize("name", NAMES)
def test_what_was_just_measured_is_verified_with_its_pieces(
    name: str, host: Host, few_passages: dict[str, Tensor], tmp_path: Path
) -> None:
    small_result(name, host, few_passages[name], out=tmp_path / "out")
    found = verify(tmp_path / "out")
    assert found.findings == ()
    assert {Path(file).name for file in found.checked} >= {f"{table}.parquet" for table in EVALUATIONS[name].columns}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", NAMES)
def test_a_number_that_is_not_finite_is_refused_in_every_option(name: str, bad: float, tmp_path: Path) -> None:
    evaluation = EVALUATIONS[name]
    hints = {option: str(hint) for option, hint in get_type_hints(evaluation.config).items()}
    for option in (option for option, hint in hints.items() if re.search(r"\bfloat\b", hint)):
        value = (bad,) if "tuple" in hints[option] else bad
        flag = f"--{option.replace('_', '-')}"
        words = [flag, str(bad)] if isinstance(value, tuple) else [f"{flag}={bad}"]
        with pytest.raises(InputError, match=rf"^{option}=.*{bad} is not finite[^\n]*$"):
            evaluation.config(**{option: value})
        with pytest.raises(InputError, match=rf"^[^\n]*{bad} is not finite @ [^\n]*{option}[^\n]*$"):
            evaluation.configured({option: value})
        if words[-1] != "-inf":  # which would be a flag
            with pytest.raises(InputError, match=rf"^{option}=.*{bad} is not finite[^\n]*$"):
                parse([name, "--out", str(tmp_path / "out"), *words])
