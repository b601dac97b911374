"""Many runs as two tables: one row a plant, and one row a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from afterglow.analysis.emergence import ASSIGNED, DEFINITION, Interval
from afterglow.analysis.emergence_table import REGION, WHOLE, emergence_intervals
from afterglow.analysis.scaling import CLOSE_SHARE, crossing, generalized
from afterglow.analysis.summary import read_measurements
from afterglow.functional.distances import CLOSE_RATIO
from afterglow.reports.run import read_plants, setting

DATA, UNET = "data.init_args", "model.init_args.unet"
# what decides when something is called memorized; runs that differ in it have no common curve
MUST_AGREE = (
    *(
        "model.class_path",
        f"{DATA}.dataset",
        f"{DATA}.resolution",
        f"{DATA}.channels",
        "monitor.final_seeds",
        "monitor.seeds",
        "monitor.num_unprompted",
    ),
    *("monitor.sampler.scheduler", "monitor.sampler.steps", "monitor.sampler.guidance_scale", "monitor.sampler.options"),
)
TRAINED_KINDS = ("global", "local", "natural", "decoy", "tint")


@dataclass(frozen=True)
class EmergenceTables:
    """Tables of many runs.

    plants: run, n, copies, area, width, arm, seed, plant_id, kind, caption, rate (exposures a step), within ('', '.region'), lower, upper.
    runs: run, n, width, seed, batch, steps, tau_mem, tau_mem_lower, tau_mem_upper, tau_gen. shares: run, n, step, f_mem.
    losses: run, n, step, kind, loss. notes: what a reader must know of single runs.
    """

    plants: pd.DataFrame
    runs: pd.DataFrame
    shares: pd.DataFrame
    losses: pd.DataFrame
    notes: tuple[str, ...]


def read_runs(folders: Sequence[Path]) -> EmergenceTables:
    """Raises ValueError that names a folder without probes, and two runs whose definitions differ."""
    parts = [_read(Path(folder)) for folder in folders]
    first, (_, config, rows) = folders[0], parts[0][:3]
    for folder, (_, other, some, _) in zip(folders, parts, strict=True):
        differ = [name for name in MUST_AGREE if setting(other, name) != setting(config, name)]
        differ += ["definition"] if definition(some) != definition(rows) else []
        if differ:
            raise ValueError(f"'{folder}' and '{first}' differ in {', '.join(differ)}: what emerged in one says nothing of the other.")
    names = [part[0] for part in parts]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"Two runs are called '{twice}': give them different names.")
    tables = [(_plants(*part), _run(*part), _shares(*part), _losses(*part)) for part in parts]
    plants, runs, shares, losses = (pd.concat(some, ignore_index=True) for some in zip(*tables, strict=True))
    return EmergenceTables(plants, runs, shares, losses, tuple(note for part in parts for note in _notes(part)))


def definition(rows: pd.DataFrame) -> str:
    """By which a plant of these rows is called memorized."""
    return ASSIGNED if (rows["measure"] == "extracted").any() else DEFINITION


Part = tuple[str, dict[str, Any], pd.DataFrame, dict[int, dict[str, Any]]]


def _read(folder: Path) -> Part:
    for name in ("measurements.parquet", "config.yaml"):
        if not (folder / name).is_file():
            raise ValueError(f"There is no run with probes in '{folder}': {name} is missing.")
    rows = read_measurements(folder / "measurements.parquet")
    if rows.empty:
        raise ValueError(f"There is no run with probes in '{folder}': measurements.parquet holds no rows.")
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    return folder.name, config, rows, read_plants(folder / "plants" / "metadata.jsonl")


def _about(name: str, config: Mapping[str, Any], rows: pd.DataFrame, plants: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """What every row of a run has. n is counted from the length of an epoch, since a recipe may leave it to what is left of a set."""
    batch, last = setting(config, f"{DATA}.batch_size"), rows[rows["step"] == rows["step"].max()].iloc[0]
    repeated = sum(plant["copies"] for plant in plants.values() if plant["kind"] in TRAINED_KINDS)
    arm = setting(config, f"{DATA}.planting.arm")
    epoch = last["step"] * batch / last["epoch"] if last["epoch"] else np.nan
    widths = setting(config, f"{UNET}.block_out_channels")
    return {
        "run": name,
        "seed": setting(config, "seed_everything"),
        "n": round(epoch - repeated) if np.isfinite(epoch) else np.nan,
        "epoch_length": round(epoch) if np.isfinite(epoch) else np.nan,
        "batch": batch,
        "width": float(widths[0]) if widths else np.nan,
        "arm": np.nan if arm is None else arm,
        "steps": int(last["step"]),
    }


def _plants(name: str, config: Mapping[str, Any], rows: pd.DataFrame, plants: Mapping[int, Mapping[str, Any]]) -> pd.DataFrame:
    about = _about(name, config, rows, plants)
    kinds = rows.drop_duplicates("plant_id").set_index("plant_id")
    found = []
    for within in (WHOLE, REGION):
        for number, interval in emergence_intervals(rows, within).items():
            plant = plants.get(number)
            if plant is None:  # a control, a held-out caption, a generation without a caption
                continue
            copies = plant["copies"]
            if plant["kind"] in TRAINED_KINDS and not copies:  # a duplicate that was taken out: it has no exposures to emerge after
                continue
            row = {
                "plant_id": number,
                "kind": kinds.loc[number, "kind"],
                "caption": plant["text"],
                "copies": copies,
                "area": plant.get("area"),
            }
            rate = about["batch"] * copies / about["epoch_length"]
            found.append(about | row | {"rate": rate, "within": within, **_ends(interval)})
    return pd.DataFrame(found)


def _ends(interval: Interval) -> dict[str, float]:
    return {"lower": float(interval.lower), "upper": float(interval.upper)}


def _run(name: str, config: Mapping[str, Any], rows: pd.DataFrame, plants: Mapping[int, Mapping[str, Any]]) -> pd.DataFrame:
    """tau_mem as interpolated, and the two probes between which it lies; tau_gen; NaN where a run measured neither."""
    found = _about(name, config, rows, plants) | dict.fromkeys(("tau_mem", "tau_mem_lower", "tau_mem_upper", "tau_gen"), np.nan)
    shares = _shares(name, config, rows, plants)
    if len(shares):
        steps, values = shares["step"].tolist(), shares["f_mem"].tolist()
        passed = [place for place, value in enumerate(values) if value > CLOSE_SHARE]
        found["tau_mem"] = crossing(steps, values)
        found["tau_mem_lower"] = float(steps[max(passed[0] - 1, 0)] if passed else steps[-1])
        found["tau_mem_upper"] = float(steps[passed[0]]) if passed else np.inf
    losses = _losses(name, config, rows, plants)
    unseen = losses[losses["kind"] == "heldout"] if len(losses) else losses
    if len(unseen):
        found["tau_gen"] = generalized(unseen["step"].tolist(), unseen["loss"].tolist())
    return pd.DataFrame([found])


def _shares(name: str, config: Mapping[str, Any], rows: pd.DataFrame, plants: Mapping[int, Mapping[str, Any]]) -> pd.DataFrame:
    """f_mem of each probe: share of the generations without a caption with d1/d2 under 1/3 (Yoon et al. 2023)."""
    ratios = rows[(rows["measure"] == "nn_ratio") & (rows["kind"] == "unprompted")]
    shares = (ratios["value"] < CLOSE_RATIO).groupby(ratios["step"]).mean().reset_index().rename(columns={"value": "f_mem"})
    return shares.assign(run=name, n=_about(name, config, rows, plants)["n"])


def _losses(name: str, config: Mapping[str, Any], rows: pd.DataFrame, plants: Mapping[int, Mapping[str, Any]]) -> pd.DataFrame:
    """Mean denoising loss of training and of held-out images at each probe."""
    values = rows[rows["measure"] == "denoising_loss"].groupby(["step", "kind"])["value"].mean()
    return values.rename("loss").reset_index().assign(run=name, n=_about(name, config, rows, plants)["n"])


def _notes(part: Part) -> list[str]:
    name, config, rows, _ = part
    planned, reached = setting(config, "trainer.max_steps"), int(rows["step"].max())
    if planned is not None and reached < planned and setting(config, "monitor.early_stop.monitor"):
        return [f"`{name}` was to stop early: its last probe is at step {reached} of {planned}, and what emerges later is not in it."]
    if planned is not None and reached < planned:
        return [f"`{name}` was interrupted: its last probe is at step {reached} of {planned}, and it is used up to there."]
    return []
