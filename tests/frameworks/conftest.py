"""What the tests of all frameworks need: they stand apart from the others, since each framework warns of things of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = Path(__file__).parent

# Warnings are errors, but for these, which the frameworks give about themselves or the machine.
EXPECTED = [
    "ignore:This DataLoader will create:UserWarning",  # more workers than this machine has cores
    "ignore:'set_vital' is deprecated:UserWarning",  # torchdata's own
    "ignore:os.fork\\(\\) was called:RuntimeWarning",  # JAX, of any fork; the workers here do not use it
    "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning",  # Python 3.12 and newer, of the same
    "ignore:.*:DeprecationWarning:(tensorflow|keras|jax|grain|torch|google|tf_keras|absl|etils)",
    "ignore:.*np.object.*:FutureWarning",  # of TensorFlow's, while it is imported
]

# PyTorch's tests fork workers, so they come before those of frameworks that start threads in this process.
ORDER = ("test_lazy", "test_torch", "test_examples")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of this folder, and puts them in order; those of other folders stay where they are."""
    places = [place for place, item in enumerate(items) if FOLDER in item.path.parents]
    mine = [items[place] for place in places]
    for item in mine:
        for warning in EXPECTED:
            item.add_marker(pytest.mark.filterwarnings(warning))
    mine.sort(key=lambda item: next((at for at, start in enumerate(ORDER) if item.path.stem.startswith(start)), len(ORDER)))
    for place, item in zip(places, mine):
        items[place] = item
