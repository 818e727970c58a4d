"""What a network computes has one key in every process, and no other network has it."""

import copy
import enum
import functools
import pickle
import re
import sys
import threading
import types
import warnings

import joblib
import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC
from torch import nn

from skboundary.networks._digest import digest


def made(source, name, **variables):
    """Run source code and return what it defines."""
    space = {"__name__": "made", "torch": torch, "nn": nn, "np": np, **variables}
    exec(source, space)
    return space[name]


def net(forward="return x", init="pass", rest="", **variables):
    source = f"""
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        {init}
    def forward(self, x):
        {forward}
    {rest}
"""
    return made(source, "Net", **variables)()


def function(body, **variables):
    return made(f"def f(x):\n    {body}", "f", **variables)


def long(i):
    """3,072 numbers; one in the middle, which repr leaves out, is i."""
    values = np.zeros(3072)
    values[1500] = i
    return values


def closure(value):
    return lambda x: x - value


class Norm:
    def __init__(self, shift):
        self.shift = shift

    def apply(self, x):
        return x - self.shift

    def __call__(self, x):
        return x - self.shift


class Slots:
    __slots__ = ("shift",)

    def __init__(self, shift):
        self.shift = shift


class Color(enum.Enum):
    RED = 0
    BLUE = 1


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def hooked(*hooks, pre=False, **options):
    module = nn.Identity()
    for hook in hooks:
        register = module.register_forward_pre_hook if pre else module.register_forward_hook
        register(hook, **options)
    return module


def helpers(i):
    module = types.ModuleType("helpers")
    exec(f"def scale(x): return x * {i}\nother = object()", module.__dict__)
    return module


def named(**values):
    return types.SimpleNamespace(**values)


PAIRS = {
    "a constant of forward": lambda i: net(f"return x * {i}"),
    "a function that forward calls": lambda i: net(f"return torch.{['relu', 'tanh'][i]}(x)"),
    "an attribute": lambda i: net(init=f"self.slope = {i}"),
    "a float in its fifth digit": lambda i: net(init=f"self.slope = 1.0000{i}"),
    "a function as attribute": lambda i: net(init=f"self.f = torch.{['relu', 'tanh'][i]}"),
    "a helper method": lambda i: net("return self.g(x)", rest=f"def g(self, x): return x * {i}"),
    "a property": lambda i: net(rest=f"a = property(lambda self: {i})"),
    "a static method": lambda i: net(rest=f"a = staticmethod(lambda x: x * {i})"),
    "a class attribute": lambda i: net(rest=f"a = {i}"),
    "a method of a parent": lambda i: made(
        f"class A(nn.Module):\n  def g(self, x): return x * {i}\nclass B(A): pass", "B"
    )(),
    "a class inside": lambda i: nn.Sequential(nn.ReLU(), net(f"return x * {i}")),
    "a decorated forward": lambda i: made(
        f"class A(nn.Module):\n  @torch.no_grad()\n  def forward(self, x): return x * {i}", "A"
    )(),
    "a buffer": lambda i: net(init=f"self.register_buffer('b', torch.ones(2) * {i})"),
    "the dtype of a buffer": lambda i: net(
        init=f"self.register_buffer('b', torch.zeros(2, dtype=torch.{['int32', 'float32'][i]}))"
    ),
    "a global number": lambda i: function("return x - MEAN", MEAN=float(i)),
    "a global tensor": lambda i: function("return x - MEAN", MEAN=torch.tensor(long(i))),
    "a global function": lambda i: function("return g(x)", g=function(f"return x * {i}")),
    "a global of a global function": lambda i: function(
        "return g(x)", g=function("return x * MEAN", MEAN=i)
    ),
    "a global of a lambda inside": lambda i: function("return (lambda a: a * MEAN)(x)", MEAN=i),
    "a lambda inside": lambda i: function(f"return (lambda a: a * {i})(x)"),
    "a comprehension inside": lambda i: function(f"return sum(a * {i} for a in x)"),
    "a module of the user's": lambda i: function("return m.scale(x)", m=helpers(i)),
    "a module as a value": lambda i: function("return g(m)(x)", m=helpers(i), g=len),
    "a closed-over tensor": lambda i: closure(torch.tensor(long(i))),
    "a closed-over array": lambda i: closure(long(i)),
    "a closed-over function": lambda i: closure(function(f"return {i}")),
    "a bound method": lambda i: Norm(i).apply,
    "a callable object": lambda i: Norm(i),
    "a slot": lambda i: Slots(i),
    "a default": lambda i: made(f"def f(x, a={i}): return x * a", "f"),
    "a keyword default": lambda i: made(f"def f(x, *, a={i}): return x * a", "f"),
    "an argument of a partial": lambda i: functools.partial(torch.clamp, min=i),
    "a function behind a cache": lambda i: functools.lru_cache(function(f"return x * {i}")),
    "an attribute of a function": lambda i: vars(f := function("return f.a")).update(a=i) or f,
    "heads of attention": lambda i: seeded(lambda: nn.MultiheadAttention(8, [2, 4][i])),
    "the activation of a transformer": lambda i: seeded(
        lambda: nn.TransformerEncoderLayer(8, 2, activation=["relu", "gelu"][i])
    ),
    "norm_first of a transformer": lambda i: seeded(
        lambda: nn.TransformerEncoderLayer(8, 2, norm_first=bool(i))
    ),
    "a hook": lambda i: hooked(made(f"def h(m, a, out): return out * {i}", "h")),
    "a hook before": lambda i: hooked(made(f"def h(m, a): return {i}", "h"), pre=True),
    "a hook that takes keywords": lambda i: hooked(print, with_kwargs=bool(i)),
    "the order of hooks": lambda i: hooked(*[print, len][:: 1 - 2 * i]),
    "a hook or none": lambda i: hooked(*[print][:i]),
    "an enum": lambda i: named(a=list(Color)[i]),
    "a pattern": lambda i: named(a=re.compile(str(i))),
    "a set": lambda i: named(a={"a", "b", str(i)}),
    "a scalar": lambda i: named(a=np.float32(i)),
    "the dtype of a scalar": lambda i: named(a=[np.float32, np.float64][i](0)),
    "a record": lambda i: named(a=np.array([(i, 1.0)], dtype=[("a", "i1"), ("b", "f8")])),
    "an array of objects": lambda i: named(a=np.array(["a", i], dtype=object)),
    "a mask": lambda i: named(a=np.ma.array([0, 1], mask=[i, 0])),
    "a sparse matrix": lambda i: named(a=sparse.csr_matrix([[0, i + 1]])),
    "the order of a dict": lambda i: named(a=dict([("a", 1), ("b", 2)][:: 1 - 2 * i])),
    "who is shared": lambda i: named(a=(shared := [1]), b=[shared, [2]][i]),
    "number or text": lambda i: named(a=[1, "1"][i]),
    "True or 1": lambda i: named(a=[1, True][i]),
    "a mode that nobody sets": lambda i: closure(nn.Dropout().train(bool(i))),
}


