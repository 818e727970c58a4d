"""README and the user guide: their code runs, and their tables equal the stored results."""

import ast
import contextlib
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from skboundary import BiasedExtrapolationSampler

ROOT = Path(__file__).parent.parent
BUILT = {"_build", "_templates", "auto_examples", "generated"}  # by Sphinx, and its templates
DOCS = ROOT / "docs"
RST = [p for p in sorted(DOCS.rglob("*.rst")) if p.relative_to(DOCS).parts[0] not in BUILT]
PAGES = [ROOT / "README.md", *RST]


def load_script(name):
    """Import a script of the benchmarks with its own folder on the path."""
    folder = str(ROOT / "benchmarks")
    sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location("script", ROOT / "benchmarks" / name)
    module = importlib.util.module_from_spec(spec)
    environment = dict(os.environ)  # which later tests and their processes inherit
    spec.loader.exec_module(module)
    assert os.environ == environment
    sys.path.remove(folder)
    return module


def blocks(page):
    """Code of a page, and what it prints where the page shows that: ("python" or "text", block)."""
    text = page.read_text()
    if page.suffix == ".md":
        return re.findall(r"```(python|text)\n(.*?)```", text, re.DOTALL)
    pattern = r"\.\. code-block:: (python|text)\n\n((?:(?:    .*)?\n)+)"
    return [(kind, textwrap.dedent(block)) for kind, block in re.findall(pattern, text + "\n")]


def code_blocks(page):
    return [block for kind, block in blocks(page) if kind == "python"]


NUMBER = re.compile(r"-?\d*\.\d+")


def prints(got, expected):
    """Whether a text was printed, up to white space and a unit in the last digit of decimals."""
    if NUMBER.sub("#", got).split() != NUMBER.sub("#", expected).split():
        return False
    digits = NUMBER.findall(expected)
    units = [10.0 ** -len(number.partition(".")[2]) for number in digits]
    errors = [float(a) - float(b) for a, b in zip(NUMBER.findall(got), digits)]
    return all(abs(error) < 1.01 * unit for error, unit in zip(errors, units))


@pytest.mark.parametrize("got, same", [("a .25\n b", 1), ("a .26 b", 1), ("a .27 b", 0), ("a", 0)])
def test_printed_output_is_compared_up_to_the_last_digit(got, same):
    assert prints(got, "a 0.25 b") == bool(same)


@pytest.mark.parametrize(
    "page", [p for p in PAGES if code_blocks(p)], ids=lambda p: str(p.relative_to(ROOT))
)
def test_code_runs(page, tmp_path, monkeypatch):
    if "import faiss" in page.read_text() and importlib.util.find_spec("faiss") is None:
        pytest.skip("faiss is not installed (the bench extra)")
    monkeypatch.chdir(tmp_path)
    printed, names = "", {"__name__": "__docs__"}
    for kind, block in blocks(page):
        if kind == "python":
            with contextlib.redirect_stdout(io.StringIO()) as stream:
                exec(compile(block, str(page), "exec"), names)
            printed = stream.getvalue()
        else:
            assert prints(printed, block), f"{page} shows:\n{block}but prints:\n{printed}"


def test_the_three_examples_in_readme_have_ten_lines():
    blocks = code_blocks(ROOT / "README.md")
    lengths = [len([line for line in block.splitlines() if line.strip()]) for block in blocks]
    assert len(lengths) == 3 and max(lengths) <= 10


def test_the_scores_in_readme_are_those_of_its_examples():
    """To within two of the 450 test samples, since training differs between releases of torch."""

    def scores(code):
        with contextlib.redirect_stdout(io.StringIO()) as stream:
            exec(compile(code, "README.md", "exec"), {"__name__": "__docs__"})
        return [float(line.split()[-1]) for line in stream.getvalue().splitlines()]

    first, _, third = code_blocks(ROOT / "README.md")
    weighted = third.replace("(), resampled)", "(class_weight='balanced'),)")
    correct = first.replace("(X_train, noisy)", "(X_train, y_train)")
    assert weighted != third and correct != first
    text = (ROOT / "README.md").read_text()
    told = [
        text[text.index(words) :] for words in ("The network alone scores", "Balanced accuracy")
    ]
    told = [re.findall(r"\b0\.\d{3}\b", part) for part in told]
    assert [float(v) for v in told[0][:6]] == pytest.approx(
        scores(first) + scores(correct), abs=5e-3
    )
    assert [float(v) for v in told[1][:3]] == pytest.approx(
        scores(third) + scores(weighted), abs=5e-3
    )


