"""Tables in Markdown, aligned so that a terminal shows them well too."""

from collections.abc import Sequence


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Lays out cells; the first `left` columns are flush left, the others flush right."""
    cells = [list(row) for row in (header, *rows)]
    widths = [max(1 + (column >= left), *(len(row[column]) for row in cells)) for column in range(len(header))]
    rule = ["-" * width if i < left else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    cells.insert(1, rule)
    return "\n".join(
        "| "
        + " | ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in cells
    )


def show(value: float | None, digits: int = 4, *, percent: bool = False) -> str:
    """A number as a cell: a fraction, or in percent; a dash where it does not exist."""
    if value is None:
        return "-"
    return f"{100 * value if percent else value:.{digits}f}"
