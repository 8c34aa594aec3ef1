"""How `make docs` builds the site: from docs/ and the docstrings, without network.

Warnings are errors, and a link or a reference that leads nowhere is a warning.
"""

import dataclasses
import os
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective

from dynal_fast import __version__
from dynal_fast.cli import build_parser
from dynal_fast.experiment import config

project = "dynal_fast"
author = "The dynal_fast developers"
copyright = "the dynal_fast developers"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3

default_role = "py:obj"
toc_object_entries_show_parents = "hide"
# The integrations are documented without their libraries.
autodoc_mock_imports = [
    "accelerate",
    "anomalib",
    "baal",
    "lightning",
    "modAL",
    "skactiveml",
    "small_text",
    "transformers",
]
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
maximum_signature_line_length = 88
python_use_unqualified_type_names = True
napoleon_google_docstring = False
napoleon_custom_sections = [("Attributes", "params_style")]
napoleon_use_param = False
napoleon_use_rtype = False

os.environ["COLUMNS"] = "80"  # of the help texts, on every machine

nitpicky = True
nitpick_ignore_regex = [  # of other projects, whose indices lie elsewhere on the network
    ("py:exc", "MappingError|EmptyPoolException|PoolExhaustedException"),
    ("py:.*", r"(torch|numpy|collections|dataclasses|pathlib)\..*"),
    ("py:.*", r"(dynal_fast\.(ops|data\.inflate)|contract)\..*"),  # below the public names
]

html_theme = "furo"
pygments_dark_style = "monokai"
html_title = "dynal_fast"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False


class CommandHelp(SphinxDirective):
    """``{command-help} run`` shows what ``dynal-fast run --help`` prints."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        commands = next(a.choices for a in build_parser()._actions if isinstance(a.choices, dict))
        text = commands[self.arguments[0]].format_help()
        return [nodes.literal_block(text, text, language="text")]


class OptionTable(SphinxDirective):
    """``{option-table} Protocol`` lists the fields of a configuration, with their help texts."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        cls = getattr(config, self.arguments[0])
        rows = [
            f"| `{field.name}` | {_default(field)} | {field.metadata['help']} |"
            for field in dataclasses.fields(cls)
            if "help" in field.metadata
        ]
        return self.parse_text_to_nodes("\n".join(["| | default | |", "|---|---|---|", *rows]))


def _default(field: dataclasses.Field[Any]) -> str:
    made = field.default_factory
    value = field.default if made is dataclasses.MISSING else made()
    return f"`{value}`" if value not in ("", [], {}) else "none"


def by_last_name(
    app: Sphinx, environment: BuildEnvironment, node: pending_xref, content: nodes.Element
) -> nodes.Node | None:
    """Resolve a name such as ``PoolStats`` in another module's docstring, if it is the only one."""
    python = environment.domains["py"]
    last = node["reftarget"].split(".")[-1]
    found = {
        name
        for name, *_, priority in python.get_objects()
        if priority >= 0 and name.split(".")[-1] == last
    }
    if node.get("refdomain") != "py" or len(found) != 1:
        return None
    assert app.builder is not None
    return python.resolve_xref(
        environment, node["refdoc"], app.builder, "obj", found.pop(), node, content
    )


def head_examples(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Set a doctest at the end of a docstring apart from the section before it."""
    in_section = False
    for at, line in enumerate(lines):
        if at and len(line) > 3 and set(line) == {"-"} and len(lines[at - 1]) == len(line):
            in_section = lines[at - 1] not in ("Examples", "Notes")
        elif in_section and line.startswith(">>> "):
            lines[at:at] = ["Examples", "--------"]
            return


def setup(app: Sphinx) -> None:
    """Register what is above."""
    app.add_directive("command-help", CommandHelp)
    app.add_directive("option-table", OptionTable)
    app.connect("missing-reference", by_last_name)
    app.connect("autodoc-process-docstring", head_examples, priority=400)  # before napoleon
