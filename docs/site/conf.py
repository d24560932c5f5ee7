"""Settings of Sphinx for ``make site``: notebooks are shown as they were executed, never run."""

from sgvl import __version__

project = "sgvl"
release = __version__
language = "en"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc"]

nb_execution_mode = "off"
nb_mime_priority_overrides = [("html", "image/jpeg", 25)]  # of a picture stored twice, the smaller
myst_heading_anchors = 4
suppress_warnings = [
    "misc.highlighting_failure",  # a CSV in a fence has no lexer
    "myst.header",  # notebooks begin sections at the level that they print at
]

autodoc_default_options = {"members": True, "ignore-module-all": True}
maximum_signature_line_length = 88
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = "sgvl"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_copy_source = False
html_show_sourcelink = False
html_context = {"default_mode": "light"}  # figures and widgets are drawn for a white page
html_theme_options = {
    "navbar_end": [],
    "show_prev_next": True,
    "use_edit_page_button": False,
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "footer_start": [],
    "footer_end": [],
}


def setup(app):
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("autodoc-process-docstring", mark_literal_blocks, priority=1)


def skip_fields(app, what, name, member, skip, options):
    """Leave out imports, and the fields of named tuples, whose docstrings Python writes."""
    foreign = not (getattr(member, "__module__", None) or "sgvl").startswith("sgvl")
    field = (member.__doc__ or "").startswith("Alias for field number")
    return True if foreign or field else None


def mark_literal_blocks(app, what, name, member, options, lines):
    """Show what a module's docstring indents as it stands, as its ``--help`` does."""
    if what == "module":
        for k in range(len(lines) - 1, 0, -1):
            if lines[k].startswith("    ") and not lines[k - 1].strip():
                before = next((line for line in reversed(lines[:k]) if line.strip()), "")
                if not before.startswith("    "):
                    lines[k:k] = ["::", ""]
