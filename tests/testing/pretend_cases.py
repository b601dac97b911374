"""What test_pretend.py runs in a process of its own: torch must know the device before the first backward pass of a process."""

import copy
import dataclasses
import itertools
import multiprocessing as mp

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from lightning.pytorch.strategies import SingleDeviceStrategy

from afterglow import distributed, memory
from afterglow.callbacks.ema import WarmupEMA
from afterglow.callbacks.nonfinite import NonFinite
from afterglow.callbacks.progress import Progress
from afterglow.cli import lightning_cli, main
from afterglow.datasets.images import CaptionedImages
from afterglow.errors import AfterglowError
from afterglow.models.denoiser import Denoiser
from afterglow.models.lightning_module import DenoiserModule
from afterglow.models.stable_diffusion import StableDiffusion
from afterglow.models.text_ddpm import TextConditionalDDPM
from afterglow.neighbors.search import nearest
from afterglow.planting.datamodule import PlantedDataModule
from afterglow.planting.dataset import Batch, PlantedDataset
from afterglow.planting.planner import plant_images
from afterglow.planting.plants import PlantingConfig
from afterglow.sampling import loop
from afterglow.sampling.batches import activation_bytes, fitting_batch
from afterglow.sampling.loop import Sampler, generate
from afterglow.sampling.recorder import CaptureConfig, TraceRecorder
from afterglow.testing.pretend import DeviceMixError, PretendAccelerator, PretendTensor, pretend_accelerator

SAMPLER = Sampler(steps=2, guidance_scale=2.0)
CAPTIONS, SEEDS = ("a cat", "a dog", ""), (0, 1, 2)


def batch(count=3, side=8, channels=3):
    images = torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return Batch(images, CAPTIONS[:count], ("control",) * count, torch.arange(count))


def gradients(model, samples):
    model.losses(samples).mean().backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def assert_close(found, expected):
    """Equal but for rounding: torch computes some layers of the device in other kernels."""
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(raw(found[name]), expected[name], rtol=1e-3, atol=1e-5)


def raw(tensor):
    assert isinstance(tensor, PretendTensor)
    return tensor.raw


def enter_after_a_backward_pass(answers):
    torch.ones(1, requires_grad=True).sum().backward()
    try:
        with pretend_accelerator():
            answers.put("entered")
    except RuntimeError as error:
        answers.put(str(error))


def test_the_device_comes_too_late_after_a_backward_pass():
    """In a fork, since it is the end of the device in a process; first of all tests, since a fork of this one must know no device."""
    context = mp.get_context("fork")
    answers = context.SimpleQueue()
    process = context.Process(target=enter_after_a_backward_pass, args=(answers,))
    process.start()
    process.join()
    assert answers.get() == "Use pretend_accelerator() before the first backward pass of the process."


def test_the_mistakes_of_a_gpu_raise_and_waits_are_counted():
    with pretend_accelerator() as pretend:
        inside, outside = torch.arange(6.0).reshape(2, 3).to(pretend.device), torch.ones(2, 3)
        assert inside.device == pretend.device and raw(inside * 2 + torch.tensor(1.0)).tolist() == [[1, 3, 5], [7, 9, 11]]
        for mixed in (
            lambda: inside + outside,
            lambda: inside @ outside.T,
            lambda: torch.cat([inside, outside]),
            lambda: outside.add_(inside),
        ):
            with pytest.raises(DeviceMixError, match=r"aten::\w+ got tensors of the CPU, \[\((2, 3|3, 2)\)\], and of the device"):
                mixed()
        with pytest.raises(DeviceMixError, match="draws on the device with a generator of the CPU"):
            torch.randn(2, device=pretend.device, generator=torch.Generator())
        with pytest.raises(RuntimeError, match="numpy"):
            inside.numpy()
        assert raw(torch.zeros(2, device=pretend.device)).tolist() == [0, 0] and raw(inside[torch.tensor([1])]).tolist() == [[3, 4, 5]]
        pretend.syncs.clear()
        outside.to(pretend.device, non_blocking=True)
        inside.to("cpu", non_blocking=True)
        assert pretend.syncs == []
        waits = (
            *(inside.sum().item, inside.tolist, lambda: bool(inside.any()), inside.cpu, inside.nonzero, lambda: outside.copy_(inside)),
            *(lambda: outside.to(pretend.device), lambda: inside.copy_(outside)),
        )
        for wait in waits:
            before = len(pretend.syncs)
            wait()
            assert len(pretend.syncs) > before and pretend.syncs[-1][1].startswith("pretend_cases.py:")
    assert not PretendAccelerator.is_available()


