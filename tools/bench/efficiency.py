"""Memory efficiency: the measurement of one server, and its bars. The method is described in scripts/efficiency."""

import collections
import math
import random
import shlex
import statistics
import time

from bench import MIB, report
from bench.command import Failure
from bench.holders import HOLDERS
from bench.sampling import KEY_BYTES, Found, Part, Stratum

BATCH_BYTES = 128 << 10
BATCHES_IN_FLIGHT_MAX = 3

STRATA_PER_LIMIT = 8
PILOT_KEYS_PER_LIMIT = 1024
PILOT_KEYS_MIN = 32
STEP_KEYS = 1024
SAMPLE_KEYS_MAX = 200_000
# A server's clock may tick in seconds: a key younger than its TTL less this cannot have expired, and a key older than
# its TTL and this must have.
TTL_SLACK_SECONDS = 2
# The server counts as full when unexpired user bytes of at least this part of the limit are missing.
MISSING_WHEN_FULL_MIN = 0.005

CONNECTIONS = 1
RESERVE_BYTES = 64 * MIB + CONNECTIONS * 16 * 1024
RESERVE_BYTES_PER_SHARD = 32 * MIB

Load = collections.namedtuple("Load", "sizes_per_phase ttl_seconds mean_min worst_min standard_error_max", defaults=[0.001])


def lognormal(median=148, sigma=1.0, count=65536):
    draws = random.Random(148)
    return [min(max(round(draws.lognormvariate(math.log(median), sigma)), 1), 65536) for _ in range(count)]


LOADS = {
    "100": Load([[100]], 0, 0.84, 0.83),
    "100-ttl1h": Load([[100]], 3600, 0.81, None),
    "100-ttl60": Load([[100]], 60, 0.79, None),
    "1024": Load([[1024]], 0, 0.94, None),
    "lognormal": Load([lognormal()], 0, 0.86, None),
    "shift": Load([[100], [1024], [100]], 0, None, 0.81, 0.003),
}