def test_the_figures_in_readme_equal_the_results():
    results = {
        name: json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())
        for name in ("tour", "latent_knn", "hold_me_tight", "oversampling")
    }
    accuracy = {k: v["mean"] for k, v in results["tour"]["neighbors"]["accuracy"].items()}
    last, early = accuracy["32% permuted, last epoch"], accuracy["32% permuted, early stop"]
    assert 0.8 < results["latent_knn"]["ratios"]["sweep of 40 / predict"] < 1.2
    share = {
        data: results["hold_me_tight"]["figures"][f"share of the authors' wall time, {data}"]
        for data in ("MNIST", "CIFAR-10")
    }
    rank = results["oversampling"]["reported half"]["balanced accuracy"]["mean rank"]
    assert min(rank, key=rank.get) == "logit adjustment"
    assert rank["class weights"] < rank["BiasedExtrapolation"]
    text = " ".join((ROOT / "README.md").read_text().split())
    for words in (
        f"network {last['base']:.3f}, with neighbors {last['chosen']:.3f}; "
        f"network stopped early {early['base']:.3f}",
        "40 settings in about the time of one",
        f"{share['MNIST']:.2f} (MNIST) and {share['CIFAR-10']:.2f} (CIFAR-10)",
        f"logit adjustment {rank['logit adjustment']:.2f}, EOS "
        f"{rank['EOS, n_neighbors 20']:.2f}, latent mixup {rank['latent mixup']:.2f}, class "
        f"weights {rank['class weights']:.2f}, biased extrapolation "
        f"{rank['BiasedExtrapolation']:.2f}, SMOTE {rank['SMOTE, k_neighbors 10']:.2f}",
    ):
        assert words in text, words


def test_every_module_in_readme_exists_and_none_is_missing():
    text = (ROOT / "README.md").read_text()
    for name in re.findall(r"^\| `(skboundary[\w.]*)`", text, re.MULTILINE):
        assert importlib.util.find_spec(name), name
    for folder in (ROOT / "skboundary").iterdir():
        if (folder / "__init__.py").exists() and not folder.name.startswith("_"):
            assert f"skboundary.{folder.name}" in text


def test_the_map_in_architecture_lists_every_module():
    text = (ROOT / "docs/developers/architecture.rst").read_text()
    listed = set(re.findall(r"``(\w+)``", text))
    for package in ("functional", "networks", "neighbors", "boundary", "over_sampling", "display"):
        modules = {path.stem for path in (ROOT / "skboundary" / package).glob("*.py")}
        assert modules - listed == {"__init__"}, package


def test_the_accuracies_on_digits_equal_the_results():
    text = (ROOT / "docs/user_guide/latent_knn.rst").read_text()
    results = json.loads((ROOT / "benchmarks/results/tour.json").read_text())
    for name, row in results["neighbors"]["accuracy"].items():
        (line,) = re.findall(rf"^{re.escape(name)}  +(.*)$", text, re.MULTILINE)
        expected = [row["mean"]["train"]]
        for key in ("base", "paper", "chosen"):
            expected += [row["mean"][key], row["std"][key]]
        epochs, *figures = [float(figure) for figure in line.split()]
        assert epochs == round(sum(row["epochs"]) / len(row["epochs"]))
        assert figures == [round(value, 3) for value in expected]


def test_the_fixed_cost_of_a_prediction_is_that_of_the_results():
    ratios = json.loads((ROOT / "benchmarks/results/fixed_costs.json").read_text())["ratios"]
    text = (ROOT / "docs/user_guide/networks.rst").read_text()
    assert max(ratios.values()) < 1.5 and "less than 1.5 times as long" in text


