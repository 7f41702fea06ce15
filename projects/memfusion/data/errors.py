"""Stage data: the errors that data preparation and loading raise; no tensors, no frame.

Both are `ValueError`s with one readable sentence, so that a command line can print them as they are.
"""

from __future__ import annotations


class DataError(ValueError):
    """A data set folder, table or info file that cannot be used; the message names it and says what to do."""


class BadFrameError(ValueError):
    """A sensor file of one frame that cannot be used.

    Args:
        path: The file.
        reason: What is wrong with it, e.g. "is truncated: 1234 bytes is not a multiple of 20".
        remedy: What the user can do about it.

    Every argument but the first has a default and all are kept in `args`, so that the error survives the way back
    from a `DataLoader` worker (which rebuilds it from its text) and from a process pool (which pickles it).
    """

    def __init__(self, path: str, reason: str = '', remedy: str = '') -> None:
        super().__init__(path, reason, remedy)
        self.path = path
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        sentence = f'{self.path} {self.reason}'.strip()
        return f'{sentence}; {self.remedy}' if self.remedy else sentence
