from afterglow import keys


def test_measurement_has_one_key_per_number():
    assert keys.measurement("global", "distance") == "measure/global/distance"
    assert keys.measurement("global", "plant_memorized") == keys.memorized_fraction("global") == "memorized/global"
    assert keys.measurement("local", "auc.ld.be") == keys.localization("ld.be", "auc") == "localization/ld.be/auc"
    assert keys.measurement("phantom", "iou.luminance") == "localization/luminance/iou_phantom"


def test_detection_names_score_comparison_and_metric():
    assert keys.detection("ld.be.all", "local_vs_phantom", "auc") == "detection/ld.be.all/local_vs_phantom/auc"
