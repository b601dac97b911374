"""Write docs/findings/small_sd.md from the rows committed beside this file (docs/findings/plan.md, E6).

  python docs/findings/small_sd/make.py

`python scripts/reproduce.py small_sd` trains the runs and copies their rows here; runs that are not committed yet are left out.
"""

import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from afterglow.analysis.summary import ALL_SEEDS, read_measurements
from afterglow.functional.distances import CLOSE_RATIO
from afterglow.reports.detection import copies_detected_text
from afterglow.reports.tables import text_table

HERE = Path(__file__).parent
PLANNED = 2  # seeds
E3 = SimpleNamespace(**runpy.run_path(str(HERE.parent / "endings" / "make.py")))  # the same quantities
SCALES = ("1", "7.5")
MEMORIZED, NOT_YET = E3.CLASSES[:2]
FIRST_END = E3.MAPS[E3.PRIMARY]
NOT_EXCEEDED = "does not exceed the best trivial map"
KINDS = ("global", "local", "phantom", "tint", "decoy", "heldout")
CLOSE_KINDS = ("global", "local", "decoy", "heldout")  # also counted by d1/d2
MEMORIZED_NOTE = "By the calibrated distance, and where the column says so by d1/d2 below 1/3, in at least half of a caption's generations. Decoys and held-out captions have no image of their own: their generations are compared with the nearest training image, so that what counts is a false positive. The maps below use the calibrated distance."

NUM_IMAGES = 4  # generations of a caption
DETECTION = "AUC for memorized local plants against each kind of negative, mean over 4 generations of a caption with the final weights (12 steps): the guidance norm, LD, LD without the influence of the map's area, and, as a control, LD with the map of another caption (`ld_other_caption`). If the control separates copies as well as LD, it is not shown that the map contributes. Brackets: 95 % intervals over plants, exact at 0 and 1."

INTRODUCTION = """# Does the ending brighten in Stable Diffusion's structure?

`python docs/findings/small_sd/make.py` writes this page from the rows in `docs/findings/small_sd/`. `python scripts/reproduce.py small_sd` trains the runs again. The question, the primary quantity and the rule are those of [E6](plan.md#e6-stable-diffusions-structure).

Setup: Stable Diffusion's structure with all widths divided by eight, OpenMoji at 64 pixels, 2,600 steps; a text encoder of CLIP's architecture, causal, random and frozen, which pads with end tokens that are attended. Each seed has its own autoencoder, U-Net and encoder. "leading, W": the final weights are sampled again with 50 steps of leading spacing (the last at t = 1) at guidance scale W; "trailing": the evaluations during training, 12 steps of trailing spacing at guidance scale 1. A plant counts as memorized by its own generations at that setting. AUC: as in the page on [text encoders](endings.md), maps of the last sampling step, mean of all layers. Values are those of the seeds in order; no interval is given for two seeds."""


def read_settings(folder: Path) -> dict[str, dict[int, pd.DataFrame]]:
    """{setting: {seed: rows with step and plant_memorized}} of the committed runs."""
    found: dict[str, dict[int, pd.DataFrame]] = {}
    for path in sorted(folder.glob("small_sd-*/measurements.parquet")):
        seed = int(path.parent.name.rpartition("-")[2])
        found.setdefault("trailing", {})[seed] = read_measurements(path)
        for scale in SCALES:
            found.setdefault(f"leading, {scale}", {})[seed] = with_verdicts(read_measurements(path.with_name(f"maps-{scale}.parquet")))
    return found


