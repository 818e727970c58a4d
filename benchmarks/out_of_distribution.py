"""Samples out of distribution, by scores of LatentKNNClassifier, of pytorch-ood and of the network.

Networks are trained on the classes 0 to 7 of MNIST and of CIFAR-10. The area under the ROC curve
(AUROC) says how well a score separates test images of these classes from

- near images: classes 8 and 9, the test images with Gaussian noise (standard deviation .3), and
  turned by 90 degrees;
- far images: the test images inverted, those of the other data set, and uniform noise.

Contenders: `score_samples` with 3 and 50 neighbors and both metrics, "boundary" and "energy"; the
largest p-value of `credibility`; and the largest probability of the network (MSP). KNN, fDBD,
EnergyBased and MaxSoftmax of pytorch-ood get the same network, and the largest difference from
their AUROC is printed. The share of the other images that pass where 95 % of the test images do
(FPR) is recorded as well.

A second table has the AUROC by which scores separate right from wrong predictions of the network
for the test images, with `agreement` and `boundary_distance` of `explain`. A third has milliseconds
to score 1,000 images including the pass of the network, medians of rounds in turn with pytorch-ood.

Usage: python benchmarks/out_of_distribution.py [--data mnist cifar10] [--seeds 3] [--samples 5000]
[--device auto] [--out benchmarks/results/out_of_distribution.json] [--table [FILE]].
SKBOUNDARY_DATA names the folder of the data. pytorch-ood is needed beyond the requirements of the
package; its detectors are imported alone, because the data sets that it imports need torchvision.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from boundary_networks import make_cifar, make_cnn, train
from data_folder import load_images
from numpy.typing import NDArray
from provenance import note_run
from quiet import OtherLoad, median_seconds
from rst_table import rst_table
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from skboundary import FrozenNetwork, LatentKNNClassifier
from skboundary._device import resolve_device

RESULTS = Path(__file__).parent / "results/out_of_distribution.json"
KNOWN = 8  # classes that the networks are trained on
N_TEST, N_CAL = 1000, 1000
FEW, MANY = 3, 50  # neighbors
BATCH = 256  # images in a pass of the network, for all contenders
NEAR = ["other classes", "noisy", "turned"]
FAR = ["inverted", "other data", "noise"]
DATA: dict[str, tuple[Callable[[], nn.Module], int]] = {  # and epochs
    "mnist": (make_cnn, 3),
    "cifar10": (make_cifar, 6),
}
PEERS = {"cosine, 50": "KNN", "boundary": "fDBD", "energy": "EnergyBased", "MSP": "MaxSoftmax"}
Scores = dict[str, Callable[[NDArray[Any]], NDArray[Any]]]


def like(X: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Images of one data set in the form of the other: gray and cropped, or padded, in color."""
    if shape[0] == 1:
        return X.mean(1, keepdims=True, dtype=np.float32)[:, :, 2:-2, 2:-2]
    return np.repeat(np.pad(X, [(0, 0), (0, 0), (2, 2), (2, 2)]), 3, axis=1)


