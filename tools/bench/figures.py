"""The plots of docs/plots/, from the figures in docs/results/."""

import statistics

from bench import svg
from bench.command import Failure

# With fewer items in memory, single items decide the miss ratio.
ITEMS_MIN = 100
MISS_POLICIES = ("s3fifo", "lru", "lfu", "fifo", "random")


def cpu_by_depth(peers):
    """CPU per operation by pipeline depth: a panel for each peer, with Pinion in it as measured beside that peer."""
    canvas = svg.Canvas(780, 392, "CPU per operation by pipeline depth")
    canvas.text(20, 26, "CPU per operation by pipeline depth", 16, "start", bold=True)
    canvas.text(20, 46, "50 connections, 10 % sets, keys of 16 B, values of 100 B, one core; less is better", anchor="start")
    top, bottom, left, gap = 106, 318, 70, 28
    width = (canvas.width - left - 20 - gap * (len(peers["cpu"]) - 1)) / len(peers["cpu"])
    y = svg.Scale(0.1, 10, bottom, top, logarithmic=True)
    for number, (peer, rows) in enumerate(peers["cpu"].items()):
        start = left + number * (width + gap)
        rows = [row for row in rows if row["name"] == f"depth {row['workload']['depth']}"]
        if not rows:
            raise Failure(f"no rows by depth for {peer}")
        ticks = (0.1, 0.2, 0.5, 1, 2, 5, 10)
        labels = None if number == 0 else [""] * len(ticks)
        title = "µs of CPU per operation" if number == 0 else None
        svg.left_axis(canvas, y, ticks, start, start + width, title, labels)
        colour = svg.COLOURS[number]
        x = [start + width * (0.22 + 0.31 * place) for place in range(len(rows))]
        for side, line_colour, above in (("base", colour, True), ("test", svg.PINION, False)):
            points = [(at, y(row["cpu"][side])) for at, row in zip(x, rows)]
            canvas.polyline(points, line_colour)
            for place, ((at, height), row) in enumerate(zip(points, rows)):
                # Lines fall steeply: the first label of the lower line stands to its left, and those of the upper line
                # above and to the right of the points, where no line passes.
                across, down, anchor = (-6, -10, "start") if above else (0, 20, "middle") if place else (-10, 8, "end")
                value = f"{row['cpu'][side]:.2f}"
                canvas.text(at + across, height + down, value, 12, anchor, colour=line_colour, bold=True)
        for at, row in zip(x, rows):
            canvas.text(at, bottom + 20, str(row["workload"]["depth"]))
        proto = "memcached text" if rows[0]["workload"]["proto"] == "memcached" else "RESP"
        canvas.text(start + width / 2, bottom + 40, f"requests in flight ({proto})")
    names = [(peer, svg.COLOURS[number]) for number, peer in enumerate(peers["cpu"])]
    canvas.legend(left, 82, [(f"Pinion {peers['commit']}", svg.PINION), *names], step=172)
    canvas.text(left, canvas.height - 6, "logarithmic scale; Pinion as measured beside each peer", 12, "start")
    return canvas.svg()


def memory_kept(peers):
    """Bytes of keys and values held, as a share of the memory limit."""
    held = dict(sorted(peers["held"].items(), key=lambda entry: entry[0] != "Pinion"))
    canvas = svg.Canvas(780, 342, "Share of the memory limit kept as user bytes")
    canvas.text(20, 26, "Share of the memory limit kept as user bytes", 16, "start", bold=True)
    canvas.text(20, 46, "keys of 16 B, more written than fits; more is better", anchor="start")
    top, bottom, left, right = 106, 306, 70, 760
    y = svg.Scale(0, 1, bottom, top)
    ticks = (0, 0.2, 0.4, 0.6, 0.8, 1)
    svg.left_axis(canvas, y, ticks, left, right, "keys and values / limit", [f"{tick:.0%}" for tick in ticks])
    colours = (svg.PINION, *svg.COLOURS)
    sizes = list(next(iter(held.values())))
    width = (right - left) / len(sizes)
    bar = width / (len(held) + 1.5)
    for place, size in enumerate(sizes):
        for number, (server, shares) in enumerate(held.items()):
            x = left + width * place + bar * (number + 0.75)
            canvas.bar(x + 3, y(shares[size]), bar - 6, bottom - y(shares[size]), colours[number])
            canvas.text(x + bar / 2, y(shares[size]) + 18, f"{100 * shares[size]:.1f} %", 12, colour="#ffffff", bold=True)
        canvas.text(left + width * (place + 0.5), bottom + 22, f"values of {int(size):,} B")
    canvas.legend(left, 82, [(name if name != "Pinion" else f"Pinion {peers['commit']}", colour)
                             for name, colour in zip(held, colours)], step=172)  # fmt: skip
    return canvas.svg()