class Measurement:
    """One server under one load with one limit."""

    def __init__(self, server, load, limit, options):
        self.server, self.load, self.limit, self.options = server, load, limit, options
        self.strata, self.found = [], Found()
        self.next_number = 0
        self.in_flight = collections.deque()
        self.written = self.sets = 0
        self.writing_seconds = 0.0
        self.samples = []

    def run(self):
        phases = self.load.sizes_per_phase
        shifting = len(phases) > 1
        step = self.limit // (2 * STRATA_PER_LIMIT if shifting else STRATA_PER_LIMIT)
        for sizes in phases:
            sizes, batches = self.batches(sizes)
            # A size is looked up by the key's number: each phase starts at a multiple of its table's length.
            self.next_number = -(-self.next_number // len(sizes)) * len(sizes)
            self.end_stratum()
            turnover = int(self.options.turnover * self.limit)
            if shifting:
                for _ in range(turnover // step):
                    self.write(step, sizes, batches)
                    self.sample()
            else:
                self.write(turnover, sizes, batches)
                self.sample()
                for _ in range(self.options.samples - 1):
                    self.write(step, sizes, batches)
                    self.sample()
        if shifting:
            full = next((i for i, sample in enumerate(self.samples) if sample["full"]), 0)
            self.samples = self.samples[full:]
        return self.result(self.sweep())

    def batches(self, sizes):
        """The table of sizes, repeated to whole batches, and of each batch: template, keys, user bytes."""
        mean = sum(sizes) / len(sizes) + KEY_BYTES + 32
        count = 1 << max(0, round(math.log2(BATCH_BYTES / mean)))
        sizes = sizes * max(1, count // len(sizes))
        assert len(sizes) % count == 0
        batches = []
        for start in range(0, len(sizes), count):
            part = sizes[start : start + count]
            template = b"".join(self.server.set_template(size, self.load.ttl_seconds) for size in part)
            batches.append((template, count, sum(part) + count * KEY_BYTES))
        return sizes, batches

    def write(self, user_bytes, sizes, batches):
        """Writes new keys, at least `user_bytes` of them, and returns when all of them are stored."""
        started = time.monotonic()
        rate = self.options.rate * MIB
        stratum_bytes = self.limit // STRATA_PER_LIMIT
        count = batches[0][1]
        written = 0
        while written < user_bytes:
            if not self.strata or self.strata[-1].ended_at or self.strata[-1].user_bytes >= stratum_bytes:
                self.end_stratum()
                self.strata.append(Stratum(self.next_number, sizes))
            template, _, batch_bytes = batches[self.next_number % len(sizes) // count]
            numbers = range(self.next_number, self.next_number + count)
            self.server.send_sets(template % tuple(numbers))
            self.in_flight.append(count)
            self.next_number = self.strata[-1].end = numbers.stop
            self.strata[-1].user_bytes += batch_bytes
            self.sets += count
            written += batch_bytes
            if len(self.in_flight) >= BATCHES_IN_FLIGHT_MAX:
                self.wait_for_sets(BATCHES_IN_FLIGHT_MAX - 1)
            if rate and (early := started + written / rate - time.monotonic()) > 0:
                time.sleep(early)
        self.wait_for_sets(0)
        self.end_stratum()
        self.written += written
        self.writing_seconds += time.monotonic() - started

    def wait_for_sets(self, left):
        while len(self.in_flight) > left:
            self.server.wait_for_sets(self.in_flight.popleft())

    def end_stratum(self):
        if self.strata and not self.strata[-1].ended_at:
            self.strata[-1].ended_at = time.monotonic()

    def unexpired(self, stratum):
        """True if no key of the stratum can have expired."""
        ttl = self.load.ttl_seconds
        return not ttl or time.monotonic() < stratum.started_at + ttl - TTL_SLACK_SECONDS

    def candidates(self):
        """The strata whose keys have not all expired."""
        ttl, now = self.load.ttl_seconds, time.monotonic()
        return [s for s in self.strata if not ttl or now < s.ended_at + ttl + TTL_SLACK_SECONDS]

    def ask(self, numbers, size):
        hits, value_bytes = self.server.held(numbers)
        expected = sum(map(size, hits)) - KEY_BYTES * len(hits)
        if value_bytes not in (None, expected):
            raise Failure(f"values of {value_bytes} B instead of {expected} B from: {self.server.command}")
        return set(hits)

    def sample(self):
        rss = self.server.status_bytes("VmRSS")
        started = time.monotonic()
        parts = [Part(stratum) for stratum in [*self.candidates(), self.found]]
        draws = [self.pilot(part.stratum) for part in parts]
        while any(draws):
            drawn = [part.stratum.draw(count, part.taken) if count else [] for part, count in zip(parts, draws)]
            size_of = {number: part.stratum.size(number) for part, numbers in zip(parts, drawn) for number in numbers}
            hits = self.ask(list(size_of), size_of.__getitem__)
            for part, numbers in zip(parts, drawn):
                part.add(numbers, hits)
            draws = self.more(parts)
        held = sum(part.ratio() * part.stratum.user_bytes for part in parts)
        missing = sum((1 - p.ratio()) * p.stratum.user_bytes for p in parts[:-1] if self.unexpired(p.stratum))
        self.samples.append(
            {
                "written_user_bytes": self.written,
                "held_user_bytes": held,
                "efficiency": held / self.limit,
                "standard_error": math.sqrt(sum(part.variance() for part in parts)) / self.limit,
                "full": missing >= MISSING_WHEN_FULL_MIN * self.limit,
                "keys_asked": sum(len(part.taken) for part in parts),
                "keys_found": sum(len(part.hits) for part in parts),
                "seconds": time.monotonic() - started,
                "rss_bytes": rss,
            }
        )
        if self.server.READS_MARK:
            self.remember(parts)

    def pilot(self, stratum):
        return max(PILOT_KEYS_MIN, math.ceil(PILOT_KEYS_PER_LIMIT * stratum.user_bytes / self.limit))

    def more(self, parts):
        """How many keys of each stratum to ask for next; all zero once the estimate is precise enough."""
        asked = sum(len(part.taken) for part in parts)
        error = math.sqrt(sum(part.variance() for part in parts)) / self.limit
        weights = [part.weight() for part in parts]
        if not any(weights) or error <= self.load.standard_error_max or asked >= SAMPLE_KEYS_MAX:
            return [0] * len(parts)
        return [math.ceil(STEP_KEYS * weight / sum(weights)) for weight in weights]

    def remember(self, parts):
        *strata, found = parts
        for number in found.taken - found.hits:
            self.found.remove(number)
        for part in strata:
            for number in part.hits:
                self.found.add(number, part.stratum)

    def sweep(self):
        """Items and user bytes held, counted by asking for every key that can exist; and the server's own counters."""
        accounting = self.server.accounting()
        items = user_bytes = 0
        for stratum in self.candidates():
            for start in range(stratum.first, stratum.end, 100_000):
                hits = self.ask(range(start, min(start + 100_000, stratum.end)), stratum.size)
                items += len(hits)
                user_bytes += sum(map(stratum.size, hits))
        return {"items": items, "user_bytes": user_bytes}, accounting

    def result(self, swept):
        sweep, (server_items, server_user_bytes) = swept
        if server_user_bytes is None and sweep["items"]:
            # Items times their mean size, which is exact where all sizes are equal.
            server_user_bytes = server_items * sweep["user_bytes"] / sweep["items"]
        efficiencies = [sample["efficiency"] for sample in self.samples]
        off = self.samples[-1]["held_user_bytes"] / sweep["user_bytes"] - 1 if sweep["items"] else None
        rss_max = max(sample["rss_bytes"] for sample in self.samples)
        hwm = self.server.status_bytes("VmHWM")
        return {
            "mean": statistics.fmean(efficiencies),
            "worst": min(efficiencies),
            "standard_error_max": max(sample["standard_error"] for sample in self.samples),
            "full": all(sample["full"] for sample in self.samples),
            "sweep": {
                **sweep,
                "efficiency": sweep["user_bytes"] / self.limit,
                "estimate_off": off,
            },
            "server": {
                "items": server_items,
                "user_bytes": server_user_bytes,
                "efficiency": server_user_bytes / self.limit if server_user_bytes is not None else None,
            },
            "rss_max_bytes": rss_max,
            "rss_high_water_bytes": hwm,
            "over_limit_bytes": hwm - self.limit,
            "sets_per_second": self.sets / self.writing_seconds,
            "written_user_bytes": self.written,
            "command": self.server.command,
            "samples": self.samples,
        }


def misses(name, load, result, shards):
    """The bars that Pinion's result misses, and the bound on its resident memory if it exceeds that."""
    missed = []
    if load.mean_min is not None and result["mean"] < load.mean_min:
        missed.append(f"mean < {load.mean_min}")
    if load.worst_min is not None and result["worst"] < load.worst_min:
        missed.append(f"worst < {load.worst_min}")
    if not result["full"]:
        missed.append("not full")
    reserve = RESERVE_BYTES + RESERVE_BYTES_PER_SHARD * shards
    over = result["over_limit_bytes"] > reserve
    return missed, [f"RSS > limit + {reserve / MIB:.0f} MiB"] if over else []


COLUMNS = (
    ("server", "9"), ("load", "9"), ("limit", ">5"), ("mean", ">6"), ("worst", ">6"), ("error", ">6"), ("sweep", ">6"),
    ("off", ">6"), ("stats", ">6"), ("RSS-limit", ">9"), ("ksets/s", ">7"),
)  # fmt: skip


def head():
    return line([title for title, _ in COLUMNS])


def line(cells, remark=""):
    return "  ".join(f"{cell:{width}}" for cell, (_, width) in zip(cells, COLUMNS)) + f"  {remark}".rstrip()


def row(result, remarks):
    sweep, server = result["sweep"], result["server"]
    off = f"{100 * sweep['estimate_off']:+.2f}%" if sweep["estimate_off"] is not None else "-"
    stats = f"{server['efficiency']:.3f}" if server["efficiency"] is not None else "-"
    cells = [result["server_name"], result["load"], result["limit_mib"]]
    cells += [f"{result['mean']:.3f}", f"{result['worst']:.3f}"]
    cells += [f"{100 * result['standard_error_max']:.2f}%", f"{sweep['efficiency']:.3f}", off, stats]
    cells += [f"{result['over_limit_bytes'] / MIB:+.1f}", f"{result['sets_per_second'] / 1000:.0f}"]
    return line(cells, "; ".join(remarks))


def write(path, results):
    """Writes the figures of all rows, without their samples, beside the machine and the versions."""
    figures = ("server_name", "load", "limit_mib", "mean", "worst", "standard_error_max", "over_limit_bytes", "full")
    commands = {result["server_name"]: result["command"] for result in results}
    rows = [{name: result[name] for name in figures} | {"sweep": result["sweep"]["efficiency"]} for result in results]
    report.write_json(path, {"table": "efficiency", **report.environment(commands), "rows": rows})


def measure(name, load_name, limit_mib, options, core):
    """Measures one server, by its name, under one load with one limit."""
    with HOLDERS[name](core, limit_mib, bin=shlex.quote(str(options.pinion_bin)), shards=options.shards) as server:
        try:
            result = Measurement(server, LOADS[load_name], limit_mib * MIB, options).run()
        except (OSError, ValueError) as error:
            raise Failure(f"{server.command}\n{server.logged()}{error!r}") from error
    return {"server_name": name, "load": load_name, "limit_mib": limit_mib} | result
