"""Write the training set of a recipe, plants included, as a folder. Nothing is trained.

  afterglow plant --config configs/demo.yaml --out planted
  afterglow plant --config configs/demo.yaml --out planted --data.set_size 1000 --data.planting.copies [8,32] --seed_everything 1

DIR then holds the images, their masks and metadata.jsonl (text, plant_id, kind, copies, ...): an imagefolder that
`datasets.load_dataset("imagefolder", data_dir=DIR)` opens. Train on it with

  python train.py --data.dataset planted --data.data_dir DIR

Only the sections `data` and `seed_everything` of a recipe are read.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from afterglow.cli.parser import announce, count

if TYPE_CHECKING:
    import jsonargparse

IGNORED = {"name": str, "ckpt_path": str, "mitigations": list} | dict.fromkeys(
    ("model", "trainer", "monitor", "progress", "ema", "optimizer", "checkpoint", "wandb"), dict
)


def add_arguments(parser: ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("--config", action="append", metavar="YAML", help="recipe or overlay; may be given several times (default: none)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write; it must be empty or new")
    parser.add_argument(
        "--seed_everything", type=count, metavar="SEED", help="seed of the planting, as in a training (default: the recipe's)"
    )
    parser.add_argument(
        "--data.",
        dest="data",
        metavar="KEY VALUE",
        help="any option of section `data`, such as --data.set_size 1000; `afterglow train --help` lists them (default: the recipe's)",
    )


def run(args: Namespace) -> None:
    """Plant and write the folder."""
    announce("Loading PyTorch and Lightning ...")
    from afterglow.cli.recipes import parse_recipe
    from afterglow.planting.datamodule import PlantedDataModule
    from afterglow.planting.io import check_empty, write_planted

    seed = [] if args.seed_everything is None else [f"--seed_everything={args.seed_everything}"]
    words = [*(f"--config={file}" for file in args.config or ()), *seed, *args.prefixed]
    parser = _recipe_parser()
    data = parser.instantiate(parse_recipe(parser, words, data=[PlantedDataModule])).data
    check_empty(args.out)
    data.setup()
    count = write_planted(data.planted, args.out)
    print(f"{args.out}: {count} images; {data.describe()}")


def _recipe_parser() -> "jsonargparse.ArgumentParser":
    import jsonargparse

    from afterglow.cli.recipes import config_file
    from afterglow.planting.datamodule import PlantedDataModule

    parser = jsonargparse.ArgumentParser(default_config_files=[str(config_file("base.yaml"))], exit_on_error=False)
    parser.add_argument("--config", action=jsonargparse.ActionConfigFile)
    parser.add_argument("--seed_everything", type=int, default=0)
    parser.add_subclass_arguments(PlantedDataModule, "data", required=True)
    for name, kind in IGNORED.items():  # a dict stays a dict; a value of any type would be built, U-Net and all
        parser.add_argument(f"--{name}", type=kind | None)
    parser.link_arguments("seed_everything", "data.init_args.seed")
    return parser