@pytest.mark.parametrize("what", PAIRS)
def test_a_key_tells_networks_apart(what):
    make = PAIRS[what]
    assert digest(part=make(0)) == digest(part=make(0)) != digest(part=make(1))


def test_what_changes_no_output_changes_no_key(tmp_path):
    source = "class Net(nn.Module):\n    def forward(self, x):\n        return x * 2\n"
    key = digest(part=made(source, "Net")())
    moved = "\n\n# a comment\n" + source.replace("return", "\n        # why\n        return")
    assert digest(part=made(moved, "Net")()) == key

    several = [hooked(print), hooked(print)]  # hooks are numbered in a process
    assert digest(part=several[0]) == digest(part=several[1])

    array = np.arange(6.0)
    np.save(tmp_path / "a.npy", array)
    assert digest(part=np.load(tmp_path / "a.npy", mmap_mode="r")) == digest(part=array)
    assert digest(part=array[::2]) == digest(part=array[::2].copy())
    assert digest(part=np.asfortranarray(array.reshape(2, 3))) == digest(part=array.reshape(2, 3))

    weight = nn.Linear(2, 2)
    key = digest(part=weight)
    weight(torch.ones(1, 2)).sum().backward()
    assert digest(part=weight.requires_grad_(False)) == key


class Cycle:
    def __init__(self, name):
        self.name, self.other = name, None


def test_objects_that_hold_each_other():
    def ring(names):
        ring = [Cycle(name) for name in names]
        for one, two in zip(ring, ring[1:] + ring[:1]):
            one.other = two
        return ring[0]

    assert digest(part=ring("abc")) == digest(part=pickle.loads(pickle.dumps(ring("abc"))))
    assert len({digest(part=ring(names)) for names in ("a", "ab", "abc", "abd", "aa")}) == 5
    one, two = ring("abc"), ring("abc")
    one.other.other.other = one.other  # back to the second, not to the first
    assert digest(part=one) != digest(part=two)
    even = made("def f(n): return n == 0 or g(n - 1)\ndef g(n): return n != 0 and f(n - 1)", "f")
    assert digest(part=even) == digest(part=even)


@pytest.mark.parametrize(
    "head",
    [
        HistGradientBoostingClassifier(max_iter=2),
        RandomForestClassifier(2),
        SVC(),
        KNeighborsClassifier(algorithm="kd_tree"),
        CalibratedClassifierCV(GaussianNB(), cv=2),
        GridSearchCV(SVC(), {"C": [0.1, 1.0]}, cv=2),
        make_pipeline(StandardScaler(), FunctionTransformer(np.cbrt), SVC()),
    ],
    ids=lambda head: type(head).__name__,
)
def test_the_key_of_a_black_box_survives_copies_and_use(iris, head):
    X, y = iris
    key = digest(head=head.fit(X, y))
    for other in (pickle.loads(pickle.dumps(head)), copy.deepcopy(head)):
        assert digest(head=other) == digest(head=pickle.loads(pickle.dumps(other))) == key
    head.predict(X)
    assert digest(head=head) == key != digest(head=head.fit(X[::2], y[::2]))


