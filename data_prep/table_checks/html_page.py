"""A page of HTML that needs no other file: its head, tables of numbers, and figures."""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # matplotlib takes a second to import, and every process of prepare imports this file
    from matplotlib.figure import Figure

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: 0 } h2 { font-size: 1.1rem; margin-top: 2rem } p { max-width: 48rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums } caption { text-align: left; color: #555 }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #ddd; text-align: right } th { font-weight: 600 }
th:first-child, td:first-child { text-align: left } img { max-width: 100% } .mono { font-family: monospace }
.wide { overflow-x: auto } .verdict { font-size: 1.1rem }
"""


def page(title: str, sections: list[str]) -> str:
    """Return the page; `title` is text, the sections are HTML."""
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(sections) + "\n</body></html>\n"
    )


def html_table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return rows of HTML cells under `heads`."""
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f'<div class="wide"><table><caption>{caption}</caption><tr>{head}</tr>\n{body}</table></div>'


def html_picture(figure: "Figure", text: str) -> str:
    """Return a figure with its caption, embedded as a PNG without date: equal figures give equal pages."""
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    encoded = base64.b64encode(content.getvalue()).decode()
    return f'<figure><img alt="{text}" src="data:image/png;base64,{encoded}"><figcaption>{text}</figcaption></figure>'