def with_verdicts(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of collected generations, with step 0 and plant_memorized: at least half of the generations are copies."""
    shares = rows[rows["measure"] == "memorized"].groupby(["kind", "plant_id"])["value"].mean().reset_index()
    verdicts = shares.assign(seed=ALL_SEEDS, measure="plant_memorized", value=(shares["value"] >= 0.5).astype(float))
    return pd.concat([rows, verdicts], ignore_index=True).assign(step=0)


def listed(values: Sequence[float]) -> str:
    """'0.71, 0.65': the value of each seed."""
    return ", ".join("-" if np.isnan(value) else f"{value:.2f}" for value in values)


def verdict(rows: pd.DataFrame) -> str:
    """What the rule of E3 says about one seed at one setting, without its interval."""
    means, trivial, difference = E3.class_means(rows, f"{FIRST_END}.all"), E3.best_trivial(rows), E3.follows(rows, f"{FIRST_END}.all")
    if MEMORIZED not in means:
        return "no local plant is memorized"
    if means[MEMORIZED] <= trivial:
        return NOT_EXCEEDED
    text = "exceeds the best trivial map"
    if means.get("tint", 0.0) >= means[MEMORIZED]:
        return f"{text}; as bright on tints, so that the map shows what the caption predicts"
    if np.isnan(difference):
        return f"{text} and is darker on tints"
    return f"{text}, is darker on tints, and is {'brighter' if difference > 0 else 'not brighter'} after a plant's emergence than before"


def verdicts_text(settings: Mapping[str, Mapping[int, pd.DataFrame]]) -> str:
    """The verdict of each setting and seed, with the two AUCs that decide."""
    lines = []
    for setting, runs in settings.items():
        for seed, rows in runs.items():
            areas = listed([E3.class_means(rows, f"{FIRST_END}.all").get(MEMORIZED, np.nan)]), listed([E3.best_trivial(rows)])
            lines.append([setting, str(seed), *areas, verdict(rows)])
    return text_table(["setting", "seed", "first end token", "best trivial map", "the first end token's map"], lines)


def memorized_text(settings: Mapping[str, Mapping[int, pd.DataFrame]]) -> str:
    """Memorized plants of each kind by the calibrated distance, and of some kinds by d1/d2, by setting and seed."""
    lines = []
    for setting, runs in settings.items():
        for seed, rows in runs.items():
            last = rows[rows["step"] == rows["step"].max()]
            copied, close = with_verdicts(last[last["measure"] == "memorized"]), with_verdicts(close_rows(last))
            cells = [count(copied, kind) for kind in KINDS] + [count(close, kind) for kind in CLOSE_KINDS]
            lines.append([setting, str(seed), *cells])
    return text_table(["setting", "seed", *KINDS, *(f"{kind}, d1/d2" for kind in CLOSE_KINDS)], lines)


def close_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows whose `memorized` is that of d1/d2."""
    ratio = rows[rows["measure"] == "nn_ratio"]
    return ratio.assign(measure="memorized", value=(ratio["value"] < CLOSE_RATIO).astype(float))


def count(rows: pd.DataFrame, kind: str) -> str:
    """'3 of 8': memorized plants of a kind."""
    values = rows[(rows["measure"] == "plant_memorized") & (rows["kind"] == kind)]["value"]
    return f"{int(values.sum())} of {len(values)}"


def maps_text(settings: Mapping[str, Mapping[int, pd.DataFrame]]) -> str:
    """AUC of the token groups on each class, the difference around emergence, and the best trivial map, by setting."""
    lines = []
    for setting, runs in settings.items():
        for label, name in E3.MAPS.items():
            means = [E3.class_means(rows, f"{name}.all") for rows in runs.values()]
            cells = [listed([of.get(kind, np.nan) for of in means]) for kind in E3.CLASSES]
            around = listed([E3.follows(rows, f"{name}.all") for rows in runs.values()]) if setting == "trailing" else "-"
            lines.append([setting, label, *cells, around])
        trivial = listed([E3.best_trivial(rows) for rows in runs.values()])
        lines.append([setting, "best trivial map", trivial, *["-"] * len(E3.CLASSES)])
    return text_table(["setting", "map", *E3.CLASSES, "AUC after minus before emergence"], lines)


def layers_text(settings: Mapping[str, Mapping[int, pd.DataFrame]]) -> str:
    """The paper's layers, and the layer of the first end token's map that is best on the other seed, on memorized local plants."""
    lines = []
    for setting, runs in settings.items():
        names = {n.removeprefix("auc.") for rows in runs.values() for n in rows["measure"].unique() if n.startswith(f"auc.{FIRST_END}.")}
        areas = {seed: {name: E3.class_means(rows, name).get(MEMORIZED, np.nan) for name in sorted(names)} for seed, rows in runs.items()}
        for seed, own in areas.items():
            others = {name: np.mean([of[name] for other, of in areas.items() if other != seed] or [np.nan]) for name in own}
            known = {name: value for name, value in others.items() if not np.isnan(value)}
            best = max(known, key=lambda name: known[name]) if known else ""
            chosen = [best.removeprefix(f"{FIRST_END}."), f"{own[best]:.2f}"] if best else ["-", "-"]
            lines.append([setting, str(seed), listed([own.get(f"{FIRST_END}.be", np.nan)]), *chosen])
    return text_table(["setting", "seed", "the paper's layers", "layers chosen on the other seed", "AUC"], lines)


def page(folder: Path = HERE) -> str:
    """Markdown of the finding; every number is computed from the committed rows."""
    settings = read_settings(folder)
    parts = [
        INTRODUCTION,
        "## Verdicts",
        verdicts_text(settings),
        "## Memorized plants",
        memorized_text(settings),
        MEMORIZED_NOTE,
        "## Maps of the token groups",
        maps_text(settings),
        "## Layers of the first end token",
        layers_text(settings),
    ]
    files = {path.parent.name.removeprefix("detection-"): path for path in sorted(folder.glob("detection-*/detection.parquet"))}
    if detection := copies_detected_text({name: read_measurements(path) for name, path in files.items()}, NUM_IMAGES):
        parts += ["## Detection", f"{DETECTION} Runs: {', '.join(files)}.", detection]
    return "\n\n".join(parts) + "\n"


def answer(folder: Path = HERE) -> str:
    """One sentence for the front page."""
    settings = read_settings(folder)
    if not settings:
        return "Whether the ending brightens in Stable Diffusion's structure is not measured yet (E6)."
    verdicts = {(scale, seed): verdict(rows) for scale in SCALES for seed, rows in settings[f"leading, {scale}"].items()}
    above = [about for about, text in verdicts.items() if text.startswith("exceeds")]
    listing = "; ".join(f"scale {scale}, seed {seed}" for scale, seed in above)
    missing = f"; {len(settings['trailing'])} of {PLANNED} planned seeds" if len(settings["trailing"]) < PLANNED else ""
    return (
        "In Stable Diffusion's structure (64 pixels, an eighth of its width, 50 sampling steps), the map of the first end token exceeds the best "
        f"trivial map on memorized regions in {len(above)} of {len(verdicts)} cases of a guidance scale and a seed"
        f"{f' ({listing}{missing})' if listing else missing}."
    )


def main() -> None:
    """Write the page if a run is committed."""
    if not read_settings(HERE):
        print("No run of E6 is committed: no page is written.")
        return
    HERE.with_suffix(".md").write_text(page(), encoding="utf-8")
    print(HERE.with_suffix(".md"))


if __name__ == "__main__":
    main()
