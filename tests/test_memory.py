import subprocess
import sys

import pytest

PAGES = """
import resource, sys
from afterglow.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
block = 2**26
for _ in range(2):
    b"x" * block
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    b"x" * block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, 3 * block // resource.getpagesize())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of Linux")
def test_the_pages_of_freed_blocks_are_used_again():
    faults = {}
    for way in ("kept", "given_back"):
        done = subprocess.run([sys.executable, "-c", PAGES, way], capture_output=True, text=True, check=True)
        faults[way], pages = map(int, done.stdout.split())
    assert faults["kept"] < pages / 10 < 0.9 * pages < faults["given_back"], faults
