"""Over-samplers on 24 imbalanced tables: mean ranks, with a critical difference.

    python benchmarks/oversampling.py peers             everything but ours, by default settings
    python benchmarks/oversampling.py settings          their other settings, on the choosing half
    python benchmarks/oversampling.py chosen            the best of them, on the reported half
    python benchmarks/oversampling.py candidates        settings of ours, on the choosing half, once
    python benchmarks/oversampling.py ours              the defaults, on the reported half
    python benchmarks/oversampling.py report            ranks and choice from the results file

Repeated stratified folds, columns standardized on the training samples; tables with more than
--rows samples are cut by a stratified draw. Each finished cell (table, method) is written at once;
a second run continues where the first stopped. Twelve tables choose the defaults of the sampler
and the settings of its peers; only the other twelve are reported. Needs the folder named by
SKBOUNDARY_DATA.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_folder import data_folder
from imblearn.metrics import geometric_mean_score
from imblearn.over_sampling import ADASYN, SMOTE, SVMSMOTE, BorderlineSMOTE, RandomOverSampler
from latent_samplers import EOS, Mixup
from provenance import machine, versions
from scipy.stats import friedmanchisquare, rankdata, studentized_range, wilcoxon
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, balanced_accuracy_score
from sklearn.model_selection import RepeatedStratifiedKFold, train_test_split
from sklearn.preprocessing import StandardScaler

from skboundary import BiasedExtrapolationSampler, BiasSettings

RESULTS = Path(__file__).parent / "results" / "oversampling.json"
CHOOSING = (
    "ecoli",
    "libras_move",
    "us_crime",
    "yeast_me2",
    "oil",
    "abalone",
    "car_eval_34",
    "spectrometer",
    "arrhythmia",
    "sick_euthyroid",
    "yeast_ml8",
    "scene",
)
TUNED_ON = tuple(name for name in CHOOSING if name != "scene")  # 294 columns: half of all the time
METRICS = ("balanced accuracy", "PR-AUC", "G-mean")
CLASSIFIERS = ("LogisticRegression", "RandomForest", "HistGradientBoosting")
PEERS: dict[str, Any] = {
    "RandomOverSampler": RandomOverSampler,
    "SMOTE": SMOTE,
    "BorderlineSMOTE": BorderlineSMOTE,
    "SVMSMOTE": SVMSMOTE,
    "ADASYN": ADASYN,
    "EOS": EOS,
    "latent mixup": Mixup,
}
# Settings beside the default: a parameter and its values.
SETTINGS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "SMOTE": ("k_neighbors", (3, 10)),
    "BorderlineSMOTE": ("m_neighbors", (5, 20)),
    "SVMSMOTE": ("m_neighbors", (5, 20)),
    "ADASYN": ("n_neighbors", (3, 10)),
    "EOS": ("n_neighbors", (5, 20)),
    "latent mixup": ("alpha", (0.2, 1.0)),
}
WHAT = ("peers", "settings", "chosen", "candidates", "ours", "report")
CONTROLS = ("none", "class weights", "logit adjustment")
OURS = "BiasedExtrapolation"
# Candidates for the defaults of the sampler; the first is the paper's.
_PAPER = {
    "bias": "asymmetric",
    "instance_pairing": "one-to-one",
    "placement": "boundary",
    "within_class": 0.0,
    "settings": None,
}
_SPREAD = _PAPER | {
    "bias": "random",
    "settings": BiasSettings(fraction=1.0),
    "instance_pairing": "nearest-majority",
    "placement": "spread",
}
CANDIDATES: dict[str, dict[str, Any]] = {
    "asymmetric": _PAPER,
    "asymmetric, gamma -.2": _PAPER | {"settings": BiasSettings(gamma=-0.2)},
    "asymmetric, margin ratio": _PAPER
    | {"settings": BiasSettings(distance_ratio="margin", gamma=-0.1)},
    "asymmetric, nearest": _PAPER | {"instance_pairing": "nearest-majority"},
    "asymmetric, within .3": _PAPER | {"within_class": 0.3},
    "asymmetric, within .5": _PAPER | {"within_class": 0.5},
    "asymmetric, spread": _PAPER | {"placement": "spread"},
    "asymmetric, spread, within .3": _PAPER | {"placement": "spread", "within_class": 0.3},
    "asymmetric, spread, within .5": _PAPER | {"placement": "spread", "within_class": 0.5},
    "bottom": _PAPER | {"bias": "bottom"},
    "random": _PAPER | {"bias": "random"},
    "spread": _SPREAD,
    "spread, within .5": _SPREAD | {"within_class": 0.5},
}


def make_classifiers(class_weight: str | None) -> dict[str, Any]:
    """Make the three classifiers, each on one thread."""
    return {
        "LogisticRegression": LogisticRegression(max_iter=1000, class_weight=class_weight),
        "RandomForest": RandomForestClassifier(
            50, class_weight=class_weight, n_jobs=1, random_state=0
        ),
        "HistGradientBoosting": HistGradientBoostingClassifier(
            max_iter=50, early_stopping=False, class_weight=class_weight, random_state=0
        ),
    }


def load_table(name: str, rows: int) -> tuple[Any, Any]:
    """X in float64, y with 1 for the minority; at most `rows` samples, drawn by class."""
    with np.load(data_folder() / "imbalanced_zenodo24.npz", allow_pickle=False) as archive:
        X, y = archive[name + "__X"].astype(float), (archive[name + "__y"] == 1).astype(int)
    if len(y) > rows:
        X, _, y, _ = train_test_split(X, y, train_size=rows, stratify=y, random_state=0)
    return X, y


def table_names() -> list[str]:
    """Names of the 24 tables: the choosing half, then the others in the archive's order."""
    with np.load(data_folder() / "imbalanced_zenodo24.npz", allow_pickle=False) as archive:
        names = archive["names"].tolist()
    return [*CHOOSING, *(name for name in names if name not in CHOOSING)]


