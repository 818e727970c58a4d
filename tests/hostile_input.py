"""Hypothesis strategies of samples, labels, networks and parameters, valid ones and hostile ones.

A case holds numbers and names alone, so that a failing one can be read and built again.
"""

import tempfile
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import polars as pl
import torch
from hypothesis import strategies as st
from scipy import sparse

# ------------------------------------------------------------------------------------- samples


class Samples(NamedTuple):
    """X: what it holds, and in which container."""

    n: int
    shape: tuple[int, ...]  # of a sample
    dtype: str
    container: str
    scale: float
    pattern: str
    bad: float | None  # a value that is put into it
    seed: int

    def numbers(self):
        """The values (n, ...) in their dtype, before they are put into a container."""
        rng = np.random.default_rng(self.seed)
        X = rng.normal(size=(self.n, *self.shape))
        flat = X.reshape(self.n, int(np.prod(self.shape)))
        if X.size:
            PATTERNS[self.pattern](flat)
        X = cast(flat.reshape(X.shape) * self.scale, np.dtype(self.dtype))
        if self.bad is not None and X.size and X.dtype.kind in "fcO":
            X.ravel(order="K")[:: max(1, X.size - 1)] = self.bad  # the first and the last value
        return X

    def build(self):
        X = self.numbers()
        container = self.container
        plain = X.dtype.kind in "biuf" and X.dtype.itemsize in (1, 4, 8) and X.dtype.isnative
        if (container in SPARSE and not plain) or (
            container in SPARSE | FRAMES and (X.ndim != 2 or X.dtype.kind in "cMm")
        ):
            return X
        return (SPARSE | FRAMES | ARRAYS)[container](X)

    @property
    def is_bad(self):
        """Whether it holds values that every estimator has to refuse."""
        X = self.numbers()
        if self.container in PARTIAL:
            return self.container in NO_SAMPLES
        if self.container in FRAMES and X.dtype.kind == "U":
            return False  # scikit-learn reads numbers that are written as text
        if X.dtype.kind not in "biufO" or not X.size:
            return True
        incomplete = self.container in INCOMPLETE and X.ndim in (2, INCOMPLETE[self.container])
        return incomplete or not np.isfinite(X.astype(float)).all()


def set_constant(X):
    X[:, 0] = 1.0


def set_duplicates(X):
    X[1:] = X[0]


