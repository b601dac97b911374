"""Its parts; tests/cli/test_audit.py has the whole."""

import numpy as np

from afterglow.analysis.audit_result import COPIED
from afterglow.evaluation.audit import audit_request
from afterglow.evaluation.audit_checkpoints import audit_checkpoints, expected_seconds
from afterglow.evaluation.audited_set import AuditedSet
from afterglow.sampling.loop import Sampler


def test_pairs_show_the_generations_of_the_last_checkpoint(small_captioned, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 3, 8, 8), dtype=np.uint8)
    images = AuditedSet(pixels, tuple("abcdefgh"), tuple("ABCDEFGH"), np.arange(8), 6)
    model, sampler = small_captioned(), Sampler(steps=1)
    request = audit_request(model, images, list("abcde"))
    assert all(seconds > 0 for seconds in expected_seconds(model, images, list("abcde"), sampler, 3))
    options = {"seed": 0, "batch_size": 3, "settings": {"model": "m"}, "rank": 0, "world_size": 1}
    result = audit_checkpoints([("one", model), ("two", model)], request, images, tmp_path, sampler, **options)
    assert result.checkpoints == ["one", "two"] and len(result.rows) == 12 and set(result.facts.limits) == set(COPIED)
    first, second = (part.drop(columns=["checkpoint", "since"]).reset_index(drop=True) for _, part in result.rows.groupby("checkpoint"))
    assert first.equals(second) and result.facts.held_out and result.facts.captions == (6, 1)
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"} and len(list((tmp_path / "one").glob("part=*"))) == 2
    assert audit_checkpoints([("one", model)], request, images, tmp_path, sampler, **{**options, "world_size": 2, "rank": 1}) is not None
