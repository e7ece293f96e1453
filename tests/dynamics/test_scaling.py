"""Laws from which points were made are found again."""

import pytest

from microtome.core.errors import Refusal
from microtome.dynamics.scaling import PowerLaw, power_law


@pytest.mark.parametrize(
    "law", [PowerLaw(8.0, 0.5, 1.2, 0.0), PowerLaw(3.0, 0.2, 0.0, 0.0), PowerLaw(50.0, 1.0, 0.01, 0.0)]
)
def test_a_law_is_found_again(law: PowerLaw) -> None:
    x = [10.0 * 2**i for i in range(9)]
    found = power_law(x, [law(v) for v in x])
    assert found.exponent == pytest.approx(law.exponent, rel=1e-3)
    assert found.floor == pytest.approx(law.floor, abs=1e-3)
    assert found(1e5) == pytest.approx(law(1e5), rel=1e-2)


def test_too_few_points_are_refused() -> None:
    with pytest.raises(Refusal, match="3 places do not determine a law of three constants"):
        power_law([1.0, 2.0, 3.0], [3.0, 2.0, 1.0])