def test_the_times_of_neighbor_searches_equal_the_results():
    benchmark = load_script("neighbors.py")
    results = json.loads((ROOT / "benchmarks/results/neighbors.json").read_text())
    text = (ROOT / "docs/user_guide/nearest_neighbors.rst").read_text()
    assert f"{benchmark.BEGIN}\n\n{benchmark.table(results)}\n{benchmark.END}" in text
    assert all(record["equal"]["ours"] == 1.0 for record in results["records"])
    floor = json.loads((ROOT / "benchmarks/results/search_floor.json").read_text())["ratios"]
    for name in floor["64"]:
        line = " ".join([name, *(f"{floor[d][name]:.2f}" for d in ("64", "128", "512"))])
        assert line in re.sub(" +", " ", text)
    text = (ROOT / "docs/user_guide/latent_knn.rst").read_text()
    results = json.loads((ROOT / "benchmarks/results/latent_knn.json").read_text())
    for name, ratio in results["ratios"].items():
        assert f"{name} {ratio:.2f}" in re.sub(" +", " ", text)
    for name, seconds in results["one_query_seconds"].items():
        assert f"{name} {1e3 * seconds:.2f}\n" in re.sub(" +", " ", text)


def test_the_tables_of_wrong_labels_equal_the_results():
    script = load_script("label_issues.py")
    text = (ROOT / "docs/user_guide/label_issues.rst").read_text()
    results = json.loads(script.RESULTS.read_text())
    tables = [script.table(results), script.table(results, "accuracy")]
    tables.append(script.shortfall_table(results))
    tables.append(script.time_table(results))
    assert min(r["memorized"] for r in results["records"]) >= 0.95 and "at least 95 %" in text
    means = script._means(results["records"], "accuracy", "data", "noise")
    columns = [*results["records"][0]["accuracy"]]
    better = [columns.index(name) for name in ("removed by stopped", "stopped early")]
    for (data, _), row in means.items():  # as a sentence says
        assert (row[better[0]] > row[better[1]] - 5e-4) == (data != "cifar10"), data
    for lines in tables:
        assert len(lines) > 5 and "\n".join(["", *lines, ""]) in text


def test_the_tables_of_the_automatic_choice_equal_the_results():
    script = load_script("automatic_choice.py")
    text = (ROOT / "docs/user_guide/latent_knn.rst").read_text()
    results = json.loads(script.RESULTS.read_text())
    assert "\n".join(["", *script.table(results), ""]) in text
    assert "\n".join(["", *script.time_table(results), ""]) in text
    means = {
        name: np.mean([r["accuracy"][name] for r in results["records"]])
        for name in ("network", "by hand", "CV")
    }
    assert means["CV"] > means["by hand"] - 0.002 and means["CV"] > means["network"] + 0.04


def test_the_tables_of_samples_out_of_distribution_equal_the_results():
    script = load_script("out_of_distribution.py")
    text = (ROOT / "docs/user_guide/out_of_distribution.rst").read_text()
    results = json.loads(script.RESULTS.read_text())
    for lines in (script.table(results), script.errors(results)):
        assert len(lines) > 6 and "\n".join(["", *lines, ""]) in text
    words = " ".join(text.split())
    for name, records in script.by_data(results):
        sets = [r["sets of p above .1"] for r in records]
        coverage, size = (np.mean([s[key] for s in sets]) for key in ("coverage", "size"))
        assert f"{coverage:.3f} on {name} with sets of {size:.2f} classes" in words
        accuracy = np.mean([r["accuracy"] for r in records])
        assert f"{accuracy:.2f} on {name}" in words
    differences = [r["largest difference from pytorch-ood"] for r in results["records"]]
    assert max(max(d.values()) for d in differences) < 2e-6


@pytest.mark.parametrize("name", ["weight_decay", "reproductions/deepdig"])
def test_the_tables_of_the_characterization_equal_the_results(name):
    script = load_script(f"{name}.py")
    text = (ROOT / "docs/user_guide/characterization.rst").read_text()
    lines = script.table(json.loads(script.RESULTS.read_text()))
    assert lines
    for line in lines:
        assert f"\n{line}\n" in text


def test_the_borderline_pairs_equal_the_results():
    text = (ROOT / "docs/user_guide/boundary_samples.rst").read_text()
    results = json.loads((ROOT / "benchmarks/results/tour.json").read_text())["boundary"]
    for name, row in results["starts"].items():
        (line,) = re.findall(rf"^{name}  +(.*)$", text, re.MULTILINE)
        m = row["median"]
        expected = [
            row["pairs"],
            row["found"],
            round(m["length"], 2),
            round(m["p_source"], 3),
            round(m["p_target"], 3),
            m["evaluations"],
        ]
        assert [float(figure) for figure in line.split()] == expected


