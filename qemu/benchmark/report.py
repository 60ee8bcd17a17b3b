# SPDX-License-Identifier: GPL-2.0
"""Tables of what was measured: ratios first, then what they are ratios of."""

import csv
import os
import shutil
import statistics
import subprocess

WIDTH = 34
# Before the name of an area, what the front-end spends there.
IN = "front_end in "
# The contestant whose further requests all stay where the first one was.
STAYS = "pin"
# Kinds of work of which the report shows the areas.
BY_AREA = ("6 KB", "1 MB", "head of 8 KB", "6 KB, 16 a connection")
PLOTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "plots.gp")


def median(rows, what):
    return statistics.median(row[what] for row in rows)


def spread(rows, what):
    """Half of what lies between the lowest and the highest run, as a part of the median."""
    values = [row[what] for row in rows]
    return (max(values) - min(values)) / 2 / statistics.median(values)


def save(rows, path):
    with open(path, "w", newline="") as file:
        names = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)


class Report:
    """Rows of several runs; `floor` is the front-end that the others are ratios of."""

    def __init__(self, floor):
        self.floor = floor
        self.rows = []

    def add(self, **row):
        self.rows.append(row)

    def plot(self, directory):
        """Tables of medians, a line for each kind of work, and plots of them. Says what it made."""
        floor = {work: self._runs(work, self.floor) for work in self._names("work")}
        self._pivot(directory, "instructions", lambda runs, _: median(runs, "front_end_instructions"))
        self._pivot(directory, "first", lambda runs, _: median(runs, "first_median_ms"))
        if not all(floor.values()):
            return f"without {self.floor} there are no ratios to plot"
        self._pivot(directory, "ratio", lambda runs, work: round(
            median(runs, "front_end_instructions") / median(floor[work], "front_end_instructions"), 3
        ))
        if not shutil.which("gnuplot"):
            return "without gnuplot there are no plots"
        words = f"dir='{directory}'; floor='{self.floor}'"
        subprocess.run(["gnuplot", "-e", words, PLOTS], check=True)
        return f"plots: {directory}/*.svg"

    def _pivot(self, directory, name, value):
        columns = self._names("front_end")
        with open(os.path.join(directory, f"{name}.csv"), "w", newline="") as file:
            writer = csv.writer(file)
            # The plots count the columns by the commas of this line.
            writer.writerow(["work", *(column.replace(",", "") for column in columns)])
            for work in self._names("work"):
                cells = [self._runs(work, column) for column in columns]
                writer.writerow([work, *(value(runs, work) if runs else "" for runs in cells)])

    def _names(self, what):
        return list(dict.fromkeys(row[what] for row in self.rows))

    def _runs(self, work, front_end):
        return [r for r in self.rows if r["work"] == work and r["front_end"] == front_end]

    def _table(self, title, cell):
        """A line for each kind of work, a column for each front-end; `cell` gets their runs."""
        columns = self._names("front_end")
        head = "".join(f"{name:>16}" for name in columns)
        lines = ["", f"{title:<{WIDTH}}{head}" if len(title) < WIDTH else f"{title}\n{'':<{WIDTH}}{head}"]
        for work in self._names("work"):
            cells = []
            for name in columns:
                runs = self._runs(work, name)
                cells.append(cell(runs, self._runs(work, self.floor)) if runs else "")
            lines.append(f"{work:<{WIDTH}}" + "".join(f"{text:>16}" for text in cells))
        return lines

    def _areas(self, kind):
        """A line for each area of the front-end's instructions, a column for each front-end."""
        columns = self._names("front_end")
        found = {name: self._runs(kind, name) for name in columns}
        areas = {what for row in self.rows for what in row if what.startswith(IN)}

        def cost(area, name):
            return statistics.median(row.get(area, 0) for row in found[name]) if found[name] else 0

        lines = ["", f"{kind}: thousand instructions a request by area", " " * WIDTH]
        lines[-1] += "".join(f"{name:>16}" for name in columns)
        for area in sorted(areas, key=lambda area: -max(cost(area, name) for name in columns)):
            cells = (f"{cost(area, name) / 1000:>16.1f}" for name in columns)
            lines.append(f"{area.removeprefix(IN):<{WIDTH}}" + "".join(cells))
        return lines

    def text(self):
        """All tables. Areas are those of some kinds of work; they are in the list of all runs for each."""
        kinds = self._names("work")
        shown = [kind for kind in kinds if kind in BY_AREA] or kinds
        lines = [line for title, cell in self._parts() for line in self._table(title, cell)]
        return "\n".join(lines + [line for kind in shown for line in self._areas(kind)])

    def _parts(self):
        """Titles of tables, and what is in a cell."""

        def ratio(what):
            def cell(runs, floor):
                return f"{median(runs, what) / median(floor, what):.2f}" if floor else "-"

            return cell

        def thousands(runs, _):
            what = "front_end_instructions"
            return f"{median(runs, what) / 1000:.1f} ±{100 * spread(runs, what):.1f}%"

        def by_proc_stat(runs, _):
            return f"{median(runs, 'front_end_proc_stat') / 1000:.0f}"

        def parts_of_it(runs, _):
            whole = median(runs, "front_end_instructions")
            user, softirq = (
                100 * median(runs, f"front_end_{part}") / whole for part in ("user", "softirq")
            )
            return f"{user:.0f} {100 - user - softirq:.0f} {softirq:.0f}"

        def apart(runs, _):
            if runs[0].get("dispatcher_instructions", "") == "":
                return "-"
            cost, of = median(runs, "dispatcher_instructions"), median(runs, "front_end_instructions")
            return f"{cost / 1000:.1f} ({100 * cost / of:.0f}%)"

        def through(runs, _):
            packets = median(runs, "rx_packets") + median(runs, "tx_packets")
            size = median(runs, "rx_bytes") + median(runs, "tx_bytes")
            return f"{packets:.1f} {size / 1024:.1f}"

        def rate(runs, _):
            return f"{1e9 / median(runs, 'front_end_instructions'):.0f}"

        def elsewhere(runs, _):
            return f"{100 * median(runs, 'moved'):.1f}" if "moved" in runs[0] else "-"

        def added(runs, _):
            stay = self._runs(runs[0]["work"], STAYS)
            moved = median(runs, "moved") if "moved" in runs[0] else 0
            if not stay or not moved:
                return "-"
            more = median(runs, "next_mean_ms") - median(stay, "next_mean_ms")
            return f"{more / moved:.1f}"

        def answered(runs, _):
            return f"{runs[0]['requests'] / median(runs, 'seconds'):.0f}"

        def times(name):
            def cell(runs, _):
                if f"{name}_median_ms" not in runs[0]:
                    return "-"
                ends = [median(runs, f"{name}_{part}_ms") for part in ("median", "p99")]
                return " ".join(f"{value:.1f}" for value in ends)

            return cell

        return [
            (f"front-end's instructions a request, {self.floor} = 1", ratio("front_end_instructions")),
            (f"back-ends' instructions a request, {self.floor} = 1", ratio("back_end_instructions")),
            ("front-end: thousand instructions a request, median and spread", thousands),
            ("dispatcher apart: thousand instructions (of the front-end's)", apart),
            ("front-end: thousand instructions as /proc/stat has them", by_proc_stat),
            ("front-end: % of it in user space, system, softirqs", parts_of_it),
            ("front-end: packets and KB a request, in and out", through),
            ("% of further requests for which the connection was handed over again", elsewhere),
            (f"client: ms that each of these takes more than one in the mode {STAYS}, in the mean", added),
            ("segments sent again in a run, by anybody", lambda runs, _: median(runs, "sent_again")),
            ("requests a second at 10^9 instructions a second", rate),
            ("requests a second answered, of all machines on this one", answered),
            ("client: ms from connect to the first byte, median and 99th percentile", times("first")),
            ("client: ms from a further request to its first byte, median and 99th percentile", times("next")),
            ("client: ms to the end, median and 99th percentile", times("total")),
        ]
