"""ClassPairDisplay: a measure of the boundary between each pair of classes."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skboundary.display._heat_map import draw_heat_map
from skboundary.display._style import load_pyplot, one_axes


class ClassPairDisplay:
    """A column of the report of a `BoundaryCharacterizer` as a matrix over class pairs.

    Rows are source classes, columns target classes. Pairs that were not measured are white.

    Create it by :meth:`from_report`. All parameters are stored as attributes.

    Read more in the :ref:`User Guide <displays>`.

    Parameters
    ----------
    values : ndarray of shape (n_classes, n_classes)
        NaN where there is nothing.
    classes : ndarray of shape (n_classes,)
        Class labels.
    column : str
        Name of the measure.
    name : str, default=None
        Title of the picture.

    Attributes
    ----------
    image_ : matplotlib AxesImage
    texts_ : list of matplotlib Text
        The numbers in the cells, row by row; empty where they would not fit, and for
        more than 12 classes.
    colorbar_ : matplotlib Colorbar
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    See Also
    --------
    BoundaryCharacterizer : Measures the boundary.

    References
    ----------
    .. [1] H. Karimi, T. Derr and J. Tang, "Characterizing the decision boundary of deep neural
       networks", `arXiv 1912.11460 <https://arxiv.org/abs/1912.11460>`_.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skboundary import BoundaryCharacterizer, ClassPairDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> report = BoundaryCharacterizer(n_samples=20, random_state=0).fit(X, y).report_
    >>> ClassPairDisplay.from_report(report, column="length").values.shape
    (3, 3)
    """

    def __init__(
        self,
        *,
        values: NDArray[Any],
        classes: NDArray[Any],
        column: str,
        name: str | None = None,
    ) -> None:
        self.values = values
        self.classes = classes
        self.column = column
        self.name = name

    @classmethod
    def from_report(
        cls, report_: Any, column: str = "success_rate", *, ax: Any = None, **kwargs: Any
    ) -> ClassPairDisplay:
        """Arrange a column of a report, and draw it.

        Parameters
        ----------
        report_ : Bunch, dict or DataFrame
            The attribute of a fitted :class:`BoundaryCharacterizer`, or its `to_frame()`.
        column : str, default="success_rate"
            A measure of the report.
        ax : matplotlib Axes, default=None
            None makes a new figure.
        **kwargs : dict
            Passed to :meth:`plot`.

        Returns
        -------
        display : ClassPairDisplay

        Raises
        ------
        ValueError
            For an unknown column, or one that holds no numbers.
        ImportError
            If matplotlib is not installed.
        """
        load_pyplot("ClassPairDisplay.from_report")
        measures = [name for name in report_ if name not in ("source", "target", "status")]
        if column not in measures:
            raise ValueError(f"column={column!r} is not in the report: use one of {measures}.")
        source, target = (np.asarray(report_[end]) for end in ("source", "target"))
        classes, codes = np.unique(np.concatenate([source, target]), return_inverse=True)
        values = np.full((len(classes), len(classes)), np.nan)
        values[codes[: len(source)], codes[len(source) :]] = report_[column]
        return cls(values=values, classes=classes, column=column).plot(ax, **kwargs)

    def plot(
        self,
        ax: Any = None,
        *,
        name: str | None = None,
        image_kwargs: dict[str, Any] | None = None,
        text_kwargs: dict[str, Any] | None = None,
        number_format: str = ".2g",
    ) -> ClassPairDisplay:
        """Draw the matrix.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None makes a new figure.
        name : str, default=None
            Title.
        image_kwargs : dict, default=None
            Keywords of :meth:`matplotlib.axes.Axes.imshow`.
        text_kwargs : dict, default=None
            Keywords of the numbers.
        number_format : str, default=".2g"
            Format of the numbers.

        Returns
        -------
        self : ClassPairDisplay
        """
        side = min(2.2 + 0.45 * len(self.classes), 8.0)
        self.ax_ = one_axes(ax, (side + 1.2, side))
        self.figure_ = self.ax_.figure
        self.image_, self.texts_ = draw_heat_map(
            self.ax_,
            self.values,
            self.classes,
            self.classes,
            number_format,
            {"aspect": "equal", **(image_kwargs or {})},
            text_kwargs,
        )
        self.colorbar_ = self.figure_.colorbar(
            self.image_, ax=self.ax_, label=self.column.replace("_", " ")
        )
        self.ax_.set(xlabel="target", ylabel="source", title=self.name if name is None else name)
        return self
