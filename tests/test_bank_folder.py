"""The bank on disk: what is written, what a crash leaves, and what is refused."""

import itertools
import json
import multiprocessing
import os
import pickle
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from skboundary import _bank_folder, _bank_state, _part_array, _part_writer
from skboundary._bank_folder import BankFolder, Block


def samples(n, d=6, c=3, dtype="f4", seed=0):
    rng = np.random.RandomState(seed)
    latent, outputs = rng.randn(n, d).astype(dtype), rng.randn(n, c).astype(dtype)
    return latent, outputs, rng.randint(0, c, n)


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(_part_writer, "PART_BYTES", 10 * 6 * 4)  # ten latent vectors


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """37 samples in parts of 10, 10, 5, 10 and 2."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_part_writer, "PART_BYTES", 10 * 6 * 4)
        path = tmp_path_factory.mktemp("written") / "bank"
        folder = BankFolder.create(path, metric="cosine", digest="ab", classes=[1, 5, 9])
        latent, outputs, labels = samples(37)
        folder.append(latent[:25], outputs[:25], labels[:25])
        folder.append(latent[25:], outputs[25:], labels[25:])
        folder.finish()
    return path


@pytest.fixture
def bank(written, tmp_path, small_parts):
    """A copy, because files may be changed."""
    return BankFolder.open(shutil.copytree(written, tmp_path / "bank"))


def described(folder):
    return json.loads((folder.path / "bank.json").read_text())


def describe(folder, state):
    (folder.path / "bank.json").write_text(json.dumps(state))


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2", "?"])
def test_what_is_appended_is_read_again(tmp_path, monkeypatch, dtype):
    latent, outputs, labels = samples(37, dtype=dtype if dtype[0] == "f" else "f4")
    latent = (latent * 100).astype(dtype)
    monkeypatch.setattr(_part_writer, "PART_BYTES", latent[:9].nbytes)
    made = BankFolder.create(
        tmp_path / "new" / "bank",
        metric="cosine",
        digest="0f",
        classes=np.array(["a", "b", "long name"]),
        layer="hidden",
        pool="avg",
        link="softmax",
        samples={"shape": [2, 3], "dtype": "uint8", "names": None},
    )
    made.append(latent, outputs, labels)
    made.finish()
    for folder in (made, BankFolder.open(made.path), pickle.loads(pickle.dumps(made))):
        for expected, found in zip(
            (latent, outputs, labels), (folder.latent, folder.outputs, folder.labels)
        ):
            np.testing.assert_array_equal(np.asarray(found), expected)
            assert found.dtype == expected.dtype and found.shape == expected.shape
            assert (found.ndim, len(found), found.nbytes) == (expected.ndim, 37, expected.nbytes)
        assert folder.n_samples == 37 and folder.complete
        assert (folder.metric, folder.digest, folder.layer) == ("cosine", "0f", "hidden")
        assert (folder.pool, folder.link) == ("avg", "softmax")
        assert folder.samples == {"shape": [2, 3], "dtype": "uint8", "names": None}
        assert folder.classes.tolist() == ["a", "b", "long name"]
        folder.verify()
    assert sorted(os.listdir(made.path)) == sorted([*made.files, "bank.lock"])


def test_files_are_plain_npy_of_limited_size(bank):
    latent, outputs, labels = samples(37)
    assert [part["stop"] for part in bank.parts] == [10, 20, 25, 35, 37]
    found = [np.load(bank.path / f"latent-0000{i}.npy") for i in range(5)]
    np.testing.assert_array_equal(np.concatenate(found), latent)
    np.testing.assert_array_equal(np.load(bank.path / "outputs-00002.npy"), outputs[20:25])
    np.testing.assert_array_equal(np.load(bank.path / "labels-00004.npy"), labels[35:])
    assert max(array.nbytes for array in found) == 10 * 6 * 4


@pytest.mark.parametrize(
    "key",
    [
        slice(None),
        slice(3, 8),
        slice(8, 31),
        slice(20, 25),
        slice(30, 30),
        slice(-5, None),
        slice(None, None, 7),
        slice(None, None, -1),
        0,
        -1,
        [36, 0, 10, 9, 20, 20],
        [],
        np.array([[0, 36], [24, 25]]),
        np.arange(37) % 3 == 0,
    ],
    ids=str,
)
def test_samples_are_indexed_as_in_one_array(bank, key):
    latent, _, labels = samples(37)
    key_of = np.asarray(key, dtype=int) if isinstance(key, list) else key
    for array, expected in ((bank.latent, latent), (bank.labels, labels)):
        np.testing.assert_array_equal(array[key], expected[key_of])
        assert array[key].dtype == expected.dtype


def test_ranges_of_one_file_are_read_only_views(bank):
    inside = bank.latent[11:19]
    assert not inside.flags.owndata and not inside.flags.writeable
    assert bank.latent[9:11].flags.owndata
    for key in (37, -38, [0, 99], np.ones(3, bool), 1.5, (0, 1)):
        with pytest.raises(IndexError):
            bank.latent[key]
    with pytest.raises(ValueError, match="without a copy"):
        bank.latent.__array__(copy=False)


def test_more_files_than_are_kept_open(bank, monkeypatch):
    monkeypatch.setattr(_part_array, "_OPEN_FILES", 2)
    np.testing.assert_array_equal(BankFolder.open(bank.path).latent[::-1], samples(37)[0][::-1])


def test_an_open_bank_keeps_its_samples_when_others_append(bank):
    other = BankFolder.open(bank.path)
    before = pickle.dumps(bank)
    other.append(*samples(4, seed=1))
    assert other.n_samples == 41 and not other.complete
    assert BankFolder.open(bank.path).n_samples == 41
    for old in (bank, pickle.loads(before)):
        np.testing.assert_array_equal(np.asarray(old.latent), samples(37)[0])
        for write in (lambda: old.append(*samples(1)), old.finish):
            with pytest.raises(ValueError, match="was changed since it was opened"):
                write()


class Crash(BaseException):
    pass


def crash(*_):
    raise Crash


@pytest.mark.parametrize("at", ["sha256", "os.replace", "write_state", "os.fsync"])
def test_a_crash_leaves_the_bank_before_or_after_a_part(bank, monkeypatch, at):
    latent, outputs, labels = samples(25, seed=1)
    with monkeypatch.context() as patch:
        module = _bank_folder if at == "write_state" else _part_writer
        target = module.os if at.startswith("os.") else module
        patch.setattr(target, at.removeprefix("os."), crash)
        with pytest.raises(Crash):
            bank.append(latent, outputs, labels)
    again = BankFolder.open(bank.path)
    assert again.n_samples == bank.n_samples == 37
    np.testing.assert_array_equal(np.asarray(again.latent), samples(37)[0])
    again.append(latent, outputs, labels)  # over the files that were left behind
    np.testing.assert_array_equal(
        np.asarray(BankFolder.open(bank.path).latent), np.concatenate([samples(37)[0], latent])
    )
    again.verify()
    assert not list(bank.path.glob("*.unfinished"))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_samples_before_an_error_are_kept(bank, error):
    latent, outputs, labels = samples(30, seed=1)

    def blocks():
        yield Block(latent[:14], outputs[:14], labels[:14])
        raise error

    with pytest.raises(error):
        bank.extend(blocks())
    again = BankFolder.open(bank.path)
    assert [part["stop"] for part in again.parts][-2:] == [47, 51] and not again.complete
    np.testing.assert_array_equal(again.latent[37:], latent[:14])
    again.verify()


def test_whole_samples_are_kept_when_an_array_cannot_be_written(bank, monkeypatch):
    latent, outputs, labels = samples(6, seed=1)

    class Full:
        def __init__(self, file):
            self.file, self.calls = file, 0

        def write(self, data):
            self.calls += 1
            if self.calls == 2:  # the second block
                raise OSError("No space left on device")
            return self.file.write(data)

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

    begin = _part_writer.PartWriter._begin

    def limited(writer):
        begin(writer)
        writer.files["labels"] = Full(writer.files["labels"])

    monkeypatch.setattr(_part_writer.PartWriter, "_begin", limited)
    with pytest.raises(OSError, match="No space left"):
        bank.extend(Block(*(a[i : i + 3] for a in (latent, outputs, labels))) for i in (0, 3))
    again = BankFolder.open(bank.path)
    np.testing.assert_array_equal(again.latent[37:], latent[:3])
    np.testing.assert_array_equal(again.labels[37:], labels[:3])
    again.verify()


def append_slowly(path, started, go_on):
    folder = BankFolder.open(path)

    def blocks():
        yield Block(*samples(3, seed=1))
        started.set()
        go_on.wait(60)

    folder.extend(blocks())


def test_two_processes_cannot_write_at_once(bank):
    context = multiprocessing.get_context("fork" if os.name != "nt" else "spawn")
    started, go_on = context.Event(), context.Event()
    process = context.Process(target=append_slowly, args=(bank.path, started, go_on))
    process.start()
    try:
        assert started.wait(60)
        with pytest.raises(ValueError, match="Another process is writing"):
            bank.append(*samples(2, seed=2))
        with pytest.raises(ValueError, match="Another process is writing"):
            BankFolder.create(bank.path)
    finally:
        go_on.set()
        process.join(60)
    assert BankFolder.open(bank.path).n_samples == 40


def test_the_branch_of_windows_locks_the_first_byte(tmp_path, monkeypatch):
    """Run here, with the lock of this system behind the function of that one."""
    fcntl = pytest.importorskip("fcntl")
    calls = []

    def locking(descriptor, mode, n_bytes):
        calls.append((mode, n_bytes, os.lseek(descriptor, 0, os.SEEK_CUR)))
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2))
    monkeypatch.setattr(_part_writer, "os", SimpleNamespace(name="nt"))
    with _part_writer.locked(tmp_path):
        with pytest.raises(ValueError, match="Another process is writing"):
            with _part_writer.locked(tmp_path):
                pass
    with _part_writer.locked(tmp_path):  # which the end of the first one released
        pass
    assert calls == [(2, 1, 0)] * 3


def test_what_does_not_fit_is_not_appended(bank):
    latent, outputs, labels = samples(5)
    for arrays, message in [
        ((latent.astype("f8"), outputs, labels), r"holds latent \(float32, shape \(6,\)\)"),
        ((latent[:, :5], outputs, labels), "cannot be appended"),
        ((latent, None, labels), "cannot be appended"),
        ((latent, outputs[:4], labels), "differ in length"),
        ((latent[:, 0], outputs, labels), r"latent of a bank must be numbers of shape \(n_samples"),
        ((latent.astype(object), outputs, labels), "got dtype object"),
        ((latent, outputs, labels.astype("U")), "labels of a bank must be numbers"),
    ]:
        with pytest.raises(ValueError, match=message):
            bank.append(*arrays)
    assert BankFolder.open(bank.path).n_samples == 37


@pytest.mark.parametrize(
    "classes",
    [[True, False], [1.0, float("nan")], [2, 1], [1, 1], np.array([1, "a"], object), [b"a"], []],
    ids=str,
)
def test_classes_that_json_cannot_hold_are_refused(tmp_path, classes):
    with pytest.raises(ValueError, match="cannot be stored in a bank"):
        BankFolder.create(tmp_path / "bank", classes=classes)


@pytest.mark.parametrize(
    "classes",
    [
        [0, 1],
        [False, True],
        [0.1, 1e-30],
        ["a", "b"],
        np.array(["x", "yy"], object),
        [2**40, 2**41],
    ],
    ids=str,
)
def test_classes_keep_their_dtype(tmp_path, classes):
    classes = np.sort(np.asarray(classes))
    found = BankFolder.create(tmp_path / "bank", classes=classes).classes
    assert found.dtype == classes.dtype and found.tolist() == classes.tolist()


def test_a_folder_with_something_else_is_not_written_to(tmp_path, bank):
    (tmp_path / "notes.txt").write_text("mine")
    for path in (tmp_path, bank.path):
        with pytest.raises(ValueError, match="is not empty"):
            BankFolder.create(path)
    with pytest.raises(ValueError, match=r"There is no bank in .*bank\.json is missing"):
        BankFolder.open(tmp_path)


def test_an_existing_bank_is_opened_if_it_has_the_same_fields(tmp_path, bank):
    fields = {"metric": "cosine", "digest": "ab", "classes": [1, 5, 9]}
    assert BankFolder.open_or_create(bank.path, **fields).n_samples == 37
    assert BankFolder.open_or_create(tmp_path / "other", **fields).n_samples == 0
    for name, other in [("metric", "euclidean"), ("digest", "cd"), ("classes", [1, 5, 8])]:
        with pytest.raises(ValueError, match=f"was written with {name}=.*, not .*new folder"):
            BankFolder.open_or_create(bank.path, **{**fields, name: other})


def flip(file, place):
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


def test_changed_bytes_are_found_by_verify(bank):
    for name in bank.files[1:]:
        file = bank.path / name
        flip(file, -1)
        folder = BankFolder.open(bank.path)
        with pytest.raises(ValueError, match=f"{name} does not have the sha256"):
            folder.verify()
        flip(file, -1)
    BankFolder.open(bank.path).verify()


class Payload:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def damage(bank, how):
    file = bank.path / "latent-00001.npy"
    array = np.load(file)
    if how == "missing":
        file.unlink()
    elif how == "truncated":
        os.truncate(file, file.stat().st_size - 4)
    elif how == "longer":
        with open(file, "ab") as stream:
            stream.write(b"1234")
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "other file":
        file.write_bytes(b"not an npy file, but as long as one may be" * 20)
    elif how == "object":
        np.save(file, np.array([Payload()], dtype=object), allow_pickle=True)
    elif how == "zip":
        np.savez(bank.path / "z.npz", array)
        shutil.move(bank.path / "z.npz", file)
    else:
        changed = {
            "dtype": lambda: array.astype("f8"),
            "byte order": lambda: array.astype(">f4"),
            "shape": lambda: array.reshape(20, 3),
            "order": lambda: np.asfortranarray(array),
            "fewer": lambda: array[:9],
        }
        np.save(file, changed[how]())


@pytest.mark.parametrize(
    "how",
    ["missing", "truncated", "longer", "empty", "other file", "object", "zip", "dtype", "shape"]
    + ["order", "fewer", "byte order"],
)
def test_a_damaged_part_is_refused(bank, how, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    damage(bank, how)
    with pytest.raises(ValueError, match=r"latent-00001\.npy"):
        BankFolder.open(bank.path)
    assert not (tmp_path / "executed").exists()


CHANGES = {
    "schema": lambda s: s.update(schema=2),
    "schema of another type": lambda s: s.update(schema=True),
    "unknown field": lambda s: s.update(code="import os"),
    "missing field": lambda s: s.pop("metric"),
    "metric": lambda s: s.update(metric="l7"),
    "digest": lambda s: s.update(digest=5),
    "layer": lambda s: s.update(layer=["a"]),
    "complete": lambda s: s.update(complete=1),
    "classes": lambda s: s["classes"].update(values=[9, 5, 1]),
    "labels of several types": lambda s: s["classes"].update(values=[1, "5", 9]),
    "dtype of classes": lambda s: s["classes"].update(dtype="O"),
    "samples": lambda s: s.update(samples={"shape": [-1], "dtype": "f4", "names": None}),
    "dtype": lambda s: s["arrays"]["latent"].update(dtype="object"),
    "no such dtype": lambda s: s["arrays"]["latent"].update(dtype="int3"),
    "structured dtype": lambda s: s["arrays"]["latent"].update(dtype="f4,f4"),
    "shape": lambda s: s["arrays"]["latent"].update(shape=[-6]),
    "axes": lambda s: s["arrays"]["latent"].update(shape=[2, 3]),
    "huge shape": lambda s: s["arrays"]["latent"].update(shape=[10**300]),
    "unknown array": lambda s: s["arrays"].update({"../../etc": s["arrays"]["latent"]}),
    "no latent vectors": lambda s: s["arrays"].pop("latent"),
    "arrays of another type": lambda s: s.update(arrays=[1]),
    "gap": lambda s: s["parts"].pop(1),
    "empty part": lambda s: s["parts"][0].update(stop=0),
    "negative part": lambda s: s["parts"][0].update(start=-5),
    "part of another type": lambda s: s["parts"].__setitem__(0, 5),
    "fractions": lambda s: s["parts"][0].update(stop=10.0),
    "checksum": lambda s: s["parts"][0]["sha256"].update(latent="zz"),
    "no checksum": lambda s: s["parts"][0]["sha256"].pop("latent"),
    "parts missing": lambda s: s.update(parts=[]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_wrong_description_is_refused(bank, change):
    state = described(bank)
    CHANGES[change](state)
    describe(bank, state)
    with pytest.raises(ValueError, match=r"bank\.json is not valid: "):
        BankFolder.open(bank.path)


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "nul", "[" * 10**5, "{}", "\xff", '{"schema": ' + "9" * 5000 + "}"]
)
def test_an_unreadable_description_is_refused(bank, text):
    (bank.path / "bank.json").write_bytes(text.encode("latin1"))
    with pytest.raises(ValueError, match=r"bank\.json (cannot be read|is not valid)"):
        BankFolder.open(bank.path)


def test_an_unpickled_bank_without_its_folder_says_so(bank, small_parts):
    pickled = pickle.dumps(bank)
    shutil.rmtree(bank.path)
    with pytest.raises(ValueError, match="There is no bank in"):
        _ = pickle.loads(pickled).latent
    other = BankFolder.create(bank.path, metric="cosine", digest="ab", classes=[1, 5, 9])
    other.append(*samples(37, seed=3))
    with pytest.raises(ValueError, match="holds another bank"):
        _ = pickle.loads(pickled).latent


def test_sample_keys_are_digested_part_by_part(tmp_path, small_parts):
    latent, _, _ = samples(23)
    keys = [bytes([i]) * 16 for i in range(23)]
    digests = []
    for i, blocks in enumerate([[0, 23], [0, 3, 12, 23]]):
        folder = BankFolder.create(tmp_path / str(i))
        folder.extend(Block(latent[a:b], keys=keys[a:b]) for a, b in itertools.pairwise(blocks))
        digests.append([part["samples"] for part in folder.parts])
    assert digests[0] == digests[1] and len(set(digests[0])) == 3
    folder.append(latent[:1])
    assert folder.parts[-1]["samples"] is None


def test_headers_have_one_length():
    form = _bank_state.Form(np.dtype("f4"), (128,))
    assert len({len(form.header(n)) for n in (0, 1, 10**6, 10**15)}) == 1
