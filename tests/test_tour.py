"""The tour: a small run end to end, its figures, and one line for every invalid input."""

# SPDX-License-Identifier: BSD-3-Clause

import importlib.util
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_iris
from sklearn.metrics import average_precision_score, balanced_accuracy_score

from skboundary.__main__ import main
from skboundary._tour import Recipe, load_problem
from skboundary._tour._boundary import part_boundary
from skboundary._tour._network import build_network

TINY = Recipe(
    seeds=(0, 1),
    max_train=150,
    max_test=60,
    max_epochs=3,
    n_neighbors=(1, 3),
    query_weight=(0.0, 0.88, 1.0),
    pairs=4,
)


def save(path, **changes):
    """Write a small npz file of digits with some arrays replaced; None leaves an array out."""
    X, y = load_digits(return_X_y=True)
    X = X.reshape(-1, 8, 8).astype(np.uint8)
    parts = {"X_train": X[:200], "y_train": y[:200], "X_test": X[200:280], "y_test": y[200:280]}
    parts.update(changes)
    np.savez(path, **{key: part for key, part in parts.items() if part is not None})
    return str(path)


def tour(capsys, out, *options, recipe=TINY):
    """Run the tour; return the printed text and the figures written."""
    code = main(["--out", str(out), "--device", "cpu", *options], recipe)
    printed = capsys.readouterr()
    assert (code, printed.err) == (0, "")
    return printed.out, json.loads((out / "figures.json").read_text())


def refusal(capsys, *options):
    """Run the tour on invalid input; return the one line of the error."""
    assert main(list(options), TINY) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("skboundary: ") and printed.err.count("\n") == 1
    return printed.err


# ---------------------------------------------------------------------------------- figures


def test_printed_figures_of_the_neighbors_are_those_written(capsys, tmp_path):
    printed, figures = tour(capsys, tmp_path / "new" / "folder")
    assert set(figures) == {
        "arguments",
        "versions",
        "recipe",
        "problem",
        "neighbors",
        "boundary",
        "over_sampling",
        "seconds",
    }
    assert figures["recipe"]["seeds"] == [0, 1]
    assert figures["versions"]["torch"] == torch.__version__
    assert printed.isascii()
    lines = printed.splitlines()
    part = figures["neighbors"]

    for name, row in part["accuracy"].items():
        line = next(line for line in lines if line.startswith(name))
        for key in ("base", "paper", "chosen"):
            assert len(row["scores"][key]) == 2
            assert row["mean"][key] == pytest.approx(np.mean(row["scores"][key]))
            assert row["std"][key] == pytest.approx(np.std(row["scores"][key], ddof=1))
            assert f"{row['mean'][key]:.3f} +- {row['std'][key]:.3f}" in line
    assert part["verdict"] in printed.replace("\n", " ")
    last = part["accuracy"]["32% permuted, last epoch"]["mean"]
    early = part["accuracy"]["32% permuted, early stop"]["mean"]["base"]
    beats = early > max(last["base"], last["paper"], last["chosen"])
    assert ("beats both" in part["verdict"]) is bool(beats)
    assert "not memorized" in part["verdict"]  # three epochs

    sweep = part["sweep"]
    grid = np.array(sweep["accuracy"])
    assert grid.shape == (2, 3)
    for k, scores in zip(sweep["n_neighbors"], grid):
        line = next(line for line in lines if line.replace("*", "").split()[:1] == [str(k)])
        assert line.replace("*", "").split()[1:] == [f"{s:.3f}" for s in scores]
    assert printed.count("*") == 1
    # the grid, the star and the table belong to the same network
    memorized = part["accuracy"]["32% permuted, last epoch"]
    k, w = sweep["chosen"]
    assert [k, w] == memorized["settings"][0]
    assert grid[:, -1] == pytest.approx(memorized["scores"]["base"][0])
    assert grid[1, 1] == pytest.approx(memorized["scores"]["paper"][0])
    place = sweep["n_neighbors"].index(k), sweep["query_weight"].index(w)
    assert grid[place] == pytest.approx(memorized["scores"]["chosen"][0])

    y = load_digits().target
    assert len(part["least_certain"]) == 3
    for row in part["least_certain"]:
        assert row["true"] == y[row["test_sample"]]
        assert f"test sample {row['test_sample']}: true label {row['true']}" in printed
        assert len(row["neighbors"]) == k
        distances = [neighbor["distance"] for neighbor in row["neighbors"]]
        assert distances == sorted(distances)
        assert all(
            neighbor["true"] == y[neighbor["training_sample"]] for neighbor in row["neighbors"]
        )
    befores = [row["before"][1] for row in part["least_certain"]]
    assert befores == sorted(befores)


