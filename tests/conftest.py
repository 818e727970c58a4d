"""Shared fixtures: small data and small trained networks."""

import copy
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_iris
from torch import nn

from tests import standin_device

# networks this small are faster on one thread
torch.set_num_threads(1)

# before any backward pass: autograd counts the devices once, at the first
if standin_device.unavailable() is None:
    standin_device.register()


@pytest.fixture(scope="session", autouse=True)
def task_files(tmp_path_factory):
    """Results of tasks are not kept after the session; dask reads the variable at its import."""
    folder = str(tmp_path_factory.mktemp("tasks"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DASK_TEMPORARY_DIRECTORY", folder)
        if "dask" in sys.modules:
            sys.modules["dask"].config.set({"temporary-directory": folder})
        yield


@pytest.fixture(scope="session")
def iris():
    return load_iris(return_X_y=True)


@pytest.fixture(scope="session")
def digits():
    """600 images (n, 1, 8, 8), float32 in [0, 1], and their labels."""
    X, y = load_digits(return_X_y=True)
    return (X[:600].reshape(-1, 1, 8, 8) / 16).astype(np.float32), y[:600]


def train(module, X, y, steps=150, lr=0.01):
    """Train in place with full batches, without the global generator."""
    X = torch.as_tensor(np.asarray(X)).to(next(module.parameters()).dtype)
    y = torch.as_tensor(y)
    optimizer = torch.optim.Adam(module.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(X), y).backward()
        optimizer.step()
    return module.eval()


class SmallCNN(nn.Module):
    """Two convolutions, in-place activations and two named linear layers."""

    def __init__(self, n_classes=10):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.hidden = nn.Linear(8 * 16, 32)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(32, n_classes)

    def forward(self, x):
        x = self.features(x).flatten(1)
        return self.head(self.dropout(torch.relu(self.hidden(x))))


class Recording(nn.Module):
    """Write every sample of a forward pass to a file, which several processes may share.

    Its attributes do not change, as `memory` requires.
    """

    def __init__(self, body, path):
        super().__init__()
        self.body, self.path = body, str(path)
        Path(path).touch()

    def forward(self, x):
        with open(self.path, "a") as file:
            file.writelines(sample.numpy().tobytes().hex() + "\n" for sample in x)
        return self.body(x)

    @property
    def rows(self):
        return Path(self.path).read_text().splitlines()


@pytest.fixture(scope="session")
def _trained_cnn(digits):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = SmallCNN().double().train()  # the same weights on every processor
        X, y = digits
        return train(module, X[:300], y[:300], steps=40, lr=0.02).float()


@pytest.fixture
def cnn(_trained_cnn):
    """A separate copy of a trained SmallCNN."""
    return copy.deepcopy(_trained_cnn)


@pytest.fixture(scope="session")
def _trained_mlp(iris):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)).double()
        return train(module, *iris)


@pytest.fixture
def mlp(_trained_mlp):
    """A separate copy of a float64 module trained on iris."""
    return copy.deepcopy(_trained_mlp)


@pytest.fixture
def standin():
    """A device that is not the CPU, though its tensors are kept in CPU memory."""
    reason = standin_device.unavailable()
    if reason is not None:
        pytest.skip(reason)
    return standin_device.NAME


@pytest.fixture(params=["standin", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """An accelerator: the stand-in by default, a real one with ``-m gpu``."""
    if request.param == "standin":
        return request.getfixturevalue("standin")
    return request.param


@pytest.fixture(scope="session")
def data_folder():
    folder = os.environ.get("SKBOUNDARY_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("SKBOUNDARY_DATA is not set to a folder")
    return Path(folder)


@pytest.fixture
def two_threads():
    """Two threads of torch, also for threads that are started in the test."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