def test_deepdig_meets_its_targets_in_the_results():
    results = json.loads((ROOT / "benchmarks/results/deepdig.json").read_text())
    assert all(found["largest_gap"] < 1e-4 for found in results["midpoints"].values())
    cells = {key: cell for key, cell in results["cells"].items() if "/deepdig/" in key}
    for cell in cells.values():
        assert min(cell["report"]["yield_over"] + cell["report"]["yield_back"]) >= 0.95
    for net in ("cnn", "fcn"):  # all pairs of MNIST
        seconds = [cell["seconds"]["wall"] for key, cell in cells.items() if key.startswith(net)]
        assert len(seconds) == 10 and sum(seconds) < 15 * 60


def test_the_speed_of_the_sampler_equals_the_results():
    speed = load_script("resample_speed.py")
    text = (ROOT / "docs/user_guide/biased_extrapolation.rst").read_text()
    for line in speed.table(json.loads(speed.RESULTS.read_text())["records"]).splitlines():
        assert f"\n{line}\n" in text, line


def test_the_boundary_tables_equal_the_results():
    """Each line that ``--table`` of the scripts prints is in the guide."""
    text = (ROOT / "docs/user_guide/boundary_samples.rst").read_text()
    boundary, pm = load_script("boundary.py"), load_script("reproductions/pm.py")
    results = json.loads(boundary.RESULTS.read_text())
    lines = boundary.gradient_tables(results["gradient"]["records"])
    lines += boundary.curve_lines(results["curve"]["records"])
    lines += boundary.norm_lines(results["norms"]["records"])
    for name in re.findall(r"benchmarks/results/(pm\w*\.json)", text):
        lines += pm.tables(json.loads((pm.RESULTS.parent / name).read_text()))
    assert len(lines) > 50
    assert not [line for line in lines if line not in text.splitlines()]


def test_the_ranks_of_over_samplers_equal_the_results():
    text = (ROOT / "docs/user_guide/biased_extrapolation.rst").read_text()
    lines = [re.sub(" +", " ", line).strip() for line in text.splitlines()]
    results = json.loads((ROOT / "benchmarks/results/oversampling.json").read_text())
    half, choice = results["reported half"], results["choice"]
    assert not set(half["tables"]) & set(choice["tables"])
    for method in half["G-mean"]["mean rank"]:
        ranks = [
            half[metric][by][method]
            for metric in ("balanced accuracy", "PR-AUC")
            for by in ("mean rank", "LogisticRegression", "RandomForest", "HistGradientBoosting")
        ]
        ranks.append(half["G-mean"]["mean rank"][method])
        assert f"{method} " + " ".join(f"{rank:.2f}" for rank in ranks) in lines
    assert f"difference is {half['critical difference']:.2f}" in text
    for name, ranks in choice["mean rank of each candidate among the peers"].items():
        assert f"{name} {ranks['balanced accuracy']:.2f} {ranks['PR-AUC']:.2f}" in lines
    assert choice["chosen"] == "asymmetric, spread, within .5"
    for method in results["paired tests"]["PR-AUC"]:
        tests = [results["paired tests"][m][method] for m in ("balanced accuracy", "PR-AUC")]
        figures = " ".join(f"{test['difference']:+.3f}, {test['p']:.3f}" for test in tests)
        assert f"{method} {figures}" in lines
    nested = choice["nested mean rank"]
    assert f"{nested['balanced accuracy']:.2f} and {nested['PR-AUC']:.2f}" in text


def test_the_defaults_are_those_selected_in_the_results():
    bench = load_script("oversampling.py")
    results = json.loads((ROOT / "benchmarks/results/oversampling.json").read_text())
    chosen = bench.CANDIDATES[results["choice"]["chosen"]]
    defaults = BiasedExtrapolationSampler().get_params()
    assert chosen == {name: defaults[name] for name in chosen}


def test_the_table_of_iterative_over_sampling_equals_the_results():
    text = (ROOT / "docs/user_guide/biased_extrapolation.rst").read_text()
    results = json.loads((ROOT / "benchmarks/results/extrapolation.json").read_text())
    records = [list(cells.values()) for cells in results["records"].values()]
    (n_seeds,) = {len(cells) for cells in records}
    assert f"over the pairs and {n_seeds} seeds" in text
    for name in records[0][0]:
        if name == "training seconds":
            continue
        means = []
        for key in ("PR-AUC", "balanced accuracy", "fewer rounds"):
            for cells in records:
                values = [cell[name][key] for cell in cells]
                rows = [list(v.values()) if key == "PR-AUC" else v for v in values]
                means.append(np.mean(rows))
        line = [f"{v:.3f}" for v in means[:6]] + [f"{v:.0%}" for v in means[6:]]
        assert f"\n{name} {' '.join(line)}\n" in re.sub(" +", " ", text), name