def boundary_part(capsys, out, path=None, **changes):
    """Run the part alone, on a network that has learned something."""
    recipe = TINY._replace(max_epochs=15, **changes)
    problem = load_problem(path, torch.device("cpu"), recipe)
    part = part_boundary(problem, out)
    json.dumps(part, allow_nan=False)
    return capsys.readouterr().out, part


def test_printed_figures_of_the_pairs_are_those_written(capsys, tmp_path):
    printed, part = boundary_part(capsys, tmp_path, pairs=8)
    assert part["classes"] == [0, 1] and 0 < part["network"]["accuracy"] <= 1
    assert set(part["starts"]) == {"noise", "training samples"}
    for name, row in part["starts"].items():
        assert row["pairs"] == 8 == sum(row["status"].values())
        assert row["found"] == row["status"].get("ok", 0) >= 6
        median = row["median"]
        assert median["length"] > 0 and median["evaluations"] > 60
        assert 0.6 < min(median["p_source"], median["p_target"]) < 1
        line = next(line for line in printed.splitlines() if line.startswith(name + "   "))
        assert line.split()[-6:] == [
            str(row["pairs"]),
            str(row["found"]),
            *(f"{v:.3g}" for v in median.values()),
        ]
    if importlib.util.find_spec("matplotlib"):
        assert part["picture"] == {"file": "borderline.png"}
        assert (tmp_path / "borderline.png").read_bytes()[:4] == b"\x89PNG"
        assert str(tmp_path / "borderline.png") in printed


def test_vectors_are_drawn_and_a_missing_picture_is_explained(capsys, tmp_path, monkeypatch):
    X, y = load_digits(return_X_y=True)
    names = np.array(list("jihgfedcba"))[y]
    path = save(
        tmp_path / "my.npz",
        X_train=X[:200],
        X_test=X[200:280],
        y_train=names[:200],
        y_test=names[200:280],
    )
    pytest.importorskip("matplotlib")
    printed, part = boundary_part(capsys, tmp_path, path)
    assert part["picture"] == {"file": "borderline.png"}
    assert part["classes"] == ["a", "b"]  # the first two
    monkeypatch.setattr("skboundary._tour._pictures.find_spec", lambda name: None)
    out = tmp_path / "out"
    out.mkdir()
    printed, part = boundary_part(capsys, out)
    assert "No picture: matplotlib is not installed (the plot extra)." in printed
    assert "plot extra" in part["picture"]["skipped"]
    assert not list(out.iterdir())


