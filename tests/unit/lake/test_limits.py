import pytest

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.lake import LakeLimits


def test_the_defaults_keep_a_week_and_two_gibibytes() -> None:
    assert (LakeLimits().max_age_seconds, LakeLimits().max_total_bytes) == (604_800, 2_147_483_648)


@pytest.mark.parametrize(
    "values", [{"fan_in": 1}, {"tiers": 0}, {"grace_seconds": 0}, {"max_total_bytes": -1}], ids=str
)
def test_a_figure_that_makes_no_sense_is_refused_by_its_name(values: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        LakeLimits(**values)

    assert caught.value.key == next(iter(values))
