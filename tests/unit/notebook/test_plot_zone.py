import pytest

from micromegas_jupyter.notebook.charts.series import plot_zone


@pytest.mark.parametrize(
    ("name", "label", "shown"),
    [
        (None, "no time zone", "22:13"),
        ("UTC", "UTC", "22:13"),
        ("+00:00", "UTC", "22:13"),
        ("-09:30", "UTC-09:30", "12:43"),
        ("Europe/Paris", "Europe/Paris", "23:13"),
        ("Nobody/Knows", "UTC, for Nobody/Knows is not known here", "22:13"),
        ("../../etc/passwd", "UTC, for ../../etc/passwd is not known here", "22:13"),
        ("\x1b[2J", r"UTC, for \x1b[2J is not known here", "22:13"),
    ],
)
def test_a_zone_has_a_label_and_its_times(name: str | None, label: str, shown: str) -> None:
    zone = plot_zone(name)

    assert zone.label == label
    assert zone.moment(1_700_000_000_000_000).strftime("%H:%M") == shown
