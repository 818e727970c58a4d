# SPDX-License-Identifier: BSD-3-Clause

"""
Two workers share the work
==========================

With a ``Client`` of dask, pairs of classes become tasks of its workers, and so do the chunks of a
dask array. Finished tasks are kept in files, so work that is interrupted continues.
"""

# %%
# A classifier, and a cluster
# ---------------------------
# The workers are threads of this process here, so that the script runs as it is. With
# ``Client(n_workers=2, threads_per_worker=1)`` they are processes, in a script whose code is
# guarded by ``if __name__ == "__main__"``; with the address of a scheduler they are on other
# machines.

from tempfile import TemporaryDirectory

import dask
import dask.array as da
import matplotlib.pyplot as plt
from dask.distributed import Client, get_task_stream
from sklearn.datasets import load_digits

from skboundary import BoundaryCharacterizer, ClassPairDisplay, LatentKNNClassifier

X, y = load_digits(return_X_y=True)
clf = LatentKNNClassifier(random_state=0).fit(X[:1000], y[:1000])

folder = TemporaryDirectory()
dask.config.set({"temporary-directory": folder.name})  # of the tasks and their results
client = Client(processes=False, n_workers=2, threads_per_worker=1, dashboard_address=None)

# %%
# Chunks of an array
# ------------------
# ``predict`` of a dask array returns one, whose chunks are computed by the workers.

labels = clf.predict(da.from_array(X, chunks=(300, 64)))
print("chunks of the labels:", labels.chunks[0])
print(f"accuracy: {(labels.compute() == y)[1000:].mean():.3f}")

# %%
# Pairs of classes
# ----------------
# A task measures the boundary between two classes. On the left, each bar is a task on the worker
# that ran it. On the right is a result: the mean length of the segments from one digit to the
# nearest samples of another.

characterizer = BoundaryCharacterizer(clf.estimator_, n_samples=25, n_partners=1, random_state=0)
with get_task_stream() as stream:
    report = characterizer.fit(X[:1000], y[:1000]).report_
print(f"{len(report.status)} ordered pairs, {(report.status == 'failed').sum()} failed")

steps = [(task["worker"], step) for task in stream.data for step in task["startstops"]]
workers = sorted({worker for worker, _ in steps})
first = min(step["start"] for _, step in steps)
fig, axes = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained", width_ratios=[2, 3])
for worker, step in steps:
    place, seconds = workers.index(worker), step["stop"] - step["start"]
    axes[0].barh(place, seconds, left=step["start"] - first, color=f"C{place}", edgecolor="white")
axes[0].set(xlabel="seconds", yticks=[0, 1], yticklabels=["worker 1", "worker 2"])
_ = ClassPairDisplay.from_report(report, column="length", ax=axes[1])

# %%
# The same call again
# -------------------
# The results of its tasks are in files, so nothing is measured again, in this process or another
# one.

again = characterizer.fit(X[:1000], y[:1000]).report_
print("equal:", (again.length == report.length).all())
client.close()
folder.cleanup()