def settings_of(peer: str) -> dict[str, dict[str, Any]]:
    """Names and parameters of the settings of a peer, the default first."""
    name, values = SETTINGS.get(peer, ("", ()))
    return {peer: {}} | {f"{peer}, {name} {value}": {name: value} for value in values}


def make_sampler(method: str) -> Any:
    """Make the over-sampler of that name."""
    peer = method.split(", ")[0]
    if peer in PEERS:
        return PEERS[peer](random_state=0, **settings_of(peer)[method])
    return BiasedExtrapolationSampler(random_state=0, **CANDIDATES.get(method, {}))


def scores(y: Any, p: Any) -> list[float]:
    """Balanced accuracy, PR-AUC and G-mean of the minority's probability."""
    decided = (p > 0.5).astype(int)
    return [
        round(float(value), 5)
        for value in (
            balanced_accuracy_score(y, decided),
            average_precision_score(y, p),
            geometric_mean_score(y, decided),
        )
    ]


def run_cell(X: Any, y: Any, method: str, repeats: int) -> dict[str, Any]:
    """One method on one table: scores[classifier][fold] = the three metrics, seconds.

    If a sampler refuses a fold, the fold is not resampled; "refused" counts these.
    """
    found: dict[str, Any] = {name: [] for name in CLASSIFIERS}
    adjusted: dict[str, Any] = {name: [] for name in CLASSIFIERS}
    refused, start = [], time.process_time()
    for train, test in RepeatedStratifiedKFold(n_splits=3, n_repeats=repeats, random_state=0).split(
        X, y
    ):
        scaler = StandardScaler().fit(X[train])
        X_fit, y_fit, X_test = scaler.transform(X[train]), y[train], scaler.transform(X[test])
        if method not in CONTROLS:
            try:
                X_fit, y_fit = make_sampler(method).fit_resample(X_fit, y_fit)
            except ValueError as error:
                refused.append(str(error).split("\n")[0])
        weight = "balanced" if method == "class weights" else None
        for name, classifier in make_classifiers(weight).items():
            p = classifier.fit(X_fit, y_fit).predict_proba(X_test)[:, 1]
            found[name].append(scores(y[test], p))
            if method == "none":  # the same fit, with its prior divided out
                prior = y[train].mean()
                odds = p / prior, (1 - p) / (1 - prior)
                adjusted[name].append(scores(y[test], odds[0] / sum(odds)))
    cell = {"scores": found, "refused": refused, "seconds": round(time.process_time() - start, 2)}
    return cell | ({"adjusted": adjusted} if method == "none" else {})


