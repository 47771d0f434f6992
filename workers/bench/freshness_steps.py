"""Where the time of a change goes, from its commit until its vector is seen, by the spans of dispatcher and worker."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

from dynrec_store.extras import needs_extra
from workers import tracing
from workers.bench.measure import Figure, p50
from workers.celery_app import RECOMPUTE_ITEMS

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

STEPS = {
    "notify": "from the commit until the dispatcher sends a hint: NOTIFY, and the look at what waits",
    "dispatch": "sending the hint",
    "broker": "until a worker has the hint and begins to claim",
    "claim": "leasing the item",
    "read": "reading its row",
    "encode": "the model",
    "publish": "storing the vector, and the commit of that",
    "seen": "until another connection has looked",
}
Times = dict[str, float]  # step -> ms


@contextmanager
def spans() -> Iterator["list[ReadableSpan]"]:
    """The spans that end during the block, in this process."""
    with needs_extra("tracing"):
        from opentelemetry.sdk.trace import SpanProcessor, TracerProvider  # noqa: PLC0415
    ended: list[ReadableSpan] = []

    class Keep(SpanProcessor):
        def on_end(self, span: "ReadableSpan") -> None:
            ended.append(span)

    provider = TracerProvider()
    provider.add_span_processor(Keep())
    tracing.use_tracer(provider.get_tracer("dynrec bench"))
    try:
        yield ended
    finally:
        tracing.use_tracer(None)


def steps(ended: "Sequence[ReadableSpan]", committed: int, seen: int) -> Times | None:
    """The steps of the change that was committed and seen at these moments (ns); None where a span is missing.

    They follow one another and add up to the whole; a hint may be under way before the writer has its answer.
    """
    found = {
        name: span
        for span in ended
        for name in [span.name.removeprefix("dynrec.")]
        if (span.start_time or 0) < seen
        and (name != "dispatch" or (span.attributes or {}).get("dynrec.task") == RECOMPUTE_ITEMS)
    }
    order = ("dispatch", "claim", "read", "encode", "publish")
    if not found.keys() >= set(order):
        return None
    starts = [found[name].start_time or 0 for name in order]
    ends = [found[name].end_time or 0 for name in order]
    moments = [committed, starts[0], ends[0], starts[1], starts[2], starts[3], starts[4], min(ends[4], seen), seen]
    ordered = [max(moments[: position + 1]) for position in range(len(moments))]
    passed = (after - before for before, after in pairwise(ordered))
    return {step: ns / 1e6 for step, ns in zip(STEPS, passed, strict=True)}


def figures(taken: Sequence[Times]) -> list[Figure]:
    """The median of each step; the reference is the median of the whole."""
    whole = p50([sum(times.values()) for times in taken])
    return [
        Figure(
            f"freshness: {step}",
            about,
            (p50([times[step] for times in taken]),),
            (whole,),
            unit="ms",
            higher_is_better=False,
            target=None,
        )
        for step, about in STEPS.items()
    ]