def misses_by_memory(misses):
    """Mean miss ratio over the traces, by memory and policy."""
    fractions = misses["fractions"]
    canvas = svg.Canvas(780, 400, "Miss ratio by memory and eviction policy")
    canvas.text(20, 26, "Miss ratio by memory and eviction policy", 16, "start", bold=True)
    canvas.text(20, 46, f"mean over {len(misses['traces'])} recorded traces; less is better", anchor="start")
    top, bottom, left, right = 106, 340, 70, 760
    means = {policy: [statistics.fmean(trace[policy][place] for trace in misses["traces"].values())
                      for place in range(len(fractions))] for policy in misses["policies"]}  # fmt: skip
    high = max(max(values) for values in means.values())
    low = min(min(values) for values in means.values())
    ticks = [tick / 10 for tick in range(int(low * 10), int(high * 10) + 2)]
    y = svg.Scale(ticks[0], ticks[-1], bottom, top)
    x = svg.Scale(fractions[0], fractions[-1], left + 24, right - 24, logarithmic=True)
    svg.left_axis(canvas, y, ticks, left, right, "misses / gets", [f"{tick:.0%}" for tick in ticks])
    order = sorted(misses["policies"], key=lambda policy: policy == "s3fifo")
    colours = dict(zip(misses["policies"], (svg.PINION, *svg.COLOURS)))
    for policy in order:
        points = [(x(fraction), y(mean)) for fraction, mean in zip(fractions, means[policy])]
        canvas.polyline(points, colours[policy], width=3 if policy == "s3fifo" else 2, dash="" if policy == "s3fifo" else "6 3")
    for fraction in fractions:
        canvas.text(x(fraction), bottom + 22, f"{100 * fraction:g} %")
    canvas.text((left + right) / 2, bottom + 46, "memory, as a share of the bytes of all distinct items (logarithmic scale)")
    canvas.legend(left, 82, [(f"{policy} (default)" if policy == "s3fifo" else policy, colours[policy])
                             for policy in misses["policies"]], step=138)  # fmt: skip
    return canvas.svg()


def misses_of(replayed, policies=MISS_POLICIES, exclude=("syn-",)):
    """The figures of misses_by_memory, from the output of `pinion replay --json`.

    A trace counts if it is a recording, if every policy has every fraction of memory, and if ITEMS_MIN items fit at least.
    """
    fractions = sorted({cell["fraction"] for trace in replayed["traces"] for cell in trace["cells"] if cell["fraction"]})
    traces = {}
    for trace in replayed["traces"]:
        if trace["trace"].startswith(exclude):
            continue
        ratios = {(cell["policy"], cell["fraction"]): 1 - cell["object_hit_ratio"] for cell in trace["cells"]}
        whole = all((policy, fraction) in ratios for policy in policies for fraction in fractions)
        if whole and min(cell["items"] for cell in trace["cells"]) >= ITEMS_MIN:
            traces[trace["trace"]] = {policy: [round(ratios[policy, f], 5) for f in fractions] for policy in policies}
    return {"fractions": fractions, "policies": list(policies), "traces": traces}
