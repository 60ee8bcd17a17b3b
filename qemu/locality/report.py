# SPDX-License-Identifier: GPL-2.0
"""What was measured beside what was simulated: a table, a CSV file and a drawing."""

import csv
from html import escape

from .contestant import FOUND

# Okabe and Ito's, as in the figures of lard_sim.
MEASURED, SIMULATED = "#0072b2", "#e69f00"
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 960, 420, 70, 64, 48


class Report:
    """Rows of `Bench.measure`, with those of lard_sim at the speed of the emulated machines; ratios are
    to the first."""

    def __init__(self, rows, simulated, scaled):
        self.rows = []
        model = [float(row["requests/s"]) / scaled.machine for row in simulated]
        for row, modelled, rate in zip(rows, simulated, model):
            more = {"simulated_rate": round(rate, 2)}
            more["simulated_reads"] = float(modelled["disk reads"])
            more["ratio"] = round(row["rate"] / rows[0]["rate"], 2)
            more["simulated_ratio"] = round(rate / model[0], 2)
            self.rows.append(row | more)

    def save(self, path):
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, self.rows[0])
            writer.writeheader()
            writer.writerows(self.rows)

    def text(self):
        head = ["policy", "a connection", "requests/s", "ratio", "handed over again", "reads/request"]
        head += ["octets read", "disks busy"]
        head += ["in memory, MB", "of these once", "busiest", "ms median", "p99", "sim. requests/s", "ratio"]
        head += ["reads/request"]
        lines = [head] + [
            [
                row["policy"],
                f"{row['requests']}",
                f"{row['rate']:.1f}",
                f"{row['ratio']}",
                f"{100 * row['moved']:.0f}%",
                f"{row['reads']:.3f}",
                f"{100 * row['read_octets']:.1f}%",
                f"{100 * row['disks_busy']:.0f}%",
                f"{row['cached_mb']:.0f}",
                f"{row['distinct_mb']:.0f}",
                f"{row['busiest']:.2f}",
                f"{row['median_ms']:.0f}",
                f"{row['p99_ms']:.0f}",
                f"{row['simulated_rate']:.1f}",
                f"{row['simulated_ratio']}",
                f"{row['simulated_reads']:.3f}",
            ]
            for row in self.rows
        ]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        return "\n".join(
            "  ".join(cell.rjust(width) for cell, width in zip(line, widths)) for line in lines
        )

    def found(self):
        """Of persistent connections: what the papers say beside what was measured and simulated."""
        rows = {row["policy"]: row for row in self.rows}

        def change(what, left, right):
            return f"{100 * (rows[left][what] / rows[right][what] - 1):+.0f}%"

        lines = [f"{'requests/s':<58}{'measured':>10}{'simulated':>11}{'papers':>10}"]
        for left, right, papers in FOUND:
            seen = change("rate", left, right), change("simulated_rate", left, right)
            lines.append(f"{f'{left}, against {right}':<58}{seen[0]:>10}{seen[1]:>11}{papers:>10}")
        return "\n".join(lines)

    def draw(self, path, title):
        """Bars of requests a second, with what they are of the first one's."""
        highest = max(max(row["rate"], row["simulated_rate"]) for row in self.rows)
        room = HEIGHT - TOP - BOTTOM
        each = (WIDTH - LEFT - 20) / len(self.rows)
        bar = each * 0.34

        def text(x, y, words, size=13, anchor="middle"):
            return (
                f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">'
                f"{escape(words)}</text>"
            )

        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
            ' font-family="sans-serif">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
            text(WIDTH / 2, 24, title, 16),
            f'<path d="M{LEFT} {TOP - 12}V{HEIGHT - BOTTOM}H{WIDTH - 20}" fill="none" stroke="black"/>',
            f'<g transform="translate(18 {HEIGHT / 2}) rotate(-90)">{text(0, 0, "requests/s")}</g>',
        ]
        step = nice(highest / 5)
        for number in range(1, int(highest / step) + 1):
            y = HEIGHT - BOTTOM - room * number * step / highest
            parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - 20}" stroke="#ddd"/>')
            parts.append(text(LEFT - 6, y + 4, f"{number * step:g}", anchor="end"))
        for number, row in enumerate(self.rows):
            middle = LEFT + each * (number + 0.5)
            for line, words in enumerate(row["policy"].split(", "), 1):
                parts.append(text(middle, HEIGHT - BOTTOM + 18 * line, words))
            bars = [("", MEASURED, middle - bar), ("simulated_", SIMULATED, middle)]
            for kind, colour, x in bars:
                tall = room * row[f"{kind}rate"] / highest
                y = HEIGHT - BOTTOM - tall
                parts.append(
                    f'<rect x="{x:.1f}" y="{y:.1f}" width="{bar:.1f}" height="{tall:.1f}"'
                    f' fill="{colour}"/>'
                )
                parts.append(text(x + bar / 2, y - 4, f"{row[f'{kind}ratio']:.1f}×", 12))
        for number, (words, colour) in enumerate((("measured", MEASURED), ("simulated", SIMULATED))):
            x = LEFT + 12 + 110 * number
            parts.append(f'<rect x="{x}" y="36" width="12" height="12" fill="{colour}"/>')
            parts.append(text(x + 18, 47, words, anchor="start"))
        with open(path, "w") as file:
            file.write("\n".join([*parts, "</svg>", ""]))


def nice(step):
    """A distance of lines: 1, 2 or 5 of some power of ten, no less than that."""
    power = 10.0 ** (len(str(int(step))) - 1)
    return next(power * digit for digit in (1, 2, 5, 10) if power * digit >= step)
