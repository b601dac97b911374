"""Repeat the runs behind a page of docs/findings, copy their rows there, and write the page and the front page again.

  python scripts/reproduce.py demo
  python scripts/reproduce.py localization
  python scripts/reproduce.py emergence
  python scripts/reproduce.py mitigation
  python scripts/reproduce.py endings           experiment E3
  python scripts/reproduce.py photographs       experiment E1; needs AFTERGLOW_DATA
  python scripts/reproduce.py photograph_sizes  experiment E2; needs AFTERGLOW_DATA
  python scripts/reproduce.py unconditional     experiment E4; needs AFTERGLOW_DATA
  python scripts/reproduce.py backgrounds       experiment E5
  python scripts/reproduce.py small_sd          experiment E6
  python scripts/reproduce.py photographs_32    larger photographs; needs AFTERGLOW_DATA
  python scripts/reproduce.py mitigation_causal mitigations on three models of "endings"
  python scripts/reproduce.py emergence --list  print the missing commands and run nothing

AFTERGLOW_DATA names the folder that holds cifar/, celeba_64/ and flowers102_64/. Runs whose rows are already in docs/findings are skipped;
delete their folder there to repeat them. An interrupted call resumes. `python benchmarks/recipe_time.py` with the options
of a listed training estimates its processor time.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
FINDINGS = ROOT / "docs" / "findings"
RUN_FILES = ("config.yaml", "emergence.json", "measurements.parquet")
PLANTED_RUN_FILES = (*RUN_FILES, "plants/metadata.jsonl")
# rows that the pages of emergence and mitigation read; the others are not committed
MEASURES = (
    "plant_memorized", "plant_memorized.region", "denoising_loss", "denoising_log_ratio.inside", "denoising_log_ratio.outside", "extracted",
    "nn_ratio", "calibrated_l2", "memorized", "memorized.region",
    "calibrated_l2.region", "nn_ratio.region", "cluster_size", "nearest_cluster", "unseen.calibrated_l2", "unseen.nn_ratio",
)  # fmt: skip
SEEDS = (0, 1, 2)
STEPS_BY_SIZE = {16: 400, 32: 700, 64: 1200, 128: 2100}  # memorization comes later in larger sets
STEPS_OF_PAIRS = {500: 900, 2000: 1300}
CONTROLS = {  # name of the extraction: (model, run whose training set it is compared with)
    "own": ("runs/sizes-64-0", "sizes-64-0"),
    "optimal": ("optimal:runs/sizes-64-0", "sizes-64-0"),
    "other": ("runs/other-64-0", "sizes-64-0"),
    "planted-optimal": ("optimal:runs/paired_arms-500-0-0", "paired_arms-500-0-0"),
}
# the demo as it was when these runs were made
EARLIER_DEMO = ("--data.set_size", "2000", "--data.planting.copies", "250", "--trainer.max_steps", "1200", "--monitor.sampler.steps", "12")
MODELS = {  # options of the trainings whose models are compared without and with mitigations at inference
    "demo": EARLIER_DEMO,
    "seed1": (*EARLIER_DEMO, "--seed_everything", "1"),
    "shapes-0": ("--config", "configs/findings/shapes.yaml", "--seed_everything", "0"),
    "shapes-1": ("--config", "configs/findings/shapes.yaml", "--seed_everything", "1"),
}
TRAINING_MITIGATIONS = {  # options of trainings with a mitigation
    "none": (),
    "drop_guidance_norm": ("--mitigations+=SampleDropping", "--mitigations.measure=guidance_norm"),
    "drop_entropy": ("--mitigations+=SampleDropping", "--mitigations.measure=entropy"),
    "caption_replaced": ("--mitigations+=RandomCaption",),
    "caption_words": ("--mitigations+=RandomTokens",),
    "caption_repeats": ("--mitigations+=CaptionWordRepetition",),
    "caption_noise": ("--mitigations+=GaussianNoise",),
    "stop_memorized": ("--monitor.early_stop.monitor", "memorized"),
    "stop_log_ratio": ("--monitor.early_stop.monitor", "denoising_log_ratio"),
}
CAUSAL = ("--config", "configs/overlays/text_causal.yaml")
MASKED = ("--model.mask_padding", "true")
ENDINGS = {  # options of the demo's training for each arm of E3 (docs/findings/plan.md); frozen encoders are made first
    "minilm": (),
    "causal": CAUSAL,
    "causal_masked": (*CAUSAL, *MASKED),
    "contrastive": ("--model.text", "runs/text-contrastive-{seed}"),
    "random": ("--model.text", "runs/text-random-{seed}"),
    "minilm_masked": MASKED,
    "causal_heads": (*CAUSAL, "--model.unet.attention_head_dim", "4"),
}
ENCODER_STEPS = {"contrastive": "1000", "random": "0"}
# rows of "endings": at every evaluation the mean over all layers and the paper's layers, at the last evaluation every layer;
# permuted_auc and auc.mask_prior are the controls of the maps
ENDING_MEASURES = (
    "memorized", "plant_memorized", "calibrated_l2", "nn_ratio", "attention_mass.*.all", "auc.*.all", "auc.*.be", "auc.mask_prior",
    "permuted_auc.*.all", "permuted_auc.*.be",
)  # fmt: skip
TRIVIAL_MAPS = ("all_ones", "centered_gaussian", "luminance", "local_contrast", "score_difference.*")
TRIVIAL_MEASURES = tuple(f"{metric}.{name}" for metric in ("auc", "permuted_auc") for name in TRIVIAL_MAPS)
LAST_MEASURES = ("auc.*", "permuted_auc.*", "attention_mass.*")
DETECTORS = (
    "guidance_norm.all",
    *(f"{name}.{layers}.all" for name in ("ld", "ld_neutral", "ld_other_caption") for layers in ("be", "all")),
)
COLLECTED_MEASURES = (  # of generations that are sampled again at Stable Diffusion's own steps
    "memorized", "calibrated_l2", "nn_ratio", "attention_mass.*.all", "end_token.last.*", "token_group.last.*.all", "token_group.last.*.be",
    "sink_darkness.last.*", "score_difference.*", "all_ones", "centered_gaussian", "luminance", "local_contrast",
)  # fmt: skip
DATA_FOLDERS = {"cifar10": "cifar", "celeba": "celeba_64", "flowers102": "flowers102_64"}
PHOTOGRAPH_SEEDS = {"cifar10": (0, 1, 2), "celeba": (0, 1, 2), "flowers102": (0, 1, 2)}
STEPS_BY_PHOTOGRAPHS = {32: 1200, 128: 5000, 512: 9000}
# rows of "unconditional" and "backgrounds": both rules of each sample, so that other thresholds can be computed
COMPLETION_MEASURES = (
    "memorized", "calibrated_l2", "nn_ratio", "nearest_cluster", "extracted", "plant_memorized", "plant_memorized.*", "outpainted*",
    "denoising_log_ratio.inside", "unseen.*",
)  # fmt: skip
DEDUPLICATIONS = ("exact", "pixels", "local")


@dataclass(frozen=True)
class Command:
    """`afterglow` and its arguments; skipped if the file that it writes last exists."""

    arguments: tuple[str, ...]
    result: Path

    def line(self) -> list[str]:
        """The command as a list of words."""
        return [sys.executable, "-m", "afterglow", *self.arguments]


@dataclass(frozen=True)
class Run:
    """Commands, and the files that are copied from `source` to `folder` below docs/findings; the last of the files marks it complete.

    measures: names of the rows that are kept, with wildcards; last_measures: of further rows of the last evaluation.
    """

    folder: str
    commands: tuple[Command, ...]
    source: str
    files: tuple[str, ...]
    measures: tuple[str, ...] = ()
    last_measures: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether docs/findings holds the run."""
        return all((FINDINGS / self.folder / file).is_file() for file in self.files)


