"""Changed folders of saved estimators: refused with the name of a file and a reason, or harmless.

A reader of the manifest finds what was changed by accident. An attacker computes the hashes again,
so half of the changes come with a right manifest.
"""

import io
import json
import pickle
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import skops.io
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import skboundary as skb
from skboundary._saved._folder import MANIFEST, _hash_of_document, canonical, write_manifest
from skboundary.io import load, save
from tests.io_cases import Net, iris

EVIL = [
    "../../evil",
    "/etc/passwd",
    "os.system",
    "builtins.eval",
    "manifest.json",
    "",
    None,
    True,
    -1,
    0,
    2**70,
    1e400,
    0.5,
    [],
    [[]],
    {},
    {"ref": 0},
    {"ref": 99},
    {"ref": -1},
    {"array": 0},
    {"tensor": 1},
    {"foreign": 0},
    {"foreign": 77},
    {"float": "many"},
    {"dtype": "load"},
    {"device": "cuda:9"},
    {"scalar": "a", "type": "O"},
    {"objects": [1], "shape": [2**40]},
    {"dict": [[[], 1]], "type": "dict"},
    {"dict": [], "type": "eval"},
    {"os.system": "touch evil"},
]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A folder with files of every kind."""
    X, y = iris()
    X = X.astype(np.float32)
    chain = make_pipeline(StandardScaler(), skb.FrozenNetwork(Net(0), classes=["a", "b", "c"]))
    clf = skb.LatentKNNClassifier(FrozenEstimator(chain.fit(X)), random_state=0)
    clf.fit(X, np.array(["a", "b", "c"])[y])
    folder = tmp_path_factory.mktemp("original") / "clf"
    save(clf, folder)
    assert {Path(name).suffix for name in files_of(folder)} == {
        ".json",
        ".npy",
        ".skops",
        ".safetensors",
    }
    return folder


def files_of(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


class Payload:
    """A pickle that creates a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


# ----------------------------------------------------- changes of which the manifest knows nothing


def flip(folder, rng, name):
    data = bytearray((folder / name).read_bytes())
    data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    (folder / name).write_bytes(data)


def truncate(folder, rng, name):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: rng.integers(len(data))])


def append(folder, rng, name):
    (folder / name).write_bytes((folder / name).read_bytes() + rng.bytes(8))


def remove(folder, rng, name):
    (folder / name).unlink()


def add(folder, rng, name):
    (folder / f"{name}.more").write_bytes(rng.bytes(8))


def swap(folder, rng, name):
    others = [
        n for n in files_of(folder) if (folder / n).read_bytes() != (folder / name).read_bytes()
    ]
    other = folder / rng.choice(others)
    data = other.read_bytes()
    other.write_bytes((folder / name).read_bytes())
    (folder / name).write_bytes(data)


def link(folder, rng, name):
    (folder / name).rename(folder.parent / "target")
    (folder / name).symlink_to(folder.parent / "target")


def move(folder, rng, name):
    (folder / name).rename(folder / f"moved-{Path(name).name}")


ACCIDENTS = [flip, truncate, append, remove, add, swap, link, move]


# ------------------------------------------------------------- changes with a manifest to match


def nodes_of(document, path=()):
    """Every container in a document, and the keys in it."""
    if isinstance(document, dict | list):
        keys = range(len(document)) if isinstance(document, list) else [*document]
        for key in keys:
            yield document, key
            yield from nodes_of(document[key])


def edit_json(folder, rng, name):
    for _ in range(rng.integers(1, 3)):
        edited = folder / rng.choice([n for n in files_of(folder) if n.endswith(".json")])
        if edited.name == MANIFEST:
            edited = folder / "estimator.json"
        document = json.loads(edited.read_text())
        nodes = [*nodes_of(document)]
        container, key = nodes[rng.integers(len(nodes))]
        other, from_there = nodes[rng.integers(len(nodes))]
        if rng.random() < 0.15:
            del container[key]
        elif rng.random() < 0.3:
            container[key] = json.loads(json.dumps(other[from_there]))
        else:
            container[key] = EVIL[rng.integers(len(EVIL))]
        edited.write_text(json.dumps(document))


def edit_header(folder, rng, name):
    """Another shape, dtype or order in the header of an array, of the same length."""
    arrays = [n for n in files_of(folder) if n.endswith(".npy")]
    file = folder / rng.choice(arrays)
    data = file.read_bytes()
    header = data[10 : data.index(b"\n")].decode()
    descr, shape = re.search(r"'descr': '(.*?)'", header)[1], re.search(r"\(.*?\)", header)[0]
    changed = [
        header.replace(descr, rng.choice(["<f4", "|O", "<U7", "|V8", "<i8", ">f8", "<M8[D]", "x"])),
        header.replace(
            shape, rng.choice(["(3,)", "(-1,)", "(99999999999, 9999)", "()", "3", "(2.,)"])
        ),
        header.replace("False", rng.choice(["True", "None", "1"])),
        "__import__('os').system('touch evil')",
    ][rng.integers(4)]
    changed = changed.rstrip().ljust(len(header))[: len(header)]
    file.write_bytes(data[:10] + changed.encode() + data[10 + len(header) :])


