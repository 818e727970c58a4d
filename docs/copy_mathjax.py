"""Copy MathJax into the site before a release: its pages then need no network for formulas.

    python docs/copy_mathjax.py && python -m sphinx -W -b html docs OUT

Downloads two packages from the npm registry by ``npm pack`` and unpacks what the pages load into
``docs/_static/mathjax``, where ``conf.py`` finds it. Without it the pages load MathJax from a CDN.
"""

import subprocess
import tarfile
import tempfile
from pathlib import Path

VERSION = "4.1.3"
FONT = "mathjax-newcm-font"
TARGET = Path(__file__).parent / "_static/mathjax"


def unpack(package: str, target: Path, prefixes: tuple[str, ...]) -> None:
    """Unpack the files of an npm package whose paths begin with one of the prefixes."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", package]
        run = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
        with tarfile.open(Path(folder) / run.stdout.strip()) as archive:
            for member in archive:
                member.name = member.name.removeprefix("package/")
                if member.isfile() and member.name.startswith(prefixes):
                    archive.extract(member, target, filter="data")


if __name__ == "__main__":
    used = ("tex-mml-chtml.js", "input/", "a11y/", "sre/", "ui/", "LICENSE")
    unpack(f"mathjax@{VERSION}", TARGET, used)
    unpack(f"@mathjax/{FONT}@{VERSION}", TARGET / "fonts" / FONT, ("chtml.js", "chtml/", "LICENSE"))