class Times(nn.Linear):
    factor = 1

    def forward(self, x):
        return super().forward(x) * self.factor


def test_a_skorch_net_inside_a_black_box(iris, monkeypatch):
    X, y = iris[0].astype("f4"), iris[1]
    skorch = pytest.importorskip("skorch")
    net = skorch.NeuralNetClassifier(
        Times,
        module__in_features=4,
        module__out_features=3,
        max_epochs=1,
        criterion=nn.CrossEntropyLoss,
        verbose=0,
    )
    seeded(lambda: net.fit(X, y))
    head = CalibratedClassifierCV(FrozenEstimator(net)).fit(X, y)
    key = digest(head=head)
    head.predict(X)
    assert digest(head=head) == digest(head=pickle.loads(pickle.dumps(head))) == key
    monkeypatch.setattr(Times, "factor", 2)
    assert digest(head=head) != key


def test_sparse_data_keep_their_key_in_use(iris):
    X, y = sparse.csr_matrix(iris[0]), iris[1]
    head = SVC().fit(X, y)
    key = digest(head=head)
    head.predict(X)
    assert digest(head=head) == key


def test_recurrent_and_traced_networks():
    for make in (lambda: nn.LSTM(3, 4), lambda: torch.fx.symbolic_trace(nn.Linear(3, 2))):
        module = make()
        key = digest(part=module)
        assert digest(part=pickle.loads(pickle.dumps(module))) == key
        assert digest(part=copy.deepcopy(module)) == key != digest(part=make())


def test_what_cannot_be_read_is_named():
    bad = net(init="self.body = nn.ReLU()")
    bad.body.state = {"guard": [threading.Lock()]}
    with pytest.raises(ValueError, match=r"module.body.state\['guard'\]\[0\] .*lock.*memory_key"):
        digest(module=bad)
    with pytest.raises(ValueError, match="preprocess<global LOCK> .*lock.*memory_key"):
        digest(preprocess=function("return LOCK", LOCK=threading.Lock()))
    with pytest.raises(ValueError, match="generator"):
        digest(part=named(a=(i for i in "ab")))
    with pytest.raises(ValueError, match="ufunc"):
        digest(part=np.frompyfunc(lambda x: x, 1, 1))
    with warnings.catch_warnings(), pytest.raises(ValueError, match="ScriptModule"):
        warnings.simplefilter("ignore")
        digest(part=torch.jit.script(nn.ReLU()))
    with pytest.raises(ValueError, match="Tensor"):
        digest(part=torch.ones(2, device="meta"))
    deep = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(ValueError, match="nested too deeply.*memory_key"):
        digest(part=deep)


def test_an_edited_file_has_another_key(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    helper, user = tmp_path / "sb_helper.py", tmp_path / "sb_user.py"
    user.write_text(
        "import sb_helper\n"
        "from sb_helper import scale\n"
        "def by_module(x): return sb_helper.scale(x)\n"
        "def by_name(x): return scale(x)\n"
        "def inside(x):\n    import sb_helper\n    return sb_helper.scale(x)\n"
        "def name_inside(x):\n    from sb_helper import scale\n    return scale(x)\n"
    )
    names = ("by_module", "by_name", "inside", "name_inside")
    keys = []
    for factor in (2, 3, 2):
        helper.write_text(f"def scale(x): return x * {factor}\n")
        for name in ("sb_user", "sb_helper"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        module = __import__("sb_user")
        keys.append([digest(f=getattr(module, name)) for name in names])
    assert keys[0] == keys[2]
    assert all(one != two for one, two in zip(*keys[:2]))


def test_installed_code_goes_by_name_and_version(monkeypatch):
    from skboundary.networks import _digest

    functions = [torch.relu, nn.functional.relu, np.exp, np.dot, nn.ReLU, joblib.hash, print, torch]
    keys = [digest(f=f) for f in functions]
    assert len(set(keys)) == len(keys)
    monkeypatch.setattr(_digest, "version_of", lambda module: "another")
    assert not set(keys) & {digest(f=f) for f in functions}


def test_packages_in_a_folder_of_their_own_are_installed(tmp_path, monkeypatch):
    """As ``pip install --target`` puts them, the user's own modules beside them."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "sb_package").mkdir()
    info = tmp_path / "sb_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: sb-package\nVersion: 1.0\n")
    (info / "RECORD").write_text("sb_package-1.0.dist-info/RECORD,,\nsb_package/__init__.py,,\n")
    keys = []
    for factor in (2, 3):
        for file in ("sb_package/__init__.py", "sb_module.py"):
            (tmp_path / file).write_text(f"def scale(x): return x * {factor}\n")
        for name in ("sb_package", "sb_module"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        keys.append([digest(f=__import__(name).scale) for name in ("sb_package", "sb_module")])
    (installed, edited), (again, other) = keys
    assert installed == again and edited != other
