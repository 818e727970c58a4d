"""Tasks of `fit` for the callbacks of scikit-learn: what a fit does, as a tree.

The task that runs is a context variable, so that no function between `fit` and its loops needs an
argument for it. Where none runs, as outside of `fit` and in other threads, nothing is reported.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from functools import wraps
from typing import Any

from sklearn.callback import with_callbacks

# What scikit-learn keeps in an estimator: its callbacks and, during `fit`, the tasks.
CALLBACK_ATTRIBUTES = frozenset(
    {"_skl_callbacks", "_skl_callbacks_to_teardown", "_callback_fit_ctx", "_parent_callback_ctx"}
)

_BLOCK_SECONDS = 0.01  # a callback takes far less
_MOST_BLOCKS = 100  # of a pass: a bar that has them all ends at 100 %, as after a second or more


class Task:
    """A task of `fit`, which callbacks are told of at its beginning and end.

    Parameters
    ----------
    context : CallbackContext or None
        None is a task that nobody is told of.
    estimator : estimator
    hooks : dict
        What the hooks of all callbacks get: X, y and metadata.

    Attributes
    ----------
    stop : bool
        Whether a callback asks, at the end of the task, to leave out those that would follow.
    """

    def __init__(self, context: Any, estimator: Any, hooks: dict[str, Any]) -> None:
        self.context, self.estimator, self.hooks = context, estimator, hooks
        self.stop = False

    @property
    def is_watched(self) -> bool:
        """Whether the estimator has callbacks."""
        return hasattr(self.estimator, "_skl_callbacks")

    def subtask(self, name: str, n_tasks: int = 0) -> Task:
        """Return a task that is part of this one and has at most `n_tasks` parts itself."""
        context = self.context.subcontext(task_name=name, max_subtasks=n_tasks)
        return Task(context, self.estimator, self.hooks)

    def begin(self) -> None:
        """Tell callbacks, whose own calls are not part of the task."""
        with _holding(_running, None):
            self.context.call_on_fit_task_begin(estimator=self.estimator, **self.hooks)

    def end(self, fitted: bool) -> None:
        """Tell callbacks, and whether the estimator could predict now."""
        missing: dict[str, Any] | None = {} if fitted else None  # None hides it from callbacks
        with _holding(_running, None):
            self.stop = self.context.call_on_fit_task_end(
                estimator=self.estimator, reconstruction_attributes=missing, **self.hooks
            )

    @contextmanager
    def run(self, *, fitted: bool = False, inner: Any = None) -> Iterator[Task]:
        """Begin the task, and end it whatever happens.

        Parameters
        ----------
        fitted : bool, default=False
            Whether the estimator can predict after the task.
        inner : estimator, default=None
            The estimator whose `fit` is the task. Gets the callbacks that propagate.
        """
        if self.context is None:
            with _holding(_running, None):
                yield self
            return
        alone = inner is None
        with nullcontext() if alone else self.context.propagate_callback_context(inner):
            self.begin()
            done = False
            try:
                with _holding(_running, self if self.context.max_subtasks else None):
                    yield self
                done = True
            finally:
                self.end(fitted and done)


_running: ContextVar[Task | None] = ContextVar("running", default=None)
_unclaimed: ContextVar[_Blocks | None] = ContextVar("unclaimed", default=None)


@contextmanager
def _holding(variable: ContextVar[Any], value: Any) -> Iterator[None]:
    before = variable.get()
    try:
        variable.set(value)
        yield
    finally:
        variable.set(before)


def fit_tasks(
    count: Callable[[Any], int] = lambda self: 0,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate `fit`, or `_fit_resample`, as the task that contains all others.

    It is the innermost decorator: scikit-learn's `_fit_context` ends the tasks of the estimator,
    and `all_or_nothing` would remove them before.

    Parameters
    ----------
    count : callable
        From the estimator to the number of tasks that `fit` consists of; no more may be begun.

    Returns
    -------
    decorator : callable
    """

    def decorate(fit: Callable[..., Any]) -> Callable[..., Any]:
        name = fit.__name__.removeprefix("_").replace("_", "-")  # as scikit-learn writes it

        @with_callbacks
        @wraps(fit)
        def fit_in_tasks(self: Any, X: Any, y: Any = None, **others: Any) -> Any:
            weight = others.get("sample_weight")
            metadata = None if weight is None else {"sample_weight": weight}
            context = self._init_callback_context(task_name=name, max_subtasks=int(count(self)))
            with Task(context, self, {"X": X, "y": y, "metadata": metadata}).run(fitted=True):
                return fit(self, X, y, **others)

        return fit_in_tasks

    return decorate


def task(name: str, n_tasks: int = 0, *, fitted: bool = False, inner: Any = None) -> Any:
    """Return a context manager that runs a task of `fit`, and yields it.

    Parameters
    ----------
    name : str
    n_tasks : int, default=0
        The most tasks that may be begun inside. With 0 none are, whatever is called there.
    fitted, inner : object
        See `Task.run`.

    Returns
    -------
    context : context manager
    """
    whole, part = _running.get(), Task(None, None, {})
    # without callbacks only the estimators inside, which may have some, need to know their place
    if whole is not None and (n_tasks or inner is not None or whole.is_watched):
        part = whole.subtask(name, n_tasks)
    return part.run(fitted=fitted, inner=inner)


@contextmanager
def pass_task(name: str, n_batches: int) -> Iterator[None]:
    """Run a pass over samples as a task, whose parts are blocks of the samples.

    What counts the samples is the first bar that `progress` opens inside.

    Parameters
    ----------
    name : str
    n_batches : int
        Number of batches of the pass, and the most blocks.
    """
    with task(name, max(1, min(n_batches, _MOST_BLOCKS))) as whole:
        if not whole.is_watched:
            with _holding(_running, None):
                yield
            return
        with ExitStack() as running:
            blocks = _Blocks(whole, running)
            with _holding(_running, None), _holding(_unclaimed, blocks):
                yield


class _Blocks:
    """Blocks of a pass: tasks of at least 10 ms, except the last.

    Parameters
    ----------
    whole : Task
        The pass.
    running : ExitStack
        Holds the block that runs.
    """

    def __init__(self, whole: Task, running: ExitStack) -> None:
        self.whole, self.running, self.n = whole, running, 0
        self._begin()

    def _begin(self) -> None:
        self.start = time.perf_counter()
        self.running.enter_context(self.whole.subtask("block").run())

    def count(self, done: int, total: int) -> None:
        """End a block if enough is done, and begin the next one."""
        enough = done * self.whole.context.max_subtasks >= (self.n + 1) * total
        if enough and done < total and time.perf_counter() - self.start >= _BLOCK_SECONDS:
            self.running.close()
            self.n += 1
            self._begin()


def counted(bar: Any, total: int) -> Any:
    """Return a progress bar that also counts the blocks of the pass, if it is its first bar."""
    blocks = _unclaimed.get()
    if blocks is None:
        return bar
    _unclaimed.set(None)
    return _Counted(bar, total, blocks)


class _Counted:
    """A progress bar that counts blocks."""

    def __init__(self, bar: Any, total: int, blocks: _Blocks) -> None:
        self.bar, self.total, self.blocks, self.n = bar, total, blocks, 0

    def __enter__(self) -> _Counted:
        self.bar.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.bar.__exit__(*error)

    def update(self, n: int = 1) -> None:
        self.n += n
        self.bar.update(n)
        self.blocks.count(self.n, self.total)
