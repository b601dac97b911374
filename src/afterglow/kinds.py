"""The kinds of targets and the groups that they form; every other module takes them from here."""

from dataclasses import dataclass

PLANTED = ("global", "local", "natural")  # repeated in the training set, so that a model can memorize them; positives of a detector
TRAINED = (*PLANTED, "decoy", "tint")  # captions that appear `copies` times per epoch
COPYABLE = (*PLANTED, "phantom")  # have an image of their own, with which any generation can be compared
CONTROL_FAMILY = "control_family"  # in counts only: controls of a cluster of several training images (analysis.summary.with_families)
NOT_MEMORIZED = "local_not_memorized"  # of maps only: local plants that are not memorized at the evaluation (analysis.summary.plant_means)
NEGATIVES = ("phantom", "control", "decoy", "tint")  # what a detector must tell from the planted kinds


@dataclass(frozen=True)
class Kind:
    """One kind.

    Attributes:
        name: value in tables and folders.
        color: color in every figure (palette of Okabe and Ito, safe for color-blind readers).
        marker: marker in every figure, as matplotlib names it.
        meaning: one line for readers of a report.
    """

    name: str
    color: str
    marker: str
    meaning: str


KINDS = {
    kind.name: kind
    for kind in (
        Kind("global", "#0072B2", "o", "the same image under the same caption, repeated"),
        Kind("local", "#D55E00", "s", "one caption, one repeated region, a different background each time"),
        Kind(NOT_MEMORIZED, "#F0B48C", "h", "a local plant that is not memorized, on which a map finds no copy"),
        Kind("natural", "#009E73", "D", "a natural family: images of the set that share a region"),
        Kind("control", "#888888", "v", "a training image seen once per epoch"),
        Kind(
            CONTROL_FAMILY,
            "#000000",
            ">",
            "a training image whose near-duplicates are in the training set, too: a natural family, not a false positive",
        ),
        Kind("phantom", "#CC79A7", "^", "constructed like a plant, never trained on; shows the false-positive rate"),
        Kind(
            "decoy",
            "#E69F00",
            "P",
            "a caption as frequent as a plant's, a different image each time; the effect of frequency alone",
        ),
        Kind("tint", "#56B4E9", "X", "a caption that names the color of a tinted region; no content is copied"),
        Kind("heldout", "#44AA99", "<", "a caption never trained on, compared with the nearest training image"),
        Kind("unprompted", "#0072B2", "o", "a generation without a caption, compared with the nearest training image"),
    )
}