def test_references_have_labels():
    labels = {m for p in PAGES for m in re.findall(r"^\.\. _([\w-]+):$", p.read_text(), re.M)}
    labels |= {"genindex"}  # the index, which Sphinx makes
    used = {m for p in PAGES for m in re.findall(r":ref:`(?:[^`<]*<)?([\w-]+)>?`", p.read_text())}
    for module in (ROOT / "skboundary").rglob("*.py"):
        used |= set(re.findall(r":ref:`[^`<]*<([\w-]+)>`", module.read_text()))
    assert used <= labels, used - labels


def test_the_black_box_tables_equal_the_results():
    benchmark = load_script("black_box.py")
    text = re.sub(" +", " ", (ROOT / "docs/user_guide/boundary_samples.rst").read_text())
    results = json.loads((ROOT / "benchmarks/results/boundary.json").read_text())["black-box"]
    for cells in benchmark.black_box_tables(results["records"]):
        for row in cells:
            assert " ".join(row) + "\n" in text
    for record in results["records"].values():
        ours, peer = record["contenders"]["labels, 2000"], record["contenders"]["HopSkipJump"]
        assert ours["success"] == 1 and ours["questions"] <= benchmark.BUDGET
        assert record["contenders"]["ten segments"]["questions"] <= 100
        assert peer["success"] < 1 or ours["mean_distance"] < peer["mean_distance"]


def test_the_table_of_searches_by_budget_equals_the_results():
    benchmark = load_script("black_box_curve.py")
    results = json.loads((ROOT / "benchmarks/results/black_box_curve.json").read_text())
    text = (ROOT / "docs/user_guide/boundary_samples.rst").read_text()
    assert "\n".join(benchmark.table(results)) in text
    for record in results["records"].values():
        means = {name: c["mean_distance"] for name, c in record["contenders"].items()}
        ours = means.pop("label")
        means.pop("score", None)
        assert len(means) >= 3 and all((np.array(peer) > ours).all() for peer in means.values())


def test_the_tables_of_counterfactuals_equal_the_results():
    benchmark = load_script("counterfactuals.py")
    results = json.loads(benchmark.RESULTS.read_text())
    text = benchmark.GUIDE.read_text()
    assert f"\n{benchmark.count_table(results)}\n" in text
    assert "times" not in results or f"\n{benchmark.time_table(results)}\n" in text
    cancer = results["counts"]["records"]["breast cancer"]
    assert all(figures["success"] == 1 for name, figures in cancer.items() if "ours" in name)
    assert cancer["ours, balanced"]["changes"] <= 4  # the target, with two immutable columns


def test_the_times_of_the_margins_equal_the_results():
    benchmark = load_script("margins_speed.py")
    results = json.loads((ROOT / "benchmarks/results/margins_speed.json").read_text())
    assert benchmark.table(results["records"]) in benchmark.GUIDE.read_text()


def test_the_tables_of_scale_equal_the_results():
    benchmark = load_script("scale.py")
    results = json.loads((ROOT / "benchmarks/results/scale.json").read_text())
    assert benchmark.tables(results) in benchmark.GUIDE.read_text()
    assert {cluster["workers"] for cluster in results["cluster"]} == {1, 2}


def test_the_times_on_an_accelerator_equal_the_results():
    benchmark = load_script("accelerator.py")
    results = json.loads((ROOT / "benchmarks/results/accelerator.json").read_text())
    assert benchmark.table(results) in benchmark.GUIDE.read_text()
    searches = [r for r in results["records"].values() if "exact" in r]
    assert searches and all(record["agreement"] == 1 for record in searches)


