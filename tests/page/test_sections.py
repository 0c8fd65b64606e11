"""The section of every evaluation: its numbers are the summary's, its figures show the records, and nothing else."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from fake_results import HOSTILE, fake, write_fake_results
from html_page import Page

from writesae.cli import main
from writesae.errors import DataError, InputError
from writesae.evals.catalogue import EVALUATIONS, AnyResult
from writesae.evals.configs import config_class
from writesae.evals.result import plain
from writesae.evals.substitution import Substitution, summarise
from writesae.page import Plots, plot, write_report
from writesae.page.sections import SECTIONS
from writesae.show import words
from writesae.show.figures import MOST_POINTS
from writesae.types import Site


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = write_fake_results(tmp_path_factory.mktemp("results"))
    assert write_report(found) == found / "report.html"
    return found


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def results() -> dict[str, AnyResult]:
    return {name: fake(name) for name in EVALUATIONS}


@pytest.fixture(scope="module")
def plots(results: dict[str, AnyResult]) -> dict[str, Plots]:
    return {name: plot(result) for name, result in results.items()}


def column(trace: object, axis: str = "y") -> np.ndarray:
    return np.array([np.nan if v is None else v for v in getattr(trace, axis)], dtype=float)


def close(shown: object, expected: object) -> bool:
    """Equal but for the four digits that figures keep."""
    a, b = (np.asarray(x, dtype=float) for x in (shown, expected))
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-3, atol=0, equal_nan=True))


def named(figure: go.Figure, name: str) -> go.Scatter:
    return next(trace for trace in figure.data if trace.name == name)


def test_every_evaluation_has_a_section_and_the_page_has_them_all(page: Page) -> None:
    assert set(SECTIONS) == set(EVALUATIONS)
    sections = {value for tag, name, value in page.attributes if (tag, name) == ("section", "id")}
    assert sections == {"overview", *SECTIONS}
    text = " ".join(page.text.split())
    assert text.count("scored; refused: 5 too few") == len(SECTIONS)
    assert len(re.findall("text c0dec0dec0(?!d)", text)) == len(SECTIONS)
    assert (
        len(re.findall("SAE 5ae05ae05a(?!e)", text)) == len(SECTIONS) - 1 + 2
    )  # none for the spectrum, three for the seeds
    assert page.open == []


def sentences(results: Mapping[str, AnyResult]) -> dict[str, list[str]]:
    """What each section's sentence must say, from the evaluations' own summaries."""
    s: dict[str, Any] = {name: plain(result.summary) for name, result in results.items()}
    after, population = s["substitution"]["after_token"], s["population"]["after_token"]
    partition, fit = s["partition"], next(f for f in s["logit_shift"]["fits"] if f["predictor"] == "exact")
    return {
        "substitution": [
            words.percent(after["win_rate"]), "103 firings", words.interval(after["interval"]),
            words.interval(after["interval_clustered"]), words.percent(s["substitution"]["at_token"]["win_rate"]),
        ],
        "population": [words.percent(population["win_rate"]), "31 atoms", words.interval(population["interval"])],
        "partition": [
            "Of 127 features", f"{partition['classes']['register']} are registers", f"{partition['null']} never fire",
        ],
        "logit_shift": [f"exact first order R\u00b2 {words.r_squared(fit['r2'])}", "0.03 as large", "7 atoms"],
        "fidelity": [
            words.signed(s["fidelity"]["nats"], 4), words.span(s["fidelity"]["interval"], 4), "19 passages",
            words.percent(s["fidelity"]["recovered"]),
        ],
        "passage_loss": [
            words.signed(s["passage_loss"]["bits"]["delete"], 4), words.span(s["passage_loss"]["intervals"]["atom"], 4),
            f"{s['passage_loss']['firings']} firings", "23 passages",
        ],
        "quality": [
            words.percent(s["quality"]["explained_variance"]), "11 of 251", f"{s['quality']['dead']} features never",
        ],
        "seeds": [words.percent(s["seeds"]["matched"]), words.plain(s["seeds"]["best"], 3), "3 dictionaries"],
        "spectrum": [s["spectrum"]["default_site"], "of 15 recurrent heads", f"{s['spectrum']['remembering']} of"],
        "selectivity": [
            words.percent(s["selectivity"]["selectivity"]["random"]), "n = 29 atoms",
            words.interval(s["selectivity"]["intervals"]["orthogonal"]),
        ],
        "readers": [words.decimals(s["readers"]["median"]), "13 atoms", s["readers"]["strongest"][0]["site"]],
        "boundary": [
            f"{s['boundary']['separating']} of", "307 tokens", words.decimals(s["boundary"]["best"][0]["auroc"], 3),
        ],
    }  # fmt: skip


def test_the_sentences_say_the_summaries_numbers(results: dict[str, AnyResult], plots: dict[str, Plots]) -> None:
    expected = sentences(results)
    assert set(expected) == set(SECTIONS)
    for name, parts in expected.items():
        missing = [part for part in parts if part not in plots[name].finding]
        assert not missing, f"{name}: {missing} not in {plots[name].finding}"


def test_the_page_says_what_python_says(page: Page, plots: dict[str, Plots]) -> None:
    text = " ".join(page.text.split())
    for found in plots.values():
        assert text.count(" ".join(found.finding.split())) == 2  # overview and section
        for row in found.table.rows:
            assert all(" ".join(cell.split()) in text for cell in row)
    drawn = json.loads(page.packed("figures"))
    assert set(drawn) == {f"{name}-1-{figure}" for name, found in plots.items() for figure in found.figures}
    for name, found in plots.items():
        for figure, one in found.figures.items():
            kinds = [(trace["type"], trace.get("name")) for trace in drawn[f"{name}-1-{figure}"]["figure"]["data"]]
            assert kinds == [(trace.type, trace.name) for trace in one.data]


def test_substitution_draws_every_firing_and_counts_wins(
    results: dict[str, AnyResult], plots: dict[str, Plots]
) -> None:
    records = results["substitution"].records
    after = records[records.protocol == "after_token"]
    scatter = named(plots["substitution"].figures["scatter-after_token"], "against delete")
    assert close(column(scatter, "x"), after.kl_atom)
    assert close(column(scatter), after.kl_delete)
    wins = named(plots["substitution"].figures["wins"], "at token")
    others = ("atom_norm", "delete", "random", "random_norm", "pca")
    at = records[records.protocol == "at_token"]
    assert close(column(wins, "x"), [(at.kl_atom < at[f"kl_{name}"]).mean() for name in others])
    summary = results["substitution"].summary["at_token"]
    assert column(wins, "x")[1] == pytest.approx(summary["win_rate"], rel=1e-3)
    low = column(wins, "x")[1] - wins.error_x.arrayminus[1]
    assert low == pytest.approx(summary["interval"][0], rel=1e-3)
    middle = named(plots["substitution"].figures["distances"], "after token")
    assert column(middle, "x")[2] == pytest.approx(after.kl_delete.median(), rel=1e-3)


def test_population_draws_each_atom_once(results: dict[str, AnyResult], plots: dict[str, Plots]) -> None:
    records = results["population"].records
    rates = (records.kl_atom < records.kl_delete).groupby(records.feature).mean()
    cosine = plots["population"].figures["cosine-after_token"]
    shown = {point[0]: y for trace in cosine.data for point, y in zip(trace.customdata, trace.y, strict=True)}
    assert {feature: pytest.approx(y, rel=1e-3) for feature, y in shown.items()} == rates.to_dict()
    bars = plots["population"].figures["rates-after_token"]
    assert sum(sum(trace.y) for trace in bars.data) == len(rates)
    assert sum(named(bars, "register").y) == 11


def test_partition_draws_the_mixture_and_both_sweeps(results: dict[str, AnyResult], plots: dict[str, Plots]) -> None:
    summary, figures = results["partition"].summary, plots["partition"].figures
    bars = figures["mixture"]
    assert sum(named(bars, "register").y) == summary.classes.register
    assert sum(named(bars, "bundle").y) == summary.classes.bundle
    curve, width = named(bars, "mixture"), named(bars, "bundle").width[0] / 0.96
    area = np.trapezoid(column(curve), column(curve, "x")) / width
    assert area == pytest.approx(summary.classes.alive, rel=0.03)
    asked = named(figures["thresholds"], "thresholds asked for")
    assert {str(x): y for x, y in zip(asked.x, asked.y, strict=True)} == summary.above
    sizes = named(figures["ks"], "register")
    assert list(sizes.y) == [c.register for c in summary.by_k.values()] + [summary.classes.register]


def test_logit_shift_draws_predictions_against_measurements(
    results: dict[str, AnyResult], plots: dict[str, Plots]
) -> None:
    records, figures = results["logit_shift"].records, plots["logit_shift"].figures
    cell = records[(records.epsilon == 0.03) & (records.horizon == 1) & (records.protocol == "after_token")]
    for name in ("closed", "direct", "exact"):
        points = figures[f"predicted-{name}"].data[0].customdata
        assert close([point[0] for point in points], [float(f"{x:.3g}") for x in cell[name]])
        assert close([point[1] for point in points], [float(f"{x:.3g}") for x in cell.measured])
    unit = float(np.median(np.abs(cell.measured)))
    assert close(column(figures["predicted-exact"].data[0]), np.arcsinh(cell.measured / unit))
    solid, dotted = (t for t in figures["epsilon-at_token-4"].data if t.name == "direct path")
    fits = [results["logit_shift"].summary.fit("direct", e, 4, "at_token") for e in (0.03, 0.1, 0.3, 1.0)]
    assert close(column(solid), [max(f.r2, -1) for f in fits])
    assert close(column(dotted), [f.r2_fitted for f in fits])


def test_fidelity_draws_perplexity_and_passages(results: dict[str, AnyResult], plots: dict[str, Plots]) -> None:
    result, figures = results["fidelity"], plots["fidelity"].figures
    assert close(column(figures["perplexity"].data[0]), list(result.summary.perplexity.values()))
    added = (result.records.nll_reconstruction - result.records.nll_native) / 61
    assert close(column(figures["passages"].data[0]), added)
    assert figures["added"].data[0].x[0] == pytest.approx(result.summary.nats, rel=1e-3)
    assert list(figures["scopes"].layout.yaxis.ticktext) == ["all together", "L5.H0"]
    assert figures["scopes"].data[0].x[1] == pytest.approx(result.summary.scopes["L5.H0"].nats, rel=1e-3)


def test_passage_loss_draws_bits(results: dict[str, AnyResult], plots: dict[str, Plots]) -> None:
    result, figures = results["passage_loss"], plots["passage_loss"].figures
    assert [trace.x[0] for trace in figures["means"].data] == pytest.approx(
        list(result.summary.bits.values()), rel=1e-3
    )
    bits = (result.records.nll_delete - result.records.nll_native) / 127 / math.log(2)
    assert close(column(named(figures["passages"], "nothing")), bits)
    assert list(named(figures["passages"], "nothing").x) == result.records.firings.tolist()


def test_quality_draws_every_alive_feature(results: dict[str, AnyResult], plots: dict[str, Plots]) -> None:
    result, figures = results["quality"], plots["quality"].figures
    assert sum(figures["frequencies"].data[0].y) == result.summary.alive
    lorenz = figures["lorenz"].data[0]
    gini = 1 - 2 * np.trapezoid(column(lorenz), column(lorenz, "x"))
    assert gini == pytest.approx(result.summary.gini, abs=0.01)
    assert sum(figures["explained"].data[0].y) == 13


def test_seeds_draw_every_pair(results: dict[str, AnyResult], plots: dict[str, Plots]) -> None:
    result, figures = results["seeds"], plots["seeds"].figures
    assert sum(sum(trace.y) for trace in figures["best"].data) == len(result.records)
    assert list(named(figures["counts"], "register").y) == list(result.summary.counts["register"])


def test_spectrum_draws_every_head(results: dict[str, AnyResult], plots: dict[str, Plots]) -> None:
    records, figures = results["spectrum"].records, plots["spectrum"].figures
    decay = np.array(figures["decay"].data[0].z, dtype=float)
    assert close(decay.ravel(), records.decay)
    assert list(figures["decay"].data[0].y) == ["L0", "L1", "L4"]
    (ring,) = figures["decay"].layout.shapes
    chosen = records[records.chosen].iloc[0]
    assert (round(ring.x0 + 0.48), round(ring.y0 + 0.47)) == (chosen["head"], [0, 1, 4].index(chosen["layer"]))
    kl = np.array(figures["delete_kl"].data[0].z, dtype=float)
    assert close(kl.ravel(), np.log(records.delete_kl))
    curves = {trace.name: column(trace) for trace in figures["singular"].data}
    assert close(curves["L4.H3"], records.singular_values.iloc[13])


def test_selectivity_draws_every_atom(results: dict[str, AnyResult], plots: dict[str, Plots]) -> None:
    result, figures = results["selectivity"], plots["selectivity"].figures
    assert [sum(trace.y) for trace in figures["atoms"].data] == [29, 29]
    values = [trace.x[0] for trace in figures["means"].data]
    assert values == pytest.approx(list(result.summary.selectivity.values()), rel=1e-3)


def test_readers_draw_layers_by_heads(results: dict[str, AnyResult], plots: dict[str, Plots]) -> None:
    records, figures = results["readers"].records, plots["readers"].figures
    medians = records.groupby(["feature", "reader"])[["atom", "random"]].median()
    ratio = (medians["atom"] / medians["random"]).groupby("reader").median()
    shown = np.exp(np.array(figures["heads"].data[0].z, dtype=float))
    assert close(shown.ravel(), ratio.to_numpy())  # L6.H0 .. L6.H4, L8.H0 .. L8.H4
    assert len(named(figures["atoms"], "strongest reader").x) == 13


def test_boundary_draws_every_feature_that_fires(results: dict[str, AnyResult], plots: dict[str, Plots]) -> None:
    result, figures = results["boundary"], plots["boundary"].figures
    assert sum(len(trace.x) for trace in figures["separation"].data) == int(result.records.auroc.notna().sum())
    assert len(named(figures["separation"], "separates").x) == result.summary.separating
    best = result.records.set_index("feature").loc[result.summary.best[0].feature]
    inside = named(figures["where"], "tokens of the class")
    assert inside.x[0] == pytest.approx(best.firings_inside / 307, rel=1e-3)


def test_hostile_text_stays_text(folder: Path, page: Page) -> None:
    assert page.tags["script"] == 3
    assert "img" not in page.tags
    assert words.visible(HOSTILE) in page.text
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
    figures = json.loads(page.packed("figures"))
    assert "<img" not in json.dumps([one["figure"] for one in figures.values()])
    tokens = [token for one in figures.values() for _, token, _ in one["readings"]]
    assert HOSTILE in tokens


@pytest.mark.parametrize("name", ["population", "seeds", "substitution"])
def test_hostile_classes_and_timings_reach_no_figure_as_markup(name: str) -> None:
    result = fake(name)
    if name == "substitution":
        records = result.records.assign(protocol=result.records.protocol.replace("at_token", HOSTILE))
        summary = {HOSTILE if key == "at_token" else key: value for key, value in result.summary.items()}
        result = replace(result, records=records, summary=summary)
    else:
        result = replace(result, records=result.records.assign(**{"class": HOSTILE}))
    found = plot(result)
    assert "<img" not in json.dumps([json.loads(figure.to_json()) for figure in found.figures.values()])


def test_a_reader_that_is_no_head_is_refused() -> None:
    result = fake("readers")
    with pytest.raises(DataError, match="no head"):
        plot(replace(result, records=result.records.assign(reader=HOSTILE)))


def test_long_series_are_thinned_and_say_so() -> None:
    found = plot(fake("substitution", size=20))
    scatter = found.figures["scatter-after_token"].data[0]
    assert len(scatter.x) == MOST_POINTS
    shift = plot(fake("logit_shift", size=10))
    assert len(shift.figures["predicted-exact"].data[0].x) == MOST_POINTS


def test_the_page_stays_small(tmp_path: Path) -> None:
    for name in ("substitution", "population", "boundary", "fidelity", "passage_loss"):
        fake(name, size=40).write(tmp_path / name)
    path = write_report(tmp_path)
    assert path.stat().st_size < 2_500_000  # of which Plotly's own script is 1.9
    text = Page(path.read_text(encoding="utf-8")).text
    assert "1,500 of 4,120 scored firings drawn, evenly thinned." in text


def test_two_results_of_one_evaluation_stand_side_by_side(tmp_path: Path) -> None:
    for seed, name in ((3, "one"), (5, "two")):
        fake("quality", seed).write(tmp_path / name)
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert {"quality-1", "quality-2"} <= {value for _, name, value in page.attributes if name == "id"}
    assert "one" in page.text.split()
    assert "two" in page.text.split()


def test_plot_reads_a_folder_and_refuses_several(folder: Path, results: dict[str, AnyResult]) -> None:
    found = plot(folder / "population")
    assert found.finding == plot(results["population"]).finding
    with pytest.raises(InputError, match="12 results"):
        plot(folder)


def test_plots_show_themselves_in_a_notebook(plots: dict[str, Plots]) -> None:
    found = plots["readers"]
    frame = Page(found._repr_html_())
    (inner,) = [value for tag, name, value in frame.attributes if (tag, name) == ("iframe", "srcdoc")]
    page = Page(inner)
    assert found.finding in " ".join(page.text.split())
    assert set(json.loads(page.packed("figures"))) == {f"readers-1-{name}" for name in found.figures}
    assert "https://" not in inner
    assert "heads" in repr(found)
    assert "var(--" not in json.dumps([json.loads(figure.to_json()) for figure in found.figures.values()])


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "astrology"}, "unknown evaluation 'astrology'"),
        ({"attempted": 999}, "999 attempted, but"),
        ({"summary": {}}, "required field missing"),
        ({"config": {}}, "does not say 'dense'"),
        ({"provenance": {"host": "x"}}, "required field missing"),
        ({"refused": {"x": "many"}}, "cannot understand"),
    ],
)
def test_a_damaged_summary_is_one_line_that_names_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], message: str
) -> None:
    fake("quality").write(tmp_path / "sub" / "quality")
    _edit(tmp_path / "sub" / "quality" / "summary.json", **changes)
    with pytest.raises(SystemExit) as stop:
        main(["report", str(tmp_path)])
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2
    assert re.search(message, line), line
    assert str(tmp_path / "sub" / "quality" / "summary.json") in line
    assert not list(tmp_path.glob("*report*"))


@pytest.mark.parametrize("name", list(SECTIONS))
def test_damaged_records_are_named(tmp_path: Path, name: str) -> None:
    result = fake(name)
    result.write(tmp_path)
    records = tmp_path / "records.parquet"
    records.write_bytes(records.read_bytes()[:-20])
    with pytest.raises(DataError, match=re.escape(str(records))):
        write_report(tmp_path)
    result.records.head(0).to_parquet(records)
    with pytest.raises(DataError, match="no rows"):
        write_report(tmp_path)
    pd.DataFrame({"other": [1]}).to_parquet(records)
    with pytest.raises(DataError, match=re.escape(f"{tmp_path / 'summary.json'} have no column")):
        write_report(tmp_path)
    left = ("write_norm", "coefficient")  # not on the page
    numbers = [c for c in result.records if c == "firings" or (result.records[c].dtype.kind == "f" and c not in left)]
    result.records.assign(**dict.fromkeys(map(str, numbers), "x")).to_parquet(records)
    with pytest.raises(DataError, match="does not hold numbers"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_tables_that_are_missing_are_named(tmp_path: Path) -> None:
    fake("quality").write(tmp_path)
    (tmp_path / "passages.parquet").unlink()
    with pytest.raises(DataError, match=r"no passages\.parquet"):
        write_report(tmp_path)
    (tmp_path / "records.parquet").unlink()
    with pytest.raises(DataError, match=r"no records\.parquet"):
        write_report(tmp_path)


def test_an_empty_folder_says_what_writes_results(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="writesae eval NAME"):
        write_report(tmp_path)


def test_results_draw_themselves(results: dict[str, AnyResult]) -> None:
    result = results["selectivity"]
    assert result.plot().finding == plot(result).finding
    assert set(result.plot().figures) == {"atoms", "means"}


def test_a_substitution_test_draws_itself() -> None:
    records = fake("substitution").records
    config = config_class("substitution")()
    summaries = {t: summarise(records[records.protocol == t], {}, config.seed) for t in config.timings}
    source = fake("substitution").provenance
    found = Substitution((Site(5, 0),), "write-delta", config, "tiny-gdn", "1", summaries, records, source)
    shown = found.plot()
    assert words.percent(found.main.win_rate) in shown.finding
    assert close(column(named(shown.figures["scatter-at_token"], "against random")), records.kl_random[103:])


def test_several_heads_edited_together_are_described_one_by_one() -> None:
    result = fake("substitution")
    records = result.records.drop(columns=["token_text", "context", "feature", "coefficient"])
    for head, coefficient in (("L4.H1", 0.25), ("L5.H0", 1.5)):
        records[f"feature_{head}"], records[f"coefficient_{head}"] = 17, coefficient
    text = plot(replace(result, records=records)).figures["scatter-at_token"].data[0].text[0]
    assert text.startswith("feature L4.H1 17<br>feature L5.H0 17<br>coefficient L4.H1 0.250<br>coefficient L5.H0 1.50")


def test_every_scored_position_is_drawn() -> None:
    result = fake("substitution")
    after = result.summary["after_token"]
    steps = {"win_rate_by_step": (0.7, 0.6), "median_kl_by_step": {"atom": (1e-4, 5e-5), "delete": (2e-4, 6e-5)}}
    summary = result.summary | {"after_token": after | {"detail": after["detail"] | steps}}
    figures = plot(replace(result, summary=summary)).figures
    assert close(column(named(figures["steps-wins"], "after token")), [0.7, 0.6])
    assert close(column(named(figures["steps-kl"], "delete, after token")), [2e-4, 6e-5])


def test_a_large_host_is_thinned_and_named_sparsely() -> None:
    result = fake("spectrum")
    (row,) = result.records[result.records.chosen].to_dict("records")
    rows = [row | {"layer": layer, "head": head} for layer in range(5) for head in range(31)]
    chosen = pd.Series([i == 64 for i in range(len(rows))])
    whole = replace(result, records=pd.DataFrame(rows).assign(chosen=chosen), attempted=len(rows) + 5)
    figures = plot(whole).figures
    assert list(figures["decay"].layout.xaxis.tickvals) == [f"H{head}" for head in range(0, 31, 3)]
    assert len(figures["singular"].data) == 61
    assert figures["singular"].data[-1].name == "L2.H2"
    readers = fake("readers", size=13)
    others = named(plot(readers).figures["atoms"], "other later heads")
    assert len(others.x) == 60 * 9