def pickle_for_array(folder, rng, name):
    """A pickle, alone or in an array of objects, in the place of an array."""
    file = folder / rng.choice([n for n in files_of(folder) if n.endswith(".npy")])
    payload = Payload(folder.parent / "evil")
    if rng.random() < 0.5:
        file.write_bytes(pickle.dumps(payload))
    else:
        np.save(file, np.array([payload] * 3, dtype=object), allow_pickle=True)


def replace_array(folder, rng, name):
    """Another array, with a description to match."""
    edited = folder / "estimator.json"
    document = json.loads(edited.read_text())
    described = document["arrays"][rng.integers(len(document["arrays"]))]
    array = rng.normal(size=rng.integers(0, 4, size=rng.integers(3)))
    array = array.astype(rng.choice(["f8", "f4", "i8", "U3", "?", "M8[D]", "c16"]))
    np.save(folder / described["file"], array)
    described.update(dtype=array.dtype.str, shape=list(array.shape))
    edited.write_text(json.dumps(document))


def other_skops(folder, rng, name):
    """A file of skops that names a function, is a pickle, or is torn."""
    file = folder / rng.choice([n for n in files_of(folder) if n.endswith(".skops")])
    data = file.read_bytes()
    file.write_bytes(
        [
            skops.io.dumps(FunctionTransformer(shutil.rmtree)),
            pickle.dumps(Payload(folder.parent / "evil")),
            data[: rng.integers(len(data))],
            skops.io.dumps({"a": 1}),
            data.replace(b"StandardScaler", b"StandardScalar"),
        ][rng.integers(5)]
    )


def other_weights(folder, rng, name):
    """A header of safetensors with other offsets, shapes or dtypes."""
    file = folder / "weights.safetensors"
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + size]
    old, new = [(b"F32", b"F64"), (b"[4]", b"[9]"), (b"head", b"hat_"), (b":[0,", b":[8,")][
        rng.integers(4)
    ]
    file.write_bytes(data[:8] + header.replace(old, new) + data[8 + size :])


def manifest_entry(folder, rng, name):
    """Names of files in the manifest that lead out of the folder, or another schema."""
    document = json.loads((folder / MANIFEST).read_text())
    names = ["../evil", "/etc/passwd", "a/../../evil", "..\\evil", "C:/evil", "", "a//b", "./a"]
    if rng.random() < 0.7:
        document["files"][str(rng.choice(names))] = "0" * 64
    else:
        document["schema"] = [2, "1", None, 1.0, True][rng.integers(5)]
    return document


FORGERIES = [
    edit_json,
    edit_json,
    edit_json,
    edit_header,
    pickle_for_array,
    replace_array,
    other_skops,
    other_weights,
    flip,
    truncate,
    swap,
    manifest_entry,
]


def forge(folder, document=None):
    """Write a manifest that fits, or the given one with a hash that fits."""
    if document is None:
        write_manifest(folder)
        return
    document["sha256"] = _hash_of_document(document)
    (folder / MANIFEST).write_bytes(canonical(document))


def change(seed, folder):
    """Change a folder; return whether its manifest tells."""
    rng = np.random.default_rng(seed)
    forged = bool(seed % 2)
    changes = FORGERIES if forged else ACCIDENTS
    files = [name for name in files_of(folder) if not (forged and name == MANIFEST)]
    document = changes[rng.integers(len(changes))](folder, rng, str(rng.choice(files)))
    if forged:
        forge(folder, document)
    return not forged


def check(seed, original, tmp_path):
    """One change: refused, or harmless."""
    folder = tmp_path / str(seed) / "clf"
    shutil.copytree(original, folder)
    before = {str(p) for p in tmp_path.rglob("*")}, {*sys.modules}
    is_accident = change(seed, folder)
    made = {str(p) for p in tmp_path.rglob("*")} - before[0]
    try:
        clf = load(folder, Net())
    except ValueError as error:
        assert re.match(r"[\w./\\:-]+\.[a-z]+(\.more)?: ", str(error)), error
        outcome = "refused"
    else:
        assert not is_accident
        assert type(clf) is skb.LatentKNNClassifier
        try:
            clf.predict(iris()[0][:3].astype(np.float32))
        except Exception:
            pass  # wrong numbers are harmless, and so are their errors
        outcome = "loaded"
    after = {str(p) for p in tmp_path.rglob("*")}
    assert after - before[0] <= made | {str(folder / MANIFEST)}, "a file was created"
    assert not Path("evil").exists()
    assert not {name for name in sys.modules if name not in before[1]} & {"antigravity", "this"}
    shutil.rmtree(tmp_path / str(seed))
    return outcome


def check_many(seeds, original, tmp_path):
    outcomes = [check(seed, original, tmp_path) for seed in seeds]
    assert outcomes.count("refused") > 0.7 * len(outcomes)
    return outcomes