def run(methods: list[str], names: list[str], repeats: int, out: Path, results: Any) -> None:
    """Run the cells that are missing, and write the file after each."""
    records = results["records"]
    for name in names:
        X, y = load_table(name, results["settings"]["rows"])
        for method in methods:
            if method in records.setdefault(name, {}):
                continue
            cell = run_cell(X, y, method, repeats)
            if "adjusted" in cell:
                adjusted = {"scores": cell.pop("adjusted"), "refused": [], "seconds": 0.0}
                records[name]["logit adjustment"] = adjusted
            records[name][method] = cell
            print(f"{name:16} {method:28} {cell['seconds']:7.1f} s", flush=True)
            out.write_text(json.dumps(results) + "\n")


# ------------------------------------------------------------------------------------ ranks


def rank_blocks(records: Any, names: list[str], methods: list[str], metric: int) -> Any:
    """Ranks (tables, classifiers, methods), 1 for the best; ties share their mean."""
    folds = min(len(records[t][m]["scores"][CLASSIFIERS[0]]) for t in names for m in methods)
    mean = np.array(
        [
            [
                [
                    np.mean([fold[metric] for fold in records[t][m]["scores"][c][:folds]])
                    for m in methods
                ]
                for c in CLASSIFIERS
            ]
            for t in names
        ]
    )
    return rankdata(-mean, axis=2)


def critical_difference(n_methods: int, n_tables: int) -> float:
    """Nemenyi's difference of two mean ranks at 5 %."""
    q = studentized_range.ppf(0.95, n_methods, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(n_methods * (n_methods + 1) / (6 * n_tables)))


def rank_table(records: Any, names: list[str], methods: list[str]) -> dict[str, Any]:
    """Mean ranks of the methods over the tables, for each metric and classifier."""
    report: dict[str, Any] = {"tables": names}
    for metric, label in enumerate(METRICS):
        blocks = rank_blocks(records, names, methods, metric)
        by_table = blocks.mean(1)  # tables are the independent units of the test
        mean = blocks.mean(0).round(3)
        report[label] = {
            "mean rank": dict(zip(methods, by_table.mean(0).round(3).tolist())),
            **{c: dict(zip(methods, mean[i].tolist())) for i, c in enumerate(CLASSIFIERS)},
            "Friedman p": float(f"{friedmanchisquare(*by_table.T).pvalue:.3g}"),
        }
    report["critical difference"] = round(critical_difference(len(methods), len(names)), 3)
    return report


def place(ranks: dict[str, float], name: str) -> int:
    """Place of a method among the over-samplers, 1 for the best."""
    rivals = [rank for method, rank in ranks.items() if method not in CONTROLS]
    return 1 + sum(rank < ranks[name] for rank in rivals)


def choose_settings(records: Any) -> dict[str, str]:
    """For each peer the setting with the best mean rank among its own, in both metrics together."""
    chosen = {}
    for peer in PEERS:
        settings = list(settings_of(peer))
        ranks = [rank_blocks(records, list(TUNED_ON), settings, metric) for metric in range(2)]
        chosen[peer] = settings[int(np.mean(ranks, axis=(0, 1, 2)).argmin())]
    return chosen


def paired_tests(records: Any, names: list[str], methods: list[str]) -> dict[str, Any]:
    """Ours minus each method: mean difference, and p of Wilcoxon's test over the tables."""

    def mean(table: str, method: str, metric: int) -> float:
        found = records[table][method]["scores"]
        return float(np.mean([fold[metric] for c in CLASSIFIERS for fold in found[c]]))

    tests: dict[str, Any] = {}
    for metric, label in enumerate(METRICS):
        ours = np.array([mean(table, OURS, metric) for table in names])
        for method in methods:
            difference = ours - [mean(table, method, metric) for table in names]
            tests.setdefault(label, {})[method] = {
                "difference": round(float(difference.mean()), 4),
                "p": float(f"{wilcoxon(difference).pvalue:.3g}"),
            }
    return tests


