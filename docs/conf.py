"""How Sphinx builds the site. `make docs` runs docs/generate.py first. No page asks another host."""
import ast
from html import escape
from pathlib import Path

HERE = Path(__file__).parent

project = html_title = "fastcourse"
copyright = "the authors of fastcourse, Apache-2.0"
version = release = next(ast.literal_eval(line.split("=")[1].strip())
                         for line in (HERE.parent/"fastcourse"/"__init__.py").read_text().splitlines()
                         if line.startswith("__version__"))
language = "en"

extensions = ["myst_nb"]
exclude_patterns = ["_build", "_mathjax"]
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # by default two CDNs
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
# in a lesson, an exercise may be a small heading right below a large one
suppress_warnings = ["myst.header"]

html_theme = "furo"
pygments_dark_style = "github-dark"
html_static_path = ["_static", "_mathjax"] if (HERE/"_mathjax").exists() else ["_static"]
html_css_files = ["site.css"]
smartquotes = False  # many a quoted word is one to type
html_copy_source = False
html_show_sourcelink = False
mathjax_path = "tex-svg-full.js"  # one file, drawn without fonts: nothing is loaded later
html_math_renderer = "mathjax" if (HERE/"_mathjax").exists() else "tex"

# A page that was opened from disk may not read another one, so the search shows titles only
FROM_DISK = "if (location.protocol === 'file:') DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false"


def tex(translator, node):
    "A formula as it was written: what is shown where there is no MathJax."
    from docutils.nodes import SkipNode
    tag = "code" if node.tagname == "math" else "pre"
    translator.body.append(f"<{tag} class='math'>{escape(node.astext())}</{tag}>")
    raise SkipNode


def speak_korean(app, pagename, templatename, context, doctree):
    "Browsers choose fonts, hyphens and voices by the language of a page."
    if "/ko/" in pagename or pagename.endswith('.ko'): context["language"] = "ko"


def setup(app):
    app.add_html_math_renderer("tex", (tex, None), (tex, None))
    app.add_js_file(None, body=FROM_DISK)
    app.connect("html-page-context", speak_korean)
