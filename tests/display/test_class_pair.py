"""ClassPairDisplay: every measure is in the cell of its classes."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from sklearn.linear_model import LogisticRegression
from sklearn.utils import Bunch

from skboundary import BoundaryCharacterizer, ClassPairDisplay


def make_report(n_classes, names=None):
    pairs = [(s, t) for s in range(n_classes) for t in range(n_classes) if s != t]
    source, target = np.array(pairs).T
    values = 100.0 * source + target
    if names is not None:
        source, target = names[source], names[target]
    return Bunch(source=source, target=target, success_rate=values / 1e4, length=values)


@pytest.mark.parametrize("n_classes", [2, 10, 100])
def test_cells(n_classes):
    names = np.array([f"c{i:02d}" for i in range(n_classes)])
    report = make_report(n_classes, names)
    display = ClassPairDisplay.from_report(report, "length")
    drawn = display.image_.get_array()
    assert drawn.shape == (n_classes, n_classes) and drawn.mask.sum() == n_classes
    for s, t in ((0, 1), (n_classes - 1, 0)):
        assert drawn[s, t] == 100 * s + t
    assert np.ma.getmaskarray(drawn).diagonal().all()
    assert len(display.texts_) == (n_classes * (n_classes - 1) if n_classes <= 12 else 0)
    ticks = [t.get_text() for t in display.ax_.get_yticklabels()]
    assert len(ticks) <= 25 and ticks[0] == "c00"
    assert display.colorbar_.ax.get_ylabel() == "length"
    assert display.image_.cmap.name == "viridis"


def test_some_pairs_and_frames():
    report = {k: v[[0, 3]] for k, v in make_report(3).items()}
    for kind in (Bunch(**report), report, pd.DataFrame(report)):
        display = ClassPairDisplay.from_report(kind)
        assert [t.get_text() for t in display.texts_] == ["0.0001", "0.01"]
        assert np.isfinite(display.values).sum() == 2


def test_the_report_of_a_characterizer(iris):
    X, y = iris
    model = LogisticRegression(max_iter=500)
    est = BoundaryCharacterizer(model, n_samples=3, n_partners=2, random_state=0).fit(X, y)
    _, ax = plt.subplots()
    display = ClassPairDisplay.from_report(
        est.report_, column="attempts", ax=ax, name="iris", text_kwargs={"color": "red"}
    )
    assert display.ax_ is ax and ax.get_title() == "iris"
    assert display.texts_[0].get_color() == "red"
    i = [*zip(est.report_.source, est.report_.target)].index((2, 1))
    assert display.values[2, 1] == est.report_.attempts[i]
    with pytest.raises(ValueError, match="is not in the report"):
        ClassPairDisplay.from_report(est.report_, "speed")
    with pytest.raises(ValueError, match="is not in the report"):
        ClassPairDisplay.from_report(est.report_, "source")
