"""The plots are well-formed, and nothing of them lies outside of their canvas."""

import json
import re
import unittest
import xml.etree.ElementTree as xml

from bench import ROOT, figures, svg

SPACE = "{http://www.w3.org/2000/svg}"


def misses():
    trace = {policy: [0.8 - 0.1 * place - 0.01 * number for place in range(3)]
             for number, policy in enumerate(figures.MISS_POLICIES)}  # fmt: skip
    return {"fractions": [0.01, 0.1, 0.4], "policies": list(figures.MISS_POLICIES), "traces": {"a": trace}}


class Figures(unittest.TestCase):
    def setUp(self):
        self.peers = json.loads((ROOT / "docs/results/peers.json").read_text())

    def assert_inside(self, drawn):
        root = xml.fromstring(drawn)
        width, height = float(root.get("width")), float(root.get("height"))
        for element in root.iter():
            for name, bound in (("x", width), ("x1", width), ("x2", width), ("cx", width), ("y", height), ("y1", height),
                                ("y2", height), ("cy", height)):  # fmt: skip
                if value := element.get(name):
                    self.assertTrue(0 <= float(value) <= bound, xml.tostring(element))
        texts = root.findall(f"{SPACE}text")
        for text in texts:
            # A character is about 0.6 of the font size wide.
            extent = 0.6 * float(text.get("font-size")) * len(text.text or "")
            if not text.get("transform"):
                start = float(text.get("x")) - {"start": 0, "middle": extent / 2, "end": extent}[text.get("text-anchor")]
                self.assertTrue(-1 <= start and start + extent <= width + 1, text.text)
        return [text.text for text in texts]

    def test_cpu_has_a_value_for_each_peer_and_depth(self):
        texts = self.assert_inside(figures.cpu_by_depth(self.peers))
        self.assertIn("5.41", texts)
        self.assertEqual(sum(bool(re.fullmatch(r"\d\.\d\d", text or "")) for text in texts), 18)

    def test_memory_has_a_bar_for_each_server_and_size(self):
        texts = self.assert_inside(figures.memory_kept(self.peers))
        self.assertEqual([text for text in texts if text.endswith(" %")][:2], ["84.1 %", "60.4 %"])

    def test_misses(self):
        texts = self.assert_inside(figures.misses_by_memory(misses()))
        self.assertTrue({"s3fifo (default)", "random", "misses / gets", "40 %"} <= set(texts))

    def test_misses_of_a_replay_leave_out_synthetic_incomplete_and_small_traces(self):
        def cell(policy, fraction, items=100):
            return {"policy": policy, "fraction": fraction, "object_hit_ratio": 0.25, "items": items}

        whole = [cell(policy, fraction) for policy in ("lru", "fifo") for fraction in (0.01, 0.1)]
        small = [cell("fifo", 0.1, items=99), *whole[:3]]
        named = (("a", whole), ("syn-b", whole), ("c", whole[:3]), ("d", small))
        traces = [{"trace": name, "cells": cells} for name, cells in named]
        found = figures.misses_of({"traces": traces}, policies=("lru", "fifo"))
        self.assertEqual(found["traces"], {"a": {"lru": [0.75, 0.75], "fifo": [0.75, 0.75]}})
        self.assertEqual(found["fractions"], [0.01, 0.1])

    def test_scales(self):
        self.assertAlmostEqual(svg.Scale(1, 100, 0, 10, logarithmic=True)(10), 5)
        self.assertAlmostEqual(svg.Scale(0, 1, 100, 0)(0.25), 75)


if __name__ == "__main__":
    unittest.main()