def test_pairs_are_skipped_when_no_sample_of_a_class_is_predicted_correctly(capsys, tmp_path):
    _X, y = load_digits(return_X_y=True)
    rare = np.where(np.arange(200) == 0, -1, y[:200] // 5 + 1)  # one sample, predicted as another
    path = save(tmp_path / "my.npz", y_train=rare, y_test=y[200:280] // 5 + 1)
    printed, part = boundary_part(capsys, tmp_path, path, enough=0.0)
    assert part == {
        "skipped": "Skipped: the network predicts no training sample of class -1 correctly."
    }
    assert part["skipped"] in printed


@pytest.mark.parametrize("channels", [2, 3])
def test_images_of_any_number_of_channels_are_drawn(capsys, tmp_path, channels):
    pytest.importorskip("matplotlib")
    X, _ = load_digits(return_X_y=True)
    images = np.repeat(X.reshape(-1, 1, 8, 8), channels, 1).astype(np.uint8)
    path = save(tmp_path / "my.npz", X_train=images[:200], X_test=images[200:280])
    _, part = boundary_part(capsys, tmp_path, path)
    assert part["picture"] == {"file": "borderline.png"}
    assert (tmp_path / "borderline.png").exists()


def test_printed_figures_of_the_over_samplers_are_those_written(capsys, tmp_path):
    printed, figures = tour(capsys, tmp_path, recipe=TINY._replace(max_train=400))
    part = figures["over_sampling"]
    lines = printed.splitlines()
    assert part["rare_classes"] == [1, 3, 5, 7, 9]
    y = load_digits().target
    for label, n in part["n_samples"].items():
        share = 10 if int(label) % 2 else 1
        assert 0.6 * 40 <= n * share <= 1.5 * 40 or n == 6  # about 40 of each in 400 samples
    assert sum(part["n_samples"].values()) < 300 and len(y) > 400
    assert set(part["methods"]) == {
        "no over-sampling",
        "logit adjustment",
        "SMOTE",
        "biased extrapolation",
    }
    for name, row in part["methods"].items():
        line = next(line for line in lines if line.startswith(name + "   "))
        for metric in ("PR-AUC", "balanced accuracy"):
            scores = row["scores"][metric]
            assert len(scores) == 2 and 0.1 < min(scores) <= 1
            assert row["mean"][metric] == pytest.approx(np.mean(scores))
            assert f"{row['mean'][metric]:.3f} +- {row['std'][metric]:.3f}" in line
    for metric in ("PR-AUC", "balanced accuracy"):
        best = max(part["methods"], key=lambda name: part["methods"][name]["mean"][metric])
        assert f"Best {metric}: {best} (" in part["verdict"]
    words = part["verdict"].split()
    assert " ".join(words) in " ".join(printed.split())
    if importlib.util.find_spec("matplotlib"):
        for name in ("neighbors", "over_sampling"):
            assert figures[name]["picture"] == {"file": f"{name}.png"}
            assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert figures["neighbors"]["sweep"]["picture"] == {"file": "sweep.png"}
        assert (tmp_path / "sweep.png").exists()


def test_over_samplers_are_scored_as_in_scikit_learn():
    from skboundary._tour._over_sampling import _scores

    problem = load_problem(None, torch.device("cpu"), TINY._replace(max_test=400))
    p = np.random.default_rng(0).random((len(problem.y_test), 10))
    p += 0.5 * (problem.y_test[:, None] == np.arange(10))
    scores = _scores(problem, p)
    assert scores["balanced accuracy"] == pytest.approx(
        balanced_accuracy_score(problem.y_test, p.argmax(1))
    )
    odd = [average_precision_score(problem.y_test == c, p[:, c]) for c in (1, 3, 5, 7, 9)]
    assert scores["PR-AUC"] == pytest.approx(np.mean(odd))


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda y: np.where(np.arange(len(y)) == 0, 77, y % 2), "class 77 has 1 training sample"),
        (lambda y: np.where(y == 0, 0, 1), "none of the classes"),
    ],
)
def test_over_samplers_are_skipped_for_unsuitable_data(capsys, tmp_path, change, words):
    X, y = load_digits(return_X_y=True)
    y_train, y_test = change(y[:200]), np.zeros(80, dtype=int)
    path = save(
        tmp_path / "my.npz", X_train=X[:200], y_train=y_train, y_test=y_test, X_test=X[200:280]
    )
    printed, figures = tour(capsys, tmp_path, "--data", path, recipe=TINY._replace(max_train=200))
    assert words in printed and words in figures["over_sampling"]["skipped"]


def test_runs_are_reproducible_and_restore_global_state(capsys, tmp_path):
    first = tour(capsys, tmp_path)
    torch.rand(3), np.random.rand(3)
    states, threads = (torch.get_rng_state(), np.random.get_state()), torch.get_num_threads()
    second = tour(capsys, tmp_path)
    for _printed, figures in (first, second):
        assert figures.pop("seconds")["total"] >= 0
    assert first[1] == second[1]
    assert first[0].splitlines()[:-1] == second[0].splitlines()[:-1]
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), states[0])
    for now, before in zip(np.random.get_state(), states[1]):
        assert np.array_equal(now, before)


NUMBERS, LETTERS = np.arange(10) - 3, np.array(list("jihgfedcba"))


