import pytest
import torch

from afterglow.cli.extraction_run import summarize
from afterglow.evaluation.plan import GenerationPlan
from afterglow.generations import Generations


def test_summarize_with_missing_parts_leaves_the_summary_to_the_last_process(tmp_path):
    plan = GenerationPlan(num_images=1, prompts_per_part=1)
    Generations(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), ("",), torch.zeros(1), torch.arange(2)).save(tmp_path / "part=00000")
    assert summarize(tmp_path, plan, 2, None, None, {}, 10) is None
    assert not (tmp_path / "summary.txt").exists()


def test_summarize_without_parts_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no generations"):
        summarize(tmp_path, GenerationPlan(), 2, None, None, {}, 10)