def choose(records: Any) -> dict[str, Any]:
    """Choose the candidate with the best mean rank in balanced accuracy and PR-AUC together.

    Each candidate is ranked alone among the controls and the defaults of the peers. Nested: for
    each of those tables the choice is made on the others, and its rank on that table is kept.
    """
    names, candidates = list(TUNED_ON), list(CANDIDATES)
    ranks = np.array(
        [
            [
                rank_blocks(records, names, [*CONTROLS, *PEERS, c], metric)[..., -1].mean(1)
                for metric in range(2)
            ]
            for c in candidates
        ]
    )  # (candidates, metrics, tables)
    both = ranks.mean(1)
    left_out = [int(np.delete(both, t, axis=1).mean(1).argmin()) for t in range(len(names))]
    nested = ranks[left_out, :, np.arange(len(names))].mean(0)
    return {
        "tables": names,
        "mean rank of each candidate among the peers": {
            c: dict(zip(METRICS, row.mean(1).round(3).tolist()))
            for c, row in zip(candidates, ranks)
        },
        "chosen": candidates[int(both.mean(1).argmin())],
        "chosen without each table": [candidates[i] for i in left_out],
        "nested mean rank": dict(zip(METRICS, nested.round(3).tolist())),
    }


def report(results: Any) -> None:
    """Write ranks and choice into the results, and print the table of the guide."""
    records = results["records"]
    if all(c in records[t] for t in TUNED_ON for c in CANDIDATES):
        results["choice"] = choose(records)
    results["settings of the peers"] = choose_settings(records)
    methods = [*CONTROLS, *results["settings of the peers"].values(), OURS]
    reported = [name for name in table_names() if name not in CHOOSING]
    results["reported half"] = rank_table(records, reported, methods)
    results["paired tests"] = paired_tests(records, reported, methods[:-1])
    places = {label: place(results["reported half"][label]["mean rank"], OURS) for label in METRICS}
    results["place among the over-samplers"] = places
    results["refused folds"] = {
        m: count
        for m in methods
        if (count := sum(len(records[t][m]["refused"]) for t in records if m in records[t]))
    }
    print("\n".join(rst_table(results["reported half"], methods)))
    for name, ranks in results["choice"]["mean rank of each candidate among the peers"].items():
        print(f"{name:30}" + "".join(f"{ranks[label]:8.2f}" for label in METRICS[:2]))
    print(json.dumps({k: v for k, v in results.items() if k != "records"}, indent=1))


def rst_table(half: dict[str, Any], methods: list[str]) -> list[str]:
    """Mean ranks as the guide prints them: all classifiers together, then each."""
    width = max(map(len, methods))
    rule = " ".join(["=" * width] + ["=" * 6] * 9)
    short = ["all", "LR", "RF", "HGB"]
    lines = [
        rule,
        " ".join(["mean rank".ljust(width)] + [c.rjust(6) for c in 2 * short + ["G-mean"]]),
        rule,
    ]
    for m in methods:
        cells = [half[label][c][m] for label in METRICS[:2] for c in ("mean rank", *CLASSIFIERS)]
        cells.append(half["G-mean"]["mean rank"][m])
        lines.append(" ".join([m.ljust(width)] + [f"{v:6.2f}" for v in cells]))
    return [*lines, rule]


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="+", choices=WHAT)
    parser.add_argument("--rows", type=int, default=2500)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="three tables, one repeat, a look")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if args.quick:
        args.repeats, args.out = 1, Path("oversampling_quick.json")
    settings = {"rows": args.rows, "folds": 3, "repeats": args.repeats, "random_state": 0}
    results = json.loads(args.out.read_text()) if args.out.exists() else {"records": {}}
    if results.setdefault("settings", settings) != settings:
        sys.exit(f"{args.out} was made with {results['settings']}; choose another --out.")
    commands = results.setdefault("commands", [])
    command = " ".join(["python", "benchmarks/oversampling.py", *args.what])
    if command not in commands:
        commands.append(command)
    results["machine"] = machine()
    results["versions"] = versions("imbalanced-learn")
    names = ["ecoli", "wine_quality", "car_eval_4"] if args.quick else table_names()
    for what in args.what:
        if what == "peers":
            run(["none", "class weights", *PEERS], names, args.repeats, args.out, results)
        elif what == "settings":
            others = [s for peer in PEERS for s in settings_of(peer) if s != peer]
            run(others, [n for n in names if n in TUNED_ON], 1, args.out, results)
        elif what == "chosen":
            chosen = list(choose_settings(results["records"]).values())
            run(chosen, [n for n in names if n not in CHOOSING], args.repeats, args.out, results)
        elif what == "candidates":
            run(list(CANDIDATES), [n for n in names if n in TUNED_ON], 1, args.out, results)
        elif what == "ours":
            run([OURS], [n for n in names if n not in CHOOSING], args.repeats, args.out, results)
        else:
            report(results)
    args.out.write_text(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()
