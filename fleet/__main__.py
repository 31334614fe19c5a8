"""``python -m fleet``."""

from fleet.cli import console

if __name__ == "__main__":
    console()
