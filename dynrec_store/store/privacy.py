"""What is held about a user, and forgetting it for good."""

from collections.abc import Mapping
from typing import Any

from dynrec_store.store.arguments import json_text, key
from dynrec_store.store.calls import Calls, Key


class Privacy(Calls):
    """The part of FeatureStore that is about the rights of users."""

    def export_user(self, recommender: str, user_id: Key) -> dict[str, Any]:
        """Everything that is held about a user: vectors, history, waiting changes, lists shown, exposures."""
        exported: dict[str, Any] = self._value("export_user", recommender=recommender, user_id=key("user_id", user_id))
        return exported

    def forget_user(self, recommender: str, user_id: Key) -> dict[str, Any]:
        """Forget a user for good; returns a receipt for `verify_forgotten`.

        The application's own rows stay: they are not read any more. ModelVersion.forgotten_users says which models
        have learned from them.
        """
        receipt: dict[str, Any] = self._value("forget_user", recommender=recommender, user_id=key("user_id", user_id))
        return receipt

    def verify_forgotten(self, recommender: str, user_id: Key, receipt: Mapping[str, Any]) -> bool:
        """Whether a receipt is the last one for that user, unaltered, and nothing is held about the user."""
        verified: bool = self._value(
            "verify_forgotten",
            recommender=recommender,
            user_id=key("user_id", user_id),
            receipt=json_text("receipt", receipt),
        )
        return verified

    def readmit_user(self, recommender: str, user_id: Key) -> int:
        """Take `forget_user` back for a user who comes again; returns how many interactions count from now on.

        These are the ones in the application's own table: delete those first that are not to count.
        """
        counted: int = self._value("readmit_user", recommender=recommender, user_id=key("user_id", user_id))
        return counted
