"""Options and recipes that a person or an attacker gets wrong: one sentence of at most 300 characters, or the right value; no code runs."""

import contextlib
import math
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from afterglow.callbacks.checkpoint import RunCheckpoint
from afterglow.callbacks.early_stop import EarlyStop
from afterglow.callbacks.ema import WarmupEMA
from afterglow.callbacks.monitor import MemorizationMonitor
from afterglow.cli import lightning_cli, main, train_options
from afterglow.cli.recipes import parse_recipe
from afterglow.errors import AfterglowError, one_line, user_error
from afterglow.mitigations.training import GaussianNoise, RandomTokens, SampleDropping
from afterglow.models.ddpm import DDPM
from afterglow.models.lightning_module import OptimizerConfig
from afterglow.planting.datamodule import PlantedDataModule
from afterglow.planting.plants import PlantingConfig
from afterglow.sampling.loop import Sampler

ROOT = Path(__file__).parents[2]
DEMO = ("--config", str(ROOT / "configs/demo.yaml"))
BLOCKS = {"down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2, "layers_per_block": 1, "norm_num_groups": 4}
NAN, INF = math.nan, math.inf


class _Parsed(Exception):
    pass


@pytest.fixture(scope="module")
def parser() -> Iterator[Any]:
    """The parser of `afterglow train`, built once."""
    made: list[Any] = []

    def stop(_: object, parser: Any, __: object) -> None:
        made.append(parser)
        raise _Parsed

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(lightning_cli.AfterglowCLI, "parse_arguments", stop)
        with contextlib.suppress(_Parsed):
            main(["train"])
    return made[0]


@pytest.fixture(autouse=True)
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module that says so when it is imported, and a command that says so when it runs; neither may happen."""
    file = tmp_path / "canary"
    (tmp_path / "evil.py").write_text(f"open({str(file)!r}, 'w').write('imported')\nclass Evil: ...\ndef call(*_): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("CANARY", str(file))
    yield file
    assert not file.exists(), "code of a recipe was executed"


def parse(parser: Any, *words: str, base: tuple[str, ...] = DEMO) -> Any:
    """The configuration of a command line after all checks that need no model."""
    classes = [lightning_cli.models.DDPM, lightning_cli.models.TextConditionalDDPM, lightning_cli.models.StableDiffusion]
    config = parse_recipe(parser, [*base, *words], model=classes, data=[PlantedDataModule], mitigations=lightning_cli.MITIGATIONS)
    train_options.check_options(config)
    if config.name is not None:
        train_options.run_folder(config.name)
    return config


def sentence(error: Exception) -> str:
    """The message of an error of the user; other errors are raised."""
    known = user_error(error)
    if known is None:
        raise error
    text = one_line(f"error: {known}")
    assert 10 < len(text) <= 300, text
    return text


def refusal(parser: Any, *words: str) -> str:
    try:
        parse(parser, *words)
    except Exception as error:
        return sentence(error)
    pytest.fail(f"{words} was accepted")


def callback(path: str, **arguments: str) -> tuple[str, str]:
    return "--trainer.callbacks", str([{"class_path": path, "init_args": arguments}])


UNKNOWN = [
    ("--optimizer.lerning_rate=1e-3", "optimizer.learning_rate?"),
    ("--model.lerning_rate=1e-3", "optimizer.learning_rate?"),
    ("--data.sett_size=3", "data.set_size?"),
    ("--data.planting.copys=8", "data.planting.copies?"),
    ("--data.planting.copie=8", "data.planting.copies?"),
    ("--monitor.sampler.optons={}", "monitor.sampler.options?"),
    ("--trainer.max_step=3", "trainer.max_steps?"),
    ("--trainer.max_stepps=3", "trainer.max_steps?"),
    ("--wandb.projct=x", "wandb.project?"),
    ("--checkpoint.dirpath=x", "checkpoint.dirpath"),
    ("--checkpoint.filename=../../x", "checkpoint.filename"),
    ("--foo", "Unknown option foo"),
    ("--foo.bar=3", "Unknown option foo.bar"),
    ("positional", "Unknown option positional"),
]
WRONG_TYPES = [
    ("--optimizer.learning_rate=abc", "optimizer.learning_rate must be a number, not abc"),
    ("--data.planting.copies=x", "data.planting.copies must be an integer or a list, not x"),
    ("--data.set_size=x", "data.set_size must be an integer, not x"),
    ("--data.batch_size=abc", "data.batch_size must be an integer, not abc"),
    ("--model.text_length=x", "model.text_length must be an integer, not x"),
    ("--monitor.seeds=1.5", "monitor.seeds must be an integer, not 1.5"),
    ("--monitor.sampler.steps=x", "monitor.sampler.steps must be an integer, not x"),
    ("--monitor.measures=memorized", "monitor.measures must be a list, not memorized"),
    ("--monitor.early_stop.monitor=memorised", "monitor.early_stop.monitor must be one of memorized, denoising_log_ratio, not memorised"),
    ("--wandb.tags=x", "wandb.tags must be a list, not x"),
    ("--trainer.max_steps=x", "trainer.max_steps must be an integer, not x"),
    ("--trainer.precision=bf17", "trainer.precision must be one of"),
    ("--trainer.gradient_clip_val=x", "trainer.gradient_clip_val must be an integer or a number, not x"),
    ("--seed_everything=1e20", "seed_everything must be true or false or an integer, not 1e"),
    ("--seed_everything=x", "seed_everything must be"),
    ("--model=DDPMM", "model: there is no class 'DDPMM': did you mean DDPM?"),
    ("--mitigations+=RandomToken", "there is no class 'RandomToken': did you mean RandomTokens?"),
    ("--model.unet=null", "lacks the required option unet"),
    ("--data=null", "lacks the required option"),
]
WRONG_VALUES = [
    ("--seed_everything=-1", "seed_everything must be an integer from 0 to 4294967295, not -1"),
    ("--seed_everything=99999999999999999999", "seed_everything must be"),
    ("--seed_everything=true", "must be an integer"),
    ("--trainer.max_steps=0", "trainer.max_steps"),
    ("--trainer.max_steps=null", "trainer.max_steps"),
    ("--trainer.accumulate_grad_batches=null", "trainer.accumulate_grad_batches"),
    ("--trainer.max_epochs=3", "trainer.max_steps"),
    ("--data.planting=null", "data.planting must be a mapping of options, not None"),
    ("--trainer.gradient_clip_val=-1", "trainer.gradient_clip_val"),
    ("--trainer.gradient_clip_val=.nan", "trainer.gradient_clip_val"),
    ("--trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches must be at least 1, not 0"),
    ("--trainer.log_every_n_steps=-1", "trainer.log_every_n_steps must be at least 0, not -1"),
    ("--trainer.precision=bf16-true", "trainer.precision must be one of 32-true, 16-mixed, bf16-mixed, not bf16-true"),
    ("--trainer.default_root_dir=x", "trainer.default_root_dir cannot be changed"),
    ("--trainer.barebones=true", "trainer.barebones cannot be changed"),
    ("--trainer.overfit_batches=1", "trainer.overfit_batches cannot be changed"),
    ("--trainer.enable_checkpointing=false", "trainer.enable_checkpointing cannot be changed"),
    ("--trainer.fast_dev_run=true", "trainer.fast_dev_run cannot be changed"),
    ("--trainer.logger=false", "trainer.logger cannot be changed"),
    ("--trainer.logger=CSVLogger", "trainer.logger cannot be changed"),
    *(
        (f"--name={name}", "name must be the name of a folder")
        for name in ("../x", ".", "..", "", "/abs", "a/b", "a\\b", " a", "a\n", "x" * 200)
    ),
]
CODE = [
    ("--mitigations+=os.system",),
    ("--model=os.system",),
    ("--model=subprocess.Popen",),
    ("--model.class_path=evil.Evil",),
    ("--model.class_path=builtins.eval",),
    ("--data=evil.Evil",),
    ("--trainer.plugins=[evil.Evil]",),
    ("--trainer.callbacks+=evil.Evil",),
    callback("evil.Evil"),
    callback("importlib.import_module", name="evil"),
    callback("torch.load", f="x"),
    callback("torch.hub.load", repo_or_dir="x"),
    callback("lightning.pytorch.callbacks.LambdaCallback", on_fit_start="os.system"),
    callback("lightning.pytorch.callbacks.LambdaCallback", on_fit_start="evil.call"),
    callback("lightning.pytorch.callbacks.lambda_function.LambdaCallback", on_fit_start="torch.save"),
]
SYSTEM = {"class_path": "os.system", "init_args": {"command": 'touch "$CANARY"'}}
LAMBDA = {"class_path": "lightning.pytorch.callbacks.LambdaCallback", "init_args": {"on_fit_start": "os.system"}}
TEXTS = {
    "alias of itself": b"model: &m {init_args: *m}\n",
    "list of itself": b"mitigations: &m [*m]\n",
    "bomb": b"a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n" + b"".join(b"a%d: &a%d [%s]\n" % (i, i, b"*a%d," % (i - 1) * 10) for i in range(1, 9)),
    "3000 levels": b"a: " + b"[" * 3000 + b"]" * 3000,
    "3000 mappings": b"a: " + b"{a: " * 3000 + b"1" + b"}" * 3000,
    "Latin-1": "name: caf\u00e9\n".encode("latin-1"),
    "UTF-16": "seed_everything: 1\n".encode("utf-16"),
    "binary": bytes(range(256)),
    "torn": b"data: {init_args: {",
    "list": b"- 1\n- 2\n",
    "text": b"hello",
    "python tag": b"name: !!python/object/apply:os.system ['touch \"$CANARY\"']\n",
    "python name": b"name: !!python/name:evil.call\n",
    "python module": b"name: !!python/module:evil\n",
    "unknown tag": b"name: !foo bar\n",
    "key": b"foo: 1\n",
    "nested key": b"data: {init_args: {planting: {cops: 3}}}\n",
    "model of two": b"model: [1, 2]\n",
    "text for a mapping": b"trainer: abc\n",
    "mapping for a number": b"optimizer: {learning_rate: {a: 1}}\n",
    "list for a name": b"name: [1]\n",
    "config in config": b"config: nowhere.yaml\n",
    "class of os": yaml.safe_dump({"trainer": {"callbacks": [SYSTEM]}}).encode(),
    "class in any": yaml.safe_dump({"model": {"init_args": {"unet": SYSTEM}}}).encode(),
    "evil model": yaml.safe_dump({"model": {"class_path": "evil.Evil"}}).encode(),
    "evil data": yaml.safe_dump({"data": {"class_path": "evil.Evil"}}).encode(),
    "callable": yaml.safe_dump({"trainer": {"callbacks": [LAMBDA]}}).encode(),
}  # fmt: skip


@pytest.mark.parametrize(("word", "named"), UNKNOWN + WRONG_TYPES + WRONG_VALUES, ids=lambda value: repr(value)[:60])
def test_parse_of_a_wrong_option_names_it_and_the_nearest(parser: Any, word: str, named: str) -> None:
    assert named in refusal(parser, word)


@pytest.mark.parametrize("words", CODE, ids=lambda words: words[-1][:70])
def test_parse_of_a_class_outside_of_the_allowed_packages_is_refused(parser: Any, words: tuple[str, ...]) -> None:
    assert "may not import" in refusal(parser, *words)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_parse_of_a_hostile_or_damaged_recipe_is_refused(parser: Any, tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_bytes(text)
    assert refusal(parser, "--config", str(file))


def test_parse_of_a_missing_recipe_names_the_nearest(parser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert "did you mean configs/demo.yaml?" in refusal(parser, "--config", "configs/demoo.yaml")


def test_parse_accepts_what_is_right(parser: Any) -> None:
    assert parse(parser, "--data.planting.copies=8").data.init_args.planting.copies == 8
    assert parse(parser, "--data.planting.copies=[8]").data.init_args.planting.copies == [8]
    config = parse(parser, "--name=caf\u00e9-1.5", "--optimizer.learning_rate=1e-3", "--model.unet.block_out_channels=[16,32]")
    assert config.name == "caf\u00e9-1.5" and config.optimizer.learning_rate == 1e-3
    assert config.model.init_args.unet["block_out_channels"] == [16, 32]
    assert parse(parser, *callback("lightning.pytorch.callbacks.DeviceStatsMonitor")).trainer.callbacks[0].class_path.endswith("Monitor")


@pytest.mark.parametrize(
    ("name", "message"),
    [("csv", "callbacks may not import csv.DictReader"), ("jsonargparse", "names of packages"), ("a-b", "names of packages")],
)
def test_allow_import_extends_the_packages_but_never_to_the_parser_itself(parser: Any, name: str, message: str) -> None:
    words = callback("csv.DictReader", f="x")
    if name == "csv":
        assert message in refusal(parser, *words)
        assert "may not import" not in refusal(parser, "--allow_import", "csv,_csv", *words)  # refused, because it is no callback
    else:
        assert message in refusal(parser, f"--allow_import={name}")


VALUES: list[tuple[Any, dict[str, Any]]] = [
    *((OptimizerConfig, {"learning_rate": value}) for value in (-1.0, 0.0, NAN, INF, 1e400)),
    *((OptimizerConfig, {"lr_decay_fraction": value}) for value in (-1.0, 7.0, NAN)),
    *((OptimizerConfig, wrong) for wrong in ({"warmup_steps": -5}, {"weight_decay": -1.0}, {"weight_decay": NAN})),
    *((PlantedDataModule, {name: value}) for name in ("batch_size", "resolution", "set_size") for value in (0, -3)),
    *((PlantedDataModule, {"num_workers": value}) for value in (-1, 1_000_000)),
    *((PlantedDataModule, wrong) for wrong in ({"channels": 2}, {"channels": 7}, {"skip_first": -1}, {"planting": None})),
    *((PlantingConfig, {name: -1}) for name in ("num_global", "num_local", "num_decoys", "num_heldout", "num_backgrounds", "copies")),
    *((PlantingConfig, wrong) for wrong in ({"copies": ()}, {"copies": (3, -1)}, {"shapes": ()})),
    *((MemorizationMonitor, {name: 0}) for name in ("seeds", "final_seeds", "num_unprompted", "curvature_vectors")),
    *((MemorizationMonitor, {name: -1}) for name in ("seeds", "final_seeds", "batch_size")),
    *((MemorizationMonitor, {name: -1}) for name in ("num_controls", "num_heldout")),
    *((MemorizationMonitor, {"step_ratio": value}) for value in (1.0, 0.0, -2.0, NAN, INF, 1 + 1e-9)),
    *((MemorizationMonitor, {name: value}) for name in ("first_fraction", "early_fraction") for value in (-1.0, 7.0, NAN)),
    *((MemorizationMonitor, {name: ["nonsense"]}) for name in ("logged_maps", "measures", "final_measures")),
    *((Sampler, {"steps": value}) for value in (0, -1)),
    *((Sampler, {"guidance_scale": value}) for value in (NAN, INF)),
    *((Sampler, {"scheduler": value}) for value in ("DDIMSchedular", "UNet2DModel", "")),
    (Sampler, {"options": {"timestep_spcing": "x"}}),
    (EarlyStop, {"kinds": ("phantom",)}),
    (EarlyStop, {"monitor": "denoising_log_ratio", "threshold": NAN}),
    *((RunCheckpoint, {"every_minutes": value}) for value in (-1.0, NAN)),
    *((RunCheckpoint, {name: -2}) for name in ("every_n_train_steps", "save_top_k")),
    *((WarmupEMA, {"max_decay": value}) for value in (1.0, -0.1, NAN)),
    *((RandomTokens, {"fraction": value}) for value in (-0.1, 1.5, NAN)),
    *((GaussianNoise, {"std": value}) for value in (-1.0, INF, NAN)),
    *((SampleDropping, {"measure": "entropy", "percentile": value}) for value in (0.0, 101.0, NAN)),
]  # fmt: skip
NETWORKS: list[dict[str, Any]] = [
    *({"unet": {"block_out_channels": value}} for value in ([], [7, 9], [-8, 8], "abc", None)),
    *({"unet": {"attention_head_dim": 0, "down_block_types": ["AttnDownBlock2D"] * 2}}, {"unet": {"down_block_types": ["Foo", "Bar"]}}),
    *({"unet": {"layers_per_block": value}} for value in (0, -1)),
    *({"unet": {"block_out_chanels": [8, 8]}}, {"unet": {"out_channels": 1}}, {"unet": {"in_channels": 1}}, {"unet": {"sample_size": "x"}}),
    *({"resolution": value} for value in (0, -4, 15)),
    *({"channels": 0}, {"cond_drop_prob": 1.5}, {"cond_drop_prob": -0.1}, {"cond_drop_prob": NAN}),
    *({"noise_scheduler": {"num_train_timesteps": value}} for value in (0, -1, 1, 1.5)),
    *({"noise_scheduler": wrong} for wrong in ({"beta_schedule": "nonsense"}, {"beta_schedul": "linear"}, {"beta_end": 5.0})),
]


@pytest.mark.parametrize(("cls", "arguments"), VALUES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_constructor_refuses_a_value_out_of_range_and_names_it(cls: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises(AfterglowError) as error:
        cls(**arguments)
    assert list(arguments)[-1].rpartition("_")[2][:5] in sentence(error.value) or "no measure" in str(error.value)


@pytest.mark.parametrize("arguments", NETWORKS, ids=str)
def test_network_or_schedule_that_cannot_work_is_refused(arguments: dict[str, Any]) -> None:
    unet = {**BLOCKS, "block_out_channels": [8, 16], **arguments.get("unet", {})}
    with pytest.raises(AfterglowError) as error:
        DDPM(**{"resolution": 16, **arguments, "unet": unet})
    assert sentence(error.value)


def test_sampler_with_more_steps_than_the_training_is_refused() -> None:
    import diffusers

    with pytest.raises(AfterglowError, match="sampler: DDIMScheduler does not support 1001 steps"):
        Sampler(steps=1001).build(diffusers.DDPMScheduler())


MAIN = [
    ("--ckpt_path", "text.ckpt"),
    ("--name", "../escaped"),
    ("--optimizer.learning_rate", "-1"),
    ("--trainer.accelerator", "nonsense"),
    ("--monitor.sampler.steps", "2000"),
]


@pytest.mark.parametrize("words", MAIN, ids=str)
def test_train_with_a_wrong_option_exits_with_code_2_and_writes_nothing(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.ckpt").write_text("no checkpoint")
    overlay = str(ROOT / "configs/overlays/fast.yaml")
    with pytest.raises(SystemExit) as end:
        main(["train", *DEMO, "--config", overlay, *words])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert end.value.code == 2 and len(lines) == 1 and len(lines[0]) <= 300
    assert not Path("runs").exists() and not (tmp_path.parent / "escaped").exists()


COMMANDS = [
    ("collect", "--model", "x", "--out", "y", "--num-images", "0"),
    ("collect", "--model", "x", "--out", "y", "--num-inference-steps", "-3"),
    ("collect", "--model", "x", "--out", "y", "--seed", "-1"),
    ("collect", "--model", "x", "--out", "y", "--batch-size", "1e3"),
    ("collect", "--model", "x", "--out", "y", "--seed-rule", "imag"),
    ("extract", "--model", "x", "--out", "y", "--grid", "0"),
    ("autoencoder", "--out", "y", "--minutes", "nan"),
    ("autoencoder", "--out", "y", "--width-divisor", "3"),
    ("text-encoder", "--out", "y", "--steps", "-1"),
    ("mitigate", "--model", "x", "--heldout", "-1"),
    ("detect", "x.parquet", "--images", "0"),
    ("measure", "x", "--measurs", "y"),
    ("mesure",),
    ("x" * 500,),
    ("report", "--" + "x" * 500),
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words)[:60])
def test_command_with_a_wrong_option_exits_with_code_2(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(list(words))
    text = capsys.readouterr().err
    assert end.value.code == 2 and text.startswith("error: ") and text.count("\n") == 1 and len(text) <= 301


# Mutations: any text at any option, and recipes in which any value was replaced.

OPTIONS = [
    "seed_everything", "name", "ckpt_path", "mitigations", "optimizer.learning_rate", "optimizer.warmup_steps", "ema.max_decay",
    "trainer.max_steps", "trainer.callbacks", "trainer.precision", "trainer.plugins", "monitor.seeds", "monitor.sampler",
    "monitor.sampler.options", "monitor.measures", "monitor.early_stop", "data", "data.planting", "data.planting.copies",
    "data.set_size", "data.data_dir", "model", "model.unet", "model.unet.block_out_channels", "model.noise_scheduler",
    "model.text", "wandb.tags", "checkpoint.every_n_train_steps",
]  # fmt: skip
WORDS = [
    *("", "-1", "0", "1e400", ".nan", "null", "true", "[]", "{}", "[[]]", "{a: 1}", "os.system", "evil.Evil", "[evil.Evil]"),
    *("*a", "&a [*a]", "!!python/name:os.system", "{class_path: evil.Evil}", '[{"class_path": "os.system"}]'),
    *("{class_path: torch.nn.Linear}", "a: b: c", "@", "%", "\u2028", "x" * 1000, "../..", "-", "--", "\x00"),
]
VALUE = st.one_of(st.sampled_from(WORDS), st.text(max_size=20), st.integers().map(str), st.floats().map(str))


cases = 0


def accepted_or_one_sentence(parser: Any, *words: str) -> None:
    global cases
    cases += 1
    try:
        parse(parser, *words)
    except (Exception, SystemExit) as error:
        assert not isinstance(error, SystemExit), words
        sentence(error)


def mutated(tree: Any, chooser: random.Random, value: Any) -> Any:
    """The tree with one value replaced, at a place that the chooser picks."""
    if not isinstance(tree, dict) or not tree or chooser.random() < 0.2:
        return value
    key = chooser.choice(sorted(tree))
    return {**tree, key: mutated(tree[key], chooser, value)}


def run_mutations(parser: Any, folder: Path, num_examples: int) -> None:
    recipe = yaml.safe_load((ROOT / "configs/demo.yaml").read_text())
    leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10), st.sampled_from(WORDS))
    values = st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=6
    )
    common = settings(max_examples=num_examples, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))

    @common
    @given(st.sampled_from(OPTIONS), VALUE)
    def options(option: str, value: str) -> None:
        accepted_or_one_sentence(parser, f"--{option}={value}")

    @common
    @given(st.integers(0, 10**6), values)
    def recipes(seed: int, value: Any) -> None:
        file = folder / "mutated.yaml"
        file.write_text(yaml.safe_dump(mutated(recipe, random.Random(seed), value)), encoding="utf-8")
        accepted_or_one_sentence(parser, "--config", str(file))

    @common
    @given(st.integers(0, 10**6), st.binary(max_size=8))
    def texts(place: int, inserted: bytes) -> None:
        file, text = folder / "mutated.yaml", (ROOT / "configs/demo.yaml").read_bytes()
        place %= len(text)
        file.write_bytes(text[:place] + inserted + text[place + len(inserted) :])
        accepted_or_one_sentence(parser, "--config", str(file))

    global cases
    for mutate in (options, recipes, texts):
        cases = 0
        mutate()
        print(f"{cases} mutated {mutate.__name__}: 0 tracebacks, 0 code executed")


def test_mutated_options_and_recipes_are_accepted_or_refused_in_one_sentence(parser: Any, tmp_path: Path) -> None:
    run_mutations(parser, tmp_path, 12)


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_many_mutated_options_and_recipes_are_accepted_or_refused_in_one_sentence(parser: Any, tmp_path: Path) -> None:
    run_mutations(parser, tmp_path, int(os.environ.get("AFTERGLOW_MUTATIONS", "200")))