def set_pairs(X):
    X[len(X) // 2 :] = X[: len(X) - len(X) // 2]


def set_zeros(X):
    X[:] = 0.0


def set_offset(X):
    X += 1e6


def set_spread(X):
    X[:, -1] *= 1e12


PATTERNS = {
    "plain": lambda X: None,
    "constant": set_constant,
    "duplicates": set_duplicates,
    "pairs": set_pairs,
    "zeros": set_zeros,
    "offset": set_offset,
    "spread": set_spread,
}


def cast(X, dtype):
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        X = np.rint(np.nan_to_num(X))
        inside = X.clip(limits.min, limits.max)
        # the largest integers of 64 bits are no floats
        return np.where(inside >= float(limits.max), limits.max, inside.astype(dtype)).astype(dtype)
    if dtype.kind == "b":
        return X > 0
    if dtype.kind == "M":
        return X.clip(-1e9, 1e9).astype("i8").astype(dtype)
    with np.errstate(all="ignore"):
        return X.astype(dtype)


def as_memmap(X):
    if not X.size or X.dtype.hasobject:
        return X
    file = tempfile.TemporaryFile()  # noqa: SIM115 the map keeps it open
    out = np.memmap(file, X.dtype, "w+", shape=X.shape)
    out[:] = X
    return out


def read_only(X):
    X = X.copy()
    X.flags.writeable = False
    return X


def as_tensor(X):
    try:
        return torch.tensor(X)
    except (TypeError, ValueError):  # dtypes that torch does not have
        return X


def masked(X):
    mask = np.zeros(X.shape, dtype=bool)
    mask[:1] = True
    return np.ma.array(X, mask=mask)


class Subclass(np.ndarray):
    pass


ARRAYS = {
    "array": lambda X: X,
    "fortran": np.asfortranarray,
    "negative strides": lambda X: np.flip(np.flip(X).copy()),
    "strided": lambda X: np.repeat(X, 2, axis=0)[::2],
    "broadcast": lambda X: np.broadcast_to(X[:1], X.shape),
    "read-only": read_only,
    "memmap": as_memmap,
    "masked": masked,
    "unmasked": lambda X: np.ma.array(X),
    "subclass": lambda X: X.view(Subclass),
    "list": lambda X: X.tolist(),
    "tuple": lambda X: tuple(map(tuple, X)) if X.ndim == 2 else tuple(X),
    "tensor": as_tensor,
    "tensor with gradient": lambda X: (
        torch.tensor(X, requires_grad=True) if X.dtype in (np.float32, np.float64) else as_tensor(X)
    ),
    "one sample": lambda X: X[0] if len(X) else X,
    "scalar": lambda X: 1.0,
    "mapping": lambda X: {"x": X},
    "generator": lambda X: (x for x in X),
    "set": lambda X: {1, 2},
    "None": lambda X: None,
    "text": lambda X: "samples",
}
FRAMES = {
    "pandas": lambda X: pd.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])]),
    "pandas with numbers as names": pd.DataFrame,
    "pandas nullable": lambda X: pd.DataFrame(X).convert_dtypes(),
    "pandas category": lambda X: pd.DataFrame(X, columns=[*"abcdefgh"[: X.shape[1]]]).astype(
        "category"
    ),
    "pandas duplicate names": lambda X: pd.DataFrame(X, columns=["a"] * X.shape[1]),
    "pandas missing": lambda X: pd.DataFrame(X).astype(object).mask(np.eye(*X.shape) > 0),
    "polars": lambda X: pl.DataFrame({f"x{i}": column.tolist() for i, column in enumerate(X.T)}),
    "polars missing": lambda X: pl.DataFrame(
        {f"x{i}": [None, *column[1:].tolist()] for i, column in enumerate(X.T)}
    ),
}
SPARSE = {
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
    "coo": sparse.coo_matrix,
    "dok": sparse.dok_matrix,
    "csr array": sparse.csr_array,
}
NO_SAMPLES = {"scalar", "mapping", "generator", "set", "text"}
PARTIAL = NO_SAMPLES | {"one sample", "broadcast", "None"}  # they hold not all of the numbers
INCOMPLETE = {"pandas missing": 2, "polars missing": 2, "masked": 3}  # up to that many axes
USUAL = ["array", "fortran", "negative strides", "read-only", "memmap", "tensor", "pandas", "csr"]

SHAPES = [(2,), (3,), (3,), (1,), (5,), (1, 2, 2), (2, 3), (0,), (2, 0), ()]
DTYPES = ["f8", "f4", "f2", ">f8", "g", "i1", "i4", "i8", "u1", "u2", "u8", "?", "O", "c16"]
DTYPES += ["U8", "M8[s]"]
SCALES = [1.0, 1e-30, 1e-15, 1e-6, 1e4, 1e10, 1e19, 1e30]


@st.composite
def samples(draw, hostile, shape=None):
    """Samples of one shape, or of any; what is named in `hostile` is drawn from all there is."""
    shapes = SHAPES if "shape" in hostile else SHAPES[:4]
    return Samples(
        n=draw(st.sampled_from([12, 9, 6] + [4, 2, 1, 0] * ("n" in hostile))),
        shape=draw(st.sampled_from(shapes)) if shape is None else shape,
        dtype=draw(st.sampled_from(DTYPES if "dtype" in hostile else ["f8", "f4"])),
        container=draw(
            st.sampled_from([*ARRAYS, *FRAMES, *SPARSE] if "container" in hostile else USUAL),
        ),
        scale=draw(st.sampled_from(SCALES)),
        pattern=draw(st.sampled_from([*PATTERNS])),
        bad=draw(st.sampled_from([np.nan, np.inf, -np.inf])) if "values" in hostile else None,
        seed=draw(st.integers(0, 99)),
    )


# -------------------------------------------------------------------------------------- labels