def train(name: str, *options: str) -> Command:
    """A training, resumed if it was interrupted. It ends with emergence.json."""
    return Command(("train", *options, "--name", name, "--resume", "auto"), ROOT / "runs" / name / "emergence.json")


def demo() -> Iterator[Run]:
    """The demo's recipe with three seeds."""
    measures = ("memorized", "plant_memorized", "calibrated_l2", "nn_ratio", "cluster_size")
    for seed in SEEDS:
        command = train(f"demo-{seed}", "--config", "configs/demo.yaml", "--seed_everything", str(seed))
        last = ("auc.*.all", "auc.mask_prior", "attention_mass.*.all", *TRIVIAL_MEASURES)
        yield Run(f"demo/demo-{seed}", (command,), f"runs/demo-{seed}", PLANTED_RUN_FILES, measures, last)


def localization() -> Iterator[Run]:
    """Two recipes with two seeds each."""
    for recipe in ("shapes", "copies"):
        for seed in ("0", "1"):
            command = train(f"{recipe}-{seed}", "--config", f"configs/findings/{recipe}.yaml", "--seed_everything", seed)
            yield Run(f"localization/{recipe}-{seed}", (command,), f"runs/{recipe}-{seed}", RUN_FILES)


def emergence() -> Iterator[Run]:
    """Set sizes without plants, paired arms with plants, and extractions as controls."""
    trainings = {
        f"sizes-{size}-{seed}": size_run(f"sizes-{size}-{seed}", size, "--seed_everything", str(seed))
        for seed in SEEDS
        for size in STEPS_BY_SIZE
    }
    for seed in SEEDS:
        for size, steps in STEPS_OF_PAIRS.items():
            for arm in (0, 1):
                name = f"paired_arms-{size}-{arm}-{seed}"
                options = ("--config", "configs/findings/paired_arms.yaml", "--data.set_size", str(size), "--data.planting.arm", str(arm))
                trainings[name] = train(name, *options, "--seed_everything", str(seed), "--trainer.max_steps", str(steps))
    for name, command in trainings.items():
        yield Run(f"emergence/{name}", (command,), f"runs/{name}", PLANTED_RUN_FILES, MEASURES)
    other = size_run("other-64-0", 64, "--data.skip_first", "64")
    for name, (model, run) in CONTROLS.items():
        out, files = f"runs/control-{name}", ("extract.parquet", "plants.parquet") if "planted" in name else ("extract.parquet",)
        extract = ("extract", "--model", model, "--run", f"runs/{run}", "--num-images", "256", "--num-inference-steps", "25", "--out", out)
        before = (trainings[run], *((other,) if name == "other" else ()))
        yield Run(f"emergence/controls/{name}", (*before, Command(extract, ROOT / out / files[0])), out, files)


