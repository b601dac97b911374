"""Write a whole planted set as a folder: what a recipe would plant, without training.

  python train/plant.py --config configs/demo.yaml --out planted
  python train/plant.py --config configs/demo.yaml --out planted --data.set_size 1000 --data.planting.copies [8,32] --seed_everything 1

DIR then holds the images, their masks and metadata.jsonl (text, plant_id, kind, copies, ...): an imagefolder that
`datasets.load_dataset("imagefolder", data_dir=DIR)` opens. Train on it, as often as you like, with

  accelerate launch train.py --data.dataset planted --data.data_dir DIR

Only the sections `data` and `seed_everything` of a recipe are read.
"""

from pathlib import Path

from jsonargparse import SUPPRESS, ActionConfigFile, ArgumentParser, DefaultHelpFormatter, Namespace

from afterglow.errors import configure_logging, exit_on_user_error
from afterglow.planting.datamodule import PlantedDataModule
from afterglow.planting.io import check_empty, write_planted

IGNORED = {"name": str, "ckpt_path": str} | dict.fromkeys(("model", "trainer", "probe", "progress", "average", "checkpoint", "wandb"), dict)


def main() -> None:
    configure_logging()
    with exit_on_user_error():
        config = parse()
        data, folder = config.data, Path(config.out)
        check_empty(folder)
        data.setup()
        count = write_planted(data.planted, folder)
        print(f"{folder}: {count} images; {data.describe()}")


def parse() -> Namespace:
    base = str(Path(__file__).parents[1] / "configs" / "base.yaml")
    parser = ArgumentParser(description=__doc__, default_config_files=[base], exit_on_error=False, formatter_class=Help)
    parser.add_argument("--config", action=ActionConfigFile, help="a recipe or an overlay; may be given several times")
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write; it must be empty or new")
    parser.add_argument("--seed_everything", type=int, default=0, help="decides what is planted, as in a training")
    parser.add_subclass_arguments(PlantedDataModule, "data", required=True)
    for name, kind in IGNORED.items():  # a dict stays a dict; a value of any type would be built, U-Net and all
        parser.add_argument(f"--{name}", type=kind | None, help=SUPPRESS)
    parser.link_arguments("seed_everything", "data.init_args.seed")
    return parser.instantiate(parser.parse_args())


class Help(DefaultHelpFormatter):
    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text  # the two commands keep their lines


if __name__ == "__main__":
    main()