class Targets(NamedTuple):
    kind: str
    n_classes: int
    n: int
    seed: int

    def build(self):
        codes = np.random.default_rng(self.seed).integers(self.n_classes, size=self.n)
        if self.n >= self.n_classes:
            codes[: self.n_classes] = np.arange(self.n_classes)
        return TARGETS[self.kind](codes)


def with_first(codes, value, dtype=object):
    y = codes.astype(dtype)
    y[:1] = value
    return y


NAMES = np.array(["no", "yes", "a long name", "z"])
GOOD_TARGETS = {
    "codes": lambda c: c,
    "codes too": lambda c: c,
    "text": lambda c: NAMES[c],
    "objects": lambda c: NAMES[c].astype(object),
    "negative": lambda c: c - 1,
    "far apart": lambda c: c * 10**15 - 10**15,
    "floats": lambda c: c.astype(float),
    "float32": lambda c: c.astype(np.float32) + 1,
    "uint8": lambda c: c.astype(np.uint8),
    "bool": lambda c: c > 0,
    "list": lambda c: c.tolist(),
    "tensor": torch.as_tensor,
    "series": lambda c: pd.Series(NAMES[c]),
    "polars series": lambda c: pl.Series(NAMES[c].tolist()),
    "column": lambda c: c[:, None],
}
TARGETS = GOOD_TARGETS | {
    "none": lambda c: None,
    "one class": lambda c: c * 0,
    "missing": lambda c: with_first(c, None),
    "NaN": lambda c: with_first(c, np.nan, float),
    "infinity": lambda c: with_first(c, np.inf, float),
    "mixed": lambda c: with_first(c, "no"),
    "masked": lambda c: np.ma.array(c, mask=np.arange(len(c)) == 0),
    "regression": lambda c: c + 0.5 * np.arange(len(c)),
    "short": lambda c: c[:-1],
    "long": lambda c: np.append(c, 0),
    "two columns": lambda c: np.column_stack([c, c]),
    "one-hot": lambda c: np.eye(4)[c],
    "complex": lambda c: c.astype(complex),
    "bytes": lambda c: NAMES[c].astype("S"),
    "largest": lambda c: c.astype(np.uint64) + np.uint64(2**64 - 5),
    "dates": lambda c: c.astype("M8[D]"),
    "categories": lambda c: pd.Series(NAMES[c], dtype="category"),
    "scalar": lambda c: 1,
    "word": lambda c: "labels",
}


@st.composite
def targets(draw, n, hostile):
    return Targets(
        kind=draw(st.sampled_from([*(TARGETS if "labels" in hostile else GOOD_TARGETS)])),
        n_classes=draw(st.sampled_from([2, 3, 3, 4])),
        n=n,
        seed=draw(st.integers(0, 99)),
    )


# ---------------------------------------------------------------------------------------- cases


class Case(NamedTuple):
    """An estimator, the samples of fit and those of the other methods."""

    network: str
    train: Samples
    y: Targets
    query: Samples
    params: dict[str, Any]


# A case is hostile in at most three respects, or most would be refused for several reasons.
ASPECTS = ["n", "shape", "dtype", "container", "values", "labels", "network", "params", "nothing"]


@st.composite
def cases(draw, sound, networks, parameters, is_valid):
    """Draw a case.

    Parameters
    ----------
    sound, networks : list of str
        Names of base networks that work, and of all.
    parameters : dict
        From each parameter to the values that it may get, the constraints permitting or not.
    is_valid : callable
        Whether the constraints permit a value, from its name and the value.
    """
    hostile = draw(st.lists(st.sampled_from(ASPECTS), max_size=3))
    query = draw(st.lists(st.sampled_from(ASPECTS), max_size=1))
    train = draw(samples(hostile))
    names = draw(st.lists(st.sampled_from([*parameters]), max_size=3, unique=True))
    valid = {name: [v for v in parameters[name] if is_valid(name, v)] for name in names}
    return Case(
        network=draw(st.sampled_from(networks if "network" in hostile else sound)),
        train=train,
        y=draw(targets(train.n, hostile)),
        query=draw(samples(query, shape=None if "shape" in query else train.shape)),
        params={
            name: draw(st.sampled_from(parameters[name] if "params" in hostile else valid[name]))
            for name in names
        },
    )
