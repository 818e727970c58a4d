"""Where the documentation of the estimators is."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from skboundary import __version__

URL = "https://skboundary.readthedocs.io/en/{version}/generated/skboundary.{estimator_name}.html"


class DocLinkMixin:
    """Link the HTML representation of an estimator to its page in the API reference."""

    _doc_link_module = "skboundary"
    _doc_link_template = URL

    def _doc_link_url_param_generator(self) -> dict[str, str]:
        version = "latest" if "dev" in __version__ else f"v{__version__}"
        return {"version": version, "estimator_name": type(self).__name__}
