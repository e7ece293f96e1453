"""A page as plain text, for terminals, logs and tests."""

from microtome.notebook.page import Heading, Page, Sentence, Strip, Table, cell


def written(page: Page) -> str:
    return "\n".join(map(piece, page.pieces))


def piece(one: Heading | Sentence | Table | Strip) -> str:
    match one:
        case Heading(text) | Sentence(text):
            return text
        case Table():
            return table(one)
        case Strip():
            return strip(one)


def table(one: Table) -> str:
    lines = [list(one.columns), *[[cell(c).text for c in row] for row in one.rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(one.columns))]
    rows = [
        "  ".join(padded(text, widths[i], i in one.numeric) for i, text in enumerate(line)).rstrip() for line in lines
    ]
    return "\n".join([one.caption, *rows] if one.caption else rows)


def padded(text: str, width: int, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)


def strip(one: Strip) -> str:
    tokens = "".join(f"«{t.text}»" if i == one.peak else t.text for i, t in enumerate(one.tokens))
    return f"  {one.label}  {tokens}" if one.label else f"  {tokens}"