def test_the_margins_equal_the_results():
    benchmark = load_script("reproductions/hold_me_tight.py")
    results = json.loads((ROOT / "benchmarks/results/hold_me_tight.json").read_text())
    assert results["figures"] == pytest.approx(benchmark.figures(results["cells"]))
    text = (ROOT / "docs/user_guide/subspace_margins.rst").read_text()
    assert "\n".join(benchmark.tables(results["cells"])) in text
    met = {"<=": np.less_equal, ">=": np.greater_equal, ">": np.greater}
    missed = [
        name
        for name, value in results["figures"].items()
        if not met[benchmark.TARGETS[name][0]](value, benchmark.TARGETS[name][1])
    ]
    # the guide reports that this target is missed
    assert missed == ["largest deviation of the first 15 medians, median of three networks"]


# Modules of the package, or single functions of one, that each benchmark measures.
SAMPLER = [
    "functional/pairing.py",
    "functional/extrapolation.py",
    "over_sampling/_placement.py",
    "over_sampling/_plan.py",
]
SEARCHES = [
    "functional/nearest_boundary.py",
    "functional/_linearization.py",
    "functional/_projection.py",
    "functional/ddn.py",
    "functional/query_search.py",
    "functional/_query_brackets.py",
    "functional/_query_directions.py",
    "functional/_query_starts.py",
    "functional/_boundary_walk.py",
    "functional/root_finding.py::find_root",
]
PM = ["functional/perturbation_minimization.py", "functional/_fast_start.py"]
EXACT_SEARCH = [
    "functional/nearest_neighbors.py",
    "functional/_search_index.py",
    "functional/_shares.py",
    "functional/_shortlist.py",
    "functional/_exact_distances.py",
    "functional/_lower_bounds.py",
    "functional/_bounded_search.py",
    "functional/_search_methods.py",
]
TIMES = {
    "automatic_choice",
    "black_box_curve",
    "boundary",
    "counterfactuals",
    "first_call",
    "fixed_costs",
    "latent_knn",
    "margins_speed",
    "neighbors",
    "resample_speed",
}  # equal results say nothing of times, nor of searches that equivalence.py leaves out
MEASURED = {
    "accelerator": [],  # needs a GPU
    "determinism": [],  # tests/test_determinism.py compares again
    "device_traffic": [],  # tests/test_device_traffic.py counts again
    "faults": [],  # tests/test_faults.py injects them again
    "automatic_choice": [
        "functional/latent_mixing.py::mix",
        "neighbors/_choice.py::score_grid",
        "neighbors/_choice.py::find_in",
        "neighbors/_choice.py::best_of",
    ],
    "black_box_curve": [
        "functional/query_search.py",
        "functional/_query_brackets.py",
        "functional/_query_directions.py",
        "functional/_query_starts.py",
        "functional/_boundary_walk.py",
    ],
    "boundary": [*SEARCHES, *PM],
    "counterfactuals": ["functional/sparse_search.py", "functional/_coordinate_values.py"],
    "deepdig": [
        "functional/deepdig.py",
        "functional/boundary_complexity.py",
        "boundary/methods/_deepdig.py",
        "boundary/_hyperplane.py",
        "boundary/_pair_report.py",
    ],
    "extrapolation": [*SAMPLER, "over_sampling/_classifier.py"],
    "first_call": [],  # an import and a call of everything
    "fixed_costs": [
        "networks/_batched.py",
        "networks/_module_state.py",
        "networks/_torch_network.py",
    ],
    "margins_speed": ["functional/subspace_deepfool.py", "boundary/_subspace_search.py"],
    "hold_me_tight": [
        "functional/cosine_transform.py",
        "functional/subspaces.py",
        "functional/subspace_deepfool.py",
    ],
    "label_issues": [
        f"neighbors/_label_issues.py::{name}"
        for name in ("vote_weights", "label_shares", "label_issues")
    ],
    "lasenn": ["functional/latent_mixing.py::mix", "functional/latent_mixing.py::merge_lists"],
    "latent_knn": [
        "functional/latent_mixing.py::mix",
        *EXACT_SEARCH,
        "neighbors/_exact.py",
        "neighbors/_exact_search.py",
    ],
    "neighbors": EXACT_SEARCH,
    "out_of_distribution": [
        "functional/out_of_distribution.py",
        "neighbors/_out_of_distribution.py",
    ],
    "out_of_core": [],  # tests/test_memory.py measures again
    "oversampling": SAMPLER,
    "pm": PM,
    "pm_all_new": PM,
    "resample_speed": SAMPLER,
    "equivalence": [],  # it is run before and after a change
    "scale": [],  # of all estimators
    "search_floor": [],  # of torch alone
    "tour": [
        "functional/latent_mixing.py::mix",
        *PM,
        *SAMPLER,
    ],
    "weight_decay": [
        "functional/boundary_complexity.py",
        "boundary/_hyperplane.py",
        "boundary/_pair_report.py",
    ],
}


