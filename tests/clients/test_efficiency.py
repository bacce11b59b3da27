"""scripts/efficiency --quick: it runs to its end, and its three ways of counting agree."""

import json
import subprocess
import sys

import pytest
from pinion import ROOT, binary

MEMORY_MIB = 16
SAMPLES_MIN = 10


def test_quick():
    command = [sys.executable, ROOT / "scripts/efficiency", "--quick", "--json", "--pinion-bin", binary()]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout + run.stderr
    (result,) = json.loads(run.stdout)
    assert (result["server_name"], result["load"], result["limit_mib"]) == ("pinion", "100", MEMORY_MIB)
    assert result["full"]
    assert len(result["samples"]) >= SAMPLES_MIN

    # What clients can read, and what the server says that it holds.
    swept = result["sweep"]
    assert (swept["items"], swept["user_bytes"]) == (result["server"]["items"], result["server"]["user_bytes"])
    # The estimate's standard error is 0.1 % of the limit.
    assert result["samples"][-1]["efficiency"] == pytest.approx(swept["efficiency"], abs=0.006)
    assert 0.5 < result["worst"] <= result["mean"] < 1