@pytest.mark.parametrize(
    "arrange, shape, names",
    [
        (lambda X: X, (1, 8, 8), NUMBERS),
        (lambda X: np.repeat(X[..., None], 3, -1), (3, 8, 8), LETTERS),
        (lambda X: np.repeat(X[:, None], 3, 1) / 16.0, (3, 8, 8), NUMBERS),
        (lambda X: X.reshape(len(X), -1).astype(np.int64), (64,), LETTERS),
        (lambda X: X[:, :3, :3] > 8, (1, 3, 3), NUMBERS),
    ],
)
def test_data_of_the_user_in_any_layout(capsys, tmp_path, monkeypatch, arrange, shape, names):
    built = []

    def spy(shape, n_classes):
        built.append((tuple(shape), n_classes))
        return build_network(shape, n_classes)

    monkeypatch.setattr("skboundary._tour._network.build_network", spy)
    X, y = load_digits(return_X_y=True)
    X = arrange(X.reshape(-1, 8, 8).astype(np.uint8))
    path = save(
        tmp_path / "my.npz",
        X_train=X[:200],
        y_train=names[y[:200]],
        X_test=X[200:280],
        y_test=names[y[200:280]],
    )
    recipe = TINY._replace(max_epochs=1)
    printed, figures = tour(capsys, tmp_path, "--data", path, recipe=recipe)
    assert "150 of 200 training samples and 60 of 80 test samples" in printed
    assert set(built) == {(shape, 10)}
    for row in figures["neighbors"]["least_certain"]:
        assert row["true"] == names[y[200 + row["test_sample"]]].item()
        for neighbor in row["neighbors"]:
            assert neighbor["true"] == names[y[neighbor["training_sample"]]].item()


def test_permuted_labels_and_their_neighbors(capsys, tmp_path):
    """Some given labels differ from the true ones with noise, and none without."""
    recipe = TINY._replace(n_neighbors=(3,), noise=1.0, query_weight=(0.5,))
    _, figures = tour(capsys, tmp_path, recipe=recipe)
    neighbors = [n for row in figures["neighbors"]["least_certain"] for n in row["neighbors"]]
    assert any(neighbor["given"] != neighbor["true"] for neighbor in neighbors)
    _, figures = tour(capsys, tmp_path, recipe=recipe._replace(noise=0.0))
    neighbors = [n for row in figures["neighbors"]["least_certain"] for n in row["neighbors"]]
    assert all(neighbor["given"] == neighbor["true"] for neighbor in neighbors)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 224, 224), (1, 1, 40), (2, 5, 90), (7,)])
def test_network_accepts_every_shape(shape):
    net = build_network(shape, 4)
    assert net(torch.zeros(2, *shape)).shape == (2, 4)
    assert sum(p.numel() for p in net.parameters()) < 200_000


# --------------------------------------------------------------------------- invalid input

Z = np.zeros
LABELS = np.arange(200) % 10


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"y_test": None}, "has no y_test; it contains X_train, y_train, X_test"),
        ({"X_train": None, "X_test": None}, "has no X_train, X_test"),
        ({"X_train": Z(200)}, "X_train has shape (200,)"),
        ({"X_test": Z((80, 2, 2, 2, 2))}, "X_test has shape (80, 2, 2, 2, 2)"),
        ({"X_test": Z((0, 8, 8))}, "X_test has shape (0, 8, 8)"),
        (
            {"X_test": Z((80, 8, 9))},
            "samples of shape (8, 8), but X_test has samples of shape (8, 9)",
        ),
        ({"X_test": Z((80, 64))}, "samples of shape (8, 8), but X_test has samples of shape (64,)"),
        ({"X_train": np.full((200, 8, 8), np.nan)}, "X_train contains NaN in sample 0"),
        ({"X_test": np.full((80, 8, 8), np.inf)}, "X_test contains infinity in sample 0"),
        ({"X_test": np.full((80, 8, 8), 1e300)}, "X_test as float32 contains infinity in sample 0"),
        ({"X_train": np.full((200, 8, 8), "a")}, "X_train holds <U1, not numbers"),
        ({"X_train": np.full((200, 8, 8), None)}, "Object arrays cannot be loaded"),
        ({"y_train": np.full(200, None)}, "Object arrays cannot be loaded"),
        ({"y_train": LABELS[:150]}, "X_train has 200 samples, but y_train has 150 labels"),
        ({"y_test": LABELS}, "X_test has 80 samples, but y_test has 200 labels"),
        ({"y_train": LABELS[:, None]}, "y_train has shape (200, 1)"),
        ({"y_train": LABELS * np.nan}, "y_train contains NaN"),
        ({"y_train": LABELS + 0.5}, "continuous"),
        ({"y_train": LABELS * 1j}, "y_train holds complex128"),
        ({"y_train": LABELS * 0}, "y_train holds 1 class, 0"),
        ({"y_train": LABELS % 9}, "y_test contains the label 9, which y_train does not"),
        ({"y_train": LABELS.astype(str)}, "y_test contains the label 0, which y_train does not"),
        ({"X_train": Z((20, 8, 8)), "y_train": LABELS[:20]}, "X_train has 20 samples"),
    ],
)
def test_invalid_arrays_are_refused_in_one_line(capsys, tmp_path, changes, words):
    path = save(tmp_path / "bad.npz", **changes)
    out = tmp_path / "out"
    assert words in refusal(capsys, "--data", path, "--out", str(out))
    assert not out.exists()


