import pandas as pd

WORDS = ("retrigger", "--model", "runs/x", "--run", "runs/x", "--num-inference-steps", 2, "--num-images", 2, "--plants", 1)
WORDS = (*WORDS, "--controls", 2, "--attack-steps", 2, "--attack-noises", 2, "--restarts", 1)


def test_every_mitigation_is_counted_before_and_after_the_attack(inside, command, capsys):
    assert command(*WORDS, "--mitigations", "stp", "insert_words", "--out", "attacked") == 0
    printed = capsys.readouterr().out
    rows = pd.read_parquet("attacked/retrigger.parquet")
    samples = rows[rows["measure"] == "calibrated_l2"]
    assert set(samples["mitigation"]) == {"none", "stp=500", "insert_words=4"} and set(samples["kind"]) >= {"global", "local", "phantom"}
    wide = samples.pivot(index=["plant_id", "seed", "mitigation"], columns="attack", values="value")
    assert wide.notna().all(None) and (wide[False] != wide[True]).any()
    assert "steps=2" in printed and "phantom, attacked" in printed and "of 1" in printed
    assert command(*WORDS[:-2], "--restarts", 2, "--mitigations", "stp", "--out", "attacked") == 2  # another budget
    assert "other settings" in capsys.readouterr().err
