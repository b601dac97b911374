"""The keys under which numbers and media are logged to W&B. Each number has exactly one key."""

SAMPLES = "media/samples"
EVALUATION_TABLE = "tables/evaluation"
EMA_WINDOW = "train/ema_window"
LEARNING_RATE = "train/lr"
SPEED = "train/images_per_second"


def measurement(kind: str, measure: str) -> str:
    """Key of the mean of a measure over the plants of a kind, from the name of the measure in measurements.parquet."""
    if measure == "plant_memorized":
        return memorized_fraction(kind)
    metric, _, name = measure.partition(".")
    return localization(name, metric, kind) if metric in ("auc", "iou") else f"measure/{kind}/{measure}"


def memorized_fraction(kind: str) -> str:
    """Key of the memorized fraction of the plants of a kind."""
    return f"memorized/{kind}"


def localization(name: str, metric: str, kind: str = "local") -> str:
    """Key of a localization metric (auc, iou) of a map; kinds other than local have a suffix."""
    return f"localization/{name}/{metric if kind == 'local' else f'{metric}_{kind}'}"


def detection(score: str, comparison: str, metric: str) -> str:
    """Key of a detection metric (auc, f1, tpr_at_1fpr) of a score; comparison: POSITIVE_vs_NEGATIVE or memorized_vs_rest."""
    return f"detection/{score}/{comparison}/{metric}"


def emergence(kind: str, statistic: str) -> str:
    """Key in the summary: the median step of emergence of a kind (step), its interval, and how many are censored."""
    return f"emergence/{kind}_{statistic}"


def masks(name: str) -> str:
    """Key of the planted and predicted masks of a map."""
    return f"media/masks/{name}"


def end_token(kind: str) -> str:
    """Key of the histogram of the end-token attention of a group of kinds."""
    return f"media/end_token/{kind}"
