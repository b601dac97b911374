import re
from dataclasses import replace
from pathlib import Path

from audit_results import made

from afterglow.analysis.audit import NO_COPY, PART_COPY, WHOLE_COPY
from afterglow.reports.audit_advice import ON_PLANTS, advice

FINDING = Path(__file__).parents[2] / "docs/findings/mitigation.md"


def test_nothing_is_advised_without_a_copy():
    assert advice(made([NO_COPY, NO_COPY])) == []


def test_only_what_was_measured_is_said():
    result = made([WHOLE_COPY, PART_COPY, NO_COPY], duplicates=[1, 0, 1])
    duplicates, own, planted = advice(result)
    assert "1 of 2 copied images have near-duplicates in the set, and 1 of 1 others" in duplicates and planted == ON_PLANTS
    assert "best copy of 2 of 2 copied images was generated for the image's own caption" in own
    shown = advice(made([WHOLE_COPY], settings={"times each image was shown": "120"}))
    assert "Each image was shown 120 times." in shown


def test_captions_that_tell_the_model_nothing_are_said():
    result = made([NO_COPY])
    said = [advice(replace(result, facts=replace(result.facts, caption_gain=(0.01, low, 0.04)))) for low in (-0.02, 0.005)]
    assert len(said[0]) == 1 and "1.0% better than with another's (-2.0% to 4.0%)" in said[0][0] and said[1] == []


def test_few_held_out_images_are_reported():
    result = made([NO_COPY])
    few = replace(result, facts=replace(result.facts, limits=dict.fromkeys(result.facts.limits, (1.0, 0, 4))))
    assert advice(few) == [
        "Only 4 images test the verdicts, which leaves a false-positive rate of up to 60% possible: hold more images out of the training "
        "(--heldout, data.planting.num_heldout)."
    ]


def test_the_figures_on_plants_are_those_of_the_finding():
    text = FINDING.read_text()
    assert re.search(r"`deduplicate_exact`: 0 of 8 global plants", text) and "0 of 8 whole copies" in ON_PLANTS
    row = next(line for line in text.splitlines() if line.startswith("| dtp 0.5 "))
    assert re.findall(r"\d+ of \d+", row)[:2] == re.findall(r"(\d+ of \d+) (?:whole and|regional)", ON_PLANTS)
    assert re.findall(r"\d\.\d+(?= \()", row)[:2] == re.findall(r"0\.\d+", ON_PLANTS.partition("still")[2])
