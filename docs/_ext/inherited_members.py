"""What the API pages show of members that other packages document.

Requests of metadata, which scikit-learn adds to every estimator, are left out, and so are fields of
named tuples without words of their own. Labels of scikit-learn's site in inherited docstrings stay
plain text where they cannot be resolved.
"""

import re

SKLEARN_LABELS = {
    "accuracy_score",
    "df_output_transform",
    "sphx_glr_auto_examples_miscellaneous_plot_set_output.py",
}


def skip_member(app, what, name, obj, skip, options):
    if re.fullmatch(r"set_\w+_request|get_metadata_routing", name):
        return True
    if (obj.__doc__ or "").startswith("Alias for field number"):
        return True
    return None


def as_text(app, env, node, contnode):
    return contnode if node["reftarget"] in SKLEARN_LABELS else None


def setup(app):
    app.connect("autodoc-skip-member", skip_member)
    app.connect("missing-reference", as_text, priority=900)  # after intersphinx
    return {"parallel_read_safe": True}
