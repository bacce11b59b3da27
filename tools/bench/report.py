"""Results as Markdown tables, and as JSON that says on what machine and with what versions they were measured."""

import datetime
import json
import pathlib
import platform
import re
import shlex
import subprocess

from bench import ROOT


def row(cells):
    """A row of a Markdown table."""
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def print_head(titles, text_columns=1):
    """The head of a Markdown table: the first columns are text, the others numbers."""
    print(row(titles))
    rules = ["---" if column < text_columns else "--:" for column in range(len(titles))]
    print(f"|{'|'.join(rules)}|", flush=True)


def print_row(cells):
    print(row(cells), flush=True)


def judged(ratio, bar):
    """A ratio beside its bar: bold where it keeps the bar."""
    if bar is None:
        return f"{ratio:.2f}"
    return f"**{ratio:.2f}**" if ratio <= bar else f"{ratio:.2f} (missed)"


def environment(commands):
    """Machine, kernel, date, commit, and the version that each server's command names."""
    return {
        "date": datetime.date.today().isoformat(),
        "commit": git("rev-parse", "HEAD"),
        "commit_is_dirty": bool(git("status", "--porcelain", "--untracked-files=no")),
        "machine": machine(),
        "kernel": platform.release(),
        "commands": {side: portable(command) for side, command in commands.items()},
        "versions": {side: version(command) for side, command in commands.items()},
    }


def portable(command):
    """A command line without paths of this machine: programs by their names."""
    return re.sub(r"(^|\s)'?/[^\s']*/([^\s'/]+)'?", r"\1\2", command)


def machine():
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+) kB$", pathlib.Path("/proc/meminfo").read_text(), re.MULTILINE)
    return {
        "processor": model[1] if model else platform.machine(),
        "cores": len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE)),
        "memory_gib": round(int(memory[1]) / (1 << 20)),
    }


def version(command):
    """What `PROGRAM --version` says, for the program that a command line starts (below taskset and nice)."""
    words = shlex.split(command)
    while words and words[0] in ("taskset", "nice"):
        words = words[3:]
    if not words:
        return None
    try:
        said = subprocess.run([words[0], "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = (said.stdout or said.stderr).strip().splitlines()
    return lines[0] if lines else None


def git(*arguments):
    run = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return run.stdout.strip() if run.returncode == 0 else None


def write_json(path, value):
    """Writes a file that is readable and has few lines: lists of numbers stand on one line."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    text = re.sub(r"\[[\d\s.,e+-]+\]", lambda found: re.sub(r"\s+", " ", found[0]).replace("[ ", "[").replace(" ]", "]"), text)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")
