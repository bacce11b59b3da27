"""What the command lines of the scripts have in common: errors, requirements, lists as arguments."""

import argparse
import shutil
import sys

from bench import PINION


class Failure(Exception):
    """Ends a script with a message and an exit status: 1 for a failed measurement, 2 for a wrong call."""

    def __init__(self, message, status=1):
        super().__init__(message)
        self.status = status


def run(name, main):
    """Runs a script's main(); a failure becomes one message on standard error that begins with the script's name."""
    try:
        sys.exit(main())
    except Failure as failure:
        print(f"{name}: {failure}", file=sys.stderr)
        sys.exit(failure.status)


def parser(description):
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def names(text):
    """The type of an argument that is a list of names."""
    return text.split(",")


def numbers(text):
    """The type of an argument that is a list of numbers."""
    return [int(number) for number in text.split(",")]


def require_programs(*programs):
    if missing := [program for program in programs if not shutil.which(program)]:
        raise Failure(f"not installed: {', '.join(missing)}", status=2)


def require_pinion(path=PINION):
    if not path.is_file():
        raise Failure(f"{path} is missing: cargo build --release", status=2)
