"""Early stopping: a training that ends when the first plant emerges."""

import math
from dataclasses import dataclass
from typing import Literal

import pandas as pd

KINDS = ("global", "local", "natural")
HALF = 0.5 * math.log(2)  # the advantage of a picture with half of the squared error that unseen pictures have


@dataclass(frozen=True)
class Stop:
    """What ends a training before its last step; looked for at every probe but that of step 0, where nothing was trained.

    Args:
        at: memorized, when a plant is (by the generations of an inner probe, not confirmed yet); advantage, when a plant's advantage is
            over the threshold, which needs no generation; null: nothing ends it.
        kinds: of the plants that are watched.
        threshold: of the advantage, in nats of the root mean square error.
    """

    at: Literal["memorized", "advantage"] | None = None
    kinds: tuple[str, ...] = KINDS
    threshold: float = HALF

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.kinds) - set(KINDS)):
            raise ValueError(f"A training can stop at plants of the kinds {', '.join(KINDS)}, and not '{unknown[0]}'.")
        if self.at is None and tuple(self.kinds) != KINDS:
            raise ValueError("probe.stop.kinds belongs to probe.stop.at: here it would do nothing.")
        if self.at != "advantage" and self.threshold != HALF:
            raise ValueError("probe.stop.threshold belongs to probe.stop.at advantage: here it would do nothing.")

    def emerged(self, rows: pd.DataFrame) -> list[str]:
        """Kind and caption of each plant that has emerged by the rows of one probe; none where nothing is looked for."""
        measure, limit = {"memorized": ("plant_memorized", 0.5), "advantage": ("advantage.inside", self.threshold), None: ("", 0)}[self.at]
        found = rows[(rows["measure"] == measure) & rows["kind"].isin(self.kinds) & (rows["value"] > limit)]
        return [f"{row.kind} plant '{row.caption}'" for row in found.itertuples()]
