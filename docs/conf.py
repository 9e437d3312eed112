"""The site: python -m sphinx -W -n docs build/site, after pip install -e ".[docs]".

Nothing is loaded from elsewhere, neither while it is built nor while it is read.
"""

import os
import re
import sys
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx import addnodes

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "examples")]
# Notebooks run in processes of their own.
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])

project = "dwa_jax"
author = "The dwa_jax developers"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "**.ipynb_checkpoints", "results.json", "timing.json", "**/report.md"]
# A name in single backticks is code; most are arguments or options, with no page of their own.
default_role = "code"

html_theme = "furo"
html_title = "dwa_jax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
# The sweeps' reports are whole pages; they keep their names.
html_extra_path = ["../experiments/results"]

myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3

# Notebooks have no outputs in the repository: the site shows what they give today.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
# Types of other packages: their own sites would have to be read to link to them.
nitpick_ignore_regex = [("py:.*", r"(?!dwa_jax|experiments).*")]


def _inline_math(translator, node):
    translator.body.append(tex2mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def _block_math(translator, node):
    # The papers' numbers, which are not in sequence here.
    source, _, tag = node.astext().partition(r"\tag{")
    number = f'<span class="eqno">({tag.rstrip().rstrip("}")})</span>' if tag else ""
    equation = tex2mathml(source.strip(), as_block=True)
    translator.body.append(f'<div class="math">{equation}{number}</div>')
    raise nodes.SkipNode


def _link_to_reports(app, doctree):
    # The README links to a report's text; here the whole page lies at the site's root.
    for node in list(doctree.findall(addnodes.pending_xref)):
        found = re.search(r"experiments/results/(\w+)/report", node["reftarget"])
        if found:
            page = "../" * app.env.current_document.docname.count("/")
            link = nodes.reference("", "", refuri=f"{page}{found[1]}/report.html", internal=False)
            link += nodes.inline("", node.astext())
            node.replace_self(link)


def _prepare_docstring(app, what, name, obj, options, lines):
    # |x| and ** are mathematics and Python in these docstrings, not markup.
    for number, line in enumerate(lines):
        if not line.lstrip().startswith(">>>"):
            line = line.replace("|", "\\|").replace("**", "\\*\\*")
            # "num_classes: K." is no item K of a list.
            lines[number] = re.sub(r": ([A-Z])\.$", r": \1\\.", line)
    # Otherwise what stands before a colon would be taken for the type of what is returned.
    for number, line in enumerate(lines[:-1]):
        if line.strip() in ("Returns:", "Yields:"):
            indent = len(lines[number + 1]) - len(lines[number + 1].lstrip())
            lines[number + 1] = " " * indent + ": " + lines[number + 1].lstrip()


def _list_keys(app, what, name, obj, options, lines):
    # The configuration's keys stand in its fields' metadata.
    if name != "dwa_jax.Config":
        return
    from dwa_jax.finetune import config as keys

    heading = ""
    for key, section, meaning in keys.meanings():
        if section != heading:
            heading = section
            lines += ["", f".. rubric:: {heading.split(':')[0]}", ""]
        default = getattr(keys.Config(), key)
        shown = "" if isinstance(default, keys.Scratch) else f" = {default!r}"
        # Values, in quotes, are code; | and * are no markup.
        parts = re.split(r'("[^"]*")', meaning)
        parts[::2] = [re.sub(r"([*|_\\])", r"\\\1", part) for part in parts[::2]]
        parts[1::2] = [rf"\ ``{part}``\ " for part in parts[1::2]]
        lines += [f"``{key}{shown}``", f"  {''.join(parts)}", ""]


def _shorten_signature(app, what, name, obj, options, signature, return_annotation):
    return ("(**keys)", return_annotation) if name == "dwa_jax.Config" else None


def _skip_fields(app, what, name, obj, skip, options):
    # "Alias for field number 0": the class's docstring says what a field is.
    return True if type(obj).__name__ == "_tuplegetter" else None


def setup(app):
    """Registers equations as MathML, which every browser draws, and the links to reports."""
    app.add_html_math_renderer("mathml", (_inline_math, None), (_block_math, None))
    app.connect("autodoc-process-docstring", _prepare_docstring, priority=400)
    app.connect("autodoc-process-docstring", _list_keys, priority=900)
    app.connect("autodoc-process-signature", _shorten_signature)
    app.connect("autodoc-skip-member", _skip_fields)
    app.connect("doctree-read", _link_to_reports)


html_math_renderer = "mathml"
