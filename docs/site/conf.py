"""The site of the documentation: `make docs` builds it from the pages beside, the results and the docstrings."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
import tempfile
import warnings
from pathlib import Path

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["LOTTO_STORE"] = tempfile.mkdtemp(prefix="lotto-docs-")  # every page computes what it shows

project, author, copyright = "lotto", "the lotto authors", "the lotto authors"
version = release = importlib.metadata.version("lotto-tickets")
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "drawings",
    "stored_results",
    "reference",
]

# The source is the whole repository, so that links between pages, results and drawings are the same here and there.
root_doc = "docs/site/index"
include_patterns = ["docs/**", "results/**", "README.md", "CHANGELOG.md", "SECURITY.md"]
exclude_patterns = ["docs/site/gallery/**", "docs/site/built/*.[!r]*", "docs/*.ipynb"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
suppress_warnings = ["config.cache"]
nitpicky = False
default_role = "py:obj"

autodoc_member_order = "groupwise"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_ivar = True


def executed() -> str:
    """The pattern of the gallery's pages that are run: of all, those whose packages are installed."""
    needs = {"trainers": ("lightning", "transformers")}
    shown = [page for page, packages in needs.items() if not all(map(importlib.util.find_spec, packages))]
    return rf"/plot_(?!\d+_({'|'.join(shown) or 'none'})\b)"


def shown_last(block: tuple[object, ...], variables: dict[str, object], settings: dict[str, object]) -> str:
    """The drawing that a block's last expression is: those of lotto are not pyplot's."""
    namespace = variables["example_globals"]
    drawing = namespace.get("___")  # type: ignore[attr-defined]
    if not isinstance(drawing, Figure) or drawing in settings.setdefault("drawn", []):  # type: ignore[operator]
        return ""
    settings["drawn"].append(drawing)  # type: ignore[attr-defined]
    path = next(variables["image_path_iterator"])  # type: ignore[call-overload]
    drawing.savefig(path, dpi=160)
    return figure_rst(
        [path], str(settings["src_dir"]), "; ".join(axes.get_title() or axes.get_ylabel() for axes in drawing.axes)
    )


sphinx_gallery_conf = {
    "examples_dirs": [str(HERE / "gallery")],
    "gallery_dirs": [str(HERE / "built")],
    "filename_pattern": executed(),
    "within_subsection_order": "FileNameSortKey",
    "remove_config_comments": True,
    "download_all_examples": False,
    "show_memory": False,
    "image_srcset": ["2x"],
    "image_scrapers": ("matplotlib", shown_last),
    "abort_on_example_error": True,
    "capture_repr": ("_repr_html_", "__repr__"),
    "ignore_repr_types": r"matplotlib",
    "min_reported_time": 5,
    "show_signature": False,
    "write_computation_times": False,
}

html_theme = "furo"
html_title = "lotto"
html_static_path = ["_static"]
html_css_files = ["lotto.css"]
html_show_sourcelink = False
html_theme_options = {
    "source_repository": "",
    "light_css_variables": {"color-brand-primary": "#0b5fa5", "color-brand-content": "#0b5fa5"},
    "dark_css_variables": {"color-brand-primary": "#7cc0ff", "color-brand-content": "#7cc0ff"},
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def write_front_door(app: object, failed: Exception | None) -> None:
    """A page at the top of the site that leads to the first one."""
    if failed is None:
        leads = f'<meta http-equiv="refresh" content="0; url={root_doc}.html"><a href="{root_doc}.html">lotto</a>'
        page = f'<!doctype html><html lang="en"><title>lotto</title>{leads}</html>\n'
        (Path(app.outdir) / "index.html").write_text(page)  # type: ignore[attr-defined]


def setup(app: object) -> None:
    """What Sphinx asks of a configuration."""
    warnings.filterwarnings("ignore", message=".*non-interactive.*")
    app.connect("build-finished", write_front_door)  # type: ignore[attr-defined]
