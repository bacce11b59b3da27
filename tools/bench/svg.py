"""SVG by hand: axes, lines, bars and legends, as much as the plots in docs/plots/ need.

Colours have enough contrast on white and on black, and the background is transparent. Text is in the system's font.
"""

import html
import math

TEXT = "#6e7781"
GRID = "#8c959f"
PINION = "#0a84d6"
COLOURS = ("#d9730d", "#9a5fd0", "#2da44e", "#d1477a", "#a88400")
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', Verdana, sans-serif"


class Canvas:
    def __init__(self, width, height, title):
        self.width, self.height, self.title, self.parts = width, height, title, []

    def text(self, x, y, text, size=13, anchor="middle", colour=TEXT, bold=False, turned=False):
        turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}"{weight}{turn}>'
            f"{html.escape(text)}</text>"
        )

    def line(self, x1, y1, x2, y2, colour=GRID, width=1.0, opacity=1.0):
        self.parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
            f'stroke-width="{width}" stroke-opacity="{opacity}"/>'
        )

    def polyline(self, points, colour, width=2.5, dash=""):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"{dashed}/>')
        for x, y in points:
            self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>')

    def bar(self, x, y, width, height, colour):
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>')

    def legend(self, x, y, entries, step=None):
        """Names beside their colours, from left to right; `step` is the distance between them."""
        for name, colour in entries:
            self.bar(x, y - 10, 14, 10, colour)
            self.text(x + 20, y, name, anchor="start")
            x += step or 44 + 7.2 * len(name)

    def svg(self):
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" font-family="{FONT}" role="img">\n<title>{html.escape(self.title)}</title>\n'
        )
        return head + "\n".join(self.parts) + "\n</svg>\n"


class Scale:
    """Maps values to coordinates, linearly or logarithmically. `start` is the coordinate of `low`."""

    def __init__(self, low, high, start, end, logarithmic=False):
        self.of = math.log10 if logarithmic else float
        self.low, self.high, self.start, self.end = self.of(low), self.of(high), start, end

    def __call__(self, value):
        return self.start + (self.of(value) - self.low) / (self.high - self.low) * (self.end - self.start)


def left_axis(canvas, scale, ticks, left, right, title=None, labels=None):
    """Horizontal grid lines at the ticks, their labels to the left, and the axis's title."""
    for tick, label in zip(ticks, labels or map("{:g}".format, ticks)):
        canvas.line(left, scale(tick), right, scale(tick), opacity=0.35)
        canvas.text(left - 8, scale(tick) + 4.5, label, anchor="end")
    if title:
        canvas.text(left - 46, (scale.start + scale.end) / 2, title, turned=True)
