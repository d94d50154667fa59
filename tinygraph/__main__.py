"""``python -m tinygraph doctor``"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tinygraph.doctor import doctor


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the status to exit with.  SystemExit for a command that there is not."""
    parser = argparse.ArgumentParser("python -m tinygraph")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("doctor", help="which back ends work here, and what the others need")
    parser.parse_args(arguments)
    return doctor()


if __name__ == "__main__":
    sys.exit(main())
