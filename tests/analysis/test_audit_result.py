import numpy as np
import pandas as pd

from afterglow.analysis.audit import NO_COPY, PART_COPY, WHOLE_COPY, Unseen
from afterglow.analysis.audit_result import audit_facts, confirmed, named_rows, shown_pairs

NAMES = ("a.png", "b.png", "c.png")


def rows(checkpoint, *verdicts):
    cells = [[9, 10, 17] if verdict == PART_COPY else [] for verdict in verdicts]
    table = pd.DataFrame(
        {"verdict": verdicts, "cells": cells, "generation": [1, 0, 0], "calibrated_l2": [0.5, 0.2, np.nan], "distance": 0.1}
    )
    return named_rows(table, NAMES, ("x", "y", "z"), ("first", "second"), Unseen(np.full(4, 0.7), np.full(4, 2.0)), 16, checkpoint)


def test_rows_have_names_boxes_and_limits():
    found = rows("last", PART_COPY, WHOLE_COPY, NO_COPY)
    assert found["file_name"].tolist() == list(NAMES) and found["generation_caption"].tolist() == ["second", "first", "first"]
    assert found[["left", "top", "right", "bottom"]].iloc[0].tolist() == [1 / 8, 1 / 8, 3 / 8, 3 / 8] and np.isnan(found["left"][1])
    assert found["limit"].tolist()[:2] == [0.5, 0.7] and np.isnan(found["limit"][2]) and found["unseen"].tolist() == [4, 4, 0]


def test_a_copy_is_confirmed_by_the_next_checkpoint():
    several = [
        rows(name, *verdicts)
        for name, verdicts in (("1", [WHOLE_COPY, NO_COPY, NO_COPY]), ("2", [PART_COPY, WHOLE_COPY, NO_COPY]), ("3", [WHOLE_COPY] * 3))
    ]
    assert confirmed(pd.concat(several)) == [["a.png"], ["b.png", "a.png"]]  # the most certain first
    assert confirmed(several[0]) == [] == confirmed(several[0].head(0))


def test_pairs_stand_in_the_order_of_the_verdicts():
    pixels = np.arange(3 * 3 * 16 * 16).reshape(3, 3, 16, 16).astype(np.uint8)
    pairs = shown_pairs(rows("1", PART_COPY, WHOLE_COPY, NO_COPY), pixels, lambda number: np.full((3, 16, 16), number, np.uint8), 2)
    assert pairs.plant_id.tolist() == [1, 0] and pairs.images[:, 0, 0, 0].tolist() == [0, 1]
    assert np.array_equal(pairs.references.numpy(), pixels[[1, 0]])
    assert pairs.eval_mask[:, 0].sum((1, 2)).tolist() == [0, 12] and pairs.eval_mask[1, 0, 2:4, 2:6].all()


def test_facts_count_the_captions_that_were_not_sampled():
    unseen = Unseen(np.array([2.0, 0.5]), np.array([2.0, 3.0]))
    facts = audit_facts(unseen, held_out=True, captions=["x", "y", "y"], prompts=["y", "z"], settings={}, neighbors=1)
    assert facts.captions == (2, 1) and facts.limits == {WHOLE_COPY: (0.5, 1, 2), PART_COPY: (0.5, 0, 2)} and facts.samples == 2
    assert audit_facts(unseen, held_out=True, captions=["x"], prompts=["", ""], settings={}, neighbors=1).captions == (1, 0)