def strangers(
    X: NDArray[Any], others: NDArray[Any], other_data: NDArray[Any], seed: int
) -> dict[str, NDArray[Any]]:
    """Images out of distribution, as many as there are test images X."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=X.shape).astype(np.float32)
    return {
        "other classes": others[: len(X)],
        "noisy": np.clip(X + 0.3 * noise, 0, 1),
        "turned": np.rot90(X, axes=(2, 3)).copy(),
        "inverted": 1 - X,
        "other data": like(other_data[: len(X)], X.shape[1:]),
        "noise": rng.uniform(size=X.shape).astype(np.float32),
    }


def contenders(
    net: nn.Module, data: Images, memory: str | None = None
) -> tuple[Scores, LatentKNNClassifier]:
    """Scores of this package, and the classifier with the cosine distance."""
    frozen = FrozenNetwork(net, batch_size=BATCH).fit(data.X[:2])
    params: dict[str, Any] = {"n_neighbors": MANY, "memory": memory, "batch_size": BATCH}
    l2 = LatentKNNClassifier(frozen, **params).fit(data.X, data.y)
    cosine = LatentKNNClassifier(frozen, metric="cosine", **params).fit(data.X, data.y)
    calibration: dict[str, Any] = {"X_cal": data.X_cal, "y_cal": data.y_cal, "n_neighbors": MANY}
    return {
        "L2, 3": lambda X: l2.score_samples(X, n_neighbors=FEW),
        "L2, 50": lambda X: l2.score_samples(X),
        "cosine, 3": lambda X: cosine.score_samples(X, n_neighbors=FEW),
        "cosine, 50": lambda X: cosine.score_samples(X),
        "boundary": lambda X: l2.score_samples(X, method="boundary"),
        "credibility": lambda X: cosine.credibility(X, **calibration).max(1),
        "energy": lambda X: l2.score_samples(X, method="energy"),
        "MSP": lambda X: frozen.predict_proba(X).max(1),
    }, cosine


def peers(
    net: Any, X: NDArray[Any], y: NDArray[Any], device: torch.device
) -> tuple[Callable[[NDArray[Any]], Tensor], dict[str, Callable[[Tensor], Tensor]]]:
    """Features of images, and scores of pytorch-ood for features, by the name of ours."""
    from pytorch_ood.detector import KNN, EnergyBased, MaxSoftmax, fDBD

    encoder, head = net[:-1], net[-1]

    def features(X: NDArray[Any]) -> Tensor:
        with torch.no_grad():
            parts = torch.from_numpy(X).split(BATCH)
            return torch.cat([encoder(part.to(device)) for part in parts])

    z = features(X)
    knn = KNN(None, k=MANY).fit_features(z.cpu(), torch.from_numpy(y))
    fdbd = fDBD(encoder, head).fit_features(z)
    energy, msp = EnergyBased(None), MaxSoftmax(None)
    return features, {  # it returns the opposite of our scores
        "cosine, 50": lambda z: -knn.predict_features(z),
        "boundary": lambda z: -fdbd.predict_features(z),
        "energy": lambda z: -energy.predict_logits(head(z)),
        "MSP": lambda z: -msp.predict_logits(head(z)),
    }


def separation(inside: NDArray[Any], outside: NDArray[Any]) -> dict[str, float]:
    """AUROC, and the share of `outside` above the score that 95 % of `inside` reach."""
    known = np.r_[np.ones(len(inside)), np.zeros(len(outside))]
    return {
        "auroc": float(roc_auc_score(known, np.r_[inside, outside])),
        "fpr95": float((outside >= np.quantile(inside, 0.05)).mean()),
    }


class Images(NamedTuple):
    """Images of one data set, of the classes that the network knows, and others."""

    X: NDArray[Any]
    y: NDArray[Any]
    X_test: NDArray[Any]
    y_test: NDArray[Any]
    X_cal: NDArray[Any]
    y_cal: NDArray[Any]
    outside: dict[str, NDArray[Any]]


def prepare(name: str, n_train: int, seed: int) -> Images:
    """Split the images of a data set."""
    X, y, X_test, y_test = load_images(name, n_train)
    other = load_images("cifar10" if name == "mnist" else "mnist", 1)[2]
    known, known_test = y < KNOWN, y_test < KNOWN
    others, X_test, y_test = X_test[~known_test], X_test[known_test], y_test[known_test]
    test, cal = slice(N_TEST), slice(N_TEST, N_TEST + N_CAL)
    outside = strangers(X_test[test], others, other, seed)
    return Images(X[known], y[known], X_test[test], y_test[test], X_test[cal], y_test[cal], outside)


def compare(net: nn.Module, data: Images, device: torch.device, memory: str) -> dict[str, Any]:
    """How well all scores separate images, and right from wrong predictions."""
    ours, clf = contenders(net, data, memory)
    features, theirs = peers(net, data.X, data.y, device)
    inside = {method: score(data.X_test) for method, score in ours.items()}
    z = features(data.X_test)
    inside_theirs = {method: score(z).cpu().numpy() for method, score in theirs.items()}
    pairs: dict[str, Any] = {}
    differences = dict.fromkeys(PEERS.values(), 0.0)
    for pair, X in data.outside.items():
        pairs[pair] = {m: separation(inside[m], score(X)) for m, score in ours.items()}
        z = features(X)
        for m, score in theirs.items():
            auroc = separation(inside_theirs[m], score(z).cpu().numpy())["auroc"]
            off = abs(auroc - pairs[pair][m]["auroc"])
            differences[PEERS[m]] = max(differences[PEERS[m]], off)
    why = clf.explain(data.X_test)
    right = why.query_proba.argmax(1) == data.y_test
    scores = inside | {"agreement": why.agreement, "boundary distance": why.boundary_distance}
    p = clf.credibility(data.X_test, X_cal=data.X_cal, y_cal=data.y_cal, n_neighbors=MANY)
    return {
        "accuracy": float(right.mean()),
        "pairs": pairs,
        "largest difference from pytorch-ood": differences,
        "errors": {m: float(roc_auc_score(right, score)) for m, score in scores.items()},
        "sets of p above .1": {
            "coverage": float((p[np.arange(len(p)), data.y_test] > 0.1).mean()),
            "size": float((p > 0.1).sum(1).mean()),
        },
    }


def seconds(net: nn.Module, data: Images, device: torch.device, rounds: int) -> dict[str, Any]:
    """Median seconds to score the test images, in turn with pytorch-ood."""
    (ours, _), (features, theirs) = contenders(net, data), peers(net, data.X, data.y, device)
    others, found = OtherLoad(), {}
    for name in theirs:
        calls = {
            "ours": lambda name=name: ours[name](data.X_test),
            "pytorch-ood": lambda name=name: theirs[name](features(data.X_test)).cpu(),
        }
        found[name] = median_seconds(calls, rounds)
    return {"cores used by others": others.cores(), **found}


def measure(
    name: str, seed: int, n_train: int, device: torch.device, rounds: int
) -> dict[str, Any]:
    """Everything about the network of one data set and seed."""
    make, epochs = DATA[name]
    data = prepare(name, n_train, seed)
    torch.manual_seed(seed)
    net: Any = make()
    net[-1] = nn.Linear(net[-1].in_features, KNOWN)
    train(net.to(device), *(torch.from_numpy(a).to(device) for a in (data.X, data.y)), epochs)
    with TemporaryDirectory() as memory:  # every image passes once
        found = compare(net, data, device, memory)
    about = {"data": name, "seed": seed, "device": str(device), "training samples": len(data.X)}
    return {**about, **found, "seconds": seconds(net, data, device, rounds)}


def table(results: dict[str, Any]) -> list[str]:
    """AUROC in the form of the guide, means over the seeds, and over pairs, there with FPR."""
    methods = [*results["records"][0]["pairs"][NEAR[0]]]
    cells = [["", *methods]]

    def line(
        label: str, records: list[dict[str, Any]], pairs: list[str], measure: str = "auroc"
    ) -> list[str]:
        means = [
            np.mean([r["pairs"][pair][m][measure] for r in records for pair in pairs])
            for m in methods
        ]
        return [label, *(f"{mean:.3f}" for mean in means)]

    for name, records in by_data(results):
        cells += [line(f"{name}, {pair}", records, [pair]) for pair in NEAR + FAR]
    for label, pairs in (("near", NEAR), ("far", FAR)):
        cells.append(line(f"{label}, mean", results["records"], pairs))
        cells.append(line(f"{label}, mean FPR", results["records"], pairs, "fpr95"))
    return rst_table(cells)


def errors(results: dict[str, Any]) -> list[str]:
    """AUROC of right against wrong predictions, means over the seeds."""
    groups = [*by_data(results)]
    cells = [["score", *(name for name, _ in groups)]]
    for m in results["records"][0]["errors"]:
        means = [np.mean([r["errors"][m] for r in records]) for _, records in groups]
        cells.append([m, *(f"{mean:.3f}" for mean in means)])
    return rst_table(cells)


def times(results: dict[str, Any]) -> list[str]:
    """Milliseconds for 1,000 images, medians over the seeds."""
    head = ["score"]
    rows = [[PEERS[name]] for name in PEERS]
    for data, records in by_data(results):
        for whose in ("ours", "pytorch-ood"):
            head.append(f"{data}, {whose}")
            for row, name in zip(rows, PEERS, strict=True):
                wall = np.median([r["seconds"][name][whose] for r in records])
                row.append(f"{1e3 * wall:.0f}")
    return rst_table([head, *rows])


def show(results: dict[str, Any]) -> None:
    """Print the tables, and the other measures."""
    print("\n".join([*table(results), "", *errors(results), "", *times(results)]))
    for name, records in by_data(results):
        sets = [r["sets of p above .1"] for r in records]
        print(
            f"{name}: accuracy {np.mean([r['accuracy'] for r in records]):.3f}, "
            f"coverage {np.mean([s['coverage'] for s in sets]):.3f} at .9, "
            f"size {np.mean([s['size'] for s in sets]):.2f}; largest difference from pytorch-ood "
            f"{max(max(r['largest difference from pytorch-ood'].values()) for r in records):.1e}"
        )


def by_data(results: dict[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Records of each data set."""
    for name, label in (("mnist", "MNIST"), ("cifar10", "CIFAR-10")):
        if records := [r for r in results["records"] if r["data"] == name]:
            yield label, records


def main() -> None:
    """Run the benchmark, or print the tables of a result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", nargs="+", default=[*DATA], choices=[*DATA])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=5000, help="training images of all classes")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=3, help="of the times")
    parser.add_argument("--out", type=Path)
    parser.add_argument(
        "--table", type=Path, nargs="?", const=RESULTS, help="print its tables only"
    )
    args = parser.parse_args()
    if args.table:
        show(json.loads(args.table.read_text()))
        return
    spec = importlib.util.find_spec("pytorch_ood")
    if spec is None:
        sys.exit("Install pytorch-ood.")
    sys.modules["pytorch_ood"] = importlib.util.module_from_spec(spec)  # without its data sets
    torch.set_num_threads(1)
    results: dict[str, Any] = {"records": []}
    note_run(results, "pytorch-ood")
    for name in args.data:
        for seed in range(args.seeds):
            device = resolve_device(args.device)
            results["records"].append(measure(name, seed, args.samples, device, args.rounds))
            if args.out:
                args.out.write_text(json.dumps(results, indent=1) + "\n")
    show(results)


if __name__ == "__main__":
    main()
