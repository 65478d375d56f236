"""The rules of this stage that say no, each by its name."""


class PaymentRuleBroken(Exception):
    """A rule of this stage says no. Subclasses name the rule."""


class WindowNotOpen(PaymentRuleBroken):
    """Payment has not begun, or pauses."""


class WindowClosed(PaymentRuleBroken):
    """Payment is over."""


class TooLateToOrder(PaymentRuleBroken):
    """So near to the close that the gateway could not end the order in time."""


class NotApproved(PaymentRuleBroken):
    """Nothing is owed: never approved, or not any more."""


class AlreadyPaid(PaymentRuleBroken):
    """The fee is paid."""


class ChannelNotOffered(PaymentRuleBroken):
    """The office has no account there."""


class CodesLetGo(PaymentRuleBroken):
    """Codes that were let go unopened can still be paid: so many at once, and this channel gives out no more."""


class NotAllowed(PaymentRuleBroken):
    """No such transition."""


class TooEarly(PaymentRuleBroken):
    """Nobody forfeits before the close."""


class Undecided(PaymentRuleBroken):
    """An order may still turn out paid."""
