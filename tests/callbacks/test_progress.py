from types import SimpleNamespace

from afterglow.callbacks.monitor import MemorizationMonitor
from afterglow.callbacks.progress import _postfix


def test_postfix_shows_loss_speed_and_memorized_fractions():
    monitor = MemorizationMonitor()
    monitor.fractions = {"global": 0.5, "phantom": 0.0}
    text = _postfix(SimpleNamespace(callbacks=[monitor]), 0.1234, 63.7)
    assert text == "loss 0.123, 64 images/s, memorized: global 50%, phantom 0%"


def test_postfix_without_a_monitor_shows_loss_and_speed():
    assert _postfix(SimpleNamespace(callbacks=[]), 1.0, 2.0) == "loss 1.000, 2 images/s"
