"""What limits an audit's answer, and what its copied images have in common; only what was measured is said."""

from afterglow.analysis.audit import LIMIT_OF_FEW, NO_COPY
from afterglow.analysis.audit_result import AuditResult
from afterglow.functional.statistics import exact_interval

FEW_UNSEEN = 16  # of which none passes, and a rate of 20 % is still possible

# docs/findings/mitigation.md
ON_PLANTS = (
    "What helps is known for planted images only (finding on mitigation): training without exact duplicates left 0 of 8 whole copies "
    "(`afterglow deduplicate`), and sampling with dtp 0.5 left 2 of 32 whole and 0 of 31 regional copies (`afterglow mitigate`). "
    "With dtp the generations still correlate with the image: 0.78 on average for whole and 0.62 for regional copies."
)


def advice(result: AuditResult) -> list[str]:
    """Sentences for the end of a report."""
    return [*_limits(result), *_sampled(result), *_copied(result)]


def _limits(result: AuditResult) -> list[str]:
    sentences = []
    for verdict, (limit, passed, unseen) in result.facts.limits.items():
        if limit < LIMIT_OF_FEW:
            end = "." if result.facts.held_out else ": name images that the model never saw with --heldout."
            sentences.append(
                f"The limit for '{verdict}' is {limit:.2f} instead of 1, since images of this kind resemble each other, and most such "
                f"copies cannot be distinguished from resemblance{end}"
            )
        if passed > 0.05 * unseen:
            sentences.append(f"{passed} of {unseen} images that are not copies pass the test for '{verdict}': do not trust this verdict.")
    passed, unseen = max((passed, unseen) for _, passed, unseen in result.facts.limits.values())
    if result.facts.held_out and unseen < FEW_UNSEEN:
        most = exact_interval(passed, unseen)[1]
        sentences.append(
            f"Only {unseen} images test the verdicts, which leaves a false-positive rate of up to {most:.0%} possible: "
            "hold more images out of the training (--heldout, data.planting.num_heldout)."
        )
    return sentences


def _sampled(result: AuditResult) -> list[str]:
    (total, missing), gain, sentences = result.facts.captions, result.facts.caption_gain, []
    if missing:
        sentences.append(f"{missing:,} of {total:,} captions were not sampled: raise the number of generations.")
    if gain is not None and gain[1] <= 0:
        sentences.append(
            f"There is no evidence that the captions help this model: with its own caption the noise of an image is predicted "
            f"{gain[0]:.1%} better than with another's ({gain[1]:.1%} to {gain[2]:.1%}). They may be captions of another set, and what the "
            "model copies under its own captions is not found."
        )
    return sentences


def _copied(result: AuditResult) -> list[str]:
    rows = result.last
    copied, repeated = rows["verdict"] != NO_COPY, rows["duplicates"] > 0
    if not copied.any():
        return []
    found = int(copied.sum())
    sentences = []
    if repeated.any():
        sentences.append(
            f"{int((repeated & copied).sum()):,} of {found:,} copied images have near-duplicates in the set, and "
            f"{int((repeated & ~copied).sum()):,} of {int((~copied).sum()):,} others: `afterglow near-duplicates` lists them."
        )
    if rows["generation_caption"].any():
        own = int((copied & (rows["caption"] == rows["generation_caption"])).sum())
        sentences.append(f"The best copy of {own:,} of {found:,} copied images was generated for the image's own caption.")
    if shown := result.facts.settings.get("times each image was shown"):
        sentences.append(f"Each image was shown {shown} times.")
    return [*sentences, ON_PLANTS]