def size_run(name: str, size: int, *options: str) -> Command:
    """A training of `configs/findings/sizes.yaml`."""
    fixed = ("--config", "configs/findings/sizes.yaml", "--data.set_size", str(size), "--trainer.max_steps", str(STEPS_BY_SIZE[size]))
    return train(name, *fixed, *options)


def dataset_options(dataset: str) -> tuple[str, ...]:
    """The options of a dataset in a folder below AFTERGLOW_DATA."""
    folder = Path(os.environ.get("AFTERGLOW_DATA", "data")) / DATA_FOLDERS[dataset]
    return ("--data.dataset", dataset, "--data.data_dir", str(folder))


def photographs() -> Iterator[Run]:
    """E1: each template whole in one run, as a region in its paired run, on photographs."""
    for dataset, seeds in PHOTOGRAPH_SEEDS.items():
        for seed in seeds:
            for arm in ("0", "1"):
                name = f"photographs-{dataset}-{seed}-{arm}"
                recipes = ("--config", "configs/findings/paired_arms.yaml", "--config", "configs/overlays/photographs.yaml")
                options = (*recipes, *dataset_options(dataset), "--data.planting.arm", arm, "--seed_everything", str(seed))
                yield Run(f"photographs/{name}", (train(name, *options),), f"runs/{name}", PLANTED_RUN_FILES)


def photograph_sizes() -> Iterator[Run]:
    """E2: set sizes without plants on photographs, on disjoint sets for the two seeds: each model is the other's control."""
    for dataset in ("celeba", "flowers102"):
        for size, steps in STEPS_BY_PHOTOGRAPHS.items():
            fixed = ("--config", "configs/findings/photograph_sizes.yaml", *dataset_options(dataset), "--data.set_size", str(size))
            fixed = (*fixed, "--trainer.max_steps", str(steps))
            names = [f"photograph_sizes-{dataset}-{size}-{seed}" for seed in (0, 1)]
            sets = ((), ("--data.planting.seed", "0", "--data.skip_first", str(size)))
            trainings = [train(name, *fixed, *sets[seed], "--seed_everything", str(seed)) for seed, name in enumerate(names)]
            for name, command in zip(names, trainings, strict=True):
                yield Run(f"photograph_sizes/{name}", (command,), f"runs/{name}", PLANTED_RUN_FILES, MEASURES)
            for own, other in (names, names[::-1]):
                for model, out in ((own, f"runs/extract-{own}"), (other, f"runs/extract-{own}-disjoint")):
                    words = ("extract", "--model", f"runs/{model}", "--run", f"runs/{own}", "--num-images", "256")
                    extract = Command((*words, "--num-inference-steps", "25", "--out", out), ROOT / out / "unseen.parquet")
                    files = ("extract.parquet", "unseen.parquet")
                    yield Run(f"photograph_sizes/{Path(out).name}", (*trainings, extract), out, files)


