"""网上预报名: who registered for what, at which desk, with which form; and how far the registration has come since."""
