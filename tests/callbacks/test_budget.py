from dataclasses import replace

import pytest

from afterglow.callbacks.budget import Workload, thinned
from afterglow.callbacks.training_evaluation import EvaluationSettings
from afterglow.sampling.loop import Sampler

SETTINGS = EvaluationSettings(sampler=Sampler(steps=10), seeds=2, final_seeds=4, num_controls=20, num_unprompted=100, resamplings=3)
CAPTIONED = Workload(captions=30, completed=0, controls=50, errors=40, evaluations=5, samples=10_000)
PLAIN = Workload(captions=0, completed=12, controls=50, errors=40, evaluations=5, samples=100_000)


def test_passes_are_those_of_both_halves_of_every_generation():
    assert CAPTIONED.passes(SETTINGS, last=False) == 10 * 2 * 2 * 30 + 40
    assert CAPTIONED.passes(SETTINGS, last=True) == 10 * 2 * 4 * (30 + 20) + 40 + 10 * 2 * 30  # and the raw weights
    guided = replace(SETTINGS, sampler=Sampler(steps=10, guidance_scale=2.0))
    assert CAPTIONED.passes(guided, last=True) - CAPTIONED.passes(SETTINGS, last=True) == 10 * 2 * 30
    assert PLAIN.passes(SETTINGS, last=False) == 10 * (100 + 3 * 2 * 12) + 40
    assert PLAIN.passes(SETTINGS, last=True) == 10 * (100 + 3 * 4 * (12 + 2 * 20)) + 40 + 10 * 100


def test_a_set_with_fewer_controls_than_the_option_is_counted_as_it_is():
    few = replace(CAPTIONED, controls=3)
    assert CAPTIONED.passes(SETTINGS, last=True) - few.passes(SETTINGS, last=True) == 10 * 2 * 4 * (20 - 3)


def test_share_counts_a_training_sample_three_times():
    passes = 4 * CAPTIONED.passes(SETTINGS, last=False) + CAPTIONED.passes(SETTINGS, last=True)
    assert CAPTIONED.share(SETTINGS) == pytest.approx(passes / (passes + 30_000))


@pytest.mark.parametrize("work", [CAPTIONED, PLAIN])
@pytest.mark.parametrize("budget", [0.05, 0.1, 0.15, 0.25])
def test_within_a_budget_the_most_is_kept_and_nothing_else_changes(work, budget):
    chosen = work.within(SETTINGS, budget)
    more = [thinned(SETTINGS, percent) for percent in range(1, 101)]
    fitting = [one for one in more if work.share(one) <= budget]
    assert chosen == (fitting[-1] if fitting else more[0])
    kept = {name: getattr(SETTINGS, name) for name in ("sampler", "num_heldout", "measures", "batch_size", "resamplings")}
    assert {name: getattr(chosen, name) for name in kept} == kept


def test_nothing_is_left_out_of_what_fits_and_one_of_each_remains_where_nothing_fits():
    assert CAPTIONED.within(SETTINGS, 1.0) == SETTINGS == thinned(SETTINGS, 100)
    least = CAPTIONED.within(SETTINGS, 0.001)
    assert (least.seeds, least.final_seeds, least.num_controls, least.num_unprompted) == (1, 1, 1, 1)
    assert thinned(replace(SETTINGS, num_controls=0), 1).num_controls == 0


def test_the_sentence_names_the_shares_and_every_count():
    work = replace(CAPTIONED, samples=9000)
    chosen = work.within(SETTINGS, 0.2)
    text = work.describe(SETTINGS, 0.2)
    assert text.startswith(f"monitor.budget 0.2: evaluations would be {work.share(SETTINGS):.0%} of all passes")
    assert f"and are {work.share(chosen):.0%} with" in text and f"{chosen.num_controls} of 20 controls" in text