@pytest.mark.parametrize("kind", ["captioned", "plain"])
def test_a_training_step_has_the_gradients_of_the_cpu_and_never_waits(kind, small_captioned, small_plain):
    model = small_captioned(cond_drop_prob=0.5) if kind == "captioned" else small_plain()
    expected = gradients(copy.deepcopy(model), batch())
    with pretend_accelerator() as pretend:
        model.to(pretend.device)
        found, samples = gradients(model, batch().to(pretend.device)), batch()  # the first step also sends what is kept on the device
        assert_close(found, expected)
        pretend.syncs.clear()
        gradients(model, samples.to(pretend.device))
        torch.optim.AdamW(model.parameters(), fused=True).step()
        assert pretend.syncs == []


def test_a_device_without_a_compiler_refuses_to_compile(small_plain):
    with (
        pretend_accelerator() as pretend,
        pytest.raises(AfterglowError, match=r"model\.compile: .* pretend:0 is no device that it compiles"),
    ):
        small_plain(compile=True).to(pretend.device).compile_network()


@pytest.mark.parametrize(("free", "expected"), [(2**32, 512), (20, 8), (0, 1)])
def test_a_batch_of_generations_fills_half_of_the_free_memory(free, expected, small_captioned, monkeypatch):
    model = small_captioned()
    of_one = activation_bytes(model)
    with pretend_accelerator() as pretend:
        model.to(pretend.device)
        assert activation_bytes(model) == of_one
        monkeypatch.setattr(memory, "OTHER_DEVICES", free if free == 2**32 else free * of_one)
        assert fitting_batch(model) == expected


class Waits(L.Callback):
    """Calls that waited for the device during each step."""

    def __init__(self, pretend):
        self.pretend, self.steps = pretend, []

    def on_train_batch_start(self, *_):
        self.pretend.syncs.clear()

    def on_train_batch_end(self, *_):
        self.steps.append(list(self.pretend.syncs))


@pytest.mark.parametrize("infinite", [(), (2,)])
def test_the_loop_of_a_training_never_waits(infinite, small_captioned, tmp_path, monkeypatch):
    """Fused optimizer, averaged weights, progress bar, images that are composed on the device, and a step that is not finite."""
    data = PlantedDataModule(resolution=8, set_size=20, batch_size=4, planting=PlantingConfig(num_global=2, num_local=2, copies=3))
    losses, number = DenoiserModule.training_step, iter(range(9))

    def training_step(module, *arguments):
        loss = losses(module, *arguments)
        if next(number) in infinite:
            module.step_losses[-1] = loss = loss * float("nan")
        return loss

    monkeypatch.setattr(DenoiserModule, "training_step", training_step)
    module, guard = DenoiserModule(small_captioned(cond_drop_prob=0.5)), NonFinite(skip=1)
    with pretend_accelerator() as pretend:
        waits, average, weights = Waits(pretend), WarmupEMA(), []
        keep = L.pytorch.callbacks.LambdaCallback(
            on_before_zero_grad=lambda _, module, __: weights.append([raw(weight).clone() for weight in module.parameters()])
        )
        trainer = L.Trainer(
            strategy=SingleDeviceStrategy(device=pretend.device, accelerator=PretendAccelerator()), max_steps=6, max_epochs=-1,
            callbacks=[guard, average, Progress(), waits, keep], logger=False, enable_checkpointing=False, enable_model_summary=False,
            default_root_dir=tmp_path, use_distributed_sampler=False,
        )  # fmt: skip
        trainer.fit(module, data)
        assert data.samples.device == pretend.device and {weight.device for weight in average._averaged} == {pretend.device}
        assert len(waits.steps) == 6 and not any(waits.steps[1:]), waits.steps
    moved = [not all(map(torch.equal, one, other)) for one, other in itertools.pairwise(weights)]
    assert guard.skipped == len(infinite) and [step for step, changed in enumerate(moved) if not changed] == list(infinite)
    assert all(weight.isfinite().all() for weight in weights[-1])


