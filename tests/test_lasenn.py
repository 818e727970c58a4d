"""The script that reproduces the tables of LaSeNN: attacks, labels, metrics and pages."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from skboundary import FrozenNetwork, LatentKNNClassifier

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def lasenn():
    path = ROOT / "benchmarks/reproductions/lasenn.py"
    spec = importlib.util.spec_from_file_location("lasenn", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_permuted_labels_are_a_permutation_of_the_requested_share(lasenn):
    y = np.arange(200)
    noisy = lasenn.permute_labels(y, 0.3, np.random.default_rng(0))
    assert np.array_equal(np.sort(noisy), y) and np.array_equal(y, np.arange(200))
    assert 50 < (noisy != y).sum() <= 60  # a few keep their value
    assert np.array_equal(lasenn.permute_labels(y, 0.0, np.random.default_rng(0)), y)


@pytest.mark.parametrize("name", ["BIM", "PGD"])
def test_attack_on_a_linear_network_reaches_the_corner_of_the_ball(lasenn, name):
    """The sign of the gradient is constant, so the result is known."""
    settings = dict(lasenn.DEFAULTS[name])
    generator = torch.Generator().manual_seed(0) if settings.pop("random") else None
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 2)).double()
    x = torch.rand(20, 3, 4, 4, generator=torch.Generator().manual_seed(1)).double()
    target = 1 - net(x).argmax(1)
    moved = lasenn.attack(net, x, target, generator=generator, **settings)
    assert (moved - x).abs().max() <= settings["eps"] + 1e-12
    assert moved.min() >= 0 and moved.max() <= 1
    before, after = (net(z).softmax(1)[range(20), target] for z in (x, moved))
    assert (after > before).all()
    weight = net[1].weight.detach().view(2, 3, 4, 4)
    if generator is None:  # 10 steps of eps / 2 reach it, 40 of eps / 30 do not from every start
        corner = x + settings["eps"] * (weight[target] - weight[1 - target]).sign()
        torch.testing.assert_close(moved, corner.clamp(0, 1))
    other = lasenn.attack(net, x, target, eps=0.0, step=0.1, steps=3)
    assert torch.equal(other, x)


def test_attack_is_reproducible_with_the_same_generator(lasenn):
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), torch.full((2, 3, 2, 2), 0.5)
    first, again, other = (
        lasenn.attack(
            net,
            x,
            torch.tensor([0, 1]),
            eps=0.3,
            step=0.01,
            steps=2,
            generator=torch.Generator().manual_seed(seed),
        )
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_grid_holds_the_scores_of_the_classifier(lasenn, cnn, digits):
    X, y = digits
    clf = LatentKNNClassifier(FrozenNetwork(cnn), layer="hidden", metric="cosine")
    clf.fit(X[:300], y[:300])
    scores = lasenn.grid(clf, X[300:], y[300:], ["proba", "logits"])
    base = FrozenNetwork(cnn).fit(X[:1]).score(X[300:], y[300:])
    for average in ("proba", "logits"):
        for k, w in ((3, 0.25), (20, 0.0)):
            clf.set_params(n_neighbors=k, query_weight=w, average=average)
            expected = clf.score(X[300:], y[300:])
            i, j = lasenn.NEIGHBORS.index(k), lasenn.WEIGHTS.index(w)
            assert scores[average][i][j] == expected
            assert lasenn.change(scores, k, w, average) == pytest.approx(expected - base)
    assert lasenn.base_accuracy(scores) == base
    assert scores["proba"] != scores["logits"]


@pytest.mark.parametrize("sizes", ["SMALL", "FULL"])
def test_networks_have_the_layers_of_the_paper(lasenn, sizes):
    sizes = getattr(lasenn, sizes)
    x = np.zeros((2, 3, 32, 32), np.float32)
    for name, net in {
        "vgg": lasenn.Vgg(sizes.vgg, sizes.stride),
        "resnet": lasenn.ResNet(sizes.resnet, sizes.stride),
    }.items():
        frozen = FrozenNetwork(net, classes=range(10))
        assert net.layer in net.layers.values()
        assert set(net.layers) == set(lasenn.PAPER["layer"][name])
        widths = []
        for layer in net.layers.values():
            clf = LatentKNNClassifier(frozen, layer=layer, n_neighbors=1).fit(x)
            widths.append(clf.neighbors_.n_features_in_)
        assert widths == sorted(widths)  # from the last layer to the first


def test_pages_equal_those_generated_from_the_results(lasenn):
    results = json.loads((ROOT / "benchmarks/results/lasenn.json").read_text())
    assert (ROOT / "benchmarks/results/lasenn.md").read_text() == lasenn.markdown(results)
    guide = (ROOT / "docs/user_guide/latent_knn.rst").read_text()
    assert f"{lasenn.BEGIN}\n\n{lasenn.summary(results)}\n{lasenn.END}" in guide


@pytest.mark.data
def test_quick_run_stores_each_cell_and_resumes(lasenn, data_folder, tmp_path, monkeypatch):
    pytest.importorskip("PIL", reason="the images are JPEG files: install the bench extra")
    out = tmp_path / "lasenn.json"
    monkeypatch.setattr("sys.argv", ["lasenn.py", "--quick", "--out", str(out)])
    lasenn.main()
    results = json.loads(out.read_text())
    cells = {f"{name}/0/{noise}" for name in ("vgg", "resnet") for noise in ("0", "0.32")}
    assert set(results["cells"]) == cells | {f"photos/{lasenn.V1}"}
    record = results["cells"]["vgg/0/0"]
    layers = record["layers"]
    assert layers["4th last conv"]["proba"] == record["last"]["proba"]
    assert out.with_suffix(".md").read_text() == lasenn.markdown(results)
    # only the removed cell runs again, with the same figures
    kept = {key: c for key, c in results["cells"].items() if key != "vgg/0/0.32"}
    out.write_text(json.dumps(results | {"cells": kept}))
    monkeypatch.setattr(lasenn, "run_photos", None)
    lasenn.main()
    again = json.loads(out.read_text())["cells"]
    assert again["vgg/0/0.32"]["last"] == results["cells"]["vgg/0/0.32"]["last"]
    assert again["resnet/0/0"] == results["cells"]["resnet/0/0"]
    monkeypatch.setattr("sys.argv", ["lasenn.py", "--out", str(out)])
    with pytest.raises(SystemExit, match="other sizes"):
        lasenn.main()
