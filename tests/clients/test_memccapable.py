"""libmemcached's conformance tests of the text protocol."""

import shutil
import subprocess

from pinion import HOST

TESTS = 27


def test_memccapable(node):
    memccapable = shutil.which("memccapable")
    assert memccapable, "memccapable is not installed: it is in the Debian package libmemcached-tools"
    # -a: the text protocol only.
    command = [memccapable, "-h", HOST, "-p", str(node.port), "-a", "-v"]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    assert "FAIL" not in run.stdout, run.stdout
    assert run.returncode == 0, run.stdout
    assert run.stdout.count("[pass]") == TESTS, run.stdout
