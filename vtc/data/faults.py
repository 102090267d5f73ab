"""The reason why a row of data cannot be used."""


class RowFault(Exception):
    """Why a row cannot be used; `image` is the path concerned, if one is."""

    def __init__(self, reason: str, image: str | None = None):
        super().__init__(reason)
        self.reason = reason
        self.image = image
