"""Alternating rounds of two servers: a machine whose speed drifts favours neither."""

import statistics

SIDES = ("base", "test")


def alternate(servers, rounds, measure):
    """Yields {"base": …, "test": …} for each round: what `measure(server, round)` returned for both servers.

    Each side goes first in every other round.
    """
    for number in range(rounds):
        order = SIDES if number % 2 == 0 else SIDES[::-1]
        yield {side: measure(servers[side], number) for side in order}


def medians(measured, figures):
    """Medians over the rounds, by figure: of both sides, and of the ratios test/base of the rounds.

    A measurement is a mapping from figures to numbers. The ratio is the median of ratios, not the ratio of medians.
    """
    return {
        figure: {side: statistics.median(each[side][figure] for each in measured) for side in SIDES}
        | {"ratio": statistics.median(each["test"][figure] / each["base"][figure] for each in measured)}
        for figure in figures
    }
