"""Changes of the fewest columns: method "sparse" beside NICE and DiCE, on six tables.

    python benchmarks/counterfactuals.py --part counts
    python benchmarks/counterfactuals.py --part times      # on a machine without other load
    python benchmarks/counterfactuals.py --table

The classifier of each table is a random forest of 100 trees, and the first two columns of breast
cancer are immutable. NICE is restated from the rules of its paper (Brughmans et al., 2023): from
the nearest training sample of another class that is predicted correctly, values are copied to the
sample one by one, the next one by a reward, until the class changes. DiCE (dice-ml) runs where it
is installed, with one counterfactual per sample. Distances are those of NICE: the sum of changes
relative to the range of their column, and of changed categories. Times are CPU seconds on one
thread for all samples of a table, in one call of ours.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from data_folder import data_reader
from provenance import command, machine, versions
from quiet import LIMIT, OtherLoad
from rst_table import rst_table
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from skboundary import BoundarySampleExtractor

RESULTS = Path(__file__).parent / "results" / "counterfactuals.json"
GUIDE = Path(__file__).parents[1] / "docs/user_guide/counterfactuals.rst"
N_QUERIES, N_TRAINING = 40, 2000
TABLES = ["breast cancer", "abalone", "wine_quality", "us_crime", "mammography", "people"]

Find = Callable[["Problem"], list[Any]]


class Problem(NamedTuple):
    """A fitted classifier, its training samples, and samples to explain."""

    model: Any
    X: pd.DataFrame
    y: np.ndarray
    queries: pd.DataFrame
    categorical: list[str]
    immutable: list[str]

    @property
    def mutable(self) -> list[str]:
        """Columns that may change."""
        return [name for name in self.X if name not in self.immutable]


def people(n: int = 4000) -> tuple[pd.DataFrame, np.ndarray]:
    """Synthetic people with four columns of numbers and four of categories, and their income."""
    rng = np.random.default_rng(0)
    age, years = rng.integers(17, 80, n), rng.integers(6, 20, n)
    job = rng.choice(["clerk", "sales", "craft", "service", "manager", "expert"], n)
    home = rng.choice(["married", "single", "divorced"], n, p=[0.5, 0.35, 0.15])
    hours = rng.normal(40, 10, n).clip(5, 90).round()
    gain = np.where(rng.random(n) < 0.1, rng.lognormal(8, 1, n).round(), 0)
    score = 0.04 * np.minimum(age, 55) + 0.25 * years + 0.03 * hours + gain / 3000
    score += 1.2 * (home == "married") + 1.0 * np.isin(job, ["manager", "expert"])
    frame = pd.DataFrame({"age": age, "years": years, "hours": hours, "gain": gain, "job": job})
    frame["home"] = home
    frame["employer"] = rng.choice(["private", "public", "own"], n, p=[0.7, 0.2, 0.1])
    frame["region"] = rng.choice(list("abcdefgh"), n)
    score += rng.normal(0, 0.8, n)
    return frame, (score > np.quantile(score, 0.7)).astype(int)


def load(name: str) -> Problem:
    """Fit the forest of a table, and choose queries of both predicted classes."""
    categorical: list[str] = []
    immutable: list[str] = []
    if name == "breast cancer":
        X, y = load_breast_cancer(return_X_y=True, as_frame=True)
        y, immutable = y.to_numpy(), list(X.columns[:2])
    elif name == "people":
        X, y = people()
        categorical = ["job", "home", "employer", "region"]
    else:
        values, y = data_reader().tabular(name)
        X = pd.DataFrame(values, columns=[f"x{i}" for i in range(values.shape[1])])
        y = (np.asarray(y) == 1).astype(int)
    X = X.astype({column: float for column in X if column not in categorical})
    X_train, X_test, y_train, _ = train_test_split(X, y, stratify=y, test_size=0.3, random_state=0)
    X_train, y_train = X_train[:N_TRAINING].reset_index(drop=True), y_train[:N_TRAINING]
    model: Any = RandomForestClassifier(100, random_state=0)
    if categorical:
        one_hot = OneHotEncoder(handle_unknown="ignore")
        columns = make_column_transformer((one_hot, categorical), remainder="passthrough")
        model = make_pipeline(columns, model)
    model.fit(X_train, y_train)
    predicted = model.predict(X_test)
    rng = np.random.default_rng(0)
    half = [rng.permutation((predicted == c).nonzero()[0])[: N_QUERIES // 2] for c in (0, 1)]
    queries = X_test.iloc[np.concatenate(half)].reset_index(drop=True)
    return Problem(model, X_train, y_train, queries, categorical, immutable)


# ------------------------------------------------------------------------------ contenders


def ours(problem: Problem, effort: str) -> list[Any]:
    """Find all counterfactuals in one call."""
    extractor = BoundarySampleExtractor(
        FrozenEstimator(problem.model),
        method="sparse",
        effort=effort,
        categorical=problem.categorical or None,
        immutable=problem.immutable or None,
        device="cpu",
        random_state=0,
    ).fit(problem.X, problem.y)
    pairs = extractor.extract_pairs(problem.queries)
    return [row if ok else None for row, ok in zip(pairs.outer, pairs.success)]


def differences(problem: Problem, points: Any, x: Any) -> np.ndarray:
    """Changes (n, d) relative to ranges, and 1 for another category."""
    columns = []
    points, x = np.atleast_2d(np.asarray(points, dtype=object)), np.asarray(x, dtype=object)
    for j, name in enumerate(problem.X):
        if name in problem.categorical:
            columns.append((points[:, j] != x[j]).astype(float))
        else:
            width = float(np.ptp(problem.X[name])) or 1.0
            columns.append(np.abs(points[:, j].astype(float) - float(x[j])) / width)
    return np.stack(columns, 1)


def nice(problem: Problem, reward: str) -> list[Any]:
    """NICE by its published rules; immutable columns are not copied."""
    model, names = problem.model, list(problem.X)
    mutable = [names.index(name) for name in problem.mutable]
    predicted = model.predict(problem.X)
    trusted = predicted == problem.y
    found: list[Any] = []
    values = problem.X.to_numpy(dtype=object)
    as_frame = lambda points: pd.DataFrame(points, columns=names).astype(problem.X.dtypes)
    for x, own in zip(problem.queries.to_numpy(dtype=object), model.predict(problem.queries)):
        others = values[trusted & (predicted != own)]
        near = others[differences(problem, others, x).sum(1).argmin()]
        point, score = x.copy(), 1 - model.predict_proba(as_frame(x[None]))[0, own]
        while True:
            changes = [j for j in mutable if point[j] != near[j]]
            if not changes:
                found.append(None)
                break
            if reward == "none":
                trials = np.where(np.isin(np.arange(len(x)), mutable), near, x)[None]
            else:
                trials = np.repeat(point[None], len(changes), 0)
                trials[np.arange(len(changes)), changes] = near[changes]
            scores = 1 - model.predict_proba(as_frame(trials))[:, own]
            gain = scores - score
            if reward == "proximity":
                lengths = differences(problem, np.concatenate([point[None], trials]), x).sum(1)
                gain = gain / (lengths[1:] - lengths[0] + 1e-12)
            best = int(gain.argmax())
            point, score = trials[best], scores[best]
            if model.predict(as_frame(point[None]))[0] != own:
                found.append(point)
                break
    return found


def dice(problem: Problem, method: str) -> list[Any]:
    """Run DiCE sample by sample."""
    import dice_ml

    numbers = [name for name in problem.X if name not in problem.categorical]
    data = dice_ml.Data(
        dataframe=problem.X.assign(outcome=problem.y),
        continuous_features=numbers,
        outcome_name="outcome",
    )
    explainer = dice_ml.Dice(data, dice_ml.Model(model=problem.model, backend="sklearn"), method)
    seed = {"random_seed": 0} if method == "random" else {}
    np.random.seed(0)  # the genetic search has no parameter for it
    found: list[Any] = []
    for i in range(len(problem.queries)):
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                result = explainer.generate_counterfactuals(
                    problem.queries[i : i + 1],
                    total_CFs=1,
                    desired_class="opposite",
                    features_to_vary=problem.mutable,
                    **seed,
                )
                points = result.cf_examples_list[0].final_cfs_df
            except Exception as error:  # how DiCE reports that it found none
                if "No counterfactuals found" not in str(error):
                    raise
                points = None
        none = points is None or not len(points)
        found.append(None if none else points[list(problem.X)].iloc[0].to_numpy(dtype=object))
    return found


CONTENDERS: dict[str, Find] = {
    "ours, fast": partial(ours, effort="fast"),
    "ours, balanced": partial(ours, effort="balanced"),
    "ours, thorough": partial(ours, effort="thorough"),
    "NICE, none": partial(nice, reward="none"),
    "NICE, sparsity": partial(nice, reward="sparsity"),
    "NICE, proximity": partial(nice, reward="proximity"),
    "DiCE, random": partial(dice, method="random"),
    "DiCE, genetic": partial(dice, method="genetic"),
}


# ------------------------------------------------------------------------------ measures


def judge(problem: Problem, found: list[Any]) -> dict[str, float]:
    """Share of successes, and means over them of the number of changes and the distance."""
    own = problem.model.predict(problem.queries)
    changes, lengths = [], []
    for x, point, label in zip(problem.queries.to_numpy(dtype=object), found, own):
        if point is None:
            continue
        frame = pd.DataFrame([point], columns=problem.X.columns).astype(problem.X.dtypes)
        change = differences(problem, point, x)[0]
        changed = change > 1e-9
        kept = not changed[[name in problem.immutable for name in problem.X]].any()
        if problem.model.predict(frame)[0] != label and kept:
            changes.append(int(changed.sum()))
            lengths.append(float(change.sum()))
    return {
        "success": len(changes) / len(found),
        "changes": float(np.mean(changes)),
        "distance": float(np.mean(lengths)),
    }


def run(names: list[str], contenders: list[str], timed: bool) -> dict[str, Any]:
    """Figures of each table and contender, or CPU seconds per sample."""
    records: dict[str, Any] = {}
    for name in names:
        problem = load(name)
        for contender in contenders:
            if contender.startswith("DiCE") and importlib.util.find_spec("dice_ml") is None:
                continue
            start = time.process_time()
            found = CONTENDERS[contender](problem)
            seconds = (time.process_time() - start) / len(found)
            figures: Any = seconds if timed else judge(problem, found)
            records.setdefault(name, {})[contender] = figures
            print(name, contender, figures, flush=True)
    return records


def count_table(results: dict[str, Any]) -> str:
    """Table of the guide: mean number of changes and distance, with the successes if not all."""
    records = results["counts"]["records"]
    rows = [["changes (distance)", *records]]
    for contender in CONTENDERS:
        cells = []
        for record in records.values():
            figures = record.get(contender)
            cell = f"{figures['changes']:.2f} ({figures['distance']:.2f})" if figures else ""
            if figures and figures["success"] < 1:
                cell += f" in {figures['success']:.0%}"
            cells.append(cell)
        if any(cells):
            rows.append([contender, *cells])
    return "\n".join(rst_table(rows))


def time_table(results: dict[str, Any]) -> str:
    """Table of the guide: CPU milliseconds per sample."""
    records = results["times"]["records"]
    rows = [["CPU ms per sample", *records]]
    for contender in next(iter(records.values())):
        cells = [f"{1e3 * record[contender]:.1f}" for record in records.values()]
        rows += [[contender, *cells]]
    return "\n".join(rst_table(rows))


def main() -> None:
    """Run a part of the benchmark and write the JSON, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=["counts", "times"], default="counts")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--table", action="store_true", help="print the tables of the guide")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    results = json.loads(args.out.read_text()) if args.out.exists() else {}
    if args.table:
        print(count_table(results))
        if "times" in results:
            print(time_table(results))
        return
    torch.set_num_threads(1)
    load_of_others = OtherLoad()
    records = run(args.tables, args.contenders, args.part == "times")
    cores = load_of_others.cores()
    if args.part == "times" and cores is not None and cores > LIMIT:
        sys.exit(f"Other processes used {cores:.2f} cores: not recorded. Run it again.")
    results[args.part] = {
        "command": command(),
        "seed": 0,
        "queries": N_QUERIES,
        "machine": machine(),
        "versions": versions("dice_ml", "pandas"),
        "records": records,
    }
    args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
