"""Folders whose manifest holds the hash of every file, and of itself."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
SCHEMA = 1

# Names of files: no "..", no absolute path, no backslash, no drive.
_NAME = re.compile(r"(\w[\w.-]*/)*\w[\w.-]*", re.ASCII)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Fill a folder beside `folder` that takes its place, complete, at the end.

    Raises
    ------
    ValueError
        If `folder` is a file, or contains something.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(
            f"{folder} exists and is not an empty folder. Give the path of a new folder, or remove "
            "this one."
        )
    unfinished = folder.parent / f".{folder.name}-{uuid.uuid4().hex}"
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        write_manifest(unfinished)
        if folder.exists():
            folder.rmdir()
        os.rename(unfinished, folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file that never changes a second name, or copy it where that is not possible."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write_manifest(folder: Path) -> None:
    """Write the manifest of all files in a folder."""
    hashes = {name: _hash_of(path) for name, path in sorted(_files(folder).items())}
    document: dict[str, Any] = {"schema": SCHEMA, "files": hashes}
    document["sha256"] = _hash_of_document(document)
    (folder / MANIFEST).write_bytes(canonical(document))


def check_folder(folder: Path) -> dict[str, Path]:
    """Compare every byte of a folder with its manifest.

    Returns
    -------
    files : dict
        The files that the manifest names.

    Raises
    ------
    ValueError
        That names the file and what is wrong with it.
    """
    document = read_json(folder / MANIFEST)
    if not isinstance(document, dict) or set(document) != {"schema", "files", "sha256"}:
        raise ValueError(f"{MANIFEST}: it is not the manifest of a saved estimator.")
    check_schema(MANIFEST, document["schema"])
    if document["sha256"] != _hash_of_document(document):
        raise ValueError(f"{MANIFEST}: it was changed; its sha256 is not the one that it states.")
    if (folder / MANIFEST).read_bytes() != canonical(document):
        raise ValueError(f"{MANIFEST}: it was changed; its form is not the one that save writes.")
    expected = document["files"]
    if not isinstance(expected, dict):
        raise ValueError(f"{MANIFEST}: it does not name files and their hashes.")
    wrong = [name for name in expected if not _NAME.fullmatch(name) or name == MANIFEST]
    if wrong:
        raise ValueError(f"{MANIFEST}: {wrong[0]!r} is not the name of a file in a saved folder.")
    files = _files(folder)
    for name in sorted(expected.keys() | files.keys()):
        if name not in files:
            raise ValueError(f"{name}: it is missing.")
        if name not in expected:
            raise ValueError(f"{name}: it is not in {MANIFEST}. Remove it.")
        if _hash_of(files[name]) != expected[name]:
            raise ValueError(f"{name}: it was changed; its sha256 is not that in {MANIFEST}.")
    return files


def file_named(files: dict[str, Path], name: Any) -> Path:
    """Return a file of the manifest; a name that it lacks, such as "../x", is a ValueError."""
    if name not in files:
        raise ValueError(f"{name!r} is not a file of {MANIFEST}")
    return files[name]


def check_schema(name: str, schema: Any) -> None:
    """Raise a ValueError for another version of the layout."""
    if schema != SCHEMA or type(schema) is not int:
        raise ValueError(
            f"{name}: the folder has schema {schema!r}, and this version of skboundary reads "
            f"schema {SCHEMA}. Load it with the version that saved it, or save it again."
        )


def read_json(path: Path) -> Any:
    """Read a JSON file, with a ValueError that names it."""
    try:
        return json.loads(path.read_bytes(), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise ValueError(f"{path.name}: it is missing.") from None
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(f"{path.name}: it is not JSON ({error}).") from None


def canonical(document: Any) -> bytes:
    """JSON in the form of which hashes are taken: sorted keys, no NaN."""
    text = json.dumps(document, sort_keys=True, indent=1, allow_nan=False)
    return text.encode() + b"\n"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _hash_of_document(document: dict[str, Any]) -> str:
    rest = {name: value for name, value in document.items() if name != "sha256"}
    return hashlib.sha256(canonical(rest)).hexdigest()


def _hash_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path, prefix: str = "") -> dict[str, Path]:
    """All files below a folder but the manifest; links and other things are refused."""
    found: dict[str, Path] = {}
    for entry in os.scandir(folder):
        name = prefix + entry.name
        if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
            raise ValueError(f"{name}: it is neither a file nor a folder.")
        if entry.is_dir():
            found |= _files(Path(entry), f"{name}/")
        elif name != MANIFEST:
            found[name] = Path(entry)
    return found
