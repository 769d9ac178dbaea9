"""A part that crashes."""


def measure(setting):
    raise OSError("the card has fallen off the bus")
