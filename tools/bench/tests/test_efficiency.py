"""The estimator of scripts/efficiency, against a server that exists only here: it keeps the latest keys that fit."""

import argparse
import collections
import random
import unittest

from bench import MIB, efficiency, holders
from bench.sampling import KEY_BYTES, Found, Part, Stratum


class Kept:
    """Holds the latest `user_bytes` of keys, first in, first out, as memcached's protocol would have them."""

    READS_MARK = True
    command = "kept"
    set_template = staticmethod(holders.Memcached.set_template)

    def __init__(self, user_bytes):
        self.user_bytes, self.used = user_bytes, 0
        self.items = collections.OrderedDict()

    def send_sets(self, sets):
        words = iter(sets.split(b"\r\n"))
        for head in words:
            if head.startswith(b"set "):
                key = int(head.split()[1][1:])
                self.items[key] = KEY_BYTES + int(head.split()[4])
                self.used += self.items[key]
                next(words)
        while self.used > self.user_bytes:
            self.used -= self.items.popitem(last=False)[1]

    def wait_for_sets(self, count):
        pass

    def held(self, numbers):
        hits = [number for number in numbers if number in self.items]
        return hits, sum(self.items[number] - KEY_BYTES for number in hits)

    def accounting(self):
        return len(self.items), self.used

    def status_bytes(self, name):
        return 5 * MIB


class Estimates(unittest.TestCase):
    def test_the_estimate_is_what_is_held(self):
        random.seed(3)
        limit = 4 * MIB
        options = argparse.Namespace(turnover=2, samples=3, rate=0)
        result = efficiency.Measurement(Kept(int(0.8 * limit)), efficiency.LOADS["1024"], limit, options).run()
        self.assertEqual(result["sweep"]["user_bytes"], result["server"]["user_bytes"])
        self.assertAlmostEqual(result["mean"], 0.8, delta=0.01)
        self.assertTrue(result["full"])
        self.assertEqual(result["over_limit_bytes"], MIB)
        missed, over = efficiency.misses("pinion", efficiency.LOADS["1024"], result, 1)
        self.assertEqual((missed, over), (["mean < 0.94"], []))

    def test_variance_is_zero_once_all_keys_are_taken(self):
        stratum = Stratum(0, [100])
        stratum.end, stratum.user_bytes = 10, 10 * 116
        part = Part(stratum)
        part.add(range(10), {1, 2})
        self.assertEqual((part.variance(), part.weight()), (0.0, 0.0))
        self.assertAlmostEqual(part.ratio(), 0.2)

    def test_found_keys_leave_their_stratum(self):
        random.seed(1)
        stratum, found = Stratum(0, [100]), Found()
        stratum.end, stratum.user_bytes = 100, 100 * 116
        for number in (3, 4):
            found.add(number, stratum)
        self.assertEqual((stratum.population, found.population, found.user_bytes), (98, 2, 232))
        self.assertFalse({3, 4} & set(stratum.draw(98, set())))
        found.remove(3)
        self.assertEqual(found.draw(1, set()), [4])
        # A key that the server has lost belongs to no stratum.
        self.assertEqual(stratum.population, 98)

    def test_templates_take_a_key_each(self):
        for holder in (holders.Memcached, holders.Redis):
            sets = holder.set_template(3, 60) % 7
            self.assertIn(b"k000000000000007", sets)
            self.assertIn(b"vvv\r\n", sets)


if __name__ == "__main__":
    unittest.main()