def detection(finding: str, name: str, trained: tuple[Command, ...], *sampler: str) -> Run:
    """Detectors of copies on the final weights of a run, LD with the map of another caption among them."""
    run, out = f"runs/{name}", f"runs/detection-{name}"
    measures, file = ("--measures", "memorized", *DETECTORS), f"{out}/detection.parquet"
    targets = ("--model", run, "--run", run, "--controls", "16", "--num-inference-steps", "12")
    collect = ("collect", *targets, *sampler, *measures, "--out", f"{out}/generations")  # an interrupted collection resumes
    commands = (Command(collect, ROOT / file), Command(("measure", f"{out}/generations", *measures, "--out", file), ROOT / file))
    return Run(f"{finding}/detection-{name}", (*trained, *commands), out, ("detection.parquet",))


def photographs_32() -> Iterator[Run]:
    """One run of 32 pixels for each set of photographs, the size of CIFAR-10's own images."""
    for dataset in PHOTOGRAPH_SEEDS:
        name = f"photographs_32-{dataset}-0"
        options = ("--config", "configs/findings/photographs_32.yaml", *dataset_options(dataset), "--seed_everything", "0")
        yield Run(f"photographs/{name}", (training := train(name, *options),), f"runs/{name}", PLANTED_RUN_FILES, MEASURES)
        yield detection("photographs", name, (training,))


def mitigation() -> Iterator[Run]:
    """Mitigations at inference on four models, a grid of strengths on one, and mitigations at training time."""
    yield from (comparison("mitigation", model, "--controls", "24", "--heldout", "16") for model in MODELS)
    grid = ("--mitigations", "insert_words", "memattn", "stp", "og_stp", "wen.magnitude", "--strengths", "grid")
    yield comparison("strengths", "shapes-0", "--controls", "16", "--heldout", "8", "--num-images", "2", *grid)
    for seed in ("0", "1"):
        recipe = ("--config", "configs/findings/mitigations.yaml", "--seed_everything", seed)
        for name, options in TRAINING_MITIGATIONS.items():
            yield mitigated_run(f"mitigations-{name}-{seed}", train(f"mitigations-{name}-{seed}", *recipe, *options))
        planted = f"runs/planted-{seed}"
        plant = Command(("plant", *recipe, "--out", planted), ROOT / planted / "metadata.jsonl")
        for method in DEDUPLICATIONS:
            name, kept = f"mitigations-deduplicate_{method}-{seed}", f"runs/planted-{method}-{seed}"
            arguments = ("deduplicate", planted, "--method", method, "--seed", seed, "--out", kept)
            deduplicate = Command(arguments, ROOT / kept / "duplicates.parquet")
            options = ("--data.dataset", "planted", "--data.data_dir", kept)
            yield mitigated_run(name, plant, deduplicate, train(name, *recipe, *options))


def mitigation_causal() -> Iterator[Run]:
    """The mitigations that read or scale attention to the caption's tokens, where the encoder is causal as Stable Diffusion's."""
    names = ("--mitigations", "memattn", "memattn.begin", "memattn.pads", "wen.magnitude", "wen.ld")
    for seed in SEEDS:
        before, options = ending_training("causal", seed), ("--controls", "24", "--heldout", "16", *names)
        yield comparison("causal", f"endings-causal-{seed}", *options, training=before)


def comparison(prefix: str, model: str, *options: str, training: Command | None = None) -> Run:
    """`afterglow mitigate` on the model of a run, which is trained first."""
    name, run = f"{prefix}-{model}", f"runs/{model}"
    fixed = (
        "--model",
        run,
        "--run",
        run,
        "--plants",
        "8",
        "--kinds",
        "global",
        "local",
        "control",
        "heldout",
        "--num-inference-steps",
        "12",
    )
    mitigate = Command(("mitigate", *fixed, *options, "--out", f"runs/{name}"), ROOT / "runs" / name / "plants.parquet")
    before = training or train(model, *MODELS[model])
    return Run(f"mitigation/{name}", (before, mitigate), f"runs/{name}", ("plants.parquet",))


