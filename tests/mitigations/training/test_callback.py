"""The mitigations through the door: a run with them, the same run resumed, and what is refused."""

from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from afterglow.cli import main
from afterglow.mitigations.training import sample_dropping
from afterglow.mitigations.training.callback import Mitigation
from afterglow.mitigations.training.caption_perturbation import CaptionPerturbation
from afterglow.models import denoiser
from afterglow.planting.datamodule import PlantedDataModule
from afterglow.planting.plants import PlantingConfig

ROOT = Path(__file__).parents[3]
FAST = ["--config", str(ROOT / "configs/demo.yaml"), "--config", str(ROOT / "configs/overlays/fast.yaml")]


@pytest.fixture
def steps(monkeypatch):
    """What every training step that drops samples made of them: [(losses, kept)]."""
    seen: list[tuple[list[float], list[bool]]] = []
    true_mean = denoiser.masked_mean

    def watched(losses, kept, gather):
        seen.append((losses.tolist(), kept.tolist()))
        return true_mean(losses, kept, gather)

    monkeypatch.setattr(denoiser, "masked_mean", watched)
    return seen


def test_a_resumed_training_drops_the_same_samples(steps, small_captioned, tmp_path, monkeypatch):
    monkeypatch.setattr(sample_dropping, "ENOUGH", 2)
    planting = PlantingConfig(num_global=2, num_local=0, num_decoys=0, num_tints=0, copies=(4,), num_heldout=8)

    def fit(checkpoint: str | None = None) -> None:
        often = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=5, save_top_k=-1)
        callbacks = [Mitigation(captions="noise", drop="guidance_norm", percentile=50), often]
        configure_logging = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = L.Trainer(
            max_steps=12, max_epochs=-1, accelerator="cpu", callbacks=callbacks, use_distributed_sampler=False, **configure_logging
        )
        trainer.fit(
            small_captioned(cond_drop_prob=0.1), PlantedDataModule(set_size=24, batch_size=8, planting=planting), ckpt_path=checkpoint
        )

    fit()
    whole = list(steps)
    assert len(whole) == 12 and 0 < sum(not keep for _, kept in whole for keep in kept) < 48
    saved = torch.load(tmp_path / "step=5.ckpt", weights_only=True)
    (state,) = (state for key, state in saved["callbacks"].items() if key.startswith("Mitigation"))
    assert len(state["remembered"]) > 4 and "mitigations" not in saved["hyper_parameters"]
    steps.clear()
    fit(str(tmp_path / "step=5.ckpt"))
    assert steps == whole[5:]


def test_a_run_through_the_door_drops_by_entropy_with_other_captions(steps, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("afterglow.cli.train.write_report", lambda folder: folder / "report.html")
    mitigations = ["--mitigation.drop", "entropy", "--mitigation.threshold", "0", "--mitigation.captions", "words"]
    main(
        [
            "train",
            *FAST,
            "--name",
            "x",
            "--trainer.max_steps",
            "2",
            "--monitor.first_fraction",
            "1",
            "--monitor.measures",
            "[calibrated_l2]",
            *mitigations,
        ],
    )
    assert len(steps) == 2 and sum(keep for _, kept in steps for keep in kept) < 6  # those whose caption was dropped for guidance
    weights = torch.load("runs/x/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(value.isfinite().all() for value in weights.values())


def test_the_model_is_given_what_was_asked_for_and_nothing_else(heard):
    def mitigations(**options):
        Mitigation(**options).on_fit_start(None, holder)
        return holder.mitigations

    holder = type("Holder", (), {"tokenizer": heard.tokenizer})()
    assert mitigations() == ()
    (words,) = mitigations(captions="words", share=0.3)
    assert isinstance(words, CaptionPerturbation) and words.share == 0.3 and "dog" in words.vocabulary
    first, second = mitigations(captions="noise", drop="entropy", percentile=95)
    assert first.kind == "noise" and (second.by, second.percentile, second.threshold) == ("entropy", 95, None)


def test_what_was_remembered_of_one_measure_is_not_given_to_another():
    assert len({Mitigation(drop=drop).state_key for drop in (None, "guidance_norm", "entropy")}) == 3
    assert Mitigation().state_dict() == {}  # checkpoints are what they were


def test_options_that_need_each_other_or_cannot_be_are_named(tmp_path):
    (tmp_path / "others.jsonl").write_text('{"caption": "a", "paraphrases": ["b"]}\n')
    for options, sentence in (
        ({"captions": "several"}, "several and mitigation.paraphrases FILE.jsonl need each other"),
        ({"captions": "words", "paraphrases": str(tmp_path / "others.jsonl")}, "need each other"),
        ({"captions": "several", "paraphrases": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"captions": "noise", "strength": -1.0}, "it is -1"),
        ({"drop": "entropy", "percentile": 0.0}, "it is 0"),
        ({"threshold": 2.0}, "mitigation.drop does not say by which measure"),
        ({"share": 0.5}, "mitigation.share belongs to mitigation.captions replaced, words or repeats: here it would do nothing"),
        ({"captions": "noise", "share": 0.5}, "mitigation.share belongs"),
        ({"captions": "words", "strength": 0.5}, "mitigation.strength belongs to mitigation.captions noise"),
        ({"drop": "entropy", "threshold": 2.0, "percentile": 95.0}, "percentile belongs to mitigation.drop without mitigation.threshold"),
    ):
        with pytest.raises(ValueError, match=sentence):
            Mitigation(**options)
    several = Mitigation(captions="several", paraphrases=str(tmp_path / "others.jsonl"))
    several.check_captions(["a", "c"])
    with pytest.raises(ValueError, match="no caption of the file is one of the training set's"):
        several.check_captions(["b", "c"])


def test_a_model_without_captions_is_refused_by_the_names_of_the_remedies(small_plain, heard):
    both = Mitigation(captions="noise", drop="guidance_norm")
    both.check(heard)
    Mitigation().check(small_plain())
    with pytest.raises(ValueError, match="mitigation.captions noise, mitigation.drop guidance_norm: .* DDPM has none"):
        both.check(small_plain())
