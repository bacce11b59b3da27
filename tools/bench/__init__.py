"""What the scripts that measure share: servers, wire protocols, alternating rounds, load generators, reports, plots.

The scripts in `scripts/` are command lines over this package. It needs Python 3.11 and nothing besides its library.
Tests: `python3 -m unittest discover --start-directory tools/bench/tests --top-level-directory tools`.
"""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
PINION = ROOT / "target/release/pinion"
HOST = "127.0.0.1"
MIB = 1 << 20
