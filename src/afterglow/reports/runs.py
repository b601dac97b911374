"""Many runs as tables: one row per plant, per run and per evaluation."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from afterglow.analysis.emergence import ASSIGNED, DEFINITION
from afterglow.analysis.emergence_table import IN_MASK, IN_REGION, OTHER_DEFINITIONS, emergence_intervals
from afterglow.analysis.scaling import CLOSE_SHARE, crossing, generalized, near_minimum
from afterglow.errors import AfterglowError
from afterglow.functional.distances import CLOSE_RATIO
from afterglow.kinds import TRAINED
from afterglow.reports.run import read_config, read_plants, read_rows, setting

DATA, UNET = "data.init_args", "model.init_args.unet"
# settings that decide when something counts as memorized; runs in which they differ have no common curve
EQUAL_SETTINGS = (
    "model.class_path",
    *(f"{DATA}.{name}" for name in ("dataset", "resolution", "channels")),
    *(f"monitor.{name}" for name in ("final_seeds", "seeds", "num_unprompted")),
    *(f"monitor.sampler.{name}" for name in ("scheduler", "steps", "guidance_scale", "options")),
)


WAYS = {  # of testing whether a model without captions memorized a plant; the text stands after the name of a kind
    IN_MASK: ", by assignment",
    ".outpainted": ", by outpainting",
    ".outpainted_fresh": ", by outpainting among held-out images",
}


def ways(measured: Iterable[str]) -> dict[str, str]:
    """{within: its text} of the WAYS that were measured; a model with captions has one way, which needs no text.

    measured: values of `within`.
    """
    known = set(measured)
    found = {within: text for within, text in WAYS.items() if within in known}
    return {IN_MASK: ""} if set(found) <= {IN_MASK} else found


@dataclass(frozen=True)
class EmergenceTables:
    """Tables of many runs; notes: what a reader must know of single runs; definition: of a memorized plant, in its mask.

    plants: run, n, copies, area, width, arm, seed, plant_id, kind, caption, rate (exposures per step), within ('', '.region' or a key of
    OTHER_DEFINITIONS), lower, upper.
    runs: run, n, width, seed, batch, steps, tau_mem, tau_mem_lower, tau_mem_upper (by d1/d2), the same with calibrated (by the
    calibrated distance), tau_gen, overfitting.
    fractions: run, n, step, f_mem. losses: run, n, step, kind, loss.
    """

    plants: pd.DataFrame
    runs: pd.DataFrame
    fractions: pd.DataFrame
    losses: pd.DataFrame
    notes: tuple[str, ...]
    definition: str

    @property
    def ways(self) -> dict[str, str]:
        """The `ways` in which the plants were measured."""
        return ways(self.plants.get("within", ()))

    def definition_of(self, within: str) -> str:
        """When a plant counts as memorized in one of the ways."""
        return OTHER_DEFINITIONS.get(within, self.definition)


@dataclass(frozen=True)
class _RunFiles:
    name: str
    config: Mapping[str, Any]
    rows: pd.DataFrame
    planted: Mapping[int, Mapping[str, Any]]

    @property
    def definition(self) -> str:
        """The definition of a memorized plant: models without captions cannot be prompted, so samples are matched to plants."""
        return ASSIGNED if (self.rows["measure"] == "extracted").any() else DEFINITION

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Columns of every row of the run. n is the length of an epoch without repeated images: a recipe may leave set_size open."""
        batch, last = setting(self.config, f"{DATA}.batch_size"), self.rows[self.rows["step"] == self.rows["step"].max()].iloc[0]
        repeated = sum(plant["copies"] for plant in self.planted.values() if plant["kind"] in TRAINED)
        arm, widths = setting(self.config, f"{DATA}.planting.arm"), setting(self.config, f"{UNET}.block_out_channels")
        epoch = last["step"] * batch / last["epoch"] if last["epoch"] else np.nan
        return {
            "run": self.name,
            "seed": setting(self.config, "seed_everything"),
            "n": round(epoch - repeated) if np.isfinite(epoch) else np.nan,
            "epoch_length": round(epoch) if np.isfinite(epoch) else np.nan,
            "batch": batch,
            "width": float(widths[0]) if widths else np.nan,
            "arm": np.nan if arm is None else arm,
            "steps": int(last["step"]),
        }

    @cached_property
    def plants(self) -> pd.DataFrame:
        kinds = self.rows.drop_duplicates("plant_id").set_index("plant_id")["kind"]
        rows = []
        for within in (IN_MASK, IN_REGION, *OTHER_DEFINITIONS):
            for number, interval in emergence_intervals(self.rows, within).items():
                plant = self.planted.get(number)
                # not a plant (a control, a held-out caption), or removed by de-duplication: without exposures nothing can emerge
                if plant is None or (plant["kind"] in TRAINED and not plant["copies"]):
                    continue
                columns = {"plant_id": number, "kind": kinds[number], "caption": plant["text"], "copies": plant["copies"]}
                rate = self.settings["batch"] * plant["copies"] / self.settings["epoch_length"]
                ends = {"lower": float(interval.lower), "upper": float(interval.upper)}
                rows.append(self.settings | columns | {"area": plant.get("area"), "rate": rate, "within": within, **ends})
        return pd.DataFrame(rows)

    @cached_property
    def run(self) -> pd.DataFrame:
        """tau_mem by both rules, the two evaluations between which it lies, tau_gen and the onset of overfitting; NaN if not measured."""
        row = self.settings | dict.fromkeys(("tau_gen", "overfitting"), np.nan)
        for name, table in (("tau_mem", self.fractions), ("calibrated", self._copied("calibrated_l2", 1.0))):
            row |= {name: np.nan, f"{name}_lower": np.nan, f"{name}_upper": np.nan}
            if len(table):
                steps, values = table["step"].tolist(), table["f_mem"].tolist()
                first = next((place for place, value in enumerate(values) if value > CLOSE_SHARE), None)
                row[name] = crossing(steps, values)
                row[f"{name}_lower"] = float(steps[-1] if first is None else steps[max(first - 1, 0)])
                row[f"{name}_upper"] = np.inf if first is None else float(steps[first])
        heldout = self.losses[self.losses["kind"] == "heldout"] if len(self.losses) else self.losses
        if len(heldout):
            steps, losses = heldout["step"].tolist(), heldout["loss"].tolist()
            row["tau_gen"], row["overfitting"] = generalized(steps, losses), near_minimum(steps, losses)[1]
        return pd.DataFrame([row])

    @cached_property
    def fractions(self) -> pd.DataFrame:
        """f_mem: fraction of the generations without a caption with d1/d2 below 1/3 (Yoon et al. 2023)."""
        return self._copied("nn_ratio", CLOSE_RATIO)

    def _copied(self, measure: str, limit: float) -> pd.DataFrame:
        """f_mem of each evaluation: the fraction of the generations without a caption of which a measure is below its limit."""
        values = self.rows[(self.rows["measure"] == measure) & (self.rows["kind"] == "unprompted")]
        shares = (values["value"] < limit).groupby(values["step"]).mean().reset_index().rename(columns={"value": "f_mem"})
        return shares.assign(run=self.name, n=self.settings["n"])

    @cached_property
    def losses(self) -> pd.DataFrame:
        """Mean denoising loss of training and of held-out images at each evaluation."""
        values = self.rows[self.rows["measure"] == "denoising_loss"].groupby(["step", "kind"])["value"].mean()
        return values.rename("loss").reset_index().assign(run=self.name, n=self.settings["n"])

    @property
    def notes(self) -> list[str]:
        planned, reached = setting(self.config, "trainer.max_steps"), int(self.rows["step"].max())
        if planned is None or reached >= planned:
            return []
        reason = "had early stopping" if setting(self.config, "monitor.early_stop.monitor") else "was interrupted"
        return [f"`{self.name}` {reason}: its last evaluation is at step {reached} of {planned}. What emerges later is not measured."]


