"""Results of audits, made by hand."""

import numpy as np
import pandas as pd

from afterglow.analysis.audit import NO_COPY, PART_COPY, WHOLE_COPY
from afterglow.analysis.audit_result import AuditFacts, AuditResult, shown_pairs


def made(verdicts, limit=1.0, passed=0, duplicates=0, settings=None, held_out=True):
    """An audit of as many images by four generations."""
    count = len(verdicts)
    rows = pd.DataFrame({"file_name": [f"{number}.png" for number in range(count)], "caption": "a cat", "verdict": verdicts})
    rows["calibrated_l2"] = [0.4 if verdict != NO_COPY else np.nan for verdict in verdicts]
    part = rows["verdict"] == PART_COPY
    rows["left"], rows["top"], rows["right"], rows["bottom"] = (np.where(part, edge, np.nan) for edge in (0.5, 0, 1, 1))
    rows["cells"] = [[1, 3] if verdict == PART_COPY else [] for verdict in verdicts]
    rows = rows.assign(checkpoint="x", since="x", generations=1, generation=0, generation_caption="a cat", distance=0.3, limit=limit)
    rows = rows.assign(others_alike=0, duplicates=duplicates, unseen_as_close=0, unseen=20)
    limits = {WHOLE_COPY: (limit, passed, 20), PART_COPY: (1.0, 0, 20)}
    facts = AuditFacts(4, held_out, limits, (1, 0), {"model": "m", **(settings or {})}, neighbors=3)
    pixels = np.zeros((count, 3, 8, 8), np.uint8)
    return AuditResult(rows, facts, shown_pairs(rows, pixels, lambda _: pixels[0], 400))
