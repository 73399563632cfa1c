import pytest

from micromegas_jupyter.notebook.charts.plot import time_marks, value_marks, value_range
from micromegas_jupyter.notebook.charts.series import plot_zone

SECOND = 1_000_000
DAY = 86_400 * SECOND
BEGIN = 1_700_000_000 * SECOND  # 2023-11-14 22:13:20 UTC


@pytest.mark.parametrize(
    ("low", "high", "covered"),
    [
        (0.0, 100.0, (0.0, 105.0)),
        (10.0, 100.0, (0.0, 105.0)),
        (90.0, 100.0, (89.5, 100.5)),
        (-100.0, 100.0, (-110.0, 110.0)),
        (50.0, 50.0, (45.0, 55.0)),
        (0.0, 0.0, (-1.0, 1.0)),
        (5e-324, 1e-300, (-1.0, 1.0)),
    ],
)
def test_a_value_axis_covers_the_values_and_zero_when_that_is_near(
    low: float, high: float, covered: tuple[float, float]
) -> None:
    assert value_range(low, high) == pytest.approx(covered)


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0.0, 105.0, ["0", "20", "40", "60", "80", "100"]),
        (-1.0, 1.0, ["-1.0", "-0.5", "0.0", "0.5", "1.0"]),
        (0.0, 2_100.0, ["0", "500", "1,000", "1,500", "2,000"]),
        (3e6, 4e6, ["3.0M", "3.2M", "3.4M", "3.6M", "3.8M", "4.0M"]),
        (0.0, 6e9, ["0G", "1G", "2G", "3G", "4G", "5G", "6G"]),
        (0.0, 3e-6, ["0", "5e-07", "1e-06", "1.5e-06", "2e-06", "2.5e-06", "3e-06"]),
        (0.0, 3e290, ["0", "5e+289", "1e+290", "1.5e+290", "2e+290", "2.5e+290", "3e+290"]),
    ],
)
def test_marks_of_values_stand_at_round_numbers(low: float, high: float, texts: list[str]) -> None:
    assert [mark.text for mark in value_marks(low, high)] == texts


@pytest.mark.parametrize(
    ("length", "zone", "texts"),
    [
        (3_600 * SECOND, "UTC", ["22:20", "22:30", "22:40", "22:50", "23:00", "23:10"]),
        (5 * SECOND, "UTC", [f"22:13:{second}" for second in range(20, 26)]),
        (SECOND // 100, "UTC", ["22:13:20.000", "22:13:20.002", "22:13:20.004", "22:13:20.006", "22:13:20.008",
                                "22:13:20.010"]),
        (10, "UTC", ["22:13:20.000000", "22:13:20.000002", "22:13:20.000004", "22:13:20.000006", "22:13:20.000008",
                     "22:13:20.000010"]),
        (12 * DAY, "UTC", ["2023-11-15", "2023-11-17", "2023-11-19", "2023-11-21", "2023-11-23", "2023-11-25"]),
        (DAY, "Asia/Kolkata", ["06:00", "12:00", "18:00", "00:00"]),
    ],
)  # fmt: skip
def test_marks_of_times_stand_at_round_times_of_their_zone(length: int, zone: str, texts: list[str]) -> None:
    marks = time_marks(BEGIN, BEGIN + length, plot_zone(zone))

    assert [mark.text for mark in marks] == texts
    assert all(BEGIN <= mark.at <= BEGIN + length for mark in marks)


def test_the_date_stands_below_the_first_mark_and_where_it_changes() -> None:
    marks = time_marks(BEGIN, BEGIN + DAY // 8, plot_zone("UTC"))

    assert [mark.below for mark in marks if mark.below] == ["2023-11-14", "2023-11-15"]


def test_there_are_few_marks_over_thousands_of_years_and_over_a_microsecond() -> None:
    zone = plot_zone("Europe/Paris")

    assert 2 <= len(time_marks(-62_104_060_800_000_000, 253_370_764_800_000_000, zone)) <= 8
    assert 1 <= len(time_marks(BEGIN, BEGIN + 1, zone)) <= 8