def read_runs(folders: Sequence[Path]) -> EmergenceTables:
    """Read run folders.

    Raises:
        AfterglowError: a folder is not a run, two runs have different definitions of memorized, or the same name.
    """
    runs = [_read(Path(folder)) for folder in folders]
    for folder, run in zip(folders, runs, strict=True):
        differing = [name for name in EQUAL_SETTINGS if setting(run.config, name) != setting(runs[0].config, name)]
        differing += ["definition"] if run.definition != runs[0].definition else []
        if differing:
            raise AfterglowError(f"'{folder}' and '{folders[0]}' differ in {', '.join(differing)}: their emergence cannot be compared.")
    run_names = [run.name for run in runs]
    if duplicate := next((name for name in run_names if run_names.count(name) > 1), None):
        raise AfterglowError(f"Two runs are called '{duplicate}': rename one of the folders.")
    names = ("plants", "run", "fractions", "losses")
    plants, run_table, fractions, losses = (pd.concat([getattr(run, name) for run in runs], ignore_index=True) for name in names)
    notes = tuple(note for run in runs for note in run.notes)
    return EmergenceTables(plants, run_table, fractions, losses, notes, runs[0].definition)


def _read(folder: Path) -> _RunFiles:
    rows, config = read_rows(folder), read_config(folder)
    if not config:
        raise AfterglowError(f"'{folder}' is not a run with evaluations: config.yaml is missing.")
    return _RunFiles(folder.name, config, rows, read_plants(folder))
