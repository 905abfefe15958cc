"""Random compositions of modules are measured right; `make bench-networks` tries 2 000."""

import pytest
import random_networks
from hypothesis import given, settings

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def test_there_are_twenty_kinds_of_modules():
    assert len(random_networks.MAPS | random_networks.ANY) >= 20


@settings(max_examples=60)
@given(random_networks.networks())
def test_a_random_network_is_measured_right(network):
    assert random_networks.disagreement(network) in ("", "refused")
