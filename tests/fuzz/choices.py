"""Numbers taken from bytes, so that any bytes are a course of events."""


class Choices:
    """Gives zero when the bytes are used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> bool:
        """Tell whether there are any."""
        return self._at < len(self._data)

    def below(self, bound: int) -> int:
        """Return a number from 0 to bound - 1 (at most 256)."""
        if not self.left:
            return 0
        byte = self._data[self._at]
        self._at += 1
        return byte % bound
