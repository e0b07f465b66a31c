"""placeholder"""

MEASUREMENTS = ("update",)


def measure(what, data_root):
    return 0