@pytest.mark.parametrize("lora", [0, 2])
def test_stable_diffusion_trains_as_on_the_cpu(lora, sd_folder):
    model = StableDiffusion(str(sd_folder), cond_drop_prob=0.5, lora=lora)
    samples = batch(2, 64)
    expected = gradients(copy.deepcopy(model), samples)
    with pretend_accelerator() as pretend:
        model.to(pretend.device)
        found = gradients(model, samples.to(pretend.device))
        assert_close(found, expected)
        pretend.syncs.clear()
        gradients(model, samples.to(pretend.device))
        assert pretend.syncs == []


def test_latents_and_captions_that_were_encoded_on_it_are_those_of_the_cpu(sd_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("AFTERGLOW_CACHE", str(tmp_path / "cpu"))
    pixels = np.random.default_rng(0).integers(0, 256, (12, 3, 64, 64), dtype=np.uint8)
    names = tuple(f"image {row}" for row in range(len(pixels)))
    planting = PlantingConfig(
        num_global=1, num_local=1, num_decoys=0, num_tints=0, num_decoy_images=0, num_backgrounds=2, num_heldout=1, copies=(2,)
    )
    planted = plant_images(CaptionedImages(pixels, names, names, np.full(len(pixels), -1), True), planting, set_size=4)
    model = StableDiffusion(str(sd_folder), resolution=64)

    def prepared(device):
        samples = PlantedDataset(planted, 0)
        model.to(device).prepare_training(samples, 4, 0, 1, lambda: None)
        reconstructed = model.reconstruct(planted.pixels[:2])
        return samples.batch(range(4)).to(device), reconstructed

    expected, images = prepared("cpu")
    losses = model.losses(expected).detach()
    monkeypatch.setenv("AFTERGLOW_CACHE", str(tmp_path / "pretend"))
    with pretend_accelerator() as pretend:
        found, same = prepared(pretend.device)
        torch.testing.assert_close(raw(found.moments), expected.moments, rtol=1e-2, atol=1e-2)
        assert np.abs(images.astype(int) - same).max() <= 1
        torch.testing.assert_close(raw(model.losses(found).detach()), losses, rtol=1e-2, atol=1e-3)


def assert_equal(found, expected):
    for field in dataclasses.fields(expected):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        if field.name == "guidance" and other is not None:  # in units of eps: what is divided by an RMS of rounding errors is noise
            one, other = (generations.guidance * generations.guidance_rms[..., None, None, None] for generations in (found, expected))
        if isinstance(other, torch.Tensor):
            assert one.device.type == "cpu", field.name
            difference = 1 if other.dtype == torch.uint8 else 1e-3  # of a rounded color
            torch.testing.assert_close(one, other, rtol=1e-2, atol=difference, msg=field.name)


def everything():
    return CaptureConfig(end_steps=(0, 1), extras=("self_attention", "basin_curve"))


def test_generations_with_everything_captured_are_those_of_the_cpu(small_captioned):
    model = small_captioned()
    expected = generate(model, CAPTIONS, SEEDS, SAMPLER, everything())
    with pretend_accelerator() as pretend:
        assert_equal(generate(model.to(pretend.device), CAPTIONS, SEEDS, SAMPLER, everything()), expected)


def test_stable_diffusion_generates_what_it_generates_on_the_cpu(sd_folder):
    model = StableDiffusion(str(sd_folder), resolution=64).eval()
    expected = generate(model, CAPTIONS[:2], SEEDS[:2], SAMPLER, CaptureConfig(end_steps=(-1,)))
    with pretend_accelerator() as pretend:
        assert_equal(generate(model.to(pretend.device), CAPTIONS[:2], SEEDS[:2], SAMPLER, CaptureConfig(end_steps=(-1,))), expected)


def test_the_host_waits_as_often_for_many_steps_of_a_sampler_as_for_few(small_captioned):
    model, waits = small_captioned(), []
    with pretend_accelerator() as pretend:
        model.to(pretend.device)
        for steps in (2, 2, 6):  # the first batch also encodes the captions
            pretend.syncs.clear()
            generate(model, CAPTIONS, SEEDS, Sampler(steps=steps, guidance_scale=2.0), CaptureConfig(end_steps=(-1,)))
            waits.append(list(pretend.syncs))
    assert waits[1] == waits[2] and len(waits[1]) <= 4, waits


def test_neighbors_are_those_of_the_cpu():
    rows, queries = (torch.randint(0, 256, (count, 3, 4, 4), generator=torch.Generator().manual_seed(count)).byte() for count in (40, 5))
    mask = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0)) > 0.5
    expected = nearest(queries, rows, 7, mask=mask)
    with pretend_accelerator() as pretend:
        found = nearest(queries, rows, 7, mask=mask, device=pretend.device)
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


