"""Builds self-contained HTML pages: images are embedded, nothing is fetched, and all text is escaped.

The functions below return HTML; ``page`` puts it into a document.
"""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --soft: #5c6570; --line: #d9dde2; --panel: #f4f6f8;
  --accent: #1f5fa8; --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ec; --paper: #15181d; --soft: #9aa3ad; --line: #343a42; --panel: #1e2329; --accent: #7fb2ea;
    --bad: #ff8a80; }
  img.drawn { filter: invert(0.91) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem 1rem 3rem; max-width: 62rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 0.2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 0.6rem; }
p { margin: 0.3rem 0; }
.soft { color: var(--soft); overflow-wrap: anywhere; }
.bad { color: var(--bad); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: 0.6rem; margin: 1.2rem 0; }
.cards div { background: var(--panel); border-radius: 0.5rem; padding: 0.6rem 0.8rem; }
.cards b { display: block; font-size: 1.3rem; color: var(--accent); }
.cards span { color: var(--soft); font-size: 0.85rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 0.25rem 0.9rem 0.25rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; max-width: 40rem; overflow-wrap: break-word; }
th { color: var(--soft); font-weight: 600; }
td.number, th.number { text-align: right; }
figure { margin: 1.4rem 0; overflow-x: auto; }
img.wide { min-width: 40rem; }
figcaption { color: var(--soft); font-size: 0.9rem; max-width: 46rem; position: sticky; left: 0; }
details { border-top: 1px solid var(--line); padding: 0.5rem 0; }
summary { cursor: pointer; font-weight: 600; overflow-wrap: anywhere; }
summary span { color: var(--soft); font-weight: 400; font-size: 0.85rem; }
details[open] > summary { margin-bottom: 0.5rem; }
img, video { max-width: 100%; height: auto; border-radius: 0.4rem; }
pre { background: var(--panel); border-radius: 0.4rem; padding: 0.7rem; overflow-x: auto; font-size: 0.85rem; }
"""
_WIDE = 1000  # pixels; a small screen shows wider pictures enlarged, and scrolls
# The page fetches and runs nothing; this makes browsers enforce it.
_POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"


def page(title: str, subtitle: str, body: Iterable[str]) -> str:
    """Return a complete document; ``body`` is HTML, the titles are text."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p class="soft">{escape(subtitle)}</p>
{"".join(body)}
</body>
</html>
"""


def section(title: str, *parts: str) -> str:
    """Return a heading with ``parts``, which are HTML, under it; nothing if they are empty."""
    inside = "".join(parts)
    return f"<section>\n<h2>{escape(title)}</h2>\n{inside}</section>\n" if inside else ""


def folded(title: str, *parts: str, note: str = "") -> str:
    """Return ``parts``, which are HTML, folded under a title that opens them; nothing if they are empty."""
    inside = "".join(parts)
    more = f" <span>{escape(note)}</span>" if note else ""
    return f"<details><summary>{escape(title)}{more}</summary>\n{inside}</details>\n" if inside else ""


def duration(seconds: Any) -> str:
    """Format seconds as seconds, minutes or hours."""
    if not isinstance(seconds, int | float):
        return "unknown"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def paragraph(text: str, *, bad: bool = False) -> str:
    """Return a paragraph of text, in grey, or in red if ``bad``."""
    return f'<p class="{"bad" if bad else "soft"}">{escape(text)}</p>\n'


def key_figures(items: Sequence[tuple[str, str]]) -> str:
    """Return a row of tiles, one per (name, value), with the values in large type."""
    inside = "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in items)
    return f'<div class="cards">{inside}</div>\n'


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, bad_rows: Sequence[int] = ()) -> str:
    """Return a table.

    Columns whose cells are all numbers or empty are aligned to the right.

    Args:
      columns: names of the columns.
      rows: values, formatted by ``format_value``.
      bad_rows: indices of rows in red.
    """
    texts = [[format_value(cell) for cell in row] for row in rows]
    numeric = [all(_is_number(row[i]) or not row[i] for row in texts) for i in range(len(columns))]

    def cell(tag: str, i: int, text: str) -> str:
        attribute = ' class="number"' if numeric[i] else ""
        return f"<{tag}{attribute}>{escape(text)}</{tag}>"

    def line(n: int, row: Sequence[str]) -> str:
        attribute = ' class="bad"' if n in bad_rows else ""
        return f"<tr{attribute}>{''.join(cell('td', i, text) for i, text in enumerate(row))}</tr>"

    head = "".join(cell("th", i, text) for i, text in enumerate(columns))
    body = "\n".join(line(n, row) for n, row in enumerate(texts))
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>\n'


def format_value(value: Any) -> str:
    """Format a value for readers: yes and no, six significant digits, lists with commas, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(format_value, value))
    return str(value)


def preformatted(text: str) -> str:
    """Return text in a fixed-width font, with its line breaks."""
    return f"<pre>{escape(text)}</pre>\n"


def picture(data: bytes, kind: str, caption: str, *, drawn: bool = False) -> str:
    """Embed an image.

    Args:
      data: contents of the image file.
      kind: MIME subtype, such as ``png``.
      caption: text below the image.
      drawn: whether it is a figure on white, whose colours a page in dark mode inverts.
    """
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    classes = [name for name, is_it in (("drawn", drawn), ("wide", _is_wide(data))) if is_it]
    attribute = f' class="{" ".join(classes)}"' if classes else ""
    image = f'<img{attribute} src="{source}" alt="{escape(caption)}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>\n"


def _is_wide(data: bytes) -> bool:
    """Whether a PNG has more than ``_WIDE`` pixels in a row, from its header; False for other files."""
    return data[:8] == b"\x89PNG\r\n\x1a\n" and int.from_bytes(data[16:20], "big") > _WIDE


def film(data: bytes, caption: str) -> str:
    """Embed the contents of an MP4 file."""
    source = f"data:video/mp4;base64,{base64.b64encode(data).decode()}"
    video = f'<video controls loop muted playsinline src="{source}"></video>'
    return f"<figure>{video}<figcaption>{escape(caption)}</figcaption></figure>\n"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
