import csv
import io
import tarfile
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from micromegas_jupyter.telemetry import log_patterns
from micromegas_jupyter.telemetry.log_patterns import LogPatterns, mask_variables

LOGHUB = Path(__file__).parents[4] / "shared" / "data" / "loghub-2k" / "structured.tar.xz"


def read_loghub():
    """Yield the name of each of the 16 logs with its messages and the groups that people put them into."""
    with tarfile.open(LOGHUB) as archive:
        for member in archive:
            if member.isfile() and member.name.endswith(".csv"):
                rows = list(csv.DictReader(io.StringIO(archive.extractfile(member).read().decode("utf-8", "replace"))))
                yield member.name, [row["Content"] for row in rows], [row["EventId"] for row in rows]


def grouping_accuracy(truth, found):
    """Return the share of messages whose group has the same messages as the true one (Zhu et al., ICSE 2019)."""
    true_groups, found_groups = defaultdict(list), defaultdict(list)
    for row, (one, other) in enumerate(zip(truth, found, strict=True)):
        true_groups[one].append(row)
        found_groups[other].append(row)
    correct = {tuple(rows) for rows in true_groups.values()}
    return sum(len(rows) for rows in found_groups.values() if tuple(rows) in correct) / len(truth)


def test_the_logs_of_loghub_are_grouped_as_people_do():
    accuracies = {
        name: grouping_accuracy(truth, [id(one) for one in LogPatterns().add_all(messages)])
        for name, messages, truth in read_loghub()
    }

    assert len(accuracies) == 16
    assert sum(accuracies.values()) / 16 >= 0.82, accuracies


def test_messages_that_differ_in_variables_share_a_pattern():
    patterns = LogPatterns()
    first, second, third = patterns.add_all(
        ["login of user alice from 10.0.0.1", "login of user bob from 10.0.0.2", "disk full"]
    )

    assert first is second is not third
    assert [(one.text, one.count) for one in patterns.patterns] == [
        ("login of user <*> from <*>", 2),
        ("disk full", 1),
    ]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("took 3.5ms at 10:00:01,123", "took <*> at <*>"),
        ("id 6f1c9a3e-0b1d-4c39-9f1e-0123456789ab 0xdeadBEEF a1b2c3d4e5", "id <*> <*> <*>"),
        ("http2 v8 decade", "http2 v8 decade"),
        ("", ""),
    ],
)
def test_numbers_and_ids_are_masked(text, masked):
    assert mask_variables(text) == masked


@given(st.lists(st.text(max_size=30), max_size=60))
def test_each_message_is_counted_once(messages):
    patterns = LogPatterns()
    found = patterns.add_all(messages)

    assert sum(one.count for one in patterns.patterns) == len(messages)
    assert {id(one) for one in found} == {id(one) for one in patterns.patterns}


def test_patterns_are_bounded(monkeypatch):
    monkeypatch.setattr(log_patterns, "_MAX_PATTERNS", 3)
    patterns = LogPatterns()
    found = patterns.add_all(["a", "b b", "c c c", "d d d d", "e e e e e", "b b"])

    assert [(one.text, one.count) for one in patterns.patterns] == [("a", 1), ("b b", 2), ("c c c", 1), ("<*>", 2)]
    assert found[3] is found[4]
