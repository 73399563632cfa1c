import numpy as np

from micromegas_jupyter.notebook.charts.series import MAX_POINTS, thinned


def test_a_line_of_few_points_keeps_them_all() -> None:
    times = np.arange(MAX_POINTS)

    assert list(thinned(times, times * 0.5, begin=0, end=MAX_POINTS - 1, max_points=MAX_POINTS)) == list(times)


def test_of_each_stretch_the_first_the_last_the_lowest_and_the_highest_point_stay() -> None:
    times = np.arange(20)
    values = np.array([5, 9, 1, 5, 5, 5, 5, 5, 5, 6, 4, 4, 4, 0, 4, 4, 8, 4, 4, 3], float)

    kept = thinned(times, values, begin=0, end=20, max_points=8)

    assert list(kept) == [0, 1, 2, 9, 10, 13, 16, 19]


def test_a_single_peak_among_a_million_points_is_kept_where_it_is() -> None:
    times = np.arange(1_000_000) * 1_000_000_000
    values = np.zeros(1_000_000)
    values[777_777] = 1.0

    kept = thinned(times, values, begin=0, end=int(times[-1]), max_points=MAX_POINTS)

    assert 777_777 in kept
    assert len(kept) <= MAX_POINTS
    assert {0, 999_999} <= set(kept)


def test_points_that_are_all_at_one_time_leave_four() -> None:
    values = np.array([2.0, 1.0, 5.0, 3.0] * 1_000)

    kept = thinned(np.zeros(4_000, np.int64), values, begin=0, end=0, max_points=MAX_POINTS)

    assert sorted(values[kept]) == [1.0, 2.0, 3.0, 5.0]