@pytest.mark.filterwarnings("ignore")
def test_sixty_changes_are_refused_or_harmless(original, tmp_path):
    check_many(range(60), original, tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_thousand_changes_are_refused_or_harmless(original, tmp_path):
    outcomes = check_many(range(1000), original, tmp_path)
    assert outcomes.count("refused") >= 500  # every accident


def test_a_changed_byte_of_any_file_is_refused(original, tmp_path):
    """Even where the content is valid all the same, such as another weight."""
    for i, name in enumerate(n for n in files_of(original) if n != MANIFEST):
        folder = tmp_path / str(i)
        shutil.copytree(original, folder)
        data = bytearray((folder / name).read_bytes())
        data[-1] ^= 1
        (folder / name).write_bytes(data)
        with pytest.raises(ValueError, match=rf"^{re.escape(name)}: it was changed; its sha256"):
            load(folder, Net())


def forged(original, tmp_path, edit):
    folder = tmp_path / "clf"
    shutil.copytree(original, folder)
    document = json.loads((folder / "estimator.json").read_text())
    edit(document, folder)
    (folder / "estimator.json").write_text(json.dumps(document))
    write_manifest(folder)
    return folder


def _class(name):
    return lambda document, folder: document["objects"][-1].update({"class": name})


def _array(document, folder):
    np.save(
        folder / document["arrays"][0]["file"], np.array([Payload(folder / "evil")], dtype=object)
    )


def _state(**values):
    return lambda document, folder: document["objects"][-1]["state"].update(values)


def _document(key=None, **values):
    def edit(document, folder):
        (document if key is None else document[key][0]).update(values)

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_class("os.system"), "estimator.json: the class 'os.system' is not one of those"),
        (_class("SubspaceMargins"), "object .*, of class SubspaceMargins: it lacks the parameters"),
        (_array, "npy: an npy header with dtype object"),
        (_state(n_neighbors=-2), "estimator.json: The 'n_neighbors' parameter .* Got -2"),
        (_state(predict=1), r"estimator.json: .*\['predict'\] are not attributes of an inst"),
        (_state(_parameter_constraints=1), "are not attributes of an instance"),
        (_state(n_samples_fit_=9), "its latent vectors, outputs or labels are not 9"),
        (_state(_network={"ref": 10**6}), "1000000 is not the number of one of the"),
        (_document(schema=2), "estimator.json: the folder has schema 2, and .* reads schema 1"),
        (
            _document("arrays", file="../clf/manifest.json"),
            "estimator.json: '../clf/manifest.json'",
        ),
        (_document("parts", file="/etc/hosts"), "'/etc/hosts' is not a file of manifest.json"),
        (_document(**{"class": "FrozenNetwork"}), "the estimator is not a FrozenNetwork"),
    ],
)
def test_content_is_checked_where_hashes_are_right(original, tmp_path, edit, message):
    folder = forged(original, tmp_path, edit)
    with pytest.raises(ValueError, match=message):
        load(folder, Net(), objects=None)
    assert not (folder / "evil").exists()


@pytest.mark.parametrize("name", ["TorchNetwork", "FrozenEstimator"])
def test_a_part_of_an_estimator_is_not_returned_as_one(original, tmp_path, name):
    def edit(document, folder):
        number = [entry["class"] for entry in document["objects"]].index(name)
        document.update({"class": name, "estimator": {"ref": number}})

    with pytest.raises(ValueError, match=f"estimator.json: .*{name} cannot be saved"):
        load(forged(original, tmp_path, edit), Net())


@pytest.mark.parametrize("position", [-1, 625, 10**9, 1.0])
def test_a_random_state_that_would_read_outside_of_its_memory_is_refused(tmp_path, position):
    search = skb.TorchNearestNeighbors().fit(iris()[0])
    search.random_ = np.random.RandomState(0)
    save(search, tmp_path / "search")

    def edit(document, folder):
        state = document["objects"][0]["state"]["state"]["dict"]
        next(pair for pair in state if pair[0] == "pos")[1] = position

    with pytest.raises(ValueError, match="estimator.json: object 0, of class RandomState"):
        load(forged(tmp_path / "search", tmp_path, edit))


def test_functions_in_files_of_skops_are_refused(original, tmp_path):
    def edit(document, folder):
        part = next(part for part in document["parts"] if part["kind"] == "skops")
        data = skops.io.dumps(FunctionTransformer(shutil.rmtree))
        (folder / part["file"]).write_bytes(data)

    with pytest.raises(ValueError, match=r"parts/.*skops: Untrusted.*shutil.rmtree.*trusted="):
        load(forged(original, tmp_path, edit), Net())


def test_an_unchanged_copy_is_loaded_and_a_pickle_is_not(original, tmp_path):
    assert load(forged(original, tmp_path, lambda *_: None), Net()).n_neighbors == 3
    (tmp_path / "pickled").mkdir()
    buffer = io.BytesIO(pickle.dumps(Payload(tmp_path / "evil")))
    (tmp_path / "pickled" / MANIFEST).write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match="manifest.json: it is not JSON"):
        load(tmp_path / "pickled")
    assert not (tmp_path / "evil").exists()