def test_commands_are_recorded_without_paths(monkeypatch):
    script = load_script("provenance.py")
    paths = ["--out", "a/b", "--against", "/c"]
    words = [str(ROOT / "benchmarks/pm.py"), "--seeds", "0", "1", *paths, "--quick"]
    monkeypatch.setattr(sys, "argv", words)
    assert script.command() == "python benchmarks/pm.py --seeds 0 1 --quick"
    assert script.machine()["processor"] and script.machine()["cores"] >= 1
    assert {"python", "torch", "numpy", "scikit-learn"} == set(script.versions("no such package"))


def test_results_of_parts_are_merged():
    merge = load_script("merge_results.py").merge
    one = {"command": "run --seeds 0", "seeds": {"0": {"figures": [1]}}, "n": 3}
    other = {"command": "run --seeds 1", "seeds": {"1": {"figures": [2]}}, "n": 3}
    whole = merge(one, other)
    assert whole == {
        "command": "run --seeds 0 && run --seeds 1",
        "n": 3,
        "seeds": {"0": {"figures": [1]}, "1": {"figures": [2]}},
    }
    assert merge(whole, one) == whole
    with pytest.raises(SystemExit, match="differ at /n: 3 and 4"):
        merge(one, other | {"n": 4})


def git(*arguments):
    run = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return run.stdout if run.returncode == 0 else None


def code_of(text, name=None):
    """The syntax tree of a module, or of one function of it, without comments and docstrings."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        if documented and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    if name is not None:
        (tree,) = [node for node in tree.body if getattr(node, "name", None) == name]
    return ast.dump(tree)


def test_every_result_is_in_measured():
    results = {path.stem for path in (ROOT / "benchmarks/results").glob("*.json")}
    assert results == set(MEASURED)


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURED)
def test_no_result_is_older_than_the_code_it_measures(name):
    """Nor than the last comparison that found all results equal, see equivalence.py."""
    path = f"benchmarks/results/{name}.json"
    paths = [path] if name in TIMES else [path, "benchmarks/results/equivalence.json"]
    commit = git("log", "-1", "--format=%H", "--", *paths)
    if not commit:
        pytest.skip("no history of the repository here")
    stale = []
    for place in MEASURED[name]:
        file, _, function = place.partition("::")
        then = git("show", f"{commit.strip()}:skboundary/{file}")
        now = (ROOT / "skboundary" / file).read_text()
        if then is None or code_of(then, function or None) != code_of(now, function or None):
            stale.append(place)
    assert not stale, f"run the script behind {path} again: {stale} changed since"


def test_code_is_compared_without_comments_and_docstrings():
    plain = "def f(x):\n    return x\n\ndef g(x):\n    return f(x)\n"
    told = '"""Words."""\n' + plain.replace("    return x", '    """W."""\n    return x  # w')
    assert code_of(plain) == code_of(told)
    other = plain.replace("return x", "return -x")
    assert code_of(plain) != code_of(other)
    assert code_of(plain, "g") == code_of(other, "g") and code_of(plain, "f") != code_of(other, "f")


@pytest.mark.parametrize("name", ["EOS", "Mixup"])
def test_baselines_place_samples_between_the_classes(name):
    sampler = getattr(load_script("latent_samplers.py"), name)(random_state=0)
    X = np.arange(90.0)[:, None]
    y = np.r_[np.zeros(60, int), np.ones(30, int)]  # the classes meet between 59 and 60
    X_new, y_new = sampler.fit_resample(X, y)
    np.testing.assert_array_equal(X_new[:90], X)
    assert np.bincount(y_new).tolist() == [60, 60]
    added = X_new[90:, 0]
    if name == "EOS":  # 64 is the last with one of its ten nearest beyond the border
        assert 54 < added.min() < 59.5 and 60.5 < added.max() < 65
    else:  # nearer to a sample of class 1 than to one of class 0
        assert (added >= 30).all() and (added < 89).all() and added.min() < 59.5
