"""Operating recommenders: refreshing, waiting, pausing, and seeing how things are."""

from collections.abc import Iterable

from dynrec_store.results import Encoder, Failure, Finding, Freshness, QueueLine, Status
from dynrec_store.store.arguments import keys
from dynrec_store.store.calls import Calls, Key


class Operations(Calls):
    """The part of FeatureStore that operates."""

    def refresh(
        self, recommender: str, *, item_ids: Iterable[Key] | None = None, user_ids: Iterable[Key] | None = None
    ) -> int:
        """Queue items and users to be read again from their source, all if neither is given; returns how many."""
        queued: int = self._value(
            "refresh",
            recommender=recommender,
            item_ids=None if item_ids is None else keys("item_ids", item_ids),
            user_ids=None if user_ids is None else keys("user_ids", user_ids),
        )
        return queued

    def wait_until_fresh(self, recommender: str, timeout: float = 30.0) -> bool:
        """Wait, at most `timeout` seconds, for all that is committed now to be computed; False: it took longer."""
        fresh: bool = self._value("wait_until_fresh", recommender=recommender, timeout=f"{timeout} seconds")
        return fresh

    def retry_failed(self, recommender: str | None = None) -> int:
        """Queue the entities that were given up, of one recommender or of all; returns how many."""
        queued: int = self._value("retry_failed", recommender=recommender)
        return queued

    def pause(self, recommender: str) -> None:
        """Stop recomputing; changes are still captured, and reads go on with what there is."""
        self._value("pause", recommender=recommender)

    def resume(self, recommender: str) -> None:
        """Go on recomputing after `pause`."""
        self._value("resume", recommender=recommender)

    def doctor(self) -> list[Finding]:
        """Look for what is wrong: missing triggers, dead processes, unused indexes; each finding has a remedy."""
        return self._rows(Finding, "doctor")

    def status(self) -> list[Status]:
        """Every recommender: its sources, what is queued and failed, and how many processes are alive."""
        return self._view(Status, "status")

    def queue(self) -> list[QueueLine]:
        """The changes that wait, by recommender, kind and lane."""
        return self._view(QueueLine, "queue")

    def failures(self) -> list[Failure]:
        """The entities that could not be recomputed, retrying or given up."""
        return self._view(Failure, "failures")

    def freshness(self) -> list[Freshness]:
        """How many vectors are stale, and the lag from change to stored vector."""
        return self._view(Freshness, "freshness")

    def encoders(self) -> list[Encoder]:
        """The encoders that `create_recommender` can name."""
        return self._view(Encoder, "encoders")
