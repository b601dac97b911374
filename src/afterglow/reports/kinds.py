"""The kinds in the page's order, with one color and marker each in every figure (Okabe and Ito's palette, safe for the color-blind)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """color and marker of the curves; meaning: for a reader who did not write the run."""

    name: str
    color: str
    marker: str
    meaning: str


KINDS = {
    kind.name: kind
    for kind in (
        Kind("global", "#0072B2", "o", "the same whole image again and again under one caption"),
        Kind("local", "#D55E00", "s", "one region again and again under one caption, the rest different each time"),
        Kind("natural", "#009E73", "D", "images of the set itself that share a region"),
        Kind("control", "#888888", "v", "a training image seen once an epoch"),
        Kind("phantom", "#CC79A7", "^", "drawn exactly like a plant, never trained on: the false alarms of the whole chain"),
        Kind("decoy", "#E69F00", "P", "a caption shown as often as a plant's, each time with another image: exposure without a copy"),
        Kind("tint", "#56B4E9", "X", "a caption that names the color of a tinted region; nothing is copied"),
        Kind("heldout", "#44AA99", "<", "a caption never trained on, judged by the nearest training image"),
        Kind("unprompted", "#0072B2", "o", "a generation without a caption, judged by the nearest training image"),
    )
}
REPEATED = ("global", "local", "natural", "unprompted")
UNCOPIED = ("control", "phantom", "decoy", "tint")
