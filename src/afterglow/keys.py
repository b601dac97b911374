"""The keys under which numbers and media are logged to W&B. Each number has exactly one key."""

STEP = "trainer/global_step"  # the horizontal axis of everything
BOTH = "max,last"
GROUPS = {  # in the order of W&B's page: (summaries in the table of runs, whether automatic panels leave the group out)
    "memorized/*": (BOTH, False),
    "train/*": (BOTH, False),
    "outpainted/*": (BOTH, False),
    "audit/*": (BOTH, False),
    "localization/*": (BOTH, True),
    "detection/*": (BOTH, True),
    "measure/*": (BOTH, True),
    "media/*": (None, False),
    "tables/*": (None, False),
}
REPORT = "media/report"
EVALUATION_TABLE = "tables/evaluation"
AUDIT_TABLE = "tables/audit"
EMA_WINDOW = "train/ema_window"
LEARNING_RATE = "train/lr"
OVERFLOWS = "train/overflows"
SPEED = "train/images_per_second"


def measurement(kind: str, measure: str) -> str:
    """Key of the mean of a measure over the plants of a kind, from the name of the measure in measurements.parquet.

    The timestep of a measure is a level of its own: a dot separates levels of W&B's summary, where `loss` hides `loss.t=125`.
    """
    if measure == "plant_memorized":
        return memorized_fraction(kind)
    if measure.startswith("plant_memorized.outpainted"):  # a level of its own: memorized/local would hide memorized/local.outpainted
        return f"outpainted/{kind}{measure.removeprefix('plant_memorized.outpainted')}"
    metric, _, name = measure.partition(".")
    return localization(name, metric, kind) if metric in ("auc", "iou") else f"measure/{kind}/{measure.replace('.t=', '/t=')}"


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


def samples(kind: str) -> str:
    """Key of the generations of a kind."""
    return f"media/samples/{kind}"


def masks(name: str) -> str:
    """Key of the planted and predicted masks of a map."""
    return f"media/masks/{name}"


def end_token(kind: str) -> str:
    """Key of the histogram of the end-token attention of a group of kinds."""
    return f"media/end_token/{kind}"


def collected_localization(name: str, label: str) -> str:
    """Key of the AUC of a map over collected generations (`afterglow localize`); label: the values that the table is grouped by."""
    return f"localization/{name}/auc_{label.replace(' ', '_')}"


def extraction(rule: str) -> str:
    """Key of the fraction of generations that a rule of extraction counts, or of its number of distinct clusters."""
    return f"extraction/{rule}"


def audit(verdict: str) -> str:
    """Key of the fraction of the images with a verdict of an audit."""
    return f"audit/{verdict.replace(' ', '_')}"


def mitigation(name: str, number: str) -> str:
    """Key of a number of a mitigation: NAME=STRENGTH at inference (`mitigate`), or the name of a training (`paired-runs`)."""
    return f"mitigation/{name}/{number}"
