"""Stratified sampling of the keys that a server holds: what scripts/efficiency estimates its figures with.

A stratum is a range of keys that were written one after the other. `Found` is the stratum of the keys that samples have
found: a get marks an item as used, and an eviction policy may keep it longer.
"""

import math
import random
import time

KEY_BYTES = 16


class Stratum:
    """Keys first..end, written one after the other, except those that samples have found (`drawn`)."""

    def __init__(self, first, sizes):
        self.first = self.end = first
        self.sizes = sizes
        self.started_at = time.monotonic()
        self.ended_at = None
        self.user_bytes = 0
        self.drawn = set()

    def size(self, number):
        return KEY_BYTES + self.sizes[number % len(self.sizes)]

    @property
    def population(self):
        return self.end - self.first - len(self.drawn)

    def draw(self, count, taken):
        """Up to `count` random keys that no sample has found and that are not in `taken`."""
        fresh = self.population - len(taken)
        if count >= fresh or 2 * fresh < self.end - self.first:
            left = [n for n in range(self.first, self.end) if n not in self.drawn and n not in taken]
            return random.sample(left, min(count, len(left)))
        numbers = set()
        while len(numbers) < count:
            number = random.randrange(self.first, self.end)
            if number not in self.drawn and number not in taken:
                numbers.add(number)
        return list(numbers)


class Found:
    """The stratum of the keys that samples have found: they are marked as used, so they may be kept longer."""

    def __init__(self):
        self.stratum_of = {}
        self.order = []
        self.user_bytes = 0

    def size(self, number):
        return self.stratum_of[number].size(number)

    @property
    def population(self):
        return len(self.stratum_of)

    def draw(self, count, taken):
        count = min(count, self.population - len(taken))
        if 2 * (count + len(taken)) > self.population:
            return random.sample([number for number in self.stratum_of if number not in taken], count)
        numbers = set()
        while len(numbers) < count:
            index = random.randrange(len(self.order))
            if (number := self.order[index]) not in self.stratum_of:
                # Removed since it was appended to `order`: delete its place too.
                self.order[index] = self.order[-1]
                self.order.pop()
            elif number not in taken:
                numbers.add(number)
        return list(numbers)

    def add(self, number, stratum):
        size = stratum.size(number)
        stratum.drawn.add(number)
        stratum.user_bytes -= size
        self.stratum_of[number] = stratum
        self.order.append(number)
        self.user_bytes += size

    def remove(self, number):
        """Removes a key that the server no longer holds: it belongs to no stratum."""
        self.user_bytes -= self.size(number)
        del self.stratum_of[number]


class Part:
    """One sample of one stratum: sums of sizes, and of their squares, over all keys asked for and over the hits."""

    def __init__(self, stratum):
        self.stratum = stratum
        self.taken = set()
        self.hits = set()
        self.asked, self.asked_squares, self.hit, self.hit_squares = 0, 0, 0, 0

    def add(self, numbers, hits):
        self.taken.update(numbers)
        for number in numbers:
            size = self.stratum.size(number)
            self.asked += size
            self.asked_squares += size * size
            if number in hits:
                self.hits.add(number)
                self.hit += size
                self.hit_squares += size * size

    def ratio(self):
        return self.hit / self.asked if self.asked else 0.0

    def variance(self):
        """Variance of the ratio estimator, in bytes squared."""
        count, population = len(self.taken), self.stratum.population
        if count < 2 or count >= population:
            return 0.0
        ratio = self.ratio()
        residual = self.hit_squares * (1 - ratio) ** 2 + (self.asked_squares - self.hit_squares) * ratio**2
        mean_size = self.asked / count
        relative = residual / (count - 1) / count / mean_size**2 * (1 - count / population)
        return relative * self.stratum.user_bytes**2

    def weight(self):
        """Weight in Neyman's allocation: its bytes times the deviation within it, above zero until all keys are taken."""
        if len(self.taken) >= self.stratum.population:
            return 0.0
        ratio = (len(self.hits) + 0.5) / (len(self.taken) + 1)
        return self.stratum.user_bytes * math.sqrt(ratio * (1 - ratio))
