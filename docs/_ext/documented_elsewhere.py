"""What the API pages show of members that are documented elsewhere.

Requests of metadata, which scikit-learn adds to every estimator, are left out. Fields of named
tuples are described by the comments behind them. Labels of scikit-learn's site in inherited
docstrings become plain words where they cannot be resolved.
"""

import inspect
import re

from docutils import nodes

SKLEARN_LABELS = {
    "accuracy_score": None,
    "df_output_transform": "user guide of scikit-learn",
    "sphx_glr_auto_examples_miscellaneous_plot_set_output.py": "its example plot_set_output.py",
}


def skip_member(app, what, name, obj, skip, options):
    if re.fullmatch(r"set_\w+_request|get_metadata_routing", name):
        return True
    if (obj.__doc__ or "").startswith("Alias for field number"):
        return True
    return None


def describe_fields(app, what, name, obj, options, lines):
    """Add the section Attributes to a named tuple without one."""
    if what != "class" or not hasattr(obj, "_fields") or "Attributes" in lines:
        return
    lines += ["", "Attributes", "----------"]
    source = re.findall(
        r"^    (\w+): ([^#\n]+?)(?:  # (.*))?$", inspect.getsource(obj), re.MULTILINE
    )
    for field, kind, words in source:
        escaped = re.sub(r"([|*\\])", r"\\\1", words)
        if field in obj._fields:
            lines += [f"{field} : {kind}"] + [f"    {escaped}"] * bool(words)


def as_text(app, env, node, contnode):
    if node["reftarget"] not in SKLEARN_LABELS:
        return None
    words = SKLEARN_LABELS[node["reftarget"]]
    return nodes.inline("", words) if words else contnode


def setup(app):
    app.connect("autodoc-skip-member", skip_member)
    app.connect("autodoc-process-docstring", describe_fields, priority=100)  # before numpydoc
    app.connect("missing-reference", as_text, priority=900)  # after intersphinx
    return {"parallel_read_safe": True}
