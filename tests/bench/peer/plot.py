# SPDX-License-Identifier: LGPL-2.1-or-later
"""Draws the figures of peers.py as bars, an SVG without any library."""

from xml.sax.saxutils import escape

PANELS = ["first_token_s", "vision_s", "decode_tokens_per_s", "peak_mib"]
COLOURS = {"engine": "#1f6feb", "openvino": "#8a8f98", "llama": "#c9803a", "transformers": "#4f9d69"}
NAMES, BARS, LINE, GAP, TOP, NUMBERS = 190, 250, 20, 24, 64, 62


def text(x, y, words, size=12, anchor="start", weight="normal"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}">'
            f"{escape(words)}</text>")


def ordered(report):
    """By bits, and the engine first among equals."""
    return sorted(report["peers"], key=lambda peer: (-peer["bits"], not peer["name"].startswith("engine")))


def draw(report, figures, value):
    """The text of an SVG file. `figures` and `value` are those of peers.py."""
    peers, host = ordered(report), report["machine"]
    rows = [TOP + 16 + i * LINE + GAP // 2 * sorted({p["bits"] for p in peers}, reverse=True).index(peer["bits"])
            for i, peer in enumerate(peers)]
    width = NAMES + len(PANELS) * (BARS + NUMBERS)
    height = (rows[-1] if rows else TOP) + LINE + 16
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
             ' font-family="sans-serif" fill="#1c2024">', f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
             text(12, 22, f"LLaVA of size {report['size']}, one picture at a time", 15, weight="bold"),
             text(12, 40, f"{host['cpu']}, {host['threads']} threads; medians of {report['rounds']} rounds, "
                          f"{report['tokens']} tokens; {report['date']}")]
    for peer, y in zip(peers, rows):
        ours = "bold" if peer["name"].startswith("engine") else "normal"
        parts.append(text(NAMES - 8, y + 11, peer["name"], anchor="end", weight=ours))
    for number, figure in enumerate(PANELS):
        left = NAMES + number * (BARS + NUMBERS)
        heading, digits, more = figures[figure]
        parts.append(text(left, TOP + 4, f"{heading} ({'more' if more else 'less'} is better)", weight="bold"))
        longest = max((value(peer, figure) or 0 for peer in peers), default=0) or 1
        for peer, y in zip(peers, rows):
            found = value(peer, figure)
            if found is None:
                parts.append(text(left, y + 11, "–", 11))
                continue
            length = max(BARS * found / longest, 1)
            colour = COLOURS[peer["name"].partition("-")[0]]
            parts.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{LINE - 6}" fill="{colour}"/>')
            parts.append(text(left + length + 4, y + 11, f"{found:.{digits}f}", 11))
    return "\n".join([*parts, "</svg>"]) + "\n"