def mitigated_run(name: str, *commands: Command) -> Run:
    """A training whose rows are committed for the finding "mitigation"."""
    return Run(f"mitigation/{name}", commands, f"runs/{name}", PLANTED_RUN_FILES, MEASURES)


def ending_training(arm: str, seed: int) -> Command:
    """A training of E3."""
    fixed = ("--config", "configs/demo.yaml", "--config", "configs/overlays/endings.yaml")
    options = (option.format(seed=seed) for option in ENDINGS[arm])
    return train(f"endings-{arm}-{seed}", *fixed, *options, "--seed_everything", str(seed))


def endings() -> Iterator[Run]:
    """The demo with seven text encoders; each model is sampled again with the states of token groups replaced."""
    for seed in SEEDS:
        for arm in ENDINGS:
            name, training = f"endings-{arm}-{seed}", ending_training(arm, seed)
            before: tuple[Command, ...] = ()
            if arm in ENCODER_STEPS:
                encoder = f"runs/text-{arm}-{seed}"
                arguments = ("text-encoder", "--steps", ENCODER_STEPS[arm], "--seed", str(seed), "--out", encoder)
                before = (Command(arguments, ROOT / encoder / "config.json"),)
            out = f"runs/{name}/knockout"
            arguments = ("knockout", "--model", f"runs/{name}", "--run", f"runs/{name}", "--num-inference-steps", "12", "--out", out)
            knockout = Command(arguments, ROOT / out / "knockout.parquet")
            files = (*PLANTED_RUN_FILES, "knockout/knockout.parquet")
            kept = (*ENDING_MEASURES, *TRIVIAL_MEASURES)
            yield Run(f"endings/{name}", (*before, training, knockout), f"runs/{name}", files, kept, LAST_MEASURES)


def unconditional() -> Iterator[Run]:
    """E4: plants in models without captions on three sets, and the natural families of CIFAR-10 automobile."""
    search = ("near-duplicates", "--dataset", "cifar10", "--data-dir", dataset_options("cifar10")[-1], "--caption", "automobile")
    search = (*search, "--distance", "correlation", "--out", "runs/near-duplicates")
    cars = Command((*search, "--families", "runs/cars"), ROOT / "runs" / "cars" / "metadata.jsonl")
    for seed in SEEDS:
        for dataset in ("openmoji", "cifar10", "celeba"):
            options = dataset_options(dataset) if dataset in DATA_FOLDERS else ()
            yield unconditional_run(f"unconditional-{dataset}-{seed}", "unconditional", *options, seed=seed)
        for recipe in ("families", "families_captioned"):
            yield unconditional_run(f"{recipe}-{seed}", recipe, "--data.data_dir", "runs/cars", seed=seed, before=(cars,))


def unconditional_run(name: str, recipe: str, *options: str, seed: int, before: tuple[Command, ...] = ()) -> Run:
    """A training of E4 whose completions and last maps are committed."""
    training = train(name, "--config", f"configs/findings/{recipe}.yaml", *options, "--seed_everything", str(seed))
    return Run(f"unconditional/{name}", (*before, training), f"runs/{name}", PLANTED_RUN_FILES, COMPLETION_MEASURES, ("auc.*",))


def backgrounds() -> Iterator[Run]:
    """E5: numbers of backgrounds of local plants."""
    for seed in ("0", "1"):
        for count in ("2", "4", "16", "64", "0"):
            options = ("--config", "configs/findings/backgrounds.yaml", "--data.planting.num_backgrounds_per_plant", count)
            name, measures = f"backgrounds-{count}-{seed}", (*COMPLETION_MEASURES, "outside_diversity", "local_to_global")
            training = train(name, *options, "--seed_everything", seed)
            yield Run(f"backgrounds/{name}", (training,), f"runs/{name}", PLANTED_RUN_FILES, measures)


