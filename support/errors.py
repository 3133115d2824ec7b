"""The one exception of the project that a user is meant to see."""


class InputError(ValueError):
    """The user's input is wrong: one line that says what, and what to do about it."""
