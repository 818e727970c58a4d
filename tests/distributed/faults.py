"""Classifiers that end the process they run in."""

import os
import signal
import time
from pathlib import Path

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from skboundary._task_store import in_worker


class Halves(ClassifierMixin, BaseEstimator):
    """Class 1 where the first column is at least 0.5; a black box.

    A call on a worker with a sample of `set_fault` ends its process, as often as that says. Each
    call with n samples appends n and the process to the file "calls" in `folder`.
    """

    def __init__(self, folder, seconds=0.0):
        self.folder = folder
        self.seconds = seconds

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        fault = Path(self.folder, "fault")
        if fault.exists() and in_worker():
            value, left = fault.read_text().split()
            if int(left) and (X[:, 1] == float(value)).any():
                fault.write_text(f"{value} {int(left) - 1}")
                os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        with open(Path(self.folder, "calls"), "a") as file:
            file.write(f"{len(X)} {os.getpid()}\n")
        return self.classes_[(X[:, 0] >= 0.5).astype(int)]

    def set_fault(self, value, times):
        """End the process of a call that receives a sample whose second column is `value`."""
        Path(self.folder, "fault").write_text(f"{value} {times}")

    def calls(self):
        """Numbers of samples and processes of the calls since the last time."""
        path = Path(self.folder, "calls")
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        path.unlink(missing_ok=True)
        return [tuple(map(int, line.split())) for line in lines]
