"""A training of one linear layer whose losses and gradients are made infinite or not a number at chosen steps."""

import logging
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision

from afterglow import keys
from afterglow.callbacks.nonfinite import NonFinite
from afterglow.errors import AfterglowError, DivergedError

FINITE = (1.0, 0.0)


class Linear(L.LightningModule):
    """Its loss at each batch is factor * weight + offset: {batch: (factor, offset)}."""

    def __init__(self, batches: dict[int, tuple[float, float]], *, fused: bool = False) -> None:
        super().__init__()
        self.weight, self.batches, self.fused = torch.nn.Parameter(torch.ones(())), batches, fused
        self.step_losses: list[torch.Tensor] = []
        self.weights: list[float] = []
        self.logged: list[float] = []

    def training_step(self, batch, batch_idx):
        factor, offset = self.batches.get(batch_idx, FINITE)
        loss = factor * self.weight + offset
        self.step_losses.append(loss.detach())
        return loss

    def log(self, name, value, **options):
        if name == keys.OVERFLOWS:
            self.logged.append(value)

    def on_train_batch_end(self, *_):
        self.weights.append(self.weight.item())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.1, fused=self.fused)


def fit(tmp_path, module, callback, *, steps=4, **options):
    trainer = L.Trainer(
        max_steps=steps, callbacks=[callback], default_root_dir=tmp_path, accelerator="cpu", logger=False, barebones=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(range(50)))
    return trainer


BAD = {"loss": (1.0, float("inf")), "loss and gradient": (float("nan"), 0.0)}


@pytest.mark.parametrize("name", ["loss", "loss and gradient"])
def test_nonfinite_loss_ends_the_training_before_the_update(tmp_path, name):
    module = Linear({2: BAD[name]})
    with pytest.raises(DivergedError, match=r"at step 3: the loss is not finite \(learning rate 0.1\); there is no checkpoint yet"):
        fit(tmp_path, module, NonFinite())
    assert module.weight.item() == module.weights[-1] and len(module.weights) == 2


def test_nonfinite_gradient_ends_the_training_before_the_update(tmp_path):
    module = Linear({2: FINITE})
    module.weight.register_hook(lambda gradient: gradient * float("inf") if len(module.weights) == 2 else gradient)
    with pytest.raises(DivergedError, match="the gradient is not finite"):
        fit(tmp_path, module, NonFinite())
    assert module.weight.item() == module.weights[-1]


def test_loss_of_every_accumulated_batch_counts(tmp_path):
    with pytest.raises(DivergedError, match="at step 2"):
        fit(tmp_path, Linear({2: BAD["loss"]}), NonFinite(), accumulate_grad_batches=2)


def test_skip_leaves_out_that_many_batches(tmp_path, caplog):
    module, callback = Linear({1: BAD["loss"], 2: BAD["loss and gradient"], 3: BAD["loss"]}), NonFinite(skip=2)
    with caplog.at_level(logging.WARNING), pytest.raises(DivergedError, match="at step 4"):
        fit(tmp_path, module, callback, gradient_clip_val=1.0)
    assert module.weights[0] == module.weights[1] == module.weights[2] == pytest.approx(0.9, abs=2e-3)
    assert "Step 2: the loss is not finite; the batch is skipped (1 of 2)." in caplog.text
    other = NonFinite(skip=2)
    other.load_state_dict(callback.state_dict())
    assert other.skipped == 2


@pytest.mark.parametrize("fused", [False, True])
def test_overflow_of_the_gradient_scaler_is_counted_and_not_an_error(tmp_path, fused):
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=100)
    module, callback = Linear({1: (1e38, -1e38)}, fused=fused), NonFinite()  # the scaled gradient overflows, the loss does not
    fit(tmp_path, module, callback, plugins=MixedPrecision("16-mixed", "cpu", scaler))
    assert callback.overflows == 1 and module.logged == [0.0, 1.0, 1.0, 1.0] and scaler.get_scale() == 2
    assert module.weights[0] == module.weights[1] > module.weights[2]


@pytest.mark.parametrize("fused", [False, True])
def test_nonfinite_loss_with_a_gradient_scaler_is_skipped(tmp_path, fused):
    module = Linear({1: BAD["loss"]}, fused=fused)
    fit(tmp_path, module, NonFinite(skip=1), plugins=MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=4.0)))
    assert module.weights[0] == module.weights[1] > module.weights[2]


def test_overflow_without_a_scale_left_is_an_error(tmp_path):
    module = Linear({})
    module.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(DivergedError, match="at step 1: the gradient is not finite"):
        fit(tmp_path, module, NonFinite(), plugins=MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1.0)))


def test_loss_of_another_process_counts(tmp_path):
    module, callback = Linear({}), NonFinite()
    module.step_losses, module.weight.grad = [torch.tensor(1.0)], torch.tensor(1.0)
    strategy = SimpleNamespace(reduce=lambda bad, reduce_op: bad + 1)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    parts = {"strategy": strategy, "precision_plugin": None, "optimizers": [optimizer], "callbacks": [callback]}
    trainer = SimpleNamespace(world_size=2, global_step=0, **parts)
    with pytest.raises(DivergedError, match="the loss is not finite"):
        callback.on_before_optimizer_step(trainer, module, optimizer)


def test_checkpoint_of_weights_that_are_not_finite_is_not_written(tmp_path):
    module, callback = Linear({}), NonFinite()
    trainer = fit(tmp_path, module, callback)
    trainer.save_checkpoint(tmp_path / "good.ckpt")
    with torch.no_grad():
        module.weight.fill_(float("nan"))
    with pytest.raises(DivergedError, match=r"the weights are no longer finite .*the last good checkpoint is .*checkpoints/last.ckpt"):
        trainer.save_checkpoint(tmp_path / "bad.ckpt")
    assert not (tmp_path / "bad.ckpt").exists()


def test_negative_skip_is_refused():
    with pytest.raises(AfterglowError, match="on_nonfinite.skip"):
        NonFinite(-1)
