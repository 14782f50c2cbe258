"""A screen of a terminal, as `tmux capture-pane -e -p` prints it, as SVG."""

import re
import sys
import unicodedata
from xml.sax.saxutils import escape

COLOURS = ["#484f58", "#ff7b72", "#3fb950", "#d29922", "#58a6ff", "#bc8cff", "#39c5cf", "#b1bac4"]
INK, PAPER = "#e6edf3", "#0d1117"
WIDTH, HEIGHT, PAD = 8.4, 18, 12


def apply(style, codes):
    """Select Graphic Rendition, ECMA-48 8.3.117."""
    codes = [int(code or 0) for code in codes.split(";")]
    while codes:
        code = codes.pop(0)
        if code == 0:
            style = {}
        elif code in (1, 2, 3, 4, 7):
            style = {**style, code: True}
        elif 30 <= code <= 37 or 90 <= code <= 97:
            style = {**style, "ink": COLOURS[code % 10]}
        elif 40 <= code <= 47 or 100 <= code <= 107:
            style = {**style, "paper": COLOURS[code % 10]}
        elif code in (38, 48):
            kind = codes.pop(0)
            if kind == 5:
                number = codes.pop(0)
                colour = COLOURS[number % 8] if number < 16 else "#8b949e"
            else:
                colour = "#" + "".join(f"{codes.pop(0):02x}" for _ in range(3))
            style = {**style, "ink" if code == 38 else "paper": colour}
        elif code in (22, 24, 27, 39, 49):
            gone = {22: (1, 2), 24: (4,), 27: (7,), 39: ("ink",), 49: ("paper",)}[code]
            style = {key: value for key, value in style.items() if key not in gone}
    return style


def cells(line, style):
    column = 0
    for part in re.split(r"(\x1b\[[0-9;]*m)", line):
        if part.startswith("\x1b["):
            style = apply(style, part[2:-1])
        elif part:
            yield column, part, style
            column += sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in part)
    yield None, "", style


def main():
    lines = sys.stdin.read().rstrip("\n").split("\n")
    style, rows, columns = {}, [], 1
    for number, line in enumerate(lines):
        for column, text, style in cells(line, style):
            if column is None:
                continue
            columns = max(columns, column + len(text))
            ink, paper = style.get("ink", INK), style.get("paper")
            if style.get(7):
                ink, paper = paper or PAPER, ink
            x, y = PAD + column * WIDTH, PAD + number * HEIGHT
            if paper:
                rows.append(f'<rect x="{x:.1f}" y="{y}" width="{len(text) * WIDTH:.1f}" height="{HEIGHT}" fill="{paper}"/>')
            # Spaces that a reader of SVG would collapse.
            shown = text.rstrip().replace(" ", "\u00a0")
            if shown:
                more = ' font-weight="bold"' if style.get(1) else ""
                more += ' opacity="0.7"' if style.get(2) else ""
                rows.append(
                    f'<text x="{x:.1f}" y="{y + 13}" fill="{ink}" textLength="{len(shown) * WIDTH:.1f}"{more}>{escape(shown)}</text>'
                )
    width, height = PAD * 2 + columns * WIDTH, PAD * 2 + len(lines) * HEIGHT
    print(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" font-size="14" '
        'font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace">'
        f'<rect width="100%" height="100%" rx="8" fill="{PAPER}"/>'
    )
    print("\n".join(rows))
    print("</svg>")


main()
