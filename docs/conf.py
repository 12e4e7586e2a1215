"""Configuration of the documentation; build it with ``sphinx-build -W docs docs/_build/html``."""

import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("MPLBACKEND", "Agg")

import randla

project = "randla"
author = "The randla developers"
copyright = "2026, The randla developers"
version = release = randla.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "auto_gallery/*.ipynb", "auto_gallery/*.py", "auto_gallery/*.md5", "gallery/*.rst"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autosummary_generate = True
templates_path = ["_templates"]
autodoc_typehints = "none"  # the numpydoc sections say more than the hints
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "filename_pattern": r"plot_",
    "abort_on_example_error": True,
    "capture_repr": (),  # a figure needs no repr beside it
    "show_memory": False,
    "min_reported_time": 1,
    "download_all_examples": False,
}

html_theme = "pydata_sphinx_theme"
html_title = "randla"
html_sidebars = {"[!a]*": []}  # pages outside of api/ and auto_gallery/ have no sections to list
html_show_sourcelink = False
html_theme_options = {"show_prev_next": False, "navigation_with_keys": False, "secondary_sidebar_items": ["page-toc"]}


def escape_trailing_underscores(app, what, name, obj, options, lines):  # noqa: ARG001  # the signature that Sphinx calls
    """Keep ``n_components_`` in a shape from being read as a link; numpydoc looks after the names at the margin."""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>> ", "... ")):
            names = re.match(r"(?:\w[\w, ]* : )?", line)[0]
            rest = line.removeprefix(names)
            lines[i] = names + re.sub(r"(`+.*?`+)|\b(\w+)_(?![\w`])", lambda word: word[1] or f"{word[2]}\\_", rest)


def setup(app):
    app.connect("autodoc-process-docstring", escape_trailing_underscores, priority=100)  # before numpydoc, at 500
