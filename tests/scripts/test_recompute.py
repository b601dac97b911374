"""The numbers on the pages are those of the committed rows, recomputed without Afterglow."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "recompute.py"


def test_pages_have_the_numbers_of_the_committed_rows() -> None:
    result = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False)
    differing = [line for line in result.stdout.splitlines() if line.endswith("DIFFERS")]
    assert result.returncode == 0, "\n".join([*differing, result.stderr])


def test_recomputation_uses_no_code_of_the_package() -> None:
    assert "import afterglow" not in (text := SCRIPT.read_text(encoding="utf-8")) and "from afterglow" not in text
