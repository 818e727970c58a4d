"""Configuration of the documentation site, built by

    python -m sphinx -W --keep-going -b html docs OUT

without a network, after ``pip install -c constraints.txt -e ".[docs]"``. Two variables change it:
with SKBOUNDARY_INTERSPHINX=1 references to other projects become links, which takes a network, and
SKBOUNDARY_GALLERY=0 leaves the examples of the gallery unexecuted.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

import skboundary  # noqa: E402

project = "skboundary"
copyright = "the skboundary developers"
version = release = skboundary.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
    "sphinx_design",
    "sphinx_copybutton",
    "documented_elsewhere",
    "benchmark_results",
]
root_doc = "index"
templates_path = ["_templates"]
exclude_patterns = ["_build", "_ext", "_templates", "examples", "**/sg_execution_times.rst"]
default_role = "literal"
rst_prolog = ".. currentmodule:: skboundary\n"
suppress_warnings = ["config.cache"]  # the gallery's sort key is a class

autosummary_generate = True
autodoc_typehints = "none"
toc_object_entries_show_parents = "hide"
smartquotes = False  # quotes are those of Python
copybutton_exclude = ".linenos, .gp, .go"
numpydoc_show_class_members = False

# every reference to a name of this package resolves, those to other projects with a network
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(sklearn|imblearn|matplotlib|numpy|torch|skorch|joblib)\..*")]
intersphinx_mapping = {}
if os.environ.get("SKBOUNDARY_INTERSPHINX") == "1":
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "sklearn": ("https://scikit-learn.org/stable", None),
        "imblearn": ("https://imbalanced-learn.org/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
        "matplotlib": ("https://matplotlib.org/stable", None),
    }

sphinx_gallery_conf = {
    "examples_dirs": ["examples"],
    "gallery_dirs": ["auto_examples"],
    "plot_gallery": os.environ.get("SKBOUNDARY_GALLERY", "1") == "1",
    "abort_on_example_error": True,
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("skboundary",),
    "write_computation_times": False,
    "remove_config_comments": True,
    "show_memory": False,
    "junit": "sphinx-gallery/junit-results.xml",  # times, for check_site.py
    "reset_modules": ("matplotlib",),
}

html_theme = "pydata_sphinx_theme"
html_title = f"skboundary {release}"
html_static_path = ["_static"]
html_copy_source = False
html_css_files = ["site.css"]
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "skboundary"},
    "navbar_align": "left",
    "navigation_with_keys": False,
    "header_links_before_dropdown": 5,
    "show_toc_level": 2,
    "show_prev_next": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}
html_sidebars = {
    name: [] for name in ("index", "quickstart", "benchmarks", "glossary", "references")
}

# copy_mathjax.py puts it there before a release; otherwise the pages load it from a network
if (HERE / "_static/mathjax").is_dir():
    mathjax_path = "mathjax/tex-mml-chtml.js"
    mathjax4_config = {"loader": {"paths": {"fonts": "[mathjax]/fonts"}}}
