"""A page as HTML: no script, nothing fetched, every text escaped, legible on light and on dark grounds.

Colours are transparent layers over whatever ground there is, so the text keeps the notebook's own colour. Orange and
blue are told apart by people who cannot tell red from green, and every number is also written.
"""

from html import escape

from microtome.notebook.page import Cell, Heading, Page, Sentence, Strip, Table, cell

ORANGE, BLUE = (230, 120, 20), (40, 120, 200)
DEEPEST = 0.55  # opacity at full shade: text on it keeps a contrast above 4.5 on white and on black grounds

STYLE = (
    "<style>"
    ".microtome{font-size:13px;line-height:1.5;overflow-x:auto}"
    ".microtome h4{margin:.3em 0;font-size:14px}.microtome p{margin:.3em 0;text-align:left}"
    ".microtome table{border-collapse:collapse;margin:.4em 0;font-size:inherit}"
    ".microtome code{background:rgba(128,128,128,.16);color:inherit;padding:0 .25em;border-radius:3px;font-size:.95em;"
    "white-space:pre}"
    ".microtome caption{text-align:left;padding:.2em 0;caption-side:top;color:inherit;white-space:nowrap}"
    ".microtome th,.microtome td{padding:.15em .7em;text-align:left;border-bottom:1px solid rgba(128,128,128,.35);"
    "vertical-align:top;font-variant-numeric:tabular-nums}"
    ".microtome tbody th{font-weight:normal}"
    ".microtome .number{text-align:right}"
    ".microtome .strip{font-family:ui-monospace,monospace;white-space:pre-wrap;margin:.15em 0}"
    ".microtome .strip small{font-family:sans-serif;display:inline-block;min-width:7em;opacity:.8}"
    ".microtome mark{color:inherit;background:none;font-weight:bold;text-decoration:underline}"
    "</style>"
)


def drawn(page: Page) -> str:
    return f'{STYLE}<div class="microtome">{"".join(map(piece, page.pieces))}</div>'


def piece(one: Heading | Sentence | Table | Strip) -> str:
    match one:
        case Heading(text):
            return f"<h4>{escape(text)}</h4>"
        case Sentence(text):
            return f"<p>{with_code(text)}</p>"
        case Table():
            return table(one)
        case Strip():
            return strip(one)


def with_code(text: str) -> str:
    """Escaped, and what stands in backticks as code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return "".join(f"<code>{escape(part)}</code>" if i % 2 else escape(part) for i, part in enumerate(parts))


def table(one: Table) -> str:
    caption = f"<caption>{escape(one.caption)}</caption>" if one.caption else ""
    head = "".join(f'<th scope="col"{aligned(i, one)}>{escape(name)}</th>' for i, name in enumerate(one.columns))
    body = "".join(f"<tr>{''.join(entry(i, cell(c), one) for i, c in enumerate(row))}</tr>" for row in one.rows)
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def entry(column: int, one: Cell, of: Table) -> str:
    tag, scope = ("th", ' scope="row"') if column == 0 else ("td", "")
    return f"<{tag}{scope}{aligned(column, of)}{layer(one)}>{with_code(one.text)}</{tag}>"


def aligned(column: int, of: Table) -> str:
    return ' class="number"' if column in of.numeric else ""


def layer(one: Cell) -> str:
    """The colour and the hover text of a cell, as attributes."""
    red, green, blue = ORANGE if one.shade > 0 else BLUE
    strength = min(1.0, abs(one.shade)) * DEEPEST
    style = f' style="background:rgba({red},{green},{blue},{strength:.2f})"' if strength >= 0.005 else ""
    hover = f' title="{escape(one.hover)}"' if one.hover else ""
    return style + hover


def strip(one: Strip) -> str:
    label = f"<small>{escape(one.label)}</small> " if one.label else ""
    return f'<div class="strip">{label}{"".join(token(t, i == one.peak) for i, t in enumerate(one.tokens))}</div>'


def token(one: Cell, peak: bool) -> str:
    text = f"<mark>{escape(one.text)}</mark>" if peak else escape(one.text)
    return f"<span{layer(one)}>{text}</span>"
