"""What the notification service says happened: whether a message reached its carrier's end."""

from typing import ClassVar

from contracts.event import RegistrationEvent, Version, Word
from contracts.reasons import Carrier


class NotificationFact(RegistrationEvent):
    topic: ClassVar[str] = "exam.notification"
    source: ClassVar[str] = "/services/notification"


class Delivered(NotificationFact):
    """When: the carrier said that a message arrived.
    What became true: the candidate was told of `occasion` through `channel`.
    Who reacts: operations.
    """

    type: ClassVar[str] = "kaowu.notification.delivered.v1"

    occasion: Word
    channel: Carrier
    template_version: Version
    reason_code: Word | None


class Undeliverable(NotificationFact):
    """When: a message failed for good: the carrier said no, or nothing was heard until it was too late.
    What became true: the candidate was not told of `occasion` through `channel`; `reason_code` is our
    word for it, not the carrier's.
    Who reacts: registration (the contact must be fixed); operations.
    """

    type: ClassVar[str] = "kaowu.notification.undeliverable.v1"

    occasion: Word
    channel: Carrier
    template_version: Version
    reason_code: Word | None
