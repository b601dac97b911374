"""The memorized fraction of each kind at each probe."""

from dataclasses import dataclass

from afterglow.functional.statistics import wilson_interval
from afterglow.reports.kinds import KINDS
from afterglow.reports.run import Run


@dataclass(frozen=True)
class StridedSampler:
    """`memorized` of `count` plants of a kind at a step, with Wilson's 95% interval."""

    step: int
    kind: str
    memorized: int
    count: int

    @property
    def value(self) -> float:
        return self.memorized / self.count

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.memorized, self.count)


def memorized_shares(run: Run) -> dict[str, list[StridedSampler]]:
    """{kind: one share for each probe that looked at it}."""
    seen = run.rows[run.rows["measure"] == "plant_memorized"]
    found: dict[str, list[StridedSampler]] = {kind: [] for kind in KINDS}
    counts = seen.assign(value=seen["value"] > 0.5).groupby(["step", "kind"])["value"].agg(["sum", "count"]).reset_index()
    for about in counts.to_dict("records"):
        found[about["kind"]].append(StridedSampler(about["step"], about["kind"], about["sum"], about["count"]))
    return {kind: shares for kind, shares in found.items() if shares}


def phantoms_by_shape(run: Run) -> str:
    """How the false alarms divide between the twins of global and of local plants."""
    values = run.last_values.get(("phantom", "plant_memorized"))
    if values is None or not run.plants:
        return ""
    whole = [run.plants[number]["shape"] == "whole" for number in values.index]
    parts = (("twins of global plants", values[whole]), ("twins of local plants", values[[not one for one in whole]]))
    return "; ".join(f"{name}: {int(part.sum())} of {len(part)}" for name, part in parts if len(part))
