import signal
import subprocess
import sys

import pytest

from afterglow.signals import Stopped, StopSignals

TWICE = """
import os, signal, time
from afterglow import signals
signals.REPEAT_SECONDS = {repeat}
stop = signals.StopSignals()
with stop.handled():
    stop.defer()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)
print("deferred", stop.received)
"""


@pytest.mark.parametrize("signum, code", [(signal.SIGTERM, 143), (signal.SIGUSR1, 138), (signal.SIGINT, 130)])
def test_signal_outside_a_training_raises_at_once_with_its_exit_code(signum, code):
    with StopSignals().handled(), pytest.raises(Stopped) as stopped:
        signal.raise_signal(signum)
    assert stopped.value.exit_code == code and str(stopped.value) == signum.name


def test_deferred_signal_raises_when_the_training_ends():
    stop = StopSignals()
    with stop.handled():
        stop.defer()
        signal.raise_signal(signal.SIGUSR1)
        assert stop.received == signal.SIGUSR1
        with pytest.raises(Stopped):
            stop.act()


def test_handlers_are_restored_after_the_block():
    before = [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)]
    with StopSignals().handled():
        pass
    assert [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)] == before


@pytest.mark.parametrize("repeat, code", [(0.0, 130), (60.0, 0)])
def test_second_signal_ends_the_process_unless_it_is_a_repetition(repeat, code):
    done = subprocess.run([sys.executable, "-c", TWICE.format(repeat=repeat)], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert ("Ended at once" in done.stderr) == (code != 0) and ("deferred 15" in done.stdout) == (code == 0)