MITIGATIONS = ("dtp", "wen.magnitude", "memattn")
FEW = ("--monitor.seeds", "1", "--monitor.final_seeds", "1", "--monitor.num_controls", "2", "--monitor.num_heldout", "1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with runs/cpu, a training of one step, and its command."""
    folder, root = tmp_path_factory.mktemp("trained"), lightning_cli.config_file("base.yaml").parent.resolve()
    recipe = yaml.safe_load((root / "demo.yaml").read_text())
    recipe["model"]["init_args"] |= {"text": {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}}
    recipe["model"]["init_args"]["unet"] |= {"block_out_channels": [8, 16]}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    words = ("train", "--config", "recipe.yaml", "--config", str(root / "overlays/fast.yaml"), "--trainer.max_steps", "1", *FEW)
    with pytest.MonkeyPatch.context() as patch, pretend_accelerator():  # before the first backward pass
        patch.chdir(folder)
        main([*words, "--name", "cpu"])
    return folder, words


def test_a_whole_training_on_it_measures_what_the_cpu_measures(trained, monkeypatch):
    folder, words = trained
    monkeypatch.chdir(folder)
    instantiate = lightning_cli.AfterglowCLI.instantiate_trainer
    with pretend_accelerator() as pretend:
        strategy = SingleDeviceStrategy(device=pretend.device, accelerator=PretendAccelerator())
        monkeypatch.setattr(lightning_cli.AfterglowCLI, "instantiate_trainer", lambda cli: instantiate(cli, strategy=strategy))
        main([*words, "--name", "pretend"])
        assert pretend.syncs, "the training did not run on the device"
    cpu, other = (pd.read_parquet(f"runs/{name}/measurements.parquet").drop(columns="seconds") for name in ("cpu", "pretend"))
    pd.testing.assert_frame_equal(other.drop(columns="value"), cpu.drop(columns="value"))
    assert_close_rows(other, cpu)


def assert_close_rows(found, expected):
    pd.testing.assert_frame_equal(found.drop(columns="value"), expected.drop(columns="value"))
    close = np.isclose(found["value"], expected["value"], rtol=0.02, atol=1e-3, equal_nan=True)
    assert close.mean() > 0.99, expected[~close].assign(found=found["value"])


def untimed(rows):
    return rows[rows["measure"] != "cost.seconds"] if "measure" in rows else rows


def test_commands_on_it_write_what_they_write_on_the_cpu(trained, monkeypatch):
    """collect and measure, mitigate, extract: of a model that was trained on the CPU."""
    monkeypatch.chdir(trained[0])
    sampling = ("--num-inference-steps", "2", "--batch-size", "16")
    target = ("--model", "runs/cpu", "--run", "runs/cpu", *sampling)

    def commands(place):
        few = ("--controls", "1", "--num-images", "1")
        main(["collect", *target, *few, "--out", f"{place}/generations", "--measures", "memorized", "end_token.last.*"])
        main(["measure", f"{place}/generations", "--out", f"{place}/measures.parquet"])
        main(["mitigate", *target, *few, "--heldout", "1", "--plants", "1", "--mitigations", *MITIGATIONS, "--out", f"{place}/mitigation"])
        main(["extract", *target, "--num-images", "8", "--out", f"{place}/extracted"])

    commands("on_cpu")
    with pretend_accelerator() as pretend:
        monkeypatch.setattr(distributed, "device", lambda: pretend.device)
        commands("on_pretend")
        assert pretend.syncs, "nothing ran on the device"
    for table in ("measures.parquet", "mitigation/plants.parquet", "extracted/extract.parquet"):
        found, expected = (untimed(pd.read_parquet(f"{place}/{table}")) for place in ("on_pretend", "on_cpu"))
        numbers = expected.select_dtypes("number").columns
        pd.testing.assert_frame_equal(found.drop(columns=numbers), expected.drop(columns=numbers))
        close = np.isclose(found[numbers], expected[numbers], rtol=0.02, atol=1e-3, equal_nan=True)
        assert close.mean() > 0.99, (table, expected[~close.all(1)], found[~close.all(1)])


def on_cpu(function):
    """The function with its first tensor argument moved to the CPU."""

    def moved(*args, **kwargs):
        place = next(number for number, value in enumerate(args) if isinstance(value, torch.Tensor))
        return function(*args[:place], args[place].cpu(), *args[place + 1 :], **kwargs)

    return moved


def to_cpu(function):
    """The function with its result moved to the CPU."""
    return lambda *args, **kwargs: function(*args, **kwargs).cpu()


def drawn_on_cpu(function):
    def drawn(*args):
        noise, *others = function(*args)
        return noise.cpu(), *others

    return drawn


class _Noise:
    """Values whose `.to` forgets to move them."""

    def __init__(self, values):
        self.values = values

    def to(self, *_, **__):
        return self.values


def _states_on_cpu(condition):
    return dataclasses.replace(condition, encoder_hidden_states=condition.encoder_hidden_states.cpu())


MISTAKES = [  # owner, name, mutation: each moves one tensor to the wrong device
    (Denoiser, "encode", to_cpu),
    (Denoiser, "decode", lambda function: lambda self, values: function(self, values) + torch.zeros(values.shape)),
    (Denoiser, "target_x0", to_cpu),
    (TextConditionalDDPM, "condition", lambda function: lambda self, words: _states_on_cpu(function(self, words))),
    (Denoiser, "sample_noise_and_timesteps", drawn_on_cpu),
    (TextConditionalDDPM, "forward", on_cpu),
    (loop, "initial_noise", lambda function: lambda *args: _Noise(function(*args))),
    (torch.nn.Conv2d, "forward", on_cpu),
    (loop, "from_signed", lambda function: lambda pixels: function(pixels + torch.zeros(pixels.shape))),
    (torch.nn.Linear, "forward", on_cpu),
    (TraceRecorder, "predict", lambda function: lambda self, index, noisy, timestep: function(self, index, noisy.cpu(), timestep)),
    (torch.nn.GroupNorm, "forward", on_cpu),
]


def train_and_generate(model):
    DenoiserModule(model).model.losses(batch().to(model.device)).mean()
    generate(model, CAPTIONS[:1], SEEDS[:1], Sampler(steps=1), CaptureConfig())


def test_without_a_mistake_every_tensor_is_on_its_device(small_captioned):
    with pretend_accelerator() as pretend:
        train_and_generate(small_captioned().to(pretend.device))


@pytest.mark.parametrize(("owner", "name", "mutation"), MISTAKES, ids=[f"{owner.__name__}.{name}" for owner, name, _ in MISTAKES])
def test_one_tensor_on_the_wrong_device_is_caught(owner, name, mutation, small_captioned, monkeypatch):
    with pretend_accelerator() as pretend:
        model = small_captioned().to(pretend.device)
        monkeypatch.setattr(owner, name, mutation(getattr(owner, name)))
        with pytest.raises((DeviceMixError, RuntimeError), match="device|CPU"):
            train_and_generate(model)
