from fnmatch import fnmatch

from afterglow import keys


def test_measurement_has_one_key_per_number():
    assert keys.measurement("global", "distance") == "measure/global/distance"
    assert keys.measurement("global", "plant_memorized") == keys.memorized_fraction("global") == "memorized/global"
    assert keys.measurement("local", "plant_memorized.outpainted") == "outpainted/local"
    assert keys.measurement("local", "plant_memorized.outpainted_fresh") == "outpainted/local_fresh"
    assert keys.measurement("local", "outpainted.nn_ratio") == "measure/local/outpainted.nn_ratio"
    assert keys.measurement("local", "auc.ld.be") == keys.localization("ld.be", "auc") == "localization/ld.be/auc"
    assert keys.measurement("global", "denoising_loss.t=125") == "measure/global/denoising_loss/t=125"
    assert keys.measurement("phantom", "iou.luminance") == "localization/luminance/iou_phantom"


def test_detection_names_score_comparison_and_metric():
    assert keys.detection("ld.be.all", "local_vs_phantom", "auc") == "detection/ld.be.all/local_vs_phantom/auc"


def test_groups_are_disjoint_and_cover_every_key():
    """W&B applies one pattern to a key, so no key may match two."""
    names = [
        keys.memorized_fraction("global"),
        keys.measurement("local", "plant_memorized.outpainted"),
        keys.SPEED,
        keys.measurement("local", "auc.be"),
        keys.detection("be", "a_vs_b", "auc"),
    ]
    names += [
        keys.measurement("local", "plant_memorized.outpainted"),
        keys.measurement("global", "distance"),
        keys.samples("global"),
        keys.masks("be"),
        keys.end_token("none"),
        keys.EVALUATION_TABLE,
    ]
    for name in names:
        assert sum(fnmatch(name, pattern) for pattern in keys.GROUPS) == 1
