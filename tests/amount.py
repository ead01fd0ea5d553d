"""How much the property tests try: what suits a run before each commit, or H5FAST_TEST_TIMES times as much, at random, for a night."""

import os

TIMES = int(os.environ.get("H5FAST_TEST_TIMES", "1"))


def examples(usual: int) -> int:
    """As Hypothesis' ``max_examples``."""
    return usual * TIMES
