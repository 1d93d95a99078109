"""What can keep a bag from being replayed."""


class ReplayError(ValueError):
    """Something the user can mend; the message says what and how."""