def _text(path):
    path.write_text("1, 2, 3")


def _empty(path):
    path.touch()


def _npy(path):
    with path.open("wb") as file:
        np.save(file, Z(3))


def _pickled(path):
    path.write_bytes(b"\x80\x04K\x01.")


def _truncated(path):
    save(path)
    path.write_bytes(path.read_bytes()[:5000])


def _corrupt(path):
    save(path)
    raw = bytearray(path.read_bytes())
    raw[300:400] = bytes(100)
    path.write_bytes(raw)


def _not_arrays(path):
    with zipfile.ZipFile(path, "w") as archive:
        for key in ("X_train", "y_train", "X_test", "y_test"):
            archive.writestr(key, "text")


def _folder(path):
    path.mkdir()


@pytest.mark.parametrize(
    "make, words",
    [
        (_text, "is not an npz file"),
        (_empty, "is not an npz file"),
        (_npy, "is not an npz file"),
        (_pickled, "is not an npz file"),
        (_truncated, "is not an npz file"),
        (_corrupt, "cannot be read"),
        (_not_arrays, "not numbers"),
        (_folder, "s.npz"),
    ],
)
def test_files_other_than_npz_are_refused_in_one_line(capsys, tmp_path, make, words):
    path = tmp_path / "s.npz"
    make(path)
    assert words in refusal(capsys, "--data", str(path), "--out", str(tmp_path / "out"))


def test_unusable_devices_and_folders_are_refused_in_one_line(capsys, tmp_path):
    assert "device='abacus'" in refusal(capsys, "--device", "abacus", "--out", str(tmp_path))
    assert "device='cuda:99'" in refusal(capsys, "--device", "cuda:99", "--out", str(tmp_path))
    taken = tmp_path / "taken"
    taken.touch()
    assert "taken" in refusal(capsys, "--out", str(taken))
    assert "taken" in refusal(capsys, "--out", str(taken / "below"))
    (tmp_path / "out" / "figures.json").mkdir(parents=True)
    assert "figures.json" in refusal(capsys, "--out", str(tmp_path / "out"))


def test_help_states_the_limits(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    limits = Recipe()
    assert f"{limits.max_train:,} training and {limits.max_test:,} test samples" in text


# ----------------------------------------------------------------------- the command itself


def run(folder, *options):
    command = [sys.executable, "-m", "skboundary", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=400)


def test_missing_file_on_the_command_line(tmp_path):
    done = run(tmp_path, "--data", "missing.npz")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "skboundary: [Errno 2] No such file or directory: 'missing.npz'\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_neighbors_correct_memorized_labels(tmp_path):
    done = run(tmp_path, "--device", "cpu")
    assert (done.returncode, done.stderr) == (0, "")
    figures = json.loads((tmp_path / "tour" / "figures.json").read_text())
    accuracy = figures["neighbors"]["accuracy"]
    memorized = accuracy["32% permuted, last epoch"]["scores"]
    assert min(memorized["train"]) > 0.9
    gains = np.subtract(memorized["chosen"], memorized["base"])
    assert gains.min() > 0.05  # measured: .13 to .19
    assert accuracy["clean, last epoch"]["mean"]["base"] > 0.95
    early = accuracy["32% permuted, early stop"]["mean"]
    assert early["base"] > np.mean(memorized["base"]) + 0.05


@pytest.mark.slow
def test_vectors_with_string_labels(tmp_path):
    X, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    test = np.arange(len(y)) % 3 == 0
    path = save(
        tmp_path / "iris.npz",
        X_train=X[~test],
        y_train=names[~test],
        X_test=X[test],
        y_test=names[test],
    )
    done = run(tmp_path, "--data", path, "--out", "here")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "here" / "figures.json").exists()