def small_sd() -> Iterator[Run]:
    """E6: Stable Diffusion's structure, each seed with its own random U-Net and text encoder; its last maps again at 50 leading steps."""
    recipes = ("--config", "configs/sd14_memorize.yaml", "--config", "configs/overlays/small_sd.yaml")
    for seed in ("0", "1"):
        name, source = f"small_sd-{seed}", f"runs/small_sd_source-{seed}"
        run, measures = f"runs/{name}", (*ENDING_MEASURES, *TRIVIAL_MEASURES)
        autoencoder = Command(("autoencoder", "--minutes", "10000", "--seed", seed, "--out", source), ROOT / source / "model_index.json")
        commands = [autoencoder, train(name, *recipes, "--model.source", source, "--seed_everything", seed)]
        for scale in ("1", "7.5"):
            out, file = f"{run}/leading-{scale}", f"{run}/maps-{scale}.parquet"
            sampler = ("--num-inference-steps", "50", "--timestep-spacing", "leading", "--guidance-scale", scale)
            targets = ("--model", run, "--run", run, "--controls", "0")
            collect = ("collect", *targets, *sampler, "--measures", *COLLECTED_MEASURES, "--out", out)
            measure = ("measure", out, "--measures", *COLLECTED_MEASURES, "--out", file)
            commands += [Command(collect, ROOT / file), Command(measure, ROOT / file)]  # an interrupted collection resumes
        files = (*PLANTED_RUN_FILES, "maps-1.parquet", "maps-7.5.parquet")
        yield Run(f"small_sd/{name}", tuple(commands), run, files, measures, LAST_MEASURES)
        yield detection("small_sd", name, tuple(commands[:2]), "--timestep-spacing", "trailing", "--guidance-scale", "1")


FINDING_RUNS = {
    "demo": demo,
    "localization": localization,
    "emergence": emergence,
    "mitigation": mitigation,
    "endings": endings,
    "photographs": photographs,
    "photograph_sizes": photograph_sizes,
    "unconditional": unconditional,
    "backgrounds": backgrounds,
    "small_sd": small_sd,
    "photographs_32": photographs_32,
    "mitigation_causal": mitigation_causal,
}
PAGES = {"photographs_32": "photographs", "mitigation_causal": "mitigation"}  # findings that are a section of another page
UNDERWAY = ("unconditional", "backgrounds", "small_sd", "photographs_32")  # findings whose runs are committed as they finish


def missing_commands(run: Run) -> list[Command]:
    """Commands of a run whose results do not exist."""
    return [] if run.complete else [command for command in run.commands if not command.result.is_file()]


def copy_files(run: Run) -> None:
    """Copy the files of a run to docs/findings, of its measurements only the rows that the page reads."""
    for file in run.files:
        target = FINDINGS / run.folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        if file == "measurements.parquet" and run.measures:
            write_rows(ROOT / run.source / file, target, run.measures, run.last_measures)
        elif file == "config.yaml":
            text = (ROOT / run.source / file).read_text(encoding="utf-8")
            target.write_text(re.sub(r"(\n +data_dir:) .*/.*", r"\1 DIR", text), encoding="utf-8")
        else:
            shutil.copy(ROOT / run.source / file, target)


def write_rows(source: Path, target: Path, measures: tuple[str, ...], last_measures: tuple[str, ...] = ()) -> None:
    """Rows of these measures and of confirmations, without captions; of generations without caption only distances and cluster."""
    import numpy as np
    import pandas as pd

    rows = pd.read_parquet(source)
    kept = matches(rows["measure"], (*measures, "confirm.*"))
    if last_measures:
        kept |= matches(rows["measure"], last_measures) & (rows["step"] == rows["step"].max())
    rows = rows[kept & ((rows["kind"] != "unprompted") | rows["measure"].isin(("nn_ratio", "calibrated_l2", "nearest_cluster")))]
    rows.astype({"value": np.float32}).assign(caption="").to_parquet(target, compression="zstd", index=False)


def matches(names: "pd.Series[str]", patterns: tuple[str, ...]) -> "pd.Series[bool]":
    """Which names match one of several patterns with wildcards."""
    chosen = {name for name in names.unique() if any(fnmatchcase(name, pattern) for pattern in patterns)}
    return names.isin(chosen)


def main() -> None:
    """List or make what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("finding", choices=FINDING_RUNS, help="page of docs/findings")
    parser.add_argument("--list", action="store_true", help="print the missing commands and run nothing")
    args = parser.parse_args()
    for run in FINDING_RUNS[args.finding]():
        for command in missing_commands(run):
            print(shlex.join(["afterglow", *command.arguments]), flush=True)
            if not args.list:
                subprocess.run(command.line(), cwd=ROOT, check=True)
        if not args.list and not run.complete:
            copy_files(run)
            print(f"docs/findings/{run.folder}", flush=True)
    if not args.list:
        for page in (FINDINGS / PAGES.get(args.finding, args.finding) / "make.py", FINDINGS / "make.py"):
            if page.is_file():
                subprocess.run([sys.executable, page], check=True)


if __name__ == "__main__":
    main()
