"""Check the built site: internal links resolve, names have pages, examples are quick.

    python docs/check_site.py OUT

OUT is the folder that ``python -m sphinx -b html docs OUT`` wrote. An example should take less than
15 seconds on a quiet core; the limit is three times as long, as other work may share the machine.
"""

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import skboundary

MAX_SECONDS = 45
TIMES = "sphinx-gallery/junit-results.xml"


class Page(HTMLParser):
    """The anchors of a page, and what it links to."""

    def __init__(self, path: Path):
        super().__init__()
        self.anchors, self.links = {"", "#"}, []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors |= {attrs[name] for name in ("id", "name") if attrs.get(name)}
        self.links += [attrs[name] for name in ("href", "src") if attrs.get(name)]


def broken_links(site: Path) -> Iterator[str]:
    """Yield each page and link of a site whose file or anchor does not exist."""
    pages = {path: Page(path) for path in site.rglob("*.html") if "_static" not in path.parts}
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            found = target.exists()
            # viewcode names anchors after the first module that documents a name of a source file
            from_source = "_modules" in path.parts
            if found and target in pages and parts.fragment and not from_source:
                found = unquote(parts.fragment) in pages[target].anchors
            if not found:
                yield f"{path.relative_to(site)}: {link}"


def missing_pages(site: Path) -> list[str]:
    """Names of the package without a page of that name."""
    pages = [f"generated/skboundary.{name}.html" for name in skboundary.__all__]
    return [page for page in pages if not (site / page).exists()]


def slow_examples(site: Path) -> Iterator[str]:
    """Yield each example that took longer than the limit."""
    for case in ElementTree.parse(site / TIMES).iter("testcase"):
        if float(case.get("time", "0")) > MAX_SECONDS:
            yield f"{case.get('file')}: {case.get('time')} s, more than {MAX_SECONDS}"


def main(site: Path) -> None:
    problems = [*broken_links(site), *missing_pages(site), *slow_examples(site)]
    if problems:
        raise SystemExit("\n".join(problems))
    cases = ElementTree.parse(site / TIMES).iter("testcase")
    for case in sorted(cases, key=lambda case: -float(case.get("time", "0"))):
        print(f"{float(case.get('time', '0')):6.1f} s  {case.get('file')}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
