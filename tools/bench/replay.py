"""Hit ratios of `pinion replay` beside an independent simulator's: what scripts/replay-check compares."""

import collections
import csv

# The simulator's policies that equal ours; with more than one, the closer counts.
SIMULATED = {
    "s3fifo": ("s3hc-g50", "s3hc"),
    "sieve": ("sieve",),
    "lru": ("lru8-s16",),
    "lfu": ("lfu-decay-s5",),
    "fifo": ("fifo",),
    "random": ("random",),
    "ttl": ("ttl-s10",),
}
ITEMS_MIN = 1000
RATIOS = ("object_hit_ratio", "byte_hit_ratio")


def expectations(path):
    """Rows of the simulator's file by trace, policy and fraction."""
    with path.open(newline="") as file:
        rows = csv.DictReader(file)
        return {(row["trace"], row["policy"], float(row["fraction_of_footprint"])): row for row in rows}


def compared(results, expected):
    """Per policy and ratio: the deviations in percentage points, each with the name of its cell."""
    deviations = collections.defaultdict(list)
    for trace in results["traces"]:
        for cell in trace["cells"]:
            if cell["fraction"] is None or cell["items"] < ITEMS_MIN:
                continue
            place = (trace["trace"], round(cell["fraction"], 6))
            names = SIMULATED.get(cell["policy"], ())
            rows = [expected[key] for name in names if (key := (place[0], name, place[1])) in expected]
            for ratio in RATIOS:
                points = [100 * (cell[ratio] - float(row[ratio])) for row in rows]
                if points:
                    deviations[cell["policy"], ratio].append((min(points, key=abs), f"{place[0]} {cell['memory']}"))
    return deviations


def misses_saved(results):
    """Per cell that has both policies: by how many percent s3fifo has fewer misses than lru."""
    saved = []
    for trace in results["traces"]:
        misses = {(c["policy"], c["memory"]): c["gets"] - c["hits"] for c in trace["cells"] if c["items"] >= ITEMS_MIN}
        for (policy, memory), ours in misses.items():
            if policy == "s3fifo" and misses.get(("lru", memory)):
                saved.append(100 * (1 - ours / misses["lru", memory]))
    return saved


def print_summary(deviations):
    """One line per policy and ratio; returns the greatest mean distance."""
    print(f"{'policy':8}{'ratio':8}{'cells':>6}{'mean':>8}{'|mean|':>8}{'worst':>8}  at")
    distances = [0.0]
    for (policy, ratio), found in sorted(deviations.items()):
        mean = sum(points for points, _ in found) / len(found)
        distances.append(sum(abs(points) for points, _ in found) / len(found))
        worst, place = max(found, key=lambda f: abs(f[0]))
        name = ratio.split("_")[0]
        print(f"{policy:8}{name:8}{len(found):6}{mean:+8.2f}{distances[-1]:8.2f}{worst:+8.2f}  {place}")
    return max(distances)
