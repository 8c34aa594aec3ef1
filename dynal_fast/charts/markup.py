"""Text becomes HTML here and nowhere else: everything that is not :class:`Markup` is escaped.

Only the functions here make markup. Any other string that is added to it, or given as a child of an
element, is text; HTML put together in another way comes out escaped, which shows at once.
"""

import re
from collections.abc import Iterable
from html import escape

_VOID = {"meta", "link"}  # of HTML, which have no end tag
# Characters that HTML and XML cannot hold: control characters, lone surrogates.
_UNWRITABLE = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Markup(str):
    """Text that is HTML; what is added to it is escaped.

    >>> element("b", "x < y") + " & more"
    '<b>x &lt; y</b> &amp; more'
    """

    __slots__ = ()

    def __add__(self, other: str) -> "Markup":
        return joined([self, other])

    def __radd__(self, other: str) -> "Markup":
        return joined([other, self])


def joined(parts: Iterable[str]) -> Markup:
    """Return the parts one after another, escaped where they are text.

    >>> joined(["a < b, ", element("code", "a")])
    'a &lt; b, <code>a</code>'
    """
    return Markup("".join(map(_escaped, parts)))


def element(tag: str, *children: str, **attributes: object) -> Markup:
    """Return an element; children that are text are escaped, and so are the attributes' values.

    ``class_`` is the attribute class, ``aria_label`` is aria-label, and so on; an attribute that is
    None is left out. Without children the element is written as SVG does, ``<path/>``.

    >>> element("p", "it's", element("br"), class_='a"b', id=None)
    '<p class="a&quot;b">it&#x27;s<br/></p>'
    """
    values = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_escaped(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Markup(f"<{tag}{values}>")
    if not children:
        return Markup(f"<{tag}{values}/>")
    return Markup(f"<{tag}{values}>{joined(children)}</{tag}>")


def styled(stylesheet: str) -> Markup:
    """Return the element of a stylesheet, which is the package's own and is not escaped.

    Raises
    ------
    ValueError
        The stylesheet would end its own element.
    """
    if "<" in stylesheet:
        raise ValueError("a stylesheet must not hold '<'")
    return Markup(f"<style>\n{stylesheet}</style>\n")


def document(head: Iterable[str], body: Iterable[str], stylesheet: str) -> Markup:
    """Return a whole page."""
    return joined(
        [
            Markup("<!DOCTYPE html>\n"),
            element(
                "html",
                "\n",
                element("head", "\n", *head, styled(stylesheet)),
                "\n",
                element("body", "\n", *body, "\n"),
                "\n",
                lang="en",
            ),
            "\n",
        ]
    )


def _escaped(text: str) -> str:
    return text if isinstance(text, Markup) else escape(_UNWRITABLE.sub("\ufffd", text))
