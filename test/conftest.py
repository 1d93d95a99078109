"""Fixtures that several tests share."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope='session')
def photograph():
    """Return a real photograph, (512, 512, 3) uint8 RGB."""
    import skimage.data
    return skimage.data.astronaut()
